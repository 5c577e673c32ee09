"""A still picture of predictions against measurements: dots on logarithmic axes, with the line where both agree."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Final

from prunit.report.accuracy import log_ticks

_SIDE, _LEFT, _TOP, _BOTTOM, _LEGEND = 440, 60, 14, 48, 220
_COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b")
_FONT: Final = 'font-family="system-ui, sans-serif" font-size="12" fill="#444444"'


def scatter(points: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, band: float = 0.1) -> str:
    """An SVG of (x, y) by series on equal axes; between the dashed lines y is within `band` of x."""
    every = [value for series in points.values() for pair in series for value in pair]
    low, high = min(every) / 1.3, max(every) * 1.3

    def place(value: float) -> float:
        return (_SIDE - 1) * math.log(value / low) / math.log(high / low)

    def across(value: float) -> str:
        return f"{_LEFT + place(value):.1f}"

    def up(value: float) -> str:
        return f"{_TOP + _SIDE - place(value):.1f}"

    width, height = _LEFT + _SIDE + _LEGEND, _TOP + _SIDE + _BOTTOM
    parts = [f'<rect width="{width}" height="{height}" fill="white"/>']
    for tick in log_ticks(low, high):
        parts.append(
            f'<path d="M{across(tick)} {_TOP}V{_TOP + _SIDE}M{_LEFT} {up(tick)}H{_LEFT + _SIDE}" stroke="#eee"/>'
        )
        parts.append(f'<text x="{across(tick)}" y="{_TOP + _SIDE + 16}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{_LEFT - 6}" y="{up(tick)}" dy="4" text-anchor="end">{tick:g}</text>')
    for factor, dash in ((1.0, ""), (1 + band, ' stroke-dasharray="4 3"'), (1 - band, ' stroke-dasharray="4 3"')):
        first, last = max(low, low / factor), min(high, high / factor)
        line = f"M{across(first)} {up(first * factor)}L{across(last)} {up(last * factor)}"
        parts.append(f'<path d="{line}" stroke="#999999" fill="none"{dash}/>')
    for n, (title, series) in enumerate(points.items()):
        colour = _COLOURS[n % len(_COLOURS)]
        parts += [f'<circle cx="{across(a)}" cy="{up(b)}" r="3.5" fill="{colour}"/>' for a, b in series]
        parts.append(f'<circle cx="{_LEFT + _SIDE + 16}" cy="{_TOP + 14 + 20 * n}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + _SIDE + 26}" y="{_TOP + 18 + 20 * n}">{html.escape(title)}</text>')
    middle = _TOP + _SIDE / 2
    parts.append(f'<text x="{_LEFT + _SIDE / 2}" y="{height - 10}" text-anchor="middle">{html.escape(x)}</text>')
    turned = f'x="16" y="{middle:g}" transform="rotate(-90 16 {middle:g})" text-anchor="middle"'
    parts.append(f"<text {turned}>{html.escape(y)}</text>")
    body = "\n".join(parts)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {_FONT}>'
    return f"{head}\n{body}\n</svg>\n"
