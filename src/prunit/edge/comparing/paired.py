"""What test images tell about two accuracies, or about one and guessing. Pure functions of counts.

The images are taken as a sample: another one would give other accuracies. What another seed of the training would
give is not in these figures.
"""

import math
from dataclasses import dataclass
from typing import Final

from prunit.edge.answers import Pairs

LEVEL: Final = 0.95
"""Of every interval, and one minus it the error of every test."""
_Z: Final = 1.959963984540054
"""The standard normal quantile of an interval of that level."""
FEW: Final = 25
"""Below so many images that only one of two variants has right, the exact test has to agree with the interval."""

_NOTHING: Final = 1e-17


@dataclass(frozen=True)
class Difference:
    """The first variant's accuracy minus the second one's, as a share of the images, with its interval.

    `p` is the exact p-value of McNemar's test, `first` and `second` how many images only one of both has right. Where
    images are not just right or wrong, the interval is a bootstrap's and there is no such test.
    """

    value: float
    low: float
    high: float
    p: float | None = None
    images: int = 0
    first: int = 0
    second: int = 0

    @property
    def differing(self) -> int:
        """How many images only one of both has right."""
        return self.first + self.second

    @property
    def measurable(self) -> bool:
        """Whether 0 is outside of the interval, and, where few images differ, the exact test says so too."""
        if self.low <= 0 <= self.high:
            return False
        return self.p is None or self.differing >= FEW or self.p <= 1 - LEVEL


def difference(found: Pairs) -> Difference:
    """The paired difference with Newcombe's interval.

    Method 10 of R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", Statistics in Medicine 17 (1998): the two Wilson intervals, put together by the correlation of the
    answers, which is corrected for continuity.
    """
    n = found.images
    one, two = found.both + found.first, found.both + found.second
    (low1, high1), (low2, high2) = wilson(one, n), wilson(two, n)
    down1, up1, down2, up2 = one / n - low1, high1 - one / n, two / n - low2, high2 - two / n
    phi = _correlation(found)
    value = (found.first - found.second) / n
    low = value - math.sqrt(max(down1**2 - 2 * phi * down1 * up2 + up2**2, 0))
    high = value + math.sqrt(max(up1**2 - 2 * phi * up1 * down2 + down2**2, 0))
    p = mcnemar(found.first, found.second)
    return Difference(value, max(low, -1.0), min(high, 1.0), p, n, found.first, found.second)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The interval of a share (E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22, 1927)."""
    share, z2 = successes / n, _Z**2
    middle = share + z2 / (2 * n)
    reach = _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max((middle - reach) / (1 + z2 / n), 0.0), min((middle + reach) / (1 + z2 / n), 1.0)


def mcnemar(first: int, second: int) -> float:
    """The exact two-sided p-value that as many images would differ either way (Q. McNemar, Psychometrika 12, 1947)."""
    if not first + second:
        return 1.0
    return min(1.0, 2 * tail(max(first, second), first + second, 0.5))


def tail(successes: int, n: int, share: float) -> float:
    """The probability of at least so many successes of `n`, each with probability `share`."""
    if successes <= 0:
        return 1.0
    if share <= 0 or successes > n:
        return 0.0
    if share >= 1:
        return 1.0
    # Term by term in logarithms: the numbers themselves are too small from a thousand images on.
    whole, hit, miss = math.lgamma(n + 1), math.log(share), math.log1p(-share)
    total = 0.0
    for k in range(successes, n + 1):
        term = math.exp(whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * hit + (n - k) * miss)
        total += term
        if k > n * share and term < _NOTHING * total:
            break  # from the mode on they become ever less
    return min(1.0, total)


def _correlation(found: Pairs) -> float:
    """Of the answers of both, 0 where one has all right or all wrong."""
    n, one, two = found.images, found.both + found.first, found.both + found.second
    product = one * (n - one) * two * (n - two)
    if not product:
        return 0.0
    cross = found.both * found.neither - found.first * found.second
    corrected = max(cross - n / 2, 0.0) if cross > 0 else cross
    return corrected / math.sqrt(product)
