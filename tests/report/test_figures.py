import math
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pytest

from prunit.edge.portfolio import Portfolio
from prunit.report import summary_rows
from prunit.report.accuracy import AXES, Figure, accuracy_plot, linear_ticks, log_ticks
from prunit.report.charts import curves, training_figures, width_figures, widths_note
from tests.report.portfolios import HISTORY, dense, latency, portfolio, usual, variant

SIZE, MACS, LATENCY, TRAINING = AXES


def plot(found: Portfolio, axis: Any = SIZE) -> Figure:
    figure = accuracy_plot(found, summary_rows(found), axis)
    assert figure is not None
    return figure


def with_colours(value: Any) -> Any:
    """The figure with a real colour for every name of one, as the page puts it in."""
    if isinstance(value, dict):
        return {key: with_colours(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_colours(item) for item in value]
    return "#123456" if isinstance(value, str) and value.startswith("--") else value


def all_figures(found: Portfolio) -> list[Figure]:
    rows = summary_rows(found)
    histories = {variant.name: HISTORY for variant in found.variants}
    plots = [accuracy_plot(found, rows, axis) for axis in AXES]
    trainings = training_figures(curves(rows, histories))
    return [*filter(None, plots), *width_figures(found, rows), *trainings.values()]


@pytest.mark.parametrize("found", [usual(), portfolio(dense()), portfolio(dense(accuracy=None))])
def test_plotly_knows_every_key_and_value_of_the_figures(found: Portfolio):
    for figure in all_figures(found):
        for data in [figure["data"], *figure.get("choices", [])]:
            go.Figure(data=with_colours(data), layout=with_colours(figure["layout"]))


def test_points_stand_at_their_cost_and_accuracy_with_the_front_between_them():
    line, markers = plot(usual())["data"]
    assert list(zip(markers["x"], markers["y"], strict=True)) == [(2000, 88), (4000, 89), (4000, 70), (8000, 90)]
    assert (line["x"], line["y"]) == ([2000, 4000, 8000], [88, 89, 90])
    assert markers["marker"]["color"] == ["--accent", "--accent", "--page", "--accent"]
    assert markers["marker"]["symbol"] == ["circle", "circle", "circle", "diamond"]


def test_hovering_a_point_shows_all_its_figures():
    text = plot(usual())["data"][-1]["hovertext"][0].replace("\N{NO-BREAK SPACE}", " ")
    assert text.split("<br>") == [
        "<b>quarter</b>",
        "accuracy 88.0 % (−2.0 points)",
        "params 2.00 k (4.0× less)",
        "macs 2.00 M (4.0× less)",
        "file size 2.00 KB (4.0× less)",
        "batch 1, 1 thread:",
        "p50 1.00 ms (4.0× less)",
        "p90 1.50 ms, p99 2.00 ms",
        "batch 32, 1 thread:",
        "p50 20.0 ms (5.0× less)",
        "p90 30.0 ms, p99 40.0 ms",
        "memory 2.00 KB (4.0× less)",
    ]


def test_latency_bars_reach_from_the_median_to_p90_and_p99():
    _, to_p90, markers = plot(usual(), LATENCY)["data"]
    assert markers["x"] == to_p90["x"] == [1, 2, 3, 4]
    assert to_p90["error_x"]["array"] == [0.5, 1, 1.5, 2]
    assert markers["error_x"]["array"] == [1, 2, 3, 4]
    assert markers["error_x"]["arrayminus"] == [0, 0, 0, 0]


@pytest.mark.parametrize("axis", AXES)
def test_every_point_and_bar_lies_inside_the_axes(axis: Any):
    figure = plot(usual(), axis)
    x_axis, y_axis = figure["layout"]["xaxis"], figure["layout"]["yaxis"]
    scale = math.log10 if x_axis["type"] == "log" else float
    low, high = x_axis["range"]
    assert all(low < scale(x) < high for x in [*figure["data"][-1]["x"], *figure["labels"]["reach"]])
    assert all(y_axis["range"][0] < y < y_axis["range"][1] for y in figure["data"][-1]["y"])
    assert all(low <= scale(x) <= high for x in x_axis["tickvals"])
    assert len(x_axis["tickvals"]) >= 2


def test_the_axis_is_logarithmic_from_a_factor_of_three_on():
    def kind(cost: int) -> str:
        return plot(portfolio(dense(cost=3000), variant("a", cost=cost)))["layout"]["xaxis"]["type"]

    assert (kind(1000), kind(1001), kind(1)) == ("log", "linear", "log")


def test_variants_without_a_figure_are_left_out_of_that_plot():
    found = portfolio(dense(latencies=(latency(4),)), variant("a"), variant("b", accuracy=None))
    assert len(plot(found)["data"][-1]["x"]) == 2
    assert len(plot(found, LATENCY)["data"][-1]["x"]) == 1
    assert accuracy_plot(portfolio(dense()), summary_rows(portfolio(dense())), LATENCY) is None


def test_in_a_crowd_only_the_front_is_named():
    crowd = [variant(f"v{i}", accuracy=0.5 - i / 100, cost=1000 + i) for i in range(20)]
    figure = plot(portfolio(dense(), *crowd))
    named = [figure["labels"]["names"][i] for i in figure["labels"]["order"]]
    assert named == ["dense", "v0"]


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(86.9, 92.1, [87, 88, 89, 90, 91, 92]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1])]
)
def test_linear_ticks(low: float, high: float, ticks: list[float]):
    assert linear_ticks(low, high, most=6) == ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (250, 1200, [300, 500, 700, 1000]),
        (40, 2500, [100, 300, 1000]),
        (1, 1e12, [1, 1e3, 1e6, 1e9, 1e12]),
    ],
)
def test_log_ticks(low: float, high: float, ticks: list[float]):
    assert log_ticks(low, high) == ticks


def test_width_bars_show_dense_and_kept_for_each_choice_in_network_order():
    (figure,) = width_figures(usual(), summary_rows(usual()))
    assert figure["layout"]["yaxis"]["ticktext"] == ["stem.conv", "layer1.conv"]
    outline, kept = figure["choices"][3]
    assert (outline["x"], kept["x"]) == ([16, 32], [8, 9])
    assert outline["text"] == ["16 → 8", "32 → 9"]
    assert "32 → 9 channels (28.1\N{NO-BREAK SPACE}% kept)" in outline["hovertext"][1]
    assert figure["choices"][0][1]["x"] == [16, 32]


def test_many_groups_fill_two_columns_and_keep_their_order():
    names = [f"layer{i}" for i in range(61)]
    found = portfolio(variant("a", widths={name: (8, 4) for name in names}))
    left, right = width_figures(found, summary_rows(found))
    shown = left["layout"]["yaxis"]["ticktext"] + right["layout"]["yaxis"]["ticktext"]
    assert shown == names
    assert abs(len(left["data"][0]["x"]) - len(right["data"][0]["x"])) <= 1
    assert left["layout"]["xaxis"] == right["layout"]["xaxis"]


def test_a_variant_without_a_group_leaves_its_bar_out():
    found = portfolio(dense(), variant("a", widths={"stem.conv": (16, 4)}))
    (figure,) = width_figures(found, summary_rows(found))
    assert figure["choices"][1][1]["x"] == [4, None]
    assert widths_note(found.variant("a")).startswith("keeps 4 of 16 channels")
    assert width_figures(portfolio(variant("a", widths={})), summary_rows(portfolio(variant("a", widths={})))) == []


def test_training_curves_leave_gaps_where_a_loss_is_not_finite():
    rows = summary_rows(usual())
    trainings = curves(rows, {"half": [*HISTORY, replace(HISTORY[0], index=3, loss=math.nan)], "dense": []})
    accuracy, loss = training_figures(trainings).values()
    assert [curve.name for curve in trainings] == ["half"]
    assert loss["data"][0]["y"] == [2.25, 1.5, None]
    assert [trace["y"][:2] for trace in accuracy["data"]] == [[37.5, 62.5], [25, 50]]


def test_curves_go_through_the_epochs_that_were_tested():
    history = [HISTORY[0], replace(HISTORY[1], test_accuracy=None), replace(HISTORY[1], index=3)]
    accuracy, _ = training_figures(curves(summary_rows(usual()), {"half": history})).values()
    test, training = accuracy["data"]
    assert (test["x"], test["y"]) == ([1, 3], [37.5, 62.5])
    assert [text.replace("\N{NO-BREAK SPACE}", " ") for text in test["hovertext"]] == [
        "<b>half</b><br>epoch 1: test 37.5 %",
        "<b>half</b><br>epoch 3: test 62.5 %",
    ]
    assert (training["x"], training["y"]) == ([1, 2, 3], [25, 50, 50])


@pytest.mark.parametrize(
    ("epochs", "step"), [(1, 1), (2, 1), (8, 1), (9, 2), (16, 2), (17, 5), (40, 5), (41, 10), (300, 50), (1000, 200)]
)
def test_ticks_stand_at_whole_epochs(epochs: int, step: int):
    history = [replace(HISTORY[0], index=i + 1) for i in range(epochs)]
    for figure in training_figures(curves(summary_rows(usual()), {"half": history})).values():
        assert figure["layout"]["xaxis"]["dtick"] == step


def test_every_training_has_a_colour_of_its_own():
    for n in (1, 8, 9, 30):
        found = portfolio(*(variant(f"v{i}") for i in range(n)))
        trainings = curves(summary_rows(found), {variant.name: HISTORY for variant in found.variants})
        assert len({curve.colour for curve in trainings}) == n


def test_a_model_that_was_kept_as_given_has_no_training_time():
    kept = dense().model_copy(update={"seconds": {"train": 0.0}})
    figure = plot(portfolio(kept, variant("a", accuracy=0.8)), TRAINING)
    assert figure["data"][-1]["x"] == [90.0]
    assert accuracy_plot(portfolio(kept), summary_rows(portfolio(kept)), TRAINING) is None
