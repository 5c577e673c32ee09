"""The same pictures as still SVG files for the page: plotly writes those only with a browser beside it."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Final

from bench.evidence.asked import Evidence
from bench.evidence.plots import AXES, COLOURS, Drawn, pareto, points
from bench.evidence.tasks import plain
from prunit.report.accuracy import linear_ticks, log_ticks

WIDTH, HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 12, 34, 42
_FONT: Final = 'font-family="system-ui, sans-serif" font-size="12" fill="#444444"'


def pictures(evidence: Evidence) -> dict[str, str]:
    """SVG by file name, three for each setting that has cells."""
    return {
        f"{plain(setting)}-{plain(title.partition(',')[0])}.svg": svg(setting, drawn, title)
        for setting in evidence.settings
        for title, value in AXES
        if (drawn := points(evidence, setting, value))
    }


def svg(setting: str, by_family: Mapping[str, Sequence[Drawn]], axis: str) -> str:
    """Accuracy against one cost: a dot for each arm and budget, a bar of one deviation, the front as stairs."""
    every = [point for each in by_family.values() for point in each]
    low, high = min(p.cost for p in every) / 1.2, max(p.cost for p in every) * 1.2
    bottom, top = min(p.accuracy - p.deviation for p in every) - 1, max(p.accuracy + p.deviation for p in every) + 1

    def x(cost: float) -> float:
        share = math.log(cost / low) / math.log(high / low)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(accuracy: float) -> float:
        return round(HEIGHT - _BOTTOM - (accuracy - bottom) / (top - bottom) * (HEIGHT - _TOP - _BOTTOM), 1)

    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for tick in linear_ticks(bottom, top, most=6):
        parts.append(f'<path d="M{_LEFT} {y(tick)}H{WIDTH - _RIGHT}" stroke="#eeeeee"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4}" text-anchor="end">{tick:g} %</text>')
    for tick in log_ticks(low, high):
        parts.append(f'<text x="{x(tick)}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_short(tick)}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(axis)}, log scale</text>')
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    upright = f'x="14" y="{middle:g}" transform="rotate(-90 14 {middle:g})" text-anchor="middle"'
    parts.append(f"<text {upright}>test accuracy</text>")
    front = pareto([(p.cost, p.accuracy, p.label) for p in every])
    stairs = "".join(f"H{x(cost)}V{y(accuracy)}" for cost, accuracy, _ in front[1:])
    start = f"M{x(front[0][0])} {y(front[0][1])}"
    parts.append(f'<path d="{start}{stairs}H{WIDTH - _RIGHT}" fill="none" stroke="#bbbbbb" stroke-width="2"/>')
    for i, (family, each) in enumerate(by_family.items()):
        colour = COLOURS[family]
        parts.append(f'<circle cx="{_LEFT + 8 + 80 * i}" cy="16" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + 17 + 80 * i}" y="20">{family}</text>')
        for p in each:
            bar = f"M{x(p.cost)} {y(p.accuracy - p.deviation)}V{y(p.accuracy + p.deviation)}"
            told = html.escape(f"{p.label}: {p.accuracy:.2f} %")
            parts.append(f'<path d="{bar}" stroke="{colour}"/>')
            parts.append(
                f'<circle cx="{x(p.cost)}" cy="{y(p.accuracy)}" r="4" fill="{colour}"><title>{told}</title></circle>'
            )
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    title = html.escape(f"{setting}: accuracy against {axis}")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {_FONT}>'
    return "\n".join([head, f"<title>{title}</title>", *parts, "</svg>\n"])


def _short(value: float) -> str:
    """1500000 as 1.5M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
