"""Intervals of a task's main metric, whatever it is: the test images drawn anew, many times (Efron, 1979).

As in `paired`, the images are taken as a sample: another one would give other figures. What another seed of the
training would give is not in these intervals.
"""

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from prunit.edge.comparing.paired import LEVEL
from prunit.edge.tasks import DeviceTask, Evidence
from prunit.errors import DataError

RESAMPLES: Final = 1000
"""So many that the ends of an interval of 95 % hang on 25 resamples each."""
_AT_ONCE: Final = 4_000_000
"""Numbers in a table of resamples and images: 32 MB."""


@runtime_checkable
class Resampled(Protocol):
    """A task that knows its main metric of many resamples at once."""

    def resampled(self, evidence: Evidence, counts_RN: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The main metric of R resamples, (R,), in each of which an image counts as often as `counts_RN` says."""
        ...


def interval(
    task: DeviceTask, evidence: Evidence, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """The percentile interval of the main metric, by resamples of the images; the same for the same seed.

    Percentiles of few images would be too narrow: they are taken further out, as Student's t is wider than the normal
    distribution and the deviation of a sample smaller than the true one (Hesterberg, "What Teachers Should Know About
    the Bootstrap", The American Statistician 69, 2015: the expanded percentile interval).

    Resamples that tell nothing (NaN) are left out. None where there are fewer than two images, or all tell nothing.
    """
    images = len(evidence)
    if images < 2:
        return None
    found = [_metrics(task, evidence, counts_RN) for counts_RN in _draws(images, resamples, seed)]
    return _percentiles(np.concatenate(found), _tail(images, level))


def paired_difference(
    task: DeviceTask,
    mine: Evidence,
    theirs: Evidence,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float, float] | None:
    """The main metric of `mine` minus that of `theirs`, and the interval's ends: each resample is taken of both.

    Both are evidence of the same images in the same order; `DataError` where their numbers differ. None as in
    `interval`, and where the metric of one of both is NaN.
    """
    if len(mine) != len(theirs):
        raise DataError(
            f"evidence of {len(mine)} images beside that of {len(theirs)}: a paired difference needs the same images"
        )
    if len(mine) < 2:
        return None
    value = task.metrics(mine)[task.metric] - task.metrics(theirs)[task.metric]
    found = [
        _metrics(task, mine, counts_RN) - _metrics(task, theirs, counts_RN)
        for counts_RN in _draws(len(mine), resamples, seed)
    ]
    ends = _percentiles(np.concatenate(found), _tail(len(mine), level))
    return None if ends is None or np.isnan(value) else (value, *ends)


def _draws(images: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """How often each image is in each resample, (R, N), some resamples at a time."""
    generator = np.random.default_rng(seed)
    while resamples > 0:
        some = min(resamples, max(1, _AT_ONCE // images))
        drawn_RN = generator.integers(images, size=(some, images)) + images * np.arange(some)[:, None]
        yield np.bincount(drawn_RN.ravel(), minlength=some * images).reshape(some, images).astype(np.float64)
        resamples -= some


def _metrics(task: DeviceTask, evidence: Evidence, counts_RN: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if isinstance(task, Resampled):
        return task.resampled(evidence, counts_RN)
    index_N = np.arange(len(evidence))
    taken = (evidence[np.repeat(index_N, counts_N.astype(np.int64))] for counts_N in counts_RN)
    return np.array([task.metrics(part)[task.metric] for part in taken], np.float64)


def _tail(images: int, level: float) -> float:
    """The share of resamples below the interval."""
    normal, free = NormalDist(), images - 1
    z = normal.inv_cdf((1 + level) / 2)
    # Student's t by the normal quantile (Fisher and Cornish, 1960).
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return normal.cdf(-t * math.sqrt(images / free))


def _percentiles(values: npt.NDArray[np.float64], tail: float) -> tuple[float, float] | None:
    there = values[~np.isnan(values)]
    if not len(there):
        return None
    low, high = np.quantile(there, [tail, 1 - tail])
    return float(low), float(high)
