"""Classes that a part of a data set has not a single example of: found alike in training and on a device."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prunit.edge.reading.listing import some
from prunit.edge.reading.targets import Boxes, Targets, Values

_LABEL: Final = 4
_AT_ONCE: Final = 64
"""Targets of images, of which masks are large."""


def absent(task: str, targets: npt.NDArray[Any], classes: int) -> list[int]:
    """Classes, by index, that no target shows: of class numbers (N,), labels (N, K), masks (N, H, W), boxes (N, M, 6).

    As tasks take them: `Targets.together`. A box that is not to count shows its class all the same.
    """
    if task == "multilabel":
        return np.flatnonzero(~(targets > 0).any(axis=0)).tolist()
    shown = targets[..., _LABEL] if task == "detection" else targets
    counts_K = np.zeros(classes, np.int64)
    for start in range(0, len(shown), _AT_ONCE):
        flat = shown[start : start + _AT_ONCE].astype(np.int64).ravel()
        counts_K += np.bincount(flat[(flat >= 0) & (flat < classes)], minlength=classes)
    return np.flatnonzero(counts_K == 0).tolist()


def absent_in(task: str, targets: Targets, classes: int) -> list[int]:
    """The same of targets as files hold them; masks, which would have to be opened for it, lack nothing."""
    if isinstance(targets, Boxes):
        return absent(task, np.concatenate([np.zeros((0, 6)), *targets.boxes])[None], classes)
    if isinstance(targets, Values) and (targets.several or targets.values.ndim == 1):
        return absent(task, targets.values, classes)
    return []


def told_of_absent(names: Sequence[str], use: str) -> list[str]:
    """What there is to say of such classes, nothing where there are none; `use` says what the images are for."""
    return [f"none of the images to {use} shows {some(names)}"] if names else []
