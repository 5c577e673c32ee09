"""Boxes in numpy: overlaps, and of many boxes for one object the one with the highest score."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BEFORE: Final = 1000
"""Boxes of an image that are compared with each other: the highest scores (RetinaNet, Lin et al. 2017)."""


def corners(boxes_N4: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """x1, y1, x2, y2 of boxes that are written as centre x, centre y, width, height."""
    half_N2 = boxes_N4[..., 2:] / 2
    return np.concatenate([boxes_N4[..., :2] - half_N2, boxes_N4[..., :2] + half_N2], axis=-1)


def overlap(box_4: npt.NDArray[Any], boxes_N4: npt.NDArray[Any]) -> Floats:
    """Intersection over union of a box with each of the others, 0 to 1."""
    wide_N = np.minimum(box_4[2], boxes_N4[:, 2]) - np.maximum(box_4[0], boxes_N4[:, 0])
    high_N = np.minimum(box_4[3], boxes_N4[:, 3]) - np.maximum(box_4[1], boxes_N4[:, 1])
    both_N = np.maximum(wide_N, 0) * np.maximum(high_N, 0)
    area_N = (boxes_N4[:, 2] - boxes_N4[:, 0]) * (boxes_N4[:, 3] - boxes_N4[:, 1])
    either_N = (box_4[2] - box_4[0]) * (box_4[3] - box_4[1]) + area_N - both_N
    return both_N / np.maximum(either_N, np.finfo(np.float64).tiny)


def best_of_each(
    boxes_N4: npt.NDArray[Any], scores_N: npt.NDArray[Any], labels_N: npt.NDArray[np.int64], *, iou: float, most: int
) -> npt.NDArray[np.int64]:
    """Which boxes stay, at most `most`, the highest score first: none that covers a better one of its class.

    Greedy non-maximum suppression for each class: a box goes that has more than `iou` in common with one that stays.
    """
    if not len(boxes_N4):
        return np.zeros(0, np.int64)
    left = np.argsort(-scores_N, kind="stable")
    # Classes are moved apart, so that boxes of two of them have nothing in common.
    low, high = float(boxes_N4.min()), float(boxes_N4.max())
    apart_N4 = boxes_N4.astype(np.float64) + (labels_N * (high - low + 1.0))[:, None]
    apart_N4 = apart_N4[left]
    kept: list[int] = []
    while len(left) and len(kept) < most:
        kept.append(int(left[0]))
        stays = overlap(apart_N4[0], apart_N4[1:]) <= iou
        left, apart_N4 = left[1:][stays], apart_N4[1:][stays]
    return np.array(kept, np.int64)
