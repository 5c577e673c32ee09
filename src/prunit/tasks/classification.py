"""Classification: cross-entropy, and top-1 accuracy as the main metric."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from prunit.edge.tasks.classification import DeviceClassification
from prunit.edge.tasks.task import Evidence
from prunit.errors import DataError, ModelError
from prunit.tasks.task import shown_of

_OTHER_TASK: Final = (
    "for another task name it (--task segmentation, detection, regression, multilabel or FILE.py:FACTORY), or cut the"
    " model with trace, a plan and compact, and train it in a loop of your own"
)


class Classification(DeviceClassification):
    """One class for each image: targets are class indices (B,), int64; outputs are scores (B, K)."""

    output: str = "logits"

    def __repr__(self) -> str:
        return shown_of(self)

    def fitted(self, targets: Tensor, size: int) -> Self:
        return self

    def loss(self, outputs: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        """Cross-entropy."""
        return cross_entropy(outputs, targets, label_smoothing=smoothing)

    def judged(self, outputs: Any, targets: Tensor) -> Evidence:
        """On the outputs' own device: only whole numbers leave it."""
        own_B1 = outputs.gather(1, targets[:, None])
        found = torch.stack([targets, outputs.argmax(1), (outputs > own_B1).sum(1)], dim=1)
        return cast("np.ndarray[Any, Any]", found.cpu().numpy())

    def hits(self, outputs: Any, targets: Tensor) -> Tensor | None:
        return (outputs.detach().argmax(1) == targets).sum()

    def check_targets(self, targets: Tensor, classes: Sequence[str], size: int, *, what: str) -> None:
        low, high = (int(bound) for bound in targets.aminmax())
        if low < 0 or high >= len(classes):
            raise DataError(
                f"{what} labels from {low} to {high}, but {len(classes)} classes: labels go from 0 to"
                f" {len(classes) - 1}"
            )

    def check_outputs(self, found: Any, images: int, classes: Sequence[str], size: int, *, where: str) -> None:
        number = len(classes)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != images or not found.is_floating_point():
            given, hint = no_scores(found, images)
            raise ModelError(
                f"the model gives {given} {where}: build, train and evaluate take a classifier, which returns one"
                f" tensor of scores ({images}, {number}), one for each class; {hint}"
            )
        if found.shape[1] != number:
            few = " (a single score ranks no classes)" if found.shape[1] == 1 else ""
            raise ModelError(
                f"the model gives {tuple(found.shape)} {where}; needed are ({images}, {number}) numbers, one per class"
                f"{few}: build it with num_classes={number}"
            )

    def check_training_outputs(self, found: Any, images: int, classes: Sequence[str], size: int, *, where: str) -> None:
        if not isinstance(found, Tensor):
            raise ModelError(
                f"{where} the model returns a {type(found).__name__}, not one tensor of class scores: switch off"
                " its further outputs, or wrap it in a module that returns the scores alone"
            )
        self.check_outputs(found, images, classes, size, where=where)

    def moved(self, targets: Tensor, shift_B2: Tensor, flip_B: Tensor, *, padding: int, size: int) -> Tensor:
        return targets

    def strata(self, targets: Tensor) -> Tensor:
        return targets

    def guessing_loss(self, targets: Tensor, classes: int, *, smoothing: float) -> float | None:
        """The least cross-entropy, in nats, of one answer for all images, with so many of each class."""
        return guessing_loss(targets.bincount(minlength=classes).tolist(), smoothing)


def guessing_loss(counts: Sequence[int], smoothing: float = 0.0) -> float:
    """The least cross-entropy, in nats, of one answer for all images, with so many of each class."""
    total, classes = sum(counts), len(counts)
    shares = [(1 - smoothing) * count / total + smoothing / classes for count in counts]
    return -sum(share * math.log(share) for share in shares if share)


def no_scores(found: Any, images: int) -> tuple[str, str]:
    """What a model gave that are no scores, in words, and what its user can do."""
    alone = f"switch off its further outputs, wrap it in a module that returns the scores alone, or {_OTHER_TASK}"
    if isinstance(found, Mapping):
        keys = [repr(key) for key in cast("Mapping[Any, Any]", found)]
        return f"a {type(found).__name__} of {_some(keys)}", alone
    if isinstance(found, list | tuple):
        parts = [_shape(part) for part in cast("Sequence[Any]", found)]
        return f"a {type(found).__name__} of {len(parts)}: {_some(parts)}", alone
    if not isinstance(found, Tensor):
        return f"a {type(found).__name__}", alone
    shape = tuple(found.shape)
    if not found.is_floating_point():
        return f"{str(found.dtype).removeprefix('torch.')} numbers {shape}", "return scores, not classes or masks"
    if found.ndim == 4:
        return f"a map {shape}, a score for each pixel or place", (
            f"end it with a mean over height and width, .mean((2, 3)), or {_OTHER_TASK}"
        )
    if found.ndim == 3:
        return f"{shape}, a score for each position", f"end it with a mean over the positions, or {_OTHER_TASK}"
    if found.ndim == 1 and len(found) == images:
        return f"one number for each image, {shape}", "give it an output for each class, and no squeeze at the end"
    return f"a tensor {shape}, whose first dimension is not the batch" if found.ndim else "one number", alone


def _shape(part: Any) -> str:
    return str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__


def _some(words: Sequence[str], most: int = 4) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
