"""The cells as pictures: accuracy against stored size, macs and latency, with the Pareto front; one page for each
protocol with plotly inside, as the report of a build has it."""

import html as escaping
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from bench.evidence.arms import ARMS
from bench.evidence.asked import Evidence
from bench.evidence.cells import Found

Figure = dict[str, Any]
Point = tuple[float, float, str]
"""Cost, accuracy in percent, and whose they are."""


class Drawn(NamedTuple):
    """An arm at a budget: means over seeds, accuracy and its deviation in percent."""

    cost: float
    accuracy: float
    deviation: float
    label: str


AXES: Final = (
    ("stored parameters", lambda cell: cell["stored_params"]),
    ("multiply-adds", lambda cell: cell["macs"]),
    ("latency at batch 1, ms", lambda cell: cell["latency"][0]["p50_ms"]),
)
COLOURS: Final = {
    "dense": "#222222",
    "mask": "#999999",
    "reconvene": "#1f6fd6",
    "longer": "#12a5b8",
    "structured": "#d6781f",
    "trained": "#2e9e5b",
    "search": "#9b4fc4",
}


def html(name: str, found: Found) -> str:
    """A page with three pictures for each setting that has cells."""
    from plotly.offline import get_plotlyjs

    evidence = Evidence(found)
    figures = [
        figure(f"{setting}: accuracy against {title}", drawn, title)
        for setting in evidence.settings
        for title, value in AXES
        if (drawn := points(evidence, setting, value))
    ]
    lacking = len(found.missing) + len(found.stale)
    told = f"{len(found.cells)} of {found.tasks} cells" + (f"; {lacking} are missing and not drawn" if lacking else "")
    data = json.dumps(figures, allow_nan=False).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Evidence: {escaping.escape(name)}</title>
<style>body {{ font: 15px system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }}</style></head>
<body><h1>Evidence: {escaping.escape(name)}</h1><p>{told}. Points are means over seeds, bars one standard deviation.</p>
<script>{get_plotlyjs()}</script>
<script>for (const f of {data}) {{ const d = document.createElement("div"); document.body.append(d);
Plotly.newPlot(d, f.data, f.layout, {{responsive: true}}); }}</script>
</body></html>
"""


def points(evidence: Evidence, setting: str, value: Any) -> dict[str, list[Drawn]]:
    """By family, for each arm and budget: mean cost, mean accuracy in percent, its deviation, and a name."""
    found: dict[str, list[Drawn]] = {}
    for arm, about in ARMS.items():
        for budget in ["", *evidence.budgets(setting)]:
            cells = list(evidence.of(arm, setting=setting, budget=budget).values()) if budget or arm == "dense" else []
            if cells:
                accuracy = [100 * c["accuracy"] for c in cells]
                deviation = statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0
                cost = statistics.fmean(float(value(c)) for c in cells)
                mean = statistics.fmean(accuracy)
                label = f"{arm} {budget} ({len(cells)} seeds)"
                found.setdefault(about.family, []).append(Drawn(cost, mean, deviation, label))
    return found


def pareto(all_points: Sequence[Point]) -> list[Point]:
    """Those to which no other is at least as cheap and at least as good, cheapest first."""
    front: list[Point] = []
    for point in sorted(all_points, key=lambda p: (p[0], -p[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def figure(title: str, by_family: Mapping[str, Sequence[Drawn]], axis: str) -> Figure:
    """A plotly figure: a colour for each family, and the front as stairs."""
    front = pareto([(x, y, name) for each in by_family.values() for x, y, _, name in each])
    traces: list[Figure] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [x for x, _, _ in front],
            "y": [y for _, y, _ in front],
            "line": {"shape": "hv", "color": "#bbbbbb", "width": 2},
            "hoverinfo": "skip",
        }
    ]
    for family, each in by_family.items():
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": family,
                "x": [x for x, _, _, _ in each],
                "y": [y for _, y, _, _ in each],
                "error_y": {"type": "data", "array": [sd for _, _, sd, _ in each], "thickness": 1, "width": 3},
                "marker": {"color": COLOURS[family], "size": 9},
                "hovertext": [escaping.escape(name, quote=False) for _, _, _, name in each],
                "hovertemplate": "%{hovertext}<br>%{x:.3s}, %{y:.2f} %<extra></extra>",
            }
        )
    return {
        "data": traces,
        "layout": {
            "title": {"text": title},
            "height": 460,
            "xaxis": {"title": {"text": axis}, "type": "log"},
            "yaxis": {"title": {"text": "accuracy, %"}},
            "hovermode": "closest",
        },
    }
