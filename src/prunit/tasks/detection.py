"""Detection: a loss for detectors without anchors or one of the user's, and COCO's mAP as the main metric."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Self, cast

import torch
from torch import Tensor

from prunit.edge.tasks.detection import Boxes, DeviceDetection, Unit
from prunit.errors import DataError, ModelError
from prunit.tasks.detection_loss import detection_loss
from prunit.tasks.task import Judging

Loss = Callable[[Any, Tensor], Tensor]
"""Of what a model returns in training mode and the targets (B, M, 6): one number."""

_COLUMNS: Final = 6
_LEAST_SHARE: Final = 0.25
_LEAST_PIXELS: Final = 2.0
"""Of a box that a crop leaves less of, nothing is left: what it shows is no longer recognised."""
_BESIDE: Final = 0.5
"""Pixels by which a box may reach beyond its image: files round."""
_TRAINING: Final = (
    "the zoo's detectors return (raw, points), raw (B, N, K + 5) and points (N, 3): return the same, or give the task"
    " your model's own loss, Detection(loss=...), by --task FILE.py:FACTORY"
)


class Detection(DeviceDetection, Judging):
    """Boxes with classes: targets are float32 (N, M, 6), outputs (B, N, 4 + K), both as `DeviceDetection` says.

    `loss(outputs, targets)` is one of the user's own, for a model that in training mode returns something else than
    the zoo's detectors; it is called with that and with targets (B, M, 6). All else are the settings that a device has.
    """

    output: str = "detections"
    lr: float = 0.1
    """The highest rate of SGD for batches of 16."""

    def __init__(
        self,
        *,
        loss: Loss | None = None,
        size: int | Sequence[int] | None = DeviceDetection.size,
        least: float = DeviceDetection.least,
        shown: float = DeviceDetection.shown,
        iou: float = DeviceDetection.iou,
        most: int = DeviceDetection.most,
        boxes: Boxes = DeviceDetection.boxes,
        unit: Unit = DeviceDetection.unit,
        channels_first: bool = DeviceDetection.channels_first,
    ) -> None:
        super().__init__(size, least, shown, iou, most, boxes, unit, channels_first)
        object.__setattr__(self, "_loss", loss)  # no setting: a device does not need it

    def fitted(self, targets: Tensor, size: int) -> Self:
        """With the size of the images, unless it has one."""
        if self.size is not None:
            return self
        return type(self)(loss=getattr(self, "_loss"), **{**self.settings(), "size": size})  # noqa: B009

    def loss(self, outputs: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        """Focal loss and generalised IoU, or the user's own; without label smoothing."""
        own: Loss | None = getattr(self, "_loss")  # noqa: B009
        if own is None:
            raw_BNC, points_N3 = outputs
            return detection_loss(raw_BNC, points_N3, targets)
        found = cast("Any", own(outputs, targets))
        if not isinstance(found, Tensor) or found.numel() != 1:
            given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ModelError(f"the detection task's own loss returns {given}: return one number, the batch's mean loss")
        return found.squeeze()

    def check_targets(self, targets: Tensor, classes: Sequence[str], size: int, *, what: str) -> None:
        if targets.ndim != 3 or targets.shape[2] != _COLUMNS or not targets.is_floating_point():
            raise DataError(
                f"{what} targets are {str(targets.dtype).removeprefix('torch.')} {tuple(targets.shape)}: detection"
                f" takes float32 (images, boxes, {_COLUMNS}), rows of x1, y1, x2, y2, label, ignored; -1 as the label"
                " of a row that is none"
            )
        there_NM = targets[..., 4] != -1
        if not there_NM.any():
            raise DataError(f"{what} images have no boxes at all: detection learns from boxes")
        x1, y1, x2, y2, label, ignored = targets.unbind(2)
        low, high = -_BESIDE, size + _BESIDE
        names = len(classes)
        for wrong_NM, says in (
            (~targets.isfinite().all(2), "is not all finite numbers"),
            ((label < 0) | (label >= names) | (label % 1 != 0), f"has a label that is none of 0 to {names - 1}"),
            ((x2 <= x1) | (y2 <= y1), "has no area (x2 > x1 and y2 > y1 are needed)"),
            (
                (x1 < low) | (y1 < low) | (x2 > high) | (y2 > high),
                f"reaches beyond its image of {size} x {size} pixels: boxes are in pixels of the model's input",
            ),
            ((ignored != 0) & (ignored != 1), "has a sixth number that is neither 0 nor 1 (ignored)"),
        ):
            found = (wrong_NM & there_NM).nonzero()
            if len(found):
                image, row = found[0].tolist()
                numbers = ", ".join(f"{value:g}" for value in targets[image, row].tolist())
                more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
                raise DataError(f"{what} image {image}, box {row} ({numbers}) {says}{more}")

    def check_outputs(self, found: Any, images: int, classes: Sequence[str], size: int, *, where: str) -> None:
        numbers = 4 + len(classes)
        axis = 1 if self.channels_first else 2
        wanted = f"({images}, {numbers}, boxes)" if self.channels_first else f"({images}, boxes, {numbers})"
        needed = f"detection needs one tensor {wanted}: four numbers of a box and a score for each class"
        if not isinstance(found, Tensor) or found.ndim != 3 or len(found) != images or not found.is_floating_point():
            if _is_torchvisions(found):
                raise ModelError(
                    f"the model gives a list of dicts {where}, as torchvision's detectors do: how many rows they hold"
                    f" depends on the photo, which no exported file can hold; {needed}. Wrap it in a module that"
                    " returns the boxes and scores before overlapping ones are sorted out, and in training mode what"
                    " its loss is computed from (docs/howto/detection.md)"
                )
            shape = f"{tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise ModelError(f"the model gives {shape} {where}; {needed}. Wrap it in a module that returns that")
        if found.shape[axis] != numbers:
            turned = found.shape[3 - axis] == numbers
            hint = (
                f"set the task's channels_first={not self.channels_first}"
                if turned
                else f"build it with num_classes={len(classes)}, and without a column for the background"
            )
            raise ModelError(f"the model gives {tuple(found.shape)} {where}; {needed}: {hint}")
        scores = found.narrow(axis, 4, len(classes))
        if scores.numel() and not (bool((scores >= 0).all()) and bool((scores <= 1).all())):
            raise ModelError(
                f"the model gives scores from {float(scores.min()):.3g} to {float(scores.max()):.3g} {where}; detection"
                " needs them from 0 to 1: end them with a sigmoid, or a softmax without the background's column"
            )

    def check_training_outputs(self, found: Any, images: int, classes: Sequence[str], size: int, *, where: str) -> None:
        if getattr(self, "_loss") is not None:  # noqa: B009
            return
        pair = cast("Sequence[Any]", found) if isinstance(found, tuple | list) else ()
        if len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
            raise ModelError(f"{where} the model returns a {type(found).__name__} that is no pair; {_TRAINING}")
        raw, points = cast("tuple[Tensor, Tensor]", tuple(pair))
        if raw.ndim != 3 or raw.shape[::2] != (images, len(classes) + 5) or points.shape != (raw.shape[1], 3):
            raise ModelError(
                f"{where} the model returns {tuple(raw.shape)} and {tuple(points.shape)}, for {len(classes)} classes;"
                f" {_TRAINING}"
            )

    def moved(self, targets: Tensor, shift_B2: Tensor, flip_B: Tensor, *, padding: int, size: int) -> Tensor:
        """Boxes move with their pixels and end at the image; those cut to under a quarter or 2 pixels are gone."""
        boxes_BM4 = targets[..., :4]
        corner_B14 = shift_B2.flip(1).repeat(1, 2)[:, None].to(targets.dtype)
        cut_BM4 = (boxes_BM4 + padding - corner_B14).clamp(0, size)
        x1, y1, x2, y2 = cut_BM4.unbind(2)
        mirrored_BM4 = torch.stack([size - x2, y1, size - x1, y2], 2)
        result = targets.clone()
        result[..., :4] = torch.where(flip_B.view(-1, 1, 1), mirrored_BM4, cut_BM4)
        left_BM2, whole_BM2 = cut_BM4[..., 2:] - cut_BM4[..., :2], boxes_BM4[..., 2:] - boxes_BM4[..., :2]
        gone_BM = (left_BM2.amin(2) < torch.minimum(whole_BM2.amin(2), whole_BM2.new_tensor(_LEAST_PIXELS))) | (
            left_BM2.prod(2) < _LEAST_SHARE * whole_BM2.prod(2)
        )
        result[..., 4] = torch.where(gone_BM, -1, targets[..., 4])
        return result

    def strata(self, targets: Tensor) -> Tensor:
        """The class of each image that the fewest images have; images without boxes are one of their own, the last."""
        label_NM = targets[..., 4].long()
        classes = max(int(label_NM.max()), 0) + 1 if label_NM.numel() else 1
        has_NK = torch.zeros(len(targets), classes + 1, dtype=torch.bool, device=targets.device)
        has_NK.scatter_(1, torch.where(label_NM < 0, classes, label_NM), True)
        images_K = has_NK[:, :classes].sum(0)
        rare_NK = torch.where(has_NK[:, :classes], images_K, len(targets) + 1)
        return torch.where(has_NK[:, :classes].any(1), rare_NK.argmin(1), classes)

    def guessing_loss(self, targets: Tensor, classes: int, *, smoothing: float) -> float | None:
        return None


def _is_torchvisions(found: Any) -> bool:
    """Whether that is a dict with boxes for each image."""
    rows = cast("Sequence[Any]", found) if isinstance(found, list | tuple) else ()
    return bool(rows) and all(isinstance(row, dict) and "boxes" in row for row in rows)
