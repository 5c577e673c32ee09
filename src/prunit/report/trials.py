"""What a sweep tried: the trade-off between a resource and accuracy, for every plan, and how the best were found."""

from collections.abc import Mapping, Sequence
from typing import Any

from prunit.report import numbers
from prunit.report.accuracy import HOVER, Axis, Figure, hover, plot_layout
from prunit.report.tables import simple_table, text

Trial = Mapping[str, Any]
"""A trial as a sweep tells of it: variant, budget, recipe, cost, accuracies (pairs of epochs and accuracy), out."""


def trials_figure(trials: Sequence[Trial], metric: str = "accuracy") -> Figure | None:
    """A dot for each training of each trial, the longer it lasted the darker; None if nothing was trained."""
    scale = 1 if metric in numbers.PLAIN else 100
    dots = [
        (trial, epochs, scale * accuracy)
        for trial in trials
        for epochs, accuracy in trial["accuracies"]
        if trial["cost"]
    ]
    if not dots:
        return None
    rungs = sorted({epochs for _, epochs, _ in dots})
    axis = Axis("params", "params", lambda row: row.params, numbers.count)
    data = [
        _trace([dot for dot in dots if dot[1] == epochs], 0.25 + 0.5 * (i + 1) / len(rungs), f"{epochs} epochs", metric)
        for i, epochs in enumerate(rungs)
    ]
    layout = plot_layout(axis, [t["cost"]["params"] for t, _, _ in dots], [y for _, _, y in dots], metric)
    return {"data": data, "layout": {**layout, "height": 380}}


def _trace(dots: Sequence[tuple[Trial, int, float]], opacity: float, name: str, metric: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [trial["cost"]["params"] for trial, _, _ in dots],
        "y": [y for _, _, y in dots],
        "marker": {
            "size": 10,
            "symbol": "circle",
            "opacity": opacity,
            "color": ["--accent" if not trial["out"] else "--muted" for trial, _, _ in dots],
        },
        "hoverinfo": "text",
        "hovertext": [
            hover(
                f"{trial['recipe']}, {trial['budget']}",
                [
                    f"{_said(metric, y)} held-out images after {epochs} epochs",
                    f"params {numbers.count(trial['cost']['params'])}",
                    f"macs {numbers.count(trial['cost']['macs'])}",
                    f"out: {trial['out']}" if trial["out"] else "won its budget",
                ],
            )
            for trial, epochs, y in dots
        ],
        "hoverlabel": HOVER,
        "cliponaxis": False,
    }


def _said(metric: str, y: float) -> str:
    """'88.1 % of', 'r2 0.912 on': what was found, up to the images."""
    return f"{metric} {numbers.score(metric, y)} on" if metric in numbers.PLAIN else f"{numbers.percent(y / 100)} of"


def trials_table(trials: Sequence[Trial], metric: str = "accuracy") -> str:
    """Every trial: its cost, what each rung found, and how it ended."""
    rungs = sorted({epochs for trial in trials for epochs, _ in trial["accuracies"]})
    heads = ["budget", "recipe", "params", "macs", *(f"{n} epoch{'s' * (n > 1)}" for n in rungs), "ended"]
    rows = []
    for trial in trials:
        found = dict(trial["accuracies"])
        cost = trial["cost"]
        rows.append(
            [
                text(trial["budget"]),
                text(trial["recipe"]),
                *((numbers.count(cost["params"]), numbers.count(cost["macs"])) if cost else ("–", "–")),
                *(numbers.score(metric, found[n]) if n in found else "–" for n in rungs),
                text(trial["out"]) if trial["out"] else "<strong>trained in full</strong>",
            ]
        )
    return simple_table("What was tried", heads, rows)
