"""Intervals and tests of paired answers, against published examples, against scipy's kind of sums, and a bootstrap."""

import math

import numpy as np
import pytest

from prunit.edge.answers import Pairs
from prunit.edge.comparing.paired import difference, mcnemar, tail, wilson


@pytest.mark.parametrize(
    ("counts", "value", "low", "high", "p"),
    [
        # Fagerland, Lydersen, Laake, "Recommended tests and confidence intervals for paired binomial proportions",
        # Statistics in Medicine 33 (2014): airway hyper-responsiveness before and after a transplantation.
        (Pairs(1, 1, 7, 12), -0.286, -0.507, -0.026, 0.070),
        # Fagerland, Lydersen, Laake, "Statistical Analysis of Contingency Tables" (2017), chapter 8, as their package
        # contingencytables has it: complete response before and after a therapy.
        (Pairs(59, 6, 16, 80), -0.0621, -0.1186, -0.0046, 0.0525),
    ],
)
def test_published_examples(counts: Pairs, value: float, low: float, high: float, p: float) -> None:
    found = difference(counts)
    digits = 5e-4 if counts.images < 100 else 5e-5
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=digits)
    assert found.p == pytest.approx(p, abs=5e-4)
    # The interval leaves out 0, but so few answers differ that the exact test is asked, which does not agree.
    assert not found.measurable


@pytest.mark.parametrize("counts", [(8500, 500, 700, 300), (300, 40, 20, 40), (9000, 10, 60, 930)])
def test_the_interval_is_that_of_a_bootstrap(counts: tuple[int, int, int, int]) -> None:
    n = sum(counts)
    drawn = np.random.default_rng(0).multinomial(n, np.array(counts) / n, size=40_000)
    low, high = np.percentile((drawn[:, 1] - drawn[:, 2]) / n, [2.5, 97.5])
    found = difference(Pairs(*counts))
    width = high - low
    assert found.low == pytest.approx(low, abs=0.08 * width)
    assert found.high == pytest.approx(high, abs=0.08 * width)


def test_the_interval_covers_what_is_true_as_often_as_it_says() -> None:
    shares, n = (0.80, 0.06, 0.04, 0.10), 1000
    drawn = np.random.default_rng(1).multinomial(n, shares, size=4000)
    found = [difference(Pairs(*(int(k) for k in row))) for row in drawn]
    covered = sum(each.low <= 0.02 <= each.high for each in found) / len(found)
    assert 0.935 < covered < 0.975


def test_either_way_round_it_is_the_same_difference() -> None:
    one, other = difference(Pairs(70, 9, 4, 17)), difference(Pairs(70, 4, 9, 17))
    assert (one.value, one.low, one.high, one.p) == pytest.approx((-other.value, -other.high, -other.low, other.p))


def test_equal_answers_are_no_proof_of_equal_accuracy() -> None:
    found = difference(Pairs(90, 0, 0, 10))
    assert (found.value, found.p, found.measurable) == (0, 1, False)
    assert found.low < 0 < found.high
    all_right = difference(Pairs(100, 0, 0, 0))
    assert all_right.low == pytest.approx(-0.037, abs=0.001)


@pytest.mark.parametrize("counts", [(0, 1, 0, 0), (0, 0, 1, 0), (1, 0, 0, 0), (0, 0, 0, 1), (0, 50, 0, 0)])
def test_extremes_stay_within_bounds(counts: tuple[int, int, int, int]) -> None:
    found = difference(Pairs(*counts))
    assert -1 <= found.low <= found.value <= found.high <= 1


def test_what_differs_clearly_is_measurable() -> None:
    assert difference(Pairs(8600, 300, 500, 600)).measurable
    assert difference(Pairs(80, 12, 0, 8)).measurable  # few, but all of them one way: p = 0.0005
    assert not difference(Pairs(8600, 400, 420, 580)).measurable


def test_wilson_by_its_definition() -> None:
    """Both bounds are the shares at which what was found lies 1.96 standard errors away."""
    for successes, n in ((81, 263), (15, 148), (0, 20), (1, 29), (29, 29)):
        for bound in wilson(successes, n):
            if 0 < bound < 1:
                assert abs(successes / n - bound) == pytest.approx(1.96 * math.sqrt(bound * (1 - bound) / n), rel=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, "Two-sided …", table I


@pytest.mark.parametrize(("first", "second", "p"), [(0, 0, 1.0), (1, 0, 1.0), (6, 0, 2 / 64), (1, 5, 14 / 64)])
def test_mcnemar_by_hand(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p)


@pytest.mark.parametrize(
    ("successes", "n", "share"), [(0, 5, 0.2), (5, 5, 0.2), (3, 7, 0.25), (40, 360, 0.1), (1100, 10_000, 0.1)]
)
def test_tail_is_the_sum_of_its_terms(successes: int, n: int, share: float) -> None:
    from fractions import Fraction

    hit = Fraction(share).limit_denominator(1000)
    exact = sum(math.comb(n, k) * hit**k * (1 - hit) ** (n - k) for k in range(successes, min(n, successes + 400) + 1))
    assert tail(successes, n, share) == pytest.approx(float(exact), rel=1e-9)


def test_tails_at_the_ends() -> None:
    assert tail(3, 10, 0.0) == 0
    assert tail(3, 10, 1.0) == 1
    assert tail(11, 10, 0.5) == 0
