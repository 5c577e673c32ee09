"""Plots of accuracy against what a variant costs, as plain plotly figures.

Colours are names of the page's CSS properties ('--accent'): page.js puts the values of the light or dark theme in.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prunit.edge.portfolio import Portfolio
from prunit.report import numbers
from prunit.report.summary import SummaryRow, latency_key

Figure = dict[str, Any]
"""`data` and `layout` as plotly.js takes them; `labels` and `choices` are read by page.js."""

HEIGHT_PX: Final = 340
CROWD: Final = 12
"""From more variants than this on, points are smaller."""
LOG_FROM: Final = 3
"""From this factor between the largest and the smallest figure on, the axis is logarithmic."""
HOVER: Final[Figure] = {
    "bgcolor": "--raised",
    "bordercolor": "--line",
    "font": {"color": "--text", "size": 12, "family": "system-ui, sans-serif"},
    "align": "left",
    "namelength": -1,
}


@dataclass(frozen=True)
class Axis:
    """A cost to plot accuracy against; `metric` is the name that `Portfolio.pareto` knows."""

    metric: str
    title: str
    value: Callable[[SummaryRow], float | None]
    text: Callable[[float], str]


def _median_ms(row: SummaryRow) -> float | None:
    latency = row.latency()
    return latency.p50_ms if latency else None


AXES: Final = (
    Axis("file_bytes", "file size", lambda row: row.file_bytes, numbers.size),
    Axis("macs", "macs", lambda row: row.macs, numbers.count),
    Axis("latency_ms", "latency at batch 1", _median_ms, numbers.milliseconds),
    Axis("train_seconds", "training time", lambda row: row.seconds.get("train") or None, numbers.duration),
)


def accuracy_plot(portfolio: Portfolio, rows: Sequence[SummaryRow], axis: Axis) -> Figure | None:
    """The variants as points with their Pareto front; None if none has both figures.

    Latency is drawn at its median, with a thick bar to p90 and a thin one to p99.
    """
    scale = 1 if portfolio.task.metric in numbers.PLAIN else 100
    points = [
        (x, scale * row.accuracy, row)
        for row in rows
        if row.accuracy is not None and (x := axis.value(row)) is not None
    ]
    if not points:
        return None
    front = {variant.name for variant in portfolio.pareto(axis.metric, "accuracy")}
    points.sort(key=lambda point: point[0])
    shown = [row for _, _, row in points]
    bars = _bars(shown) if axis.metric == "latency_ms" else None
    reach = [*(x for x, _, _ in points), *(bars[1] if bars else [])]
    return {
        "data": [
            _front_line([(x, y) for x, y, row in points if row.name in front]),
            *([_bar_to_p90(points, bars[0])] if bars else []),
            _markers(points, front, bars[1] if bars else None) | {"customdata": [rows.index(row) for row in shown]},
        ],
        "layout": plot_layout(axis, reach, [y for _, y, _ in points], portfolio.task.metric),
        "labels": {
            "names": [numbers.shortened(row.name, 22) for row in shown],
            "order": _naming_order(shown, front),
            "reach": bars[1] if bars else [x for x, _, _ in points],
        },
    }


def _naming_order(rows: Sequence[SummaryRow], front: set[str]) -> list[int]:
    """Which points to name, the most telling first; in a crowd only the dense one and the front."""
    named = [i for i, row in enumerate(rows) if len(rows) <= CROWD or row.is_dense or row.name in front]
    return sorted(named, key=lambda i: (not rows[i].is_dense, rows[i].name not in front))


def figures_of(row: SummaryRow) -> list[str]:
    """The lines that a hover shows beneath a variant's name."""

    def line(title: str, text: str, key: str) -> str:
        ratio = row.times_less.get(key)
        return f"{title} {text}" + (f" ({numbers.times(ratio)})" if ratio else "")

    change = f" ({numbers.gain(row.metric, row.accuracy_change)})" if row.accuracy_change is not None else ""
    lines = [
        f"{row.metric} "
        + ("not measured" if row.accuracy is None else f"{numbers.score(row.metric, row.accuracy)}{change}")
    ]
    lines += [
        line("params", numbers.count(row.params), "params"),
        line("macs", numbers.count(row.macs), "macs"),
        line("file size", numbers.size(row.file_bytes), "file_bytes"),
    ]
    for latency in row.latencies:
        # Short lines: a wide hover would lie over the point that it is about.
        lines.append(f"batch {latency.batch}, {latency.threads} thread{'' if latency.threads == 1 else 's'}:")
        lines.append(line("p50", numbers.milliseconds(latency.p50_ms), latency_key(latency.batch)))
        lines.append(f"p90 {numbers.milliseconds(latency.p90_ms)}, p99 {numbers.milliseconds(latency.p99_ms)}")
    if row.peak_memory_bytes is not None:
        lines.append(line("memory", numbers.size(row.peak_memory_bytes), "peak_memory_bytes"))
    return lines


def escaped(text: str) -> str:
    """The text as plotly shows it letter by letter; plotly would read tags in it."""
    return html.escape(text, quote=False)


def hover(name: str, lines: Sequence[str]) -> str:
    """What a hover shows: the name, and the lines beneath it."""
    return "<br>".join([f"<b>{escaped(name)}</b>", *(escaped(line) for line in lines)])


def _bars(rows: Sequence[SummaryRow]) -> tuple[list[float], list[float]]:
    """p90 and p99 of each row's latency at batch 1."""
    latencies = [latency for row in rows if (latency := row.latency())]
    return [latency.p90_ms for latency in latencies], [latency.p99_ms for latency in latencies]


def _front_line(points: Sequence[tuple[float, float]]) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        # The best accuracy that a cost in between buys is the cheaper neighbour's: stairs and no slopes.
        "line": {"shape": "hv", "color": "--front", "width": 1.5},
        "hoverinfo": "skip",
    }


def _bar_to_p90(points: Sequence[tuple[float, float, SummaryRow]], p90_ms: Sequence[float]) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x for x, _, _ in points],
        "y": [y for _, y, _ in points],
        "marker": {"opacity": 0},
        "error_x": _error([x for x, _, _ in points], p90_ms, thickness=5, cap=0),
        "hoverinfo": "skip",
    }


def _error(x: Sequence[float], to: Sequence[float], *, thickness: float, cap: float) -> Figure:
    """A bar from each x to the higher value `to`."""
    above = [max(0.0, high - low) for low, high in zip(x, to, strict=True)]
    bar = {"type": "data", "symmetric": False, "array": above, "arrayminus": [0] * len(above)}
    return bar | {"color": "--bar", "thickness": thickness, "width": cap}


def _markers(
    points: Sequence[tuple[float, float, SummaryRow]], front: set[str], p99_ms: Sequence[float] | None
) -> Figure:
    size = 11 if len(points) <= CROWD else 8
    trace: Figure = {
        "type": "scatter",
        "mode": "markers+text",
        "x": [x for x, _, _ in points],
        "y": [y for _, y, _ in points],
        "marker": {
            "symbol": ["diamond" if row.is_dense else "circle" for _, _, row in points],
            "size": [size + row.is_dense for _, _, row in points],
            "color": ["--accent" if row.name in front else "--page" for _, _, row in points],
            "line": {"width": 2, "color": "--accent"},
            "opacity": 1,
        },
        "text": [""] * len(points),
        "textposition": ["middle right"] * len(points),
        "textfont": {"color": "--text", "size": 12},
        "cliponaxis": False,
        "hoverinfo": "text",
        "hovertext": [hover(row.name, figures_of(row)) for _, _, row in points],
        "hoverlabel": HOVER,
    }
    if p99_ms:
        trace["error_x"] = _error(trace["x"], p99_ms, thickness=1.5, cap=4)
    return trace


def plot_layout(axis: Axis, x: Sequence[float], y: Sequence[float], metric: str = "accuracy") -> Figure:
    """Room for accuracies `y`, of shares in percent, against costs `x`, on a logarithmic axis where these span much."""
    is_log = min(x) > 0 and max(x) / min(x) >= LOG_FROM
    low, high = _padded_x(x, is_log=is_log)
    x_ticks = log_ticks(low, high) if is_log else linear_ticks(low, high, most=5)
    plain = metric in numbers.PLAIN
    bottom, top = _padded_y(y, least=0.01 if plain else 1)
    y_ticks = linear_ticks(bottom, top, most=6)
    unit = "" if plain else f"{numbers.SPACE}%"
    decimals = next(n for n in range(4) if n == 3 or all(abs(tick - round(tick, n)) < 1e-9 for tick in y_ticks))
    return {
        "height": HEIGHT_PX,
        "margin": {"l": 58, "r": 14, "t": 10, "b": 50},
        "xaxis": {
            "type": "log" if is_log else "linear",
            "range": [math.log10(low), math.log10(high)] if is_log else [low, high],
            "tickvals": x_ticks,
            "ticktext": [_round(axis.text(tick)) for tick in x_ticks],
            "tickangle": 0,
            "title": {"text": axis.title + (", log scale" if is_log else ""), "standoff": 10},
        },
        "yaxis": {
            "range": [bottom, top],
            "tickvals": y_ticks,
            "ticktext": [f"{tick:.{decimals}f}{unit}" for tick in y_ticks],
        },
        "showlegend": False,
        "hovermode": "closest",
    }


def _padded_x(x: Sequence[float], *, is_log: bool) -> tuple[float, float]:
    """The range to draw, with room for names at both sides."""
    if is_log:
        low, high = math.log10(min(x)), math.log10(max(x))
        pad = 0.12 * (high - low)
        return 10 ** (low - pad), 10 ** (high + pad)
    pad = 0.12 * (max(x) - min(x)) or 0.5 * max(x) or 1
    return max(0.0, min(x) - pad), max(x) + pad


def _padded_y(y: Sequence[float], *, least: float) -> tuple[float, float]:
    """The range, at both ends at least so much wider than the values: a point, where it is in percent."""
    pad = max(0.14 * (max(y) - min(y)), least)
    return min(y) - pad, max(y) + pad


def linear_ticks(low: float, high: float, *, most: int) -> list[float]:
    """At most `most` round values between `low` and `high`, steps of 1, 2 or 5 times a power of ten."""
    power = 10 ** math.floor(math.log10((high - low) / most))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if (high - low) / step <= most)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


_MANTISSAS: Final = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))


def log_ticks(low: float, high: float, *, most: int = 5) -> list[float]:
    """Round values between `low` and `high` for a logarithmic axis: as many as there are, up to `most`."""
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    inside: list[float] = []
    for mantissas in _MANTISSAS:
        ticks = [float(f"{m}e{decade}") for decade in decades for m in mantissas]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= most:
            return inside
    return inside[:: math.ceil(len(inside) / most)]


def _round(text: str) -> str:
    """A tick's text without the zeros that three digits leave: 100 KB, 1.5 MB."""
    number, _, unit = text.partition(numbers.SPACE)
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{number}{numbers.SPACE}{unit}" if unit else number
