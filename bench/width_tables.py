"""The table of docs/benchmarks.md about the widths that engines like."""

from collections.abc import Mapping
from typing import Any, Final

from bench._common import table

Result = Mapping[str, Any]

_SHOWN: Final = ((16, (15, 12, 8)), (64, (65, 63, 60, 56)))
_OF_PARTS: Final = ((16, (15, 12, 8)), (32, (33, 31, 28, 24)))
"""Parts of grouped convolutions are measured to 32: theirs stand in the columns of 64, one less under one less."""
_SIDES: Final = {"in": "inputs", "out": "outputs", "both": "channels"}


def engine_widths(result: Result) -> str:
    """A row for each engine, kind of layer and side: what the engine likes, and some of the times behind it."""
    head = ["engine", "layer", "multiples of", "below 16, of", "blocks of", "worst cliff"]
    head += [f"{w} / {n}" for n, widths in _SHOWN for w in widths]
    rows = []
    for row in result["rows"]:
        parts = "64" not in row["relative"]
        shown = [row["relative"][str(n)][str(w)] for n, ws in (_OF_PARTS if parts else _SHOWN) for w in ws]
        rows.append(
            (
                row["engine"],
                f"{row['kind']}, {_SIDES[row['side']]}{' of a part †' if parts else ''}",
                row["step"] or "none",
                row["narrow_step"] or "none",
                row["block"] or "none",
                f"{row['worst']:.2f}×",
                *(f"{share:.2f}" for share in shown),
            )
        )
    note = "\n\n† The last four: 33, 31, 28 and 24 channels of a part against 32."
    return table(head, rows) + note * any("†" in row[1] for row in rows)
