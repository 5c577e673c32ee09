"""What several tasks need: shares and means that are NaN where there is nothing to tell, and names of classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def share(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """`part` / `whole`, which are counts; NaN where `whole` is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean over the last dimension of those that are not NaN; NaN where all are (numpy's nanmean warns there)."""
    there = ~np.isnan(values)
    return share(np.where(there, values, 0).sum(axis=-1), there.sum(axis=-1))


def named(classes: Sequence[str], index: int) -> str:
    """The name of a class, or its number where it has none."""
    return classes[index] if index < len(classes) else str(index)
