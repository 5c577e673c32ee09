"""Regression: Huber's loss on standardised values, and R² as the main metric."""

from collections.abc import Sequence
from typing import Any, Final, Self

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from prunit.edge.tasks.regression import DeviceRegression
from prunit.errors import DataError, ModelError
from prunit.tasks.classification import no_scores
from prunit.tasks.task import Judging

_STRATA: Final = 10
_HALVINGS: Final = 60


class Regression(DeviceRegression, Judging):
    """One number or several for each image: targets (B, D), float32, in the user's units; outputs (B, D) in
    standardised ones, which `mean` and `std` of the training's values make the user's."""

    output: str = "values"

    def fitted(self, targets: Tensor, size: int) -> Self:
        """With the mean and the deviation of the training's values, unless it has them."""
        if self.mean or self.std:
            return self
        values_ND = targets.double()
        # A value that never differs is estimated by its mean alone.
        std = tuple(one or 1.0 for one in values_ND.std(dim=0, correction=0).tolist())
        return type(self)(mean=tuple(values_ND.mean(dim=0).tolist()), std=std)

    def loss(self, outputs: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        """Huber's loss (1964): squared for errors below a deviation of the values, linear above.

        Near the truth it is the squared error, which R² is made of; a value that was written down wrongly pulls no
        harder than one that is a deviation off, so that it neither drags the others along nor blows a step up.
        """
        return smooth_l1_loss(outputs.float(), self._standardised(targets))

    def hits(self, outputs: Any, targets: Tensor) -> Tensor | None:
        return None

    def check_targets(self, targets: Tensor, classes: Sequence[str], size: int, *, what: str) -> None:
        if not targets.is_floating_point() or targets.shape[1:] != (len(classes),):
            raise DataError(
                f"{what} values {tuple(targets.shape)} of {str(targets.dtype).removeprefix('torch.')}; needed are float"
                f" ({len(targets)}, {len(classes)}), one number for each of: {', '.join(classes)}"
            )
        if self.mean and len(self.mean) != len(classes):
            raise DataError(f"{what} values of {len(classes)} names, but the task has means of {len(self.mean)}")
        wrong = ~torch.isfinite(targets)
        if wrong.any():
            image, value = (int(i) for i in wrong.nonzero()[0])
            raise DataError(
                f"{what} image {image} has {float(targets[image, value])} as '{classes[value]}': leave the image out,"
                " or give it a finite number"
            )

    def check_outputs(self, found: Any, images: int, classes: Sequence[str], size: int, *, where: str) -> None:
        needed = (images, len(classes))
        if not isinstance(found, Tensor) or not found.is_floating_point():
            raise ModelError(
                f"the model gives {no_scores(found, images)[0]} {where}; regression takes one tensor of numbers"
                f" {needed}: wrap it in a module that returns them alone"
            )
        if found.shape != needed:
            shape = tuple(found.shape)
            if shape == (images,):
                hint = "give it a dimension of values, and no squeeze at the end"
            elif found.ndim == 4:
                hint = "end it with a mean over height and width, .mean((2, 3)), and a linear layer"
            else:
                hint = f"build it with num_classes={len(classes)}"
            raise ModelError(f"the model gives {shape} {where}; needed are {needed} numbers, one per value: {hint}")

    def check_training_outputs(self, found: Any, images: int, classes: Sequence[str], size: int, *, where: str) -> None:
        self.check_outputs(found, images, classes, size, where=where)

    def moved(self, targets: Tensor, shift_B2: Tensor, flip_B: Tensor, *, padding: int, size: int) -> Tensor:
        return targets

    def strata(self, targets: Tensor) -> Tensor:
        """Ten of as many images each, by the first value; equal values are in the same one."""
        first_N = targets[:, 0].double()
        bounds = first_N.quantile(torch.arange(1, _STRATA, device=first_N.device, dtype=first_N.dtype) / _STRATA)
        return torch.searchsorted(bounds, first_N, right=True)

    def guessing_loss(self, targets: Tensor, classes: int, *, smoothing: float) -> float | None:
        """The loss of the best constant of each value, which lies where as much pulls it up as down."""
        values_ND = self._standardised(targets).double()
        low_D, high_D = values_ND.amin(0), values_ND.amax(0)
        for _ in range(_HALVINGS):
            middle_D = (low_D + high_D) / 2
            up_D = (values_ND - middle_D).clamp(-1, 1).mean(0) > 0
            low_D, high_D = torch.where(up_D, middle_D, low_D), torch.where(up_D, high_D, middle_D)
        return float(smooth_l1_loss(low_D.expand_as(values_ND), values_ND))

    def _standardised(self, targets: Tensor) -> Tensor:
        if not self.mean:
            return targets.float()
        mean_D, std_D = (targets.new_tensor(values) for values in (self.mean, self.std))
        return ((targets - mean_D) / std_D).float()
