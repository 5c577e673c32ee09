import pytest

from prunit.report import SummaryRow, numbers, summary_rows
from prunit.report.summary import headline, latency_key, pick
from tests.report.portfolios import dense, latency, portfolio, usual, variant


def row(name: str) -> SummaryRow:
    return next(row for row in summary_rows(usual()) if row.name == name)


def sentence(*variants: object) -> str:
    found = portfolio(*variants)  # pyright: ignore[reportArgumentType]
    return headline(found, summary_rows(found))[1].replace(numbers.SPACE, " ")


def test_dense_comes_first_then_the_dearest():
    assert [row.name for row in summary_rows(usual())] == ["dense", "half", "poor", "quarter"]


def test_ratios_say_how_many_times_less_than_dense():
    assert row("quarter").times_less == {
        "params": 4,
        "macs": 4,
        "file_bytes": 4,
        "peak_memory_bytes": 4,
        latency_key(1): 4,
        latency_key(32): 5,
    }
    assert row("quarter").accuracy_change == pytest.approx(-0.02)
    assert row("dense").times_less == {}
    assert row("dense").accuracy_change is None


def test_best_marks_ties_and_is_silent_about_a_single_variant():
    rows = summary_rows(portfolio(dense(), variant("a", cost=10), variant("b", cost=10, accuracy=0.9)))
    best = {row.name: set(row.best) for row in rows}
    assert best == {"dense": {"accuracy"}, "a": {"params", "macs", "file_bytes"}, "b": {*best["a"], "accuracy"}}
    assert summary_rows(portfolio(dense()))[0].best == ()


def test_a_dominated_variant_names_the_one_that_beats_it():
    assert {row.name: row.dominated_by for row in summary_rows(usual())} == {
        "dense": None,
        "half": None,
        "poor": "half",
        "quarter": None,
    }


def test_a_faster_variant_is_not_dominated_by_a_smaller_and_better_one():
    slow = variant("slow", accuracy=0.8, cost=10, latencies=(latency(5),))
    fast = variant("fast", accuracy=0.7, cost=20, latencies=(latency(1),))
    assert [row.dominated_by for row in summary_rows(portfolio(slow, fast))] == [None, None]


def test_without_an_accuracy_nothing_is_dominated_or_compared():
    rows = summary_rows(portfolio(dense(accuracy=None), variant("a", accuracy=None, cost=10), variant("b", cost=20)))
    assert [row.dominated_by for row in rows] == [None, None, None]
    assert [row.accuracy_change for row in rows] == [None, None, None]


def test_latencies_of_other_threads_are_not_compared():
    rows = summary_rows(portfolio(dense(latencies=(latency(4, threads=2),)), variant("a", latencies=(latency(1),))))
    assert latency_key(1) not in rows[1].times_less


def test_the_whole_variant_called_dense_is_the_reference_even_if_another_keeps_all():
    rows = summary_rows(portfolio(variant("met", keep=1.0, cost=9), dense(cost=8)))
    assert [(row.name, row.is_dense) for row in rows] == [("dense", True), ("met", False)]
    assert [row.is_dense for row in summary_rows(portfolio(variant("a")))] == [False]


def test_headline_names_the_fastest_variant_near_the_dense_accuracy():
    title, said = headline(usual(), summary_rows(usual()))
    assert title == "resnet20 on cifar10: 4 variants"
    assert said.replace(numbers.SPACE, " ") == (
        "“quarter”, the fastest variant within 3 points of the dense accuracy, is 4.0× smaller on disk and 4.0× faster "
        "than the dense model at batch 1 (1 thread); accuracy 88.0 % against 90.0 %."
    )


def test_headline_admits_what_is_slower_or_not_measured():
    slow = variant("a", cost=4000, latencies=(latency(5),))
    assert sentence(dense(latencies=(latency(4),)), slow) == (
        "“a” is 2.0× smaller on disk and 1.25× slower than the dense model at batch 1 (1 thread); "
        "accuracy 50.0 % against 90.0 %."
    )
    assert sentence(dense(accuracy=None), variant("a", cost=4000, accuracy=None)) == (
        "“a” is 2.0× smaller on disk than the dense model, with 2.0× fewer macs."
    )
    assert sentence(dense()) == "Only the dense model: accuracy 90.0 %, 8.00 KB on disk."
    assert sentence(variant("a", accuracy=None)) == (
        "No dense model to compare with. “a”: accuracy not measured, 1.00 KB on disk."
    )
    assert sentence() == "The portfolio holds no variant yet."


@pytest.mark.parametrize(
    ("accuracies", "name", "why"),
    [
        ((0.6, 0.5), "first", "the most accurate pruned variant"),
        ((None, None), "second", "the smallest variant"),
        ((0.89, 0.88), "second", "the smallest variant within 3 points of the dense accuracy"),
    ],
)
def test_pick(accuracies: tuple[float | None, float | None], name: str, why: str):
    first, second = accuracies
    rows = summary_rows(
        portfolio(dense(), variant("first", accuracy=first, cost=20), variant("second", accuracy=second, cost=10))
    )
    found = pick(rows)
    assert found is not None
    assert (found[0].name, found[1]) == (name, why)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (numbers.count(271_117), "271 k"),
        (numbers.count(40_600_000), "40.6 M"),
        (numbers.count(999), "999"),
        (numbers.count(999_960), "1.00 M"),
        (numbers.count(0), "0"),
        (numbers.size(999.6), "1.00 KB"),
        (numbers.size(278_400), "278 KB"),
        (numbers.milliseconds(0.04123), "0.0412 ms"),
        (numbers.milliseconds(9.996), "10.0 ms"),
        (numbers.milliseconds(1234.5), "1,234 ms"),
        (numbers.duration(0.412), "0.41 s"),
        (numbers.duration(59.9), "1.0 min"),
        (numbers.duration(3599), "1.0 h"),
        (numbers.percent(0.8812), "88.1 %"),
        (numbers.points(-0.0288), "−2.9 points"),
        (numbers.points(0.0001), "same"),
        (numbers.times(3.64), "3.6× less"),
        (numbers.times(1 / 1.051), "1.05× more"),
        (numbers.times(1.001), "same"),
        (numbers.moment("2026-07-04T12:31:44+00:00"), "2026-07-04 12:31 UTC"),
        (numbers.moment("2026-07-04T12:31:44+02:00"), "2026-07-04 12:31 UTC+0200"),
        (numbers.moment("yesterday"), "yesterday"),
        (numbers.shortened("layer1.0.conv1", 20), "layer1.0.conv1"),
        (numbers.shortened("features.denseblock1.conv2", 11), "featu…conv2"),
    ],
)
def test_numbers(shown: str, text: str):
    assert shown.replace(numbers.SPACE, " ") == text


@pytest.mark.parametrize(
    ("accuracy", "guessing"), [(0.0, True), (0.1, True), (0.11, True), (0.12, False), (0.9, False), (None, False)]
)
def test_a_dense_model_that_guesses_among_its_ten_classes_is_said(accuracy: float | None, guessing: bool):
    for variants in ([dense(accuracy=accuracy)], [dense(accuracy=accuracy), variant("a", accuracy=0.1)]):
        assert ("no better than guessing among 10 classes" in sentence(*variants)) is guessing


def test_without_a_dense_model_nothing_is_said_about_guessing():
    assert "guessing" not in sentence(variant("a", accuracy=0.1))
