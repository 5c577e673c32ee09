"""Which of two variants is better, beyond what was measured by chance."""

import pytest

from prunit.edge.comparing.compare import beaten, better_in, dense_of, guessed, is_noisy, pace
from prunit.edge.portfolio import Variant
from tests.report.portfolios import answers, dense, latency, portfolio, variant


def beaten_by(*variants: Variant) -> dict[str, str]:
    return {name: other.name for name, other in beaten(portfolio(*variants)).items()}


@pytest.mark.parametrize(
    ("mine", "theirs", "found"),
    [
        (latency(1), latency(2), "faster"),
        (latency(2), latency(1), "slower"),
        (latency(1, p90=1.01), latency(1.04, p90=1.01), "same"),  # less than 5 % apart
        (latency(1, p90=1.01), latency(1.06, p90=1.01), "faster"),
        # With 4 answers each a tenth may be noise: the error of both medians is 0.98 × 0.4 / 2 × √2, twice that 0.55.
        (latency(1, p90=1.4, n=4), latency(1.5, p90=1.4, n=4), "same"),
        (latency(1, p90=1.4, n=4), latency(2.0, p90=1.4, n=4), "faster"),
        (latency(1, p90=1.6), latency(2), "unclear"),
        (latency(1), latency(2, p90=1.6), "unclear"),
        (latency(1, threads=2), latency(2), None),
        (latency(1, batch=8), latency(2), None),
        (None, latency(2), None),
        (latency(2), None, None),
    ],
)
def test_medians_are_compared_beyond_their_noise(mine: object, theirs: object, found: str | None) -> None:
    assert pace(mine, theirs) == found  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("p90", "noisy"), [(1.0, False), (1.5, False), (1.51, True), (9.0, True)])
def test_a_latency_is_noisy_from_one_and_a_half_on(p90: float, noisy: bool) -> None:
    assert is_noisy(latency(2, p90=p90)) is noisy


def test_a_latency_of_nothing_is_compared_without_a_fault() -> None:
    assert not is_noisy(latency(0))
    assert pace(latency(0), latency(0)) == "same"
    assert pace(latency(0), latency(1)) == "faster"


def test_dense_is_what_is_called_so_or_keeps_all() -> None:
    whole, named = variant("whole", keep=1.0), dense()
    for variants, found in (((whole, named), named), ((whole,), whole), ((variant("a"),), None), ((), None)):
        assert dense_of(portfolio(*variants)) is found


@pytest.mark.parametrize(
    ("right", "commonest", "guesses"),
    [
        (100, 100, True),
        (90, 100, True),
        (109, 100, True),  # less than a tenth more
        (115, 100, True),  # 15 more of 1000 happen by luck in 6 of 100 cases
        (118, 100, False),  # 18 more in 3 of 100
        (900, 900, True),
        (909, 900, True),  # a tenth of what is missing is 1 point
        (930, 900, False),
        (500, 500, True),
        (1000, 1000, True),  # all of one class: nothing is told
    ],
)
def test_guessing_is_naming_the_commonest_class(right: int, commonest: int, guesses: bool) -> None:
    share = guessed(variant("a", answers=answers((0, right), commonest=commonest)), 10)
    assert share == (commonest / 1000 if guesses else None)


@pytest.mark.parametrize(
    ("accuracy", "classes", "share"),
    [(0.11, 10, 0.1), (0.12, 10, None), (0.5, 2, 0.5), (0.56, 2, None), (0.0, 1, None), (None, 10, None)],
)
def test_without_answers_guessing_is_one_of_the_classes(
    accuracy: float | None, classes: int, share: float | None
) -> None:
    assert guessed(variant("a", accuracy=accuracy), classes) == share


def test_better_in_what() -> None:
    small = variant("a", cost=100, accuracy=0.6, latencies=(latency(1), latency(9, batch=32)))
    large = variant("b", cost=200, accuracy=0.7, latencies=(latency(2), latency(8, batch=32)))
    figures = ["params", "macs", "file size", "peak memory", "latency at batch 1"]
    assert better_in(small, large, surely=True) == figures
    assert better_in(large, small, surely=True) == ["accuracy", "latency at batch 32"]


def test_a_hundredth_of_size_and_a_tenth_of_memory_make_no_one_better() -> None:
    one, other = variant("a", cost=1000, latencies=(latency(1),)), variant("b", cost=1008, latencies=(latency(1),))
    assert better_in(one, other, surely=False) == []
    third = variant("c", cost=1050, latencies=(latency(1),))
    assert better_in(one, third, surely=False) == ["params", "macs", "file size"]


def test_an_accuracy_within_the_interval_is_better_only_if_it_may_be_by_more_than_a_point() -> None:
    """30 of 1000 images more: measurable. 6 more of 40 that differ: perhaps a point and more. 1 more of 9: not so."""
    theirs = variant("b", answers=answers((0, 900)))
    clearly = variant("a", answers=answers((20, 950)))
    perhaps = variant("a", answers=answers((17, 923)))
    hardly = variant("a", answers=answers((4, 905)))
    for mine, sure, doubt in ((clearly, True, True), (perhaps, False, True), (hardly, False, False)):
        assert ("accuracy" in better_in(mine, theirs, surely=True)) is sure
        assert ("accuracy" in better_in(mine, theirs, surely=False)) is doubt
        assert "accuracy" not in better_in(theirs, mine, surely=False)


def test_a_noisy_median_is_better_only_perhaps() -> None:
    busy, calm = variant("a", latencies=(latency(1, p90=3),)), variant("b", latencies=(latency(2),))
    assert better_in(busy, calm, surely=True) == []
    assert better_in(busy, calm, surely=False) == ["latency at batch 1"]
    assert better_in(calm, busy, surely=False) == []


def test_beaten_is_what_is_better_in_nothing() -> None:
    good = variant("good", cost=100, accuracy=0.8, latencies=(latency(1),))
    poor = variant("poor", cost=110, accuracy=0.7, latencies=(latency(1),))
    fast = variant("fast", cost=110, accuracy=0.7, latencies=(latency(0.5),))
    assert beaten_by(good, poor) == {"poor": "good"}
    assert beaten_by(good, fast) == {}


def test_the_most_accurate_of_several_is_named_and_it_is_not_beaten_itself() -> None:
    told = (("a", 1, 0.9), ("b", 2, 0.8), ("c", 3, 0.7))
    first, second, third = (variant(name, cost=cost, accuracy=accuracy) for name, cost, accuracy in told)
    assert beaten_by(third, second, first) == {"b": "a", "c": "a"}


def test_of_two_alike_the_later_one_is_beaten() -> None:
    one, other = variant("params-1-4", cost=9), variant("params-25-percent", cost=9)
    assert beaten_by(one, other) == {"params-25-percent": "params-1-4"}


def test_the_dense_model_is_never_beaten_but_may_beat() -> None:
    better = variant("a", cost=10, accuracy=0.95)
    assert beaten_by(dense(), better) == {}
    assert beaten_by(dense(), variant("b", cost=9000, accuracy=0.5)) == {"b": "dense"}


def test_without_an_accuracy_no_one_is_beaten() -> None:
    assert beaten_by(variant("a", cost=10), variant("b", cost=20, accuracy=None)) == {}


def test_not_all_can_be_beaten() -> None:
    """Tolerances are not transitive: in a ring each may be 6 % worse than the next one here, and 3 % better there."""
    times = ((1.00, 1.00, 1.00), (1.06, 0.97, 0.97), (1.03, 1.03, 0.94))
    ring = [
        variant(f"v{i}", latencies=[latency(ms, batch=n, p90=1.001) for n, ms in zip((1, 8, 32), each, strict=True)])
        for i, each in enumerate(times)
    ]
    for one, other in ((0, 1), (1, 2), (2, 0)):
        assert list(beaten_by(ring[one], ring[other])) == [ring[other].name]
    assert len(beaten_by(*ring)) < len(ring)
