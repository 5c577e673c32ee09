"""Detection: boxes with a class and a score each; judged as COCO does."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from prunit.edge.pixels import Fit, Placing
from prunit.edge.tasks.average_precision import (
    AT_50,
    AT_75,
    ImageBoxes,
    average_precisions,
    matches,
    resampled_mean,
)
from prunit.edge.tasks.boxes import BEFORE, best_of_each, corners
from prunit.edge.tasks.drawing import draw_boxes
from prunit.edge.tasks.task import Evidence, Outputs
from prunit.errors import ConfigError

Boxes = Literal["xyxy", "cxcywh"]
Unit = Literal["share", "pixels"]

_COLUMNS: Final = 6
_LABEL, _IGNORED = 4, 5


@dataclass(frozen=True)
class DeviceDetection:
    """Evidence (N,) of `ImageBoxes`. Targets (B, M, 6): x1, y1, x2, y2 in pixels of the input, label, ignored.

    The label of a row that is none is -1; what is ignored (1: a crowd, or difficult) counts neither found nor missed.
    The output is (B, N, 4 + K), four numbers of a box and a score from 0 to 1 for each class; by the settings it may be
    written otherwise: YOLO's own export is `channels_first`, boxes "cxcywh", unit "pixels". Non-maximum suppression is
    done here. Raises `ConfigError` for settings out of their range.
    """

    # Without annotations: they are no settings.
    name = "detection"
    metric = "mAP"

    size: int | Sequence[int] | None = None
    """Height and width of the input in pixels, or one number for both: by it shares are compared with targets."""
    least: float = 0.01
    """Lowest score that metrics look at."""
    shown: float = 0.5
    """Lowest score in answers, in pictures and in `each`; YOLO's, trained to other scores, are shown from 0.25."""
    iou: float = 0.6
    """Of two boxes of a class that have more in common, one stays (FCOS, Tian et al. 2019)."""
    most: int = 100
    """Boxes of an image (COCO)."""
    boxes: Boxes = "xyxy"
    """Two corners, or centre, width and height."""
    unit: Unit = "share"
    """Of the input's width and height (0 to 1), or pixels of it."""
    channels_first: bool = False
    """(B, 4 + K, N)."""

    def __post_init__(self) -> None:
        for key in ("least", "shown", "iou"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"detection setting '{key}' = {getattr(self, key)}: it goes from 0 to 1")
        if self.most < 1:
            raise ConfigError(f"detection setting 'most' = {self.most}: it must be at least 1")
        for key, known in (("boxes", ("xyxy", "cxcywh")), ("unit", ("share", "pixels"))):
            if getattr(self, key) not in known:
                raise ConfigError(f"detection setting '{key}' = {getattr(self, key)!r}: use {' or '.join(known)}")
        if self.size is not None and (len(self._size()) != 2 or min(self._size()) < 1):
            raise ConfigError(f"detection setting 'size' = {self.size}: use height and width, or one number for both")

    @property
    def fit(self) -> Fit:
        return "letterbox"

    def settings(self) -> Mapping[str, Any]:
        size = self.size if self.size is None or isinstance(self.size, int) else list(self.size)
        return {**asdict(self), "size": size}

    def evidence(self, outputs: Outputs, targets: npt.NDArray[Any]) -> Evidence:
        """`ConfigError` where boxes are shares and the size of the input is not known."""
        if self.unit == "share" and self.size is None:
            raise ConfigError(
                "detection: boxes come as shares of the input, and targets in its pixels: set 'size' to the input's"
                " height and width, or 'unit' to pixels if the model gives those"
            )
        high, wide = self._size() if self.size is not None else (0, 0)
        scale = np.array([wide, high] * 2, np.float64) if self.unit == "share" else np.ones(4)
        found = np.empty(len(targets), dtype=object)
        for index, (output, target_M6) in enumerate(zip(outputs[0], targets, strict=True)):
            boxes_D4, scores_D, labels_D = self._found(output, self.least)
            target_G6 = target_M6.reshape(-1, _COLUMNS)
            target_G6 = target_G6[target_G6[:, _LABEL] >= 0]
            found[index] = ImageBoxes(
                (boxes_D4 * scale).astype(np.float32),
                scores_D.astype(np.float32),
                labels_D,
                target_G6[:, :4],
                target_G6[:, _LABEL].astype(np.int64),
                target_G6[:, _IGNORED] > 0,
            )
        return found

    def metrics(self, evidence: Evidence) -> Mapping[str, float]:
        """mAP (the mean over overlaps 0.50 to 0.95), AP50 and AP75: means over the classes that have objects."""
        each = list(average_precisions(evidence.tolist()).values())
        if not each:
            return {"mAP": float("nan"), "AP50": float("nan"), "AP75": float("nan")}
        mean_T = np.mean(each, axis=0)
        return {"mAP": float(mean_T.mean()), "AP50": float(mean_T[AT_50]), "AP75": float(mean_T[AT_75])}

    def by_class(self, evidence: Evidence, classes: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        """AP, AP50 and how many objects count, of each class that has such or was named; NaN for one without."""
        images: list[ImageBoxes] = evidence.tolist()
        each = average_precisions(images)
        objects = {label: 0 for image in images for label in image.labels_D.tolist()}
        for image in images:
            for label in image.truth_labels_G[~image.ignored_G].tolist():
                objects[label] = objects.get(label, 0) + 1
        nothing = np.full(1, np.nan)
        return {
            _named(label, classes): {
                "AP": float(each.get(label, nothing).mean()),
                "AP50": float(each.get(label, nothing)[AT_50]),
                "objects": number,
            }
            for label, number in sorted(objects.items())
        }

    def each(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """F1 of what is shown, at an overlap of 0.5; 1 where nothing is there and nothing is shown."""
        right_N, wrong_N, objects_N = (np.zeros(len(evidence), np.int64) for _ in range(3))
        for found in matches(evidence.tolist()).values():
            counts_D = (found.scores_D >= self.shown) & ~found.ignored_TD[AT_50]
            hit_D = found.hit_TD[AT_50]
            right_N += np.bincount(found.image_D[counts_D & hit_D], minlength=len(evidence))
            wrong_N += np.bincount(found.image_D[counts_D & ~hit_D], minlength=len(evidence))
            objects_N += found.objects_N
        all_N = right_N + wrong_N + objects_N
        return np.where(all_N > 0, 2 * right_N / np.maximum(all_N, 1), 1.0)

    def resampled(self, evidence: Evidence, counts_RN: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """mAP (R,) where image n counts counts_RN[r, n] times: a bootstrap without matching boxes again."""
        return resampled_mean(matches(evidence.tolist()), counts_RN)

    def answer(self, outputs: Outputs, classes: Sequence[str], placing: Placing) -> Mapping[str, Any]:
        """{"boxes": [{"label", "score", "x1", "y1", "x2", "y2"}, …]} in the photo's pixels, the highest score first."""
        boxes_D4, scores_D, labels_D = self._on_photo(outputs, placing)
        rows = zip(boxes_D4.tolist(), scores_D.tolist(), labels_D.tolist(), strict=True)
        return {
            "boxes": [
                {"label": _named(label, classes), "score": score, "x1": x1, "y1": y1, "x2": x2, "y2": y2}
                for (x1, y1, x2, y2), score, label in rows
            ]
        }

    def drawn(
        self, photo_HWC: npt.NDArray[np.uint8], outputs: Outputs, classes: Sequence[str], placing: Placing
    ) -> npt.NDArray[np.uint8]:
        """The photo with what `answer` tells."""
        boxes_D4, scores_D, labels_D = self._on_photo(outputs, placing)
        labels: list[int] = labels_D.tolist()
        texts = [f"{_named(k, classes)} {score:.0%}" for k, score in zip(labels, scores_D.tolist(), strict=True)]
        return draw_boxes(photo_HWC, boxes_D4, labels, texts)

    def _size(self) -> tuple[int, ...]:
        size = self.size or 0
        return (size, size) if isinstance(size, int) else tuple(size)

    def _on_photo(
        self, outputs: Outputs, placing: Placing
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any], npt.NDArray[np.int64]]:
        boxes_D4, scores_D, labels_D = self._found(outputs[0][0], self.shown)
        high, wide = placing.size if self.unit == "share" else (1, 1)
        found_D4 = placing.to_photo(boxes_D4 * np.array([wide, high] * 2))
        # What lies in the bars beside the photo has no area once it is cut.
        there_D = (found_D4[:, 2:] > found_D4[:, :2]).all(axis=1)
        return found_D4[there_D], scores_D[there_D], labels_D[there_D]

    def _found(
        self, output: npt.NDArray[Any], least: float
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Boxes x1, y1, x2, y2 of one image that have at least this score, in the model's unit; scores; classes."""
        rows_NC = output.T if self.channels_first else output
        # Flat, which is ten times as fast as rows and columns where there are many.
        flat = rows_NC[:, 4:].ravel()
        pairs_N = np.flatnonzero(flat >= least)
        scores_N = flat[pairs_N]
        if len(scores_N) > BEFORE:
            best = np.argpartition(scores_N, -BEFORE)[-BEFORE:]
            pairs_N, scores_N = pairs_N[best], scores_N[best]
        at_N, labels_N = np.divmod(pairs_N, max(1, rows_NC.shape[1] - 4))
        boxes_N4 = rows_NC[at_N, :4]
        if self.boxes == "cxcywh":
            boxes_N4 = corners(boxes_N4)
        if self.unit == "share":
            boxes_N4 = boxes_N4.clip(0, 1)
        kept = best_of_each(boxes_N4, scores_N, labels_N, iou=self.iou, most=self.most)
        return boxes_N4[kept], scores_N[kept], labels_N[kept]


def _named(label: int, classes: Sequence[str]) -> str:
    return classes[label] if label < len(classes) else str(label)
