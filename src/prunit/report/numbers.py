"""Figures in words, three digits that count: 271 k, 1.09 MB, 3.6× less. KB and MB are powers of 1000, as in budgets."""

import math
from datetime import datetime, timedelta
from typing import Final

from prunit.shown import NUMBERS

SPACE: Final = "\N{NO-BREAK SPACE}"
COUNTS: Final = ("images", "objects", "pixels")
"""Among the metrics of a class: how much there is of it."""
PLAIN: Final = NUMBERS
"""Metrics that are no shares."""
_STEPS: Final = 1000


def significant(value: float, digits: int = 3) -> str:
    """The value with `digits` digits that count and no exponent: 0.0412, 1.23, 41.2, 1,234."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded if decimals else value:,.{decimals}f}"


def count(value: float) -> str:
    """Parameters or macs: 271 k, 40.6 M."""
    return _scaled(value, ("", "k", "M", "G", "T"))


def size(value: float) -> str:
    """Bytes: 278 KB, 1.09 MB."""
    return _scaled(value, ("B", "KB", "MB", "GB", "TB"))


def milliseconds(value: float) -> str:
    """A latency with its unit: 0.412 ms."""
    return f"{significant(value)}{SPACE}ms"


def duration(seconds: float) -> str:
    """A time span: 0.41 s, 48 s, 5.2 min, 2.1 h."""
    if seconds < 59.5:
        return f"{significant(seconds, 2)}{SPACE}s"
    if seconds < 3570:
        return f"{seconds / 60:.1f}{SPACE}min"
    return f"{seconds / 3600:.1f}{SPACE}h"


def percent(share: float) -> str:
    """A share as 88.1 %."""
    return f"{100 * share:.1f}{SPACE}%"


def points(change: float) -> str:
    """A change of a share in percentage points: −2.9 points."""
    shown = f"{abs(100 * change):.1f}"
    sign = "" if shown == "0.0" else "+" if change > 0 else "−"
    return f"{sign}{shown}{SPACE}points" if sign else "same"


def gain(metric: str, value: float) -> str:
    """A change of a metric by its name: −2.9 points, −0.0120 of an R², same."""
    return points(value) if metric not in PLAIN else change(metric, value) if value else "same"


def signed(change: float) -> str:
    """A change of a share in points, as a bare number: +0.3, −2.9, 0.0."""
    shown = f"{abs(100 * change):.1f}"
    return shown if shown == "0.0" else f"{'+' if change > 0 else '−'}{shown}"


def score(metric: str, value: float | None) -> str:
    """A metric by its name: 1,234 images, 88.1 %, an R² of 0.912; – where it is not known."""
    if value is None:
        return "–"
    if metric in COUNTS:
        return f"{value:,.0f}"
    return significant(value) if metric in PLAIN else percent(value)


def score_span(metric: str, low: float, high: float) -> str:
    """An interval of a metric: 64.0 to 73.1 %."""
    return f"{score(metric, low).removesuffix(f'{SPACE}%')} to {score(metric, high)}"


def change(metric: str, value: float) -> str:
    """A difference of a metric as a bare number, of shares in points: +0.3, −2.9, 0.0; +0.012 of an R²."""
    if metric not in PLAIN:
        return signed(value)
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{significant(abs(value))}"


def capitalised(metric: str) -> str:
    """The name as a sentence begins with it: 'Accuracy', 'mAP'."""
    return metric if any(letter.isupper() for letter in metric) else metric.capitalize()


def factor(ratio: float) -> str:
    """A ratio of 1 or more as 3.6×, with a second decimal under 2."""
    return f"{ratio:.2f}×" if ratio < 1.995 else f"{ratio:.1f}×" if ratio < 99.95 else f"{ratio:,.0f}×"


def times(times_less: float, *, less: str = "less", more: str = "more") -> str:
    """How a cost compares when the dense one is `times_less` times it: 3.6× less, 1.05× more, same."""
    ratio, word = (times_less, less) if times_less >= 1 else (1 / times_less, more)
    return "same" if ratio < 1.005 else f"{factor(ratio)} {word}"


def moment(iso: str) -> str:
    """An ISO 8601 time as 2026-07-04 12:31 UTC; unchanged if it is no such time."""
    try:
        parsed = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    offset = parsed.utcoffset()
    zone = "" if offset is None else " UTC" if offset == timedelta(0) else f" UTC{parsed:%z}"
    return f"{parsed:%Y-%m-%d %H:%M}{zone}"


def shortened(name: str, most: int) -> str:
    """The name in at most `most` characters, its middle left out if need be: the ends tell layers apart."""
    if len(name) <= most:
        return name
    head = (most - 1) // 2
    return f"{name[:head]}…{name[len(name) - (most - 1 - head) :]}"


def _scaled(value: float, units: tuple[str, ...]) -> str:
    """The value in the largest unit that leaves 1 or more, after rounding: 999,950 is 1.00 M and not 1,000 k."""
    step = 0
    while step < len(units) - 1 and float(f"{value:.2e}") >= _STEPS:
        value /= _STEPS
        step += 1
    shown = significant(value) if step else f"{value:.0f}"
    return f"{shown}{SPACE}{units[step]}".rstrip(SPACE)
