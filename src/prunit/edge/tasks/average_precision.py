"""Average precision as COCO has it: which boxes find which objects by hotcoco, and the mean over many resamples.

hotcoco is asked for once: its matches of an image do not depend on other images, so that images can be counted
as often as a bootstrap draws them. Its own `compare` counts an image that was drawn twice once, and gives intervals
that are too narrow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from prunit.errors import MissingExtraError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

RECALLS: Final = 101
"""Points at which precision is read, from recall 0 to 1."""
AT_50: Final = 0
AT_75: Final = 5
"""Which of the ten overlaps, 0.50 to 0.95."""
_MOST: Final = 100
"""Boxes of an image and class that count."""
_CELLS: Final = 1_000_000
"""Numbers of a table at once: 8 MB, about what a cache holds."""


@dataclass(frozen=True, eq=False)
class ImageBoxes:
    """What was said of one image, and what is there. Boxes are x1, y1, x2, y2 in pixels of the model's input."""

    boxes_D4: npt.NDArray[Any]
    scores_D: npt.NDArray[Any]
    labels_D: npt.NDArray[np.int64]
    truth_G4: npt.NDArray[Any]
    truth_labels_G: npt.NDArray[np.int64]
    ignored_G: Bools
    """Objects that count neither when found nor when missed, as COCO treats crowds."""


@dataclass(frozen=True, eq=False)
class Matches:
    """The boxes of one class in all images, the highest score first, at each of the ten overlaps."""

    image_D: npt.NDArray[np.int64]
    scores_D: Floats
    hit_TD: Bools
    ignored_TD: Bools
    objects_N: npt.NDArray[np.int64]
    """How many objects each image has that count."""


def matches(images: Sequence[ImageBoxes]) -> dict[int, Matches]:
    """For each class that is there or was named, by its index; `MissingExtraError` without hotcoco."""
    found = _evaluated(images)
    if found is None:
        return {}
    parts: dict[int, list[Mapping[str, Any]]] = {}
    for part in cast("list[Mapping[str, Any] | None]", found.eval_imgs):
        if part is not None:
            parts.setdefault(int(part["category_id"]) - 1, []).append(part)
    return {label: _of_class(parts[label], len(images)) for label in sorted(parts)}


def average_precisions(images: Sequence[ImageBoxes]) -> dict[int, Floats]:
    """AP at each of the ten overlaps, (10,), of each class that has objects which count, by its index.

    `MissingExtraError` without hotcoco.
    """
    found = _evaluated(images)
    if found is None:
        return {}
    found.accumulate()
    precision_TRK = np.asarray(found.eval["precision"], np.float64)[..., 0, -1]
    labels = [int(number) - 1 for number in found.params.cat_ids]
    each = {label: precision_TRK[:, :, index] for index, label in enumerate(labels)}
    return {label: values_TR.mean(axis=1) for label, values_TR in each.items() if values_TR.min() >= 0}


def resampled_mean(found: Mapping[int, Matches], counts_RN: npt.NDArray[Any]) -> Floats:
    """mAP (R,) under R ways to count each image: the mean over overlaps and over the classes that have objects then.

    NaN where no image that counts has any.
    """
    counts_RN = np.asarray(counts_RN)
    sums_R, classes_R = np.zeros(len(counts_RN)), np.zeros(len(counts_RN))
    for of_class in found.values():
        rows = max(1, _CELLS // max(len(of_class.image_D), len(of_class.objects_N), 1))
        for start in range(0, len(counts_RN), rows):
            some = slice(start, start + rows)
            ap_R = _resampled_class(of_class, counts_RN[some])
            there_R = ~np.isnan(ap_R)
            sums_R[some] += np.where(there_R, ap_R, 0)
            classes_R[some] += there_R
    with np.errstate(invalid="ignore"):
        return sums_R / classes_R


def _resampled_class(found: Matches, counts_RN: npt.NDArray[Any]) -> Floats:
    """AP (R,) of one class, the mean over overlaps; NaN where it has no objects."""
    objects_R = counts_RN @ found.objects_N
    weight_RD = counts_RN[:, found.image_D].astype(np.float64)
    before_RD = weight_RD.cumsum(axis=1)
    total_R = np.zeros(len(counts_RN))
    for hit_D, ignored_D in zip(found.hit_TD, found.ignored_TD, strict=True):
        # Precision falls between two hits: its highest value from a recall on is at one of them.
        at_P = np.flatnonzero(hit_D & ~ignored_D)
        hits_RP = weight_RD[:, at_P].cumsum(axis=1)
        said_RP = before_RD[:, at_P]
        if ignored_D.any():
            out_I = np.flatnonzero(ignored_D)
            out_RI = np.pad(weight_RD[:, out_I].cumsum(axis=1), ((0, 0), (1, 0)))
            said_RP = said_RP - out_RI[:, np.searchsorted(out_I, at_P)]
        total_R += _area(hits_RP, said_RP, objects_R)
    return np.where(objects_R > 0, total_R / len(found.hit_TD), np.nan)


def _area(hits_RP: Floats, said_RP: Floats, objects_R: npt.NDArray[Any]) -> Floats:
    """The mean over recalls 0, 0.01 … 1 of the highest precision from there on, (R,)."""
    if not hits_RP.shape[1]:
        return np.zeros(len(hits_RP))
    precision_RP = hits_RP / np.maximum(said_RP, 1)
    highest_RP = np.maximum.accumulate(precision_RP[:, ::-1], axis=1)[:, ::-1]
    recall_RP = hits_RP / np.maximum(objects_R, 1)[:, None]
    # How many of the recalls each hit is the first to reach.
    reached_RP = np.searchsorted(np.linspace(0, 1, RECALLS), recall_RP, side="right")
    first_RP = np.diff(reached_RP, axis=1, prepend=0)
    return (highest_RP * first_RP).sum(axis=1) / RECALLS


def _of_class(parts: Sequence[Mapping[str, Any]], images: int) -> Matches:
    objects_N = np.zeros(images, np.int64)
    for part in parts:
        objects_N[int(part["image_id"]) - 1] = int((~np.asarray(part["gtIgnore"], np.bool_)).sum())
    scores_D = np.concatenate([np.asarray(part["dtScores"], np.float64) for part in parts])
    lengths = [len(part["dtScores"]) for part in parts]
    image_D = np.repeat([int(part["image_id"]) - 1 for part in parts], lengths)
    order_D = np.argsort(-scores_D, kind="stable")
    matched, ignored = (
        np.concatenate([np.asarray(part[name], np.bool_).reshape(10, -1) for part in parts], axis=1)[:, order_D]
        for name in ("dtMatched", "dtIgnore")
    )
    return Matches(image_D[order_D], scores_D[order_D], matched, ignored, objects_N)


def _evaluated(images: Sequence[ImageBoxes]) -> Any:
    """hotcoco's evaluation after matching; None where nothing is there and nothing was said.

    Images, classes and objects are numbered from 1, and areas written: pycocotools and its kin take an object numbered
    0 for one that was not found.
    """
    try:
        import hotcoco
    except ImportError as error:
        raise MissingExtraError("mean average precision", "hotcoco", "evaluate") from error
    truth_G4, said_D4 = _joined([i.truth_G4 for i in images]), _joined([i.boxes_D4 for i in images])
    if not len(truth_G4) and not len(said_D4):
        return None
    numbers = np.arange(1, len(images) + 1)
    of_truth_G = np.repeat(numbers, [len(i.truth_G4) for i in images])
    of_said_D = np.repeat(numbers, [len(i.boxes_D4) for i in images])
    truth_labels_G = np.concatenate([i.truth_labels_G for i in images]).astype(np.int64)
    labels_D = np.concatenate([i.labels_D for i in images]).astype(np.int64)
    scores_D = np.concatenate([i.scores_D for i in images]).astype(np.float64)
    truth = hotcoco.COCO.from_arrays(
        [{"id": int(number), "width": 1, "height": 1} for number in numbers],
        [{"id": int(k) + 1, "name": str(k)} for k in np.union1d(truth_labels_G, labels_D)],
        of_truth_G,
        truth_labels_G + 1,
        truth_G4,
        area=truth_G4[:, 2] * truth_G4[:, 3],
        iscrowd=np.concatenate([i.ignored_G for i in images]).astype(np.int64),
    )
    said = truth.load_res(np.column_stack([of_said_D, said_D4, scores_D, labels_D + 1]).astype(np.float64))
    found = hotcoco.COCOeval(truth, said, "bbox")
    found.params.area_rng, found.params.area_rng_lbl = [[0.0, 1e10]], ["all"]
    found.params.max_dets = [_MOST]
    found.evaluate()
    return found


def _joined(boxes: Sequence[npt.NDArray[Any]]) -> Floats:
    """All boxes (…, 4) as x, y, width and height."""
    joined = np.concatenate([*boxes, np.zeros((0, 4))]).astype(np.float64)
    joined[:, 2:] -= joined[:, :2]
    return joined
