"""How variants of a portfolio compare, beyond the noise of what was measured. Pure functions of a manifest."""

import math
from collections.abc import Callable, Mapping
from typing import Final, Literal, Protocol

from prunit.edge.answers import Answers, pairs
from prunit.edge.comparing.paired import LEVEL, Difference, difference, tail
from prunit.edge.portfolio import Latency, Metrics, Portfolio, Variant

NOISY: Final = 1.5
"""From more than this between p90 and p50 on, a latency is not trusted; 94 of 100 in bench/results lie below."""
PACE: Final = 1.05
"""Medians nearer than this factor count as equal: as far apart are two measurements of one file."""
SIZE: Final = 1.01
"""Counts and file sizes nearer than this factor count as equal."""
MEMORY: Final = 1.1
"""Peak memory of a process nearer than this factor counts as equal."""
POINT: Final = 0.01
"""An accuracy that is higher, but not measurably so, counts as better if it may be so by more than this share."""
HARDLY: Final = 0.1
"""An accuracy over that of guessing by less than this part of it (or of what is missing to 1) is no better."""

Pace = Literal["faster", "slower", "same", "unclear"]


def dense_of(portfolio: Portfolio) -> Variant | None:
    """The variant to compare with: the one called dense, else the first that keeps every channel."""
    whole = [variant for variant in portfolio.variants if variant.keep == 1]
    return next((variant for variant in whole if variant.name == "dense"), whole[0] if whole else None)


def against(variant: Variant, other: Variant) -> Difference | None:
    """The variant's accuracy minus the other's with its interval; None if they did not answer the same images.

    For another task than classification that is its main metric, and only differences to the dense variant are known.
    """
    found = pairs(variant.metrics.answers, other.metrics.answers)
    if found:
        return difference(found)
    mine, theirs = variant.metrics.against, other.metrics.against
    if mine and mine.of == other.name:
        return Difference(mine.difference, mine.low, mine.high)
    if theirs and theirs.of == variant.name:
        return Difference(-theirs.difference, -theirs.high, -theirs.low)
    return None


class Spread(Protocol):
    """What was timed: the median and how far most of the times go."""

    @property
    def p50_ms(self) -> float: ...

    @property
    def p90_ms(self) -> float: ...


def is_noisy(latency: Spread) -> bool:
    """Whether the machine did so much else meanwhile that the figures are not to be trusted."""
    return 0 < NOISY * latency.p50_ms < latency.p90_ms


def pace(mine: Latency | None, theirs: Latency | None) -> Pace | None:
    """Whether the first of two medians is less than the second, by more than `PACE` and than their noise.

    None where they are not to be compared: one is missing, or batch size or threads differ.
    """
    if mine is None or theirs is None or (mine.batch, mine.threads) != (theirs.batch, theirs.threads):
        return None
    if is_noisy(mine) or is_noisy(theirs):
        return "unclear"
    return _pace(mine, theirs, PACE)


def is_slower(mine: Latency | None, theirs: Latency | None) -> bool:
    """Whether the first of two medians is more than the second beyond doubt.

    A warning may rest on a noisy machine where praise may not: if both are further apart than noise begins.
    """
    found = pace(mine, theirs)
    if found == "unclear" and mine and theirs:
        found = _pace(mine, theirs, NOISY)
    return found == "slower"


def _pace(mine: Latency, theirs: Latency, least: float) -> Pace:
    less, more = sorted((mine.p50_ms, theirs.p50_ms))
    if more < least * less or more - less <= 2 * math.hypot(_error_ms(mine), _error_ms(theirs)):
        return "same"
    return "faster" if mine.p50_ms < theirs.p50_ms else "slower"


def guessed(variant: Variant, classes: int) -> float | None:
    """The share of the test images that guessing gets right, if the variant is no better than that; else None.

    That is naming the commonest class of the test images every time; in manifests without answers, one of the classes.
    """
    answers, accuracy = variant.metrics.answers, variant.metrics.accuracy
    if answers is None:
        share = 1 / max(classes, 1)
        return share if classes > 1 and accuracy is not None and is_hardly(accuracy, share) else None
    return by_luck(answers)


def by_luck(answers: Answers) -> float | None:
    """The share of the images that naming their commonest class gets right, if the answers are no better; else None."""
    share, right = answers.commonest / answers.images, round(answers.accuracy * answers.images)
    no_better = is_hardly(answers.accuracy, share) or tail(right, answers.images, share) > 1 - LEVEL
    return share if no_better else None


def is_hardly(accuracy: float, share: float) -> bool:
    """Whether an accuracy is over that of guessing by so little that it does not matter, or not at all."""
    # Told apart by a rounding error, 0.11 would be more than 1.1 times 0.1.
    return accuracy <= share + HARDLY * min(share, 1 - share) + 1e-12


def _error_ms(latency: Latency) -> float:
    """The standard error of the median, from what the percentiles say of the spread.

    That of a normal distribution is 1.253 σ/√n, and its p90 lies 1.282 σ above the median.
    """
    return 0.98 * (latency.p90_ms - latency.p50_ms) / math.sqrt(latency.n)


_EXACT: Final[Mapping[str, tuple[Callable[[Metrics], int | None], float]]] = {
    "params": (lambda metrics: metrics.params, SIZE),
    "macs": (lambda metrics: metrics.macs, SIZE),
    "file size": (lambda metrics: metrics.file_bytes, SIZE),
    "activations": (lambda metrics: metrics.activation_bytes, SIZE),
    "peak memory": (lambda metrics: metrics.peak_memory_bytes, MEMORY),
}


def better_in(mine: Variant, theirs: Variant, *, surely: bool) -> list[str]:
    """In which figures the first variant is better; unless `surely`, also those in which it may well be.

    An accuracy may be better by more than `POINT` at the upper end of the interval; a median may be less though the
    machine was noisy.
    """
    found: list[str] = []
    if _more_accurate(mine, theirs, surely=surely):
        found.append("accuracy")
    for name, (of, factor) in _EXACT.items():
        one, other = of(mine.metrics), of(theirs.metrics)
        if one is not None and other is not None and one * factor < other:
            found.append(name)
    for latency in mine.metrics.latencies:
        other = theirs.metrics.latency(batch=latency.batch)
        compared = pace(latency, other)
        unclear = compared == "unclear" and not surely and other is not None and latency.p50_ms < other.p50_ms
        if compared == "faster" or unclear:
            found.append(f"latency at batch {latency.batch}")
    return found


def _more_accurate(mine: Variant, theirs: Variant, *, surely: bool) -> bool:
    one, other = mine.metrics.accuracy, theirs.metrics.accuracy
    if one is None or other is None or one <= other:
        return False
    found = against(mine, theirs)
    return found is None or found.measurable or (not surely and found.high > POINT)


def beaten(portfolio: Portfolio) -> dict[str, Variant]:
    """For each variant that is not better than another one in anything, that one; never the dense one.

    Of several the most accurate, none that is beaten itself. Of two that are alike, the later one is beaten. Where an
    accuracy is missing nothing is known.
    """
    dense = dense_of(portfolio)
    left = [variant for variant in portfolio.variants if variant.metrics.accuracy is not None]
    places = {variant.name: i for i, variant in enumerate(left)}
    found: dict[str, Variant] = {}
    for variant in reversed(left):
        if variant is dense:
            continue
        others = [
            other
            for other in left
            if other is not variant
            and not better_in(variant, other, surely=False)
            and (better_in(other, variant, surely=True) or places[other.name] < places[variant.name])
        ]
        if others:
            found[variant.name] = max(others, key=lambda v: (v.metrics.accuracy or 0, -v.metrics.file_bytes))
            left = [other for other in left if other is not variant]
    return found
