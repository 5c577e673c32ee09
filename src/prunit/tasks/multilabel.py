"""Multilabel: binary cross-entropy of each class, and mAP as the main metric."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from prunit.edge.tasks.multilabel import DeviceMultilabel
from prunit.errors import DataError, ModelError
from prunit.tasks.classification import no_scores
from prunit.tasks.task import Judging


class Multilabel(DeviceMultilabel, Judging):
    """Any number of classes for each image: targets are 0 or 1 for each class (B, K), float32; outputs are scores."""

    output: str = "logits"

    def loss(self, outputs: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        """The mean binary cross-entropy of all classes."""
        wanted = (1 - smoothing) * targets + smoothing / 2
        return binary_cross_entropy_with_logits(outputs.float(), wanted)

    def hits(self, outputs: Any, targets: Tensor) -> Tensor | None:
        """Images with exactly the right labels."""
        return ((outputs.detach() >= 0) == (targets > 0.5)).all(1).sum()

    def check_targets(self, targets: Tensor, classes: Sequence[str], size: int, *, what: str) -> None:
        if not targets.is_floating_point() or targets.shape[1:] != (len(classes),):
            raise DataError(
                f"{what} labels {tuple(targets.shape)} of {str(targets.dtype).removeprefix('torch.')}; needed are float"
                f" ({len(targets)}, {len(classes)}), 0 or 1 for each class"
            )
        wrong = (targets != 0) & (targets != 1)
        if wrong.any():
            image, k = (int(i) for i in wrong.nonzero()[0])
            raise DataError(
                f"{what} image {image} has {float(targets[image, k]):g} as label of '{classes[k]}': labels are 0 or 1"
            )

    def check_outputs(self, found: Any, images: int, classes: Sequence[str], size: int, *, where: str) -> None:
        needed = (images, len(classes))
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != images or not found.is_floating_point():
            given, hint = no_scores(found, images)
            raise ModelError(
                f"the model gives {given} {where}; multilabel takes one tensor of scores {needed}, one for each"
                f" class; {hint}"
            )
        if found.shape[1] != len(classes):
            raise ModelError(
                f"the model gives {tuple(found.shape)} {where}; needed are {needed} numbers, one per class: build it"
                f" with num_classes={len(classes)}"
            )

    def check_training_outputs(self, found: Any, images: int, classes: Sequence[str], size: int, *, where: str) -> None:
        self.check_outputs(found, images, classes, size, where=where)

    def moved(self, targets: Tensor, shift_B2: Tensor, flip_B: Tensor, *, padding: int, size: int) -> Tensor:
        return targets

    def strata(self, targets: Tensor) -> Tensor:
        """The rarest class that an image has, by its index; images without a class are a stratum of their own, K."""
        images, classes = targets.shape
        if not classes:
            return torch.zeros(images, dtype=torch.int64, device=targets.device)
        there_NK = targets > 0.5
        rarity_NK = there_NK.sum(0).expand(images, classes).masked_fill(~there_NK, images + 1)
        return rarity_NK.argmin(1).masked_fill(~there_NK.any(1), classes)

    def guessing_loss(self, targets: Tensor, classes: int, *, smoothing: float) -> float | None:
        """The least cross-entropy, in nats, of one share of each class for all images: that of its frequency."""
        wanted = ((1 - smoothing) * targets.double().mean(0) + smoothing / 2).tolist()
        parts = [-share * math.log(share) for p in wanted for share in (p, 1 - p) if share > 0]
        return sum(parts) / max(len(wanted), 1)
