"""Mean and deviation over seeds, and the paired test behind every 'better' and 'same'."""

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

K = TypeVar("K", bound=Hashable)

MARGIN: Final = 0.5
"""Points of accuracy within which two arms count as the same."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample deviation of `n` values; the deviation of one value is not known."""

    mean: float
    sd: float
    n: int


def spread(values: Sequence[float]) -> Spread | None:
    """The spread of some values, None of none."""
    if not values:
        return None
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan, len(values))


@dataclass(frozen=True)
class Compared:
    """The mean of `n` paired differences, its 95 % interval, and the p value of a paired t test against no difference.

    All but `mean` and `n` are nan for a single pair.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int

    def verdict(self, *, p: float | None = None, margin: float = MARGIN) -> str:
        """better or worse: the interval lies on one side of 0, and `p`, corrected for other tests, is below 0.05;
        same: the interval lies within the margin; else undecided.

        'same' is a claim of its own (equivalence), not the absence of a difference: with few pairs it is undecided.
        """
        if (self.p if p is None else p) < 0.05 and (self.low > 0 or self.high < 0):
            return "better" if self.low > 0 else "worse"
        return "same" if -margin < self.low and self.high < margin else "undecided"


def compared(ours: Mapping[K, float], theirs: Mapping[K, float]) -> Compared | None:
    """Ours minus theirs over the keys that both have; None without a common one."""
    from scipy import stats

    differences = [ours[key] - theirs[key] for key in ours if key in theirs]
    n = len(differences)
    if not n:
        return None
    mean = statistics.fmean(differences)
    if n == 1:
        return Compared(mean, math.nan, math.nan, math.nan, 1)
    error = statistics.stdev(differences) / math.sqrt(n)
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    if not error:
        return Compared(mean, mean, mean, 1.0 if not mean else 0.0, n)
    return Compared(mean, mean - reach, mean + reach, 2 * float(stats.t.sf(abs(mean) / error, n - 1)), n)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values after Holm's correction for having made as many tests; nan stays nan, and counts as none."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    found, least = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[i]))
        found[i] = least
    return found
