"""Segmentation: cross-entropy and soft Dice, and mIoU as the main metric."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, pad

from prunit.edge.tasks.segmentation import IGNORED, DeviceSegmentation
from prunit.edge.tasks.task import Evidence
from prunit.errors import ConfigError, DataError, ModelError
from prunit.graph.running import tensors_in
from prunit.tasks.classification import no_scores
from prunit.tasks.task import shown_of

_AUXILIARY: Final = 0.4
"""The weight of the loss of each further output in training, as PSPNet (Zhao et al., 2017) and torchvision have it."""
_SMALL: Final = 1e-5


class Segmentation(DeviceSegmentation):
    """A class for each pixel: targets are masks (B, H, W), uint8, 255 where a pixel does not count; outputs are scores
    (B, K, H, W) in the input's full size. `dice` is the weight of the Dice part of the loss, 0 to leave it out."""

    output: str = "logits"
    lr: float = 0.5
    """The highest rate of SGD for batches of 16: rates from 0.1 to 2 lie within 3 points of mIoU on 24 photos."""

    def __init__(self, dice: float = 1.0) -> None:
        if not 0 <= dice < float("inf"):
            raise ConfigError(f"segmentation with dice={dice}: the weight of the Dice part of the loss is 0 or more")
        super().__init__(dice)

    def __repr__(self) -> str:
        return shown_of(self)

    def fitted(self, targets: Tensor, size: int) -> Self:
        return self

    def loss(self, outputs: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        """Cross-entropy plus `dice` times the soft Dice loss, over the pixels that count.

        Soft Dice (Milletari et al., 2016) is taken over all pixels of a batch, as in nnU-Net (Isensee et al., 2021),
        and as the mean over the classes that the batch has: classes of few pixels count as much as those of many. A
        training output may be a mapping or tuple that has further maps of scores after the first one (torchvision's
        "aux"): their loss is added with a weight of 0.4.
        """
        first, *further = _maps(outputs)
        total = self._of_map(first, targets, smoothing)
        for scores_BKHW in further:
            total = total + _AUXILIARY * self._of_map(_enlarged(scores_BKHW, targets), targets, smoothing)
        return total

    def judged(self, outputs: Any, targets: Tensor) -> Evidence:
        """On the outputs' own device: only counts leave it."""
        scores_BKHW = _maps(outputs)[0]
        batch, classes = scores_BKHW.shape[:2]
        counts = targets != IGNORED
        first = (classes * torch.arange(batch, device=targets.device)).view(-1, 1, 1).expand_as(targets)[counts]
        truth, said = first + targets[counts], first + scores_BKHW.argmax(1)[counts]
        parts = (truth[truth == said], said, truth)
        found = [part.bincount(minlength=batch * classes).view(batch, classes) for part in parts]
        return cast("np.ndarray[Any, Any]", torch.stack(found, dim=2).cpu().numpy())

    def hits(self, outputs: Any, targets: Tensor) -> Tensor | None:
        return None

    def check_targets(self, targets: Tensor, classes: Sequence[str], size: int, *, what: str) -> None:
        if targets.dtype != torch.uint8 or targets.shape[1:] != (size, size):
            raise DataError(
                f"{what} masks {tuple(targets.shape)} of {str(targets.dtype).removeprefix('torch.')}; needed are uint8"
                f" class indices ({len(targets)}, {size}, {size}), as large as the images"
            )
        wrong = (targets >= len(classes)) & (targets != IGNORED)
        if wrong.any():
            mask = int(wrong.flatten(1).any(1).nonzero()[0])
            raise DataError(
                f"{what} mask {mask} has class {int(targets[wrong][0])}, but there are {len(classes)} classes: masks"
                f" hold 0 to {len(classes) - 1}, and {IGNORED} where a pixel does not count"
            )

    def check_outputs(self, found: Any, images: int, classes: Sequence[str], size: int, *, where: str) -> None:
        needed = (images, len(classes), size, size)
        maps = tensors_in(found)
        if not maps or maps[0].ndim != 4 or len(maps[0]) != images or not maps[0].is_floating_point():
            shown = found if not isinstance(found, Mapping | list | tuple) or not maps else maps[0]
            given = no_scores(shown, images)[0]
            if isinstance(shown, Tensor) and shown.ndim == 2 and len(shown) == images:
                given = f"{tuple(shown.shape)}, scores of whole images,"
            raise ModelError(
                f"the model gives {given} {where}; segmentation takes scores of each class for"
                f" each pixel, {needed}, as its first output"
            )
        shape = tuple(maps[0].shape)
        if shape[1] == 1 and len(classes) == 2:
            raise ModelError(
                f"the model gives {shape} {where}, one score for each pixel; needed are {needed}: give it two outputs,"
                " one for each class, and no sigmoid"
            )
        if shape[1] != len(classes):
            raise ModelError(
                f"the model gives {shape} {where}; needed are {needed}, a score for each of the {len(classes)} classes:"
                f" build it with num_classes={len(classes)}"
            )
        if shape != needed:
            raise ModelError(
                f"the model gives {shape} {where}; needed are {needed}, the input's full size: end its forward with"
                " torch.nn.functional.interpolate(scores, size=x.shape[2:], mode='bilinear')"
            )

    def check_training_outputs(self, found: Any, images: int, classes: Sequence[str], size: int, *, where: str) -> None:
        self.check_outputs(found, images, classes, size, where=where)

    def moved(self, targets: Tensor, shift_B2: Tensor, flip_B: Tensor, *, padding: int, size: int) -> Tensor:
        """As the images are moved; what came in from outside of a mask does not count."""
        if padding:
            corners = pad(targets, (padding,) * 4, value=IGNORED).unfold(1, size, 1).unfold(2, size, 1)
            each = torch.arange(len(targets), device=targets.device)
            targets = corners[each, shift_B2[:, 0], shift_B2[:, 1]]
        return torch.where(flip_B.view(-1, 1, 1), targets.flip(2), targets)

    def strata(self, targets: Tensor) -> Tensor:
        """All in one: an image has pixels of most classes."""
        return torch.zeros(len(targets), dtype=torch.int64, device=targets.device)

    def guessing_loss(self, targets: Tensor, classes: int, *, smoothing: float) -> float | None:
        """Not known: the Dice part is one of batches, not of images."""
        return None

    def _of_map(self, scores_BKHW: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        counts_BHW = targets != IGNORED
        index_BHW = targets.long()
        pixels = counts_BHW.sum().clamp(min=1)
        # Not torch's mean, which is NaN for a batch in which no pixel counts.
        each_BHW = cross_entropy(
            scores_BKHW.float(), index_BHW, ignore_index=IGNORED, label_smoothing=smoothing, reduction="none"
        )
        loss = each_BHW.sum() / pixels
        return loss + self.dice * _soft_dice(scores_BKHW.float(), index_BHW, counts_BHW) if self.dice else loss


def _soft_dice(scores_BKHW: Tensor, index_BHW: Tensor, counts_BHW: Tensor) -> Tensor:
    """1 minus Dice's coefficient of shares, as the mean over the classes that the batch has; 0 where it has none."""
    share_BKP = scores_BKHW.softmax(1).flatten(2)
    counts_B1P = counts_BHW.flatten(1).unsqueeze(1)
    index_B1P = index_BHW.flatten(1).unsqueeze(1).masked_fill(~counts_B1P, 0)
    truth_BKP = torch.zeros_like(share_BKP).scatter_(1, index_B1P, 1.0) * counts_B1P
    both_K, true_K = (share_BKP * truth_BKP).sum((0, 2)), truth_BKP.sum((0, 2))
    said_K = (share_BKP * counts_B1P).sum((0, 2))
    there_K = true_K > 0
    return ((1 - 2 * both_K / (said_K + true_K).clamp(min=_SMALL)) * there_K).sum() / there_K.sum().clamp(min=1)


def _maps(outputs: Any) -> list[Tensor]:
    """The maps of scores in what a model returned: the first, and others of as many classes."""
    if isinstance(outputs, Tensor):
        return [outputs]
    first, *others = tensors_in(outputs)
    return [first, *(map_ for map_ in others if map_.ndim == 4 and map_.shape[:2] == first.shape[:2])]


def _enlarged(scores_BKHW: Tensor, targets: Tensor) -> Tensor:
    if scores_BKHW.shape[2:] == targets.shape[1:]:
        return scores_BKHW
    return interpolate(scores_BKHW, size=targets.shape[1:], mode="bilinear")
