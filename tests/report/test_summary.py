import pytest

from prunit.report import SummaryRow, numbers, summary_rows
from prunit.report.summary import latency_key
from tests.report.portfolios import dense, latency, mixed, portfolio, usual, variant


def row(name: str) -> SummaryRow:
    return next(row for row in summary_rows(usual()) if row.name == name)


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


def test_what_a_row_says_of_its_variant():
    rows = {row.name: row for row in summary_rows(mixed())}
    assert {name: [verdict.kind for verdict in row.verdicts] for name, row in rows.items()} == {
        "dense": [],
        "good": [],
        "slow": ["slower"],
        "lost": ["chance"],
        "beaten": ["beaten"],
        "busy": ["noisy"],
    }
    assert rows["beaten"].dominated_by == "good"
    assert {name: row.pace for name, row in rows.items()} == {
        "dense": None,
        "good": "faster",
        "slow": "slower",
        "lost": "faster",
        "beaten": "faster",
        "busy": "unclear",
    }
    found = rows["good"].difference
    assert found is not None
    assert (found.value, found.first, found.second, found.images) == (pytest.approx(-0.005), 15, 20, 1000)
    assert rows["good"].accuracy_change == pytest.approx(found.value)
    assert rows["dense"].difference is None


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
