"""R² is a number wherever it is shown, never a share in percent; and few images are called too few."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from prunit.cli import show
from prunit.cli.watching import _variants
from prunit.edge.comparing.paired import Difference
from prunit.edge.comparing.verdicts import interval, not_measurable
from prunit.edge.portfolio import Comparison, Portfolio, TaskRecord, Variant
from prunit.report import numbers
from prunit.report.accuracy import AXES, accuracy_plot
from prunit.report.charts import curves, training_figures
from prunit.report.headline import headline
from prunit.report.page import write_report
from prunit.report.summary import summary_rows
from prunit.report.trials import trials_figure, trials_table
from prunit.shown import metric_amount, metric_change, metric_value
from tests.report.portfolios import HISTORY, answers, dense, portfolio, variant

TRIAL = {"variant": "a", "budget": "x", "recipe": "uniform", "out": "", "cost": {"params": 9, "macs": 9}}


def measured(one: Variant, r2: float, against: Comparison | None = None) -> Variant:
    metrics = one.metrics.model_copy(update={"accuracy": r2, "scores": {"r2": r2, "mae": 2.5}, "against": against})
    return one.model_copy(update={"metrics": metrics})


def estimating(difference: float = -0.04, low: float = -0.06, high: float = -0.02) -> Portfolio:
    against = Comparison(of="dense", difference=difference, low=low, high=high)
    found = portfolio(measured(dense(), 0.9134), measured(variant("half", cost=4000), 0.8732, against))
    return found.model_copy(update={"task": TaskRecord(name="regression", metric="r2"), "classes": ("age",)})


def test_words_of_a_metric() -> None:
    assert (metric_value("r2", 0.8732), metric_value("accuracy", 0.8732)) == ("0.873", "87.3 %")
    assert (metric_change("r2", -0.0402), metric_change("mIoU", -0.0402)) == ("−0.040", "−4.0")
    assert (metric_amount("r2", 0.0402), metric_amount("mAP", 0.0402)) == ("0.040", "4.0 points")
    assert (numbers.gain("r2", -0.0402), numbers.gain("r2", 0.0)) == ("−0.0402", "same")


def test_a_headline_and_its_difference() -> None:
    found = estimating()
    said = headline(found, summary_rows(found))[1].replace(numbers.SPACE, " ")
    assert "r2 0.873 against 0.913: −0.0400 (95 % interval −0.060 to −0.020)" in said
    assert "%" not in said.replace("95 % interval", "")


def test_a_page_without_a_percent_of_r2(tmp_path: Path) -> None:
    trials = [{**TRIAL, "accuracies": [(3, 0.875)]}]
    page = write_report(estimating(), tmp_path, histories={"half": HISTORY}, trials=trials).read_text("utf-8")
    page = page.replace(numbers.SPACE, " ")
    for wrong in ("87.3 %", "91.3 %", "4.0 points", "62.5 %", "87.5 %"):
        assert wrong not in page, wrong
    for right in (">0.873<", "0.913", "−0.0400", "−0.0600 to −0.0200", "Held-out r2", "0.875"):
        assert right in page, right


def test_figures_are_drawn_as_numbers() -> None:
    found = estimating()
    plot = accuracy_plot(found, summary_rows(found), AXES[0])
    assert plot is not None
    assert sorted(plot["data"][-1]["y"]) == [0.8732, 0.9134]
    assert all("%" not in tick for tick in plot["layout"]["yaxis"]["ticktext"])
    assert len(set(plot["layout"]["yaxis"]["ticktext"])) > 1
    trained = training_figures(curves(summary_rows(found), {"half": HISTORY}), "r2")
    curve = trained["R2 by epoch"]
    assert curve["data"][0]["y"] == [0.375, 0.625]
    assert curve["layout"]["yaxis"]["ticksuffix"] == ""
    dots = trials_figure([{**TRIAL, "accuracies": [(3, 0.875)]}], "r2")
    assert dots is not None
    assert "r2 0.875 on held-out images after 3 epochs" in dots["data"][0]["hovertext"][0]
    assert "0.875" in trials_table([{**TRIAL, "accuracies": [(3, 0.875)]}], "r2")


def test_watched_images_have_their_name_in_the_curves() -> None:
    found, watched = estimating(), [replace(epoch, watched=True) for epoch in HISTORY]
    (line, *_) = training_figures(curves(summary_rows(found), {"half": watched}), "r2")["R2 by epoch"]["data"]
    assert "epoch 1: validation 0.375" in line["hovertext"][0]


def test_terminals_and_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, screen = estimating(), StringIO()
    monkeypatch.setattr(show, "console", lambda: Console(file=screen, width=160))
    show.portfolio(found, tmp_path, built=False)
    assert "0.873" in screen.getvalue()
    assert "-0.040" in screen.getvalue()
    assert "pts" not in screen.getvalue()
    assert "87.3" not in screen.getvalue()
    for text in (repr(found), repr(found.variants[1])):
        assert "0.873" in text
        assert "87.3" not in text


def test_prunit_top() -> None:
    one = {"name": "a", "accuracy": 0.8732, "latency_ms": 1.0, "state": "active", "file_bytes": 1000}
    for metric, said in (("r2", "0.8732"), ("accuracy", "87.32%")):
        screen = StringIO()
        Console(file=screen, width=120).print(_variants(json.loads(json.dumps({"metric": metric, "variants": [one]}))))
        assert said in screen.getvalue()


@pytest.mark.parametrize(
    ("low", "high", "metric", "said"),
    [
        (-0.02, 0.03, "accuracy", "no measurable difference"),
        (-0.075, 0.111, "accuracy", "too few images to tell, differences below 9.3 points are not seen"),
        (-0.06, 0.04, "r2", "too few images to tell, differences below 0.050 are not seen"),
    ],
)
def test_how_large_a_difference_may_be_missed(low: float, high: float, metric: str, said: str) -> None:
    assert not_measurable(Difference(0.0, low, high), metric) == said


def test_of_twenty_images_no_difference_is_denied() -> None:
    few = answers((0, 18), images=20, commonest=5)
    fewer = answers((1, 18), images=20, commonest=5)
    found = portfolio(dense(answers=few), variant("half", cost=4000, answers=fewer))
    said = headline(found, summary_rows(found))[1].replace(numbers.SPACE, " ")
    difference = summary_rows(found)[1].difference
    assert difference is not None
    least = 50 * (difference.high - difference.low)
    assert least > 10
    assert f"too few images to tell, differences below {least:.1f} points are not seen (95 % interval" in said
    assert interval(difference) in said
    assert "no measurable difference" not in said
