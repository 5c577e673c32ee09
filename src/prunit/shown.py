"""How records are shown: a few lines of text, and a plain table in a notebook. Pure functions of what they hold."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar, cast

LINES: Final = 18
"""Of a text at most."""
WIDTH: Final = 110
"""Characters of a line at most."""
NUMBERS: Final = ("r2", "mae", "rmse")
"""Metrics that are no shares: R² may be far below 0, errors have the user's units. All others are shown in percent."""
_Row = TypeVar("_Row")
_ROWS_OF_HTML: Final = 60
_NOTES: Final = 3
_CELL: Final = 44
_ITEMS: Final = 3
_NUMBER: Final = re.compile(r"[-–]?\d[\d,.]*( ?(%|[kKMG]?i?B|ms))?|–|")
_OF_TABLE: Final = "border-collapse:collapse;margin:0.4em 0;font-size:0.95em;background:transparent;color:inherit"
_OF_CELL: Final = (
    "padding:0.15em 0.8em;border:0;border-bottom:1px solid rgba(128,128,128,0.4);background:transparent;color:inherit"
)


@dataclass(frozen=True)
class Table:
    """What is shown of a record: a title, rows below a head, and remarks; all of it text."""

    title: str
    head: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    notes: tuple[str, ...] = ()


class Shown:
    """A record that shows itself in fewer than 20 lines; with `_table` as that table, else field by field."""

    def _table(self) -> Table | None:
        return None

    def __repr__(self) -> str:
        table = self._table()
        return fields_as_text(self) if table is None else as_text(table)

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        """For notebooks."""
        table = self._table()
        return as_html(_fields_as_table(self) if table is None else table)


def as_text(table: Table) -> str:
    """Lines for a terminal; of many rows the first ones."""
    notes = [_cut(note, WIDTH - 2) for note in table.notes[:_NOTES]]
    if len(table.notes) > _NOTES:
        notes[-1] = f"… {len(table.notes) - _NOTES + 1} more remarks"
    room = LINES - 1 - bool(table.head) - len(notes)
    rows, left = _first(table.rows, room)
    lines = _aligned(table.head, rows)
    more = [f"  … {left:,} more"] if left else []
    return "\n".join([_cut(table.title, WIDTH), *lines, *more, *(f"  {note}" for note in notes)])


def as_html(table: Table) -> str:
    """A plain table that takes its colours from what is around it, so that it can be read in light and dark."""
    rows, left = _first(table.rows, _ROWS_OF_HTML)
    right = _right_aligned(table.head, rows)
    parts = [f"<div><b>{html.escape(table.title)}</b></div>"]
    if table.head or rows:
        parts.append(f'<table style="{_OF_TABLE}">')
        if table.head:
            parts.append(f"<thead>{_html_row('th', table.head, right)}</thead>")
        parts += ["<tbody>", *(_html_row("td", row, right) for row in rows), "</tbody></table>"]
    remarks = [*([f"… {left:,} more"] if left else []), *table.notes[:_ROWS_OF_HTML]]
    parts += [f"<div>{html.escape(remark)}</div>" for remark in remarks]
    return f'<div style="max-width:100%;overflow-x:auto">{"".join(parts)}</div>'


def fields_as_text(record: object) -> str:
    """`Name(field=value, …)`, on a line if it fits there, else with a field on each; long values are shortened."""
    name, values = type(record).__name__, _fields(record)
    whole = f"{name}({', '.join(f'{field}={short(value)}' for field, value in values.items())})"
    if len(whole) <= WIDTH:
        return whole
    shown, left = _first(list(values.items()), LINES - 2)
    lines = [f"    {field}={short(value, WIDTH - len(field) - 6)}," for field, value in shown]
    return "\n".join([f"{name}(", *lines, *([f"    … {left} more"] if left else []), ")"])


def short(value: object, room: int = WIDTH) -> str:
    """A value in at most `room` characters: the first of many things and how many more, the shape of an array."""
    return _cut(" ".join(_short(value).split()), room)


def count(number: int, one: str, several: str = "") -> str:
    """`1 group`, `1,024 groups`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def metric_value(metric: str, value: float) -> str:
    """A metric by its name: `88.1 %`, an R² of `0.873`."""
    return f"{value:.3f}" if metric in NUMBERS else f"{100 * value:.1f} %"


def metric_change(metric: str, value: float) -> str:
    """A difference of a metric as a bare number, of shares in points: `+0.3`, `−2.9`; `−0.012` of an R²."""
    return (f"{value:+.3f}" if metric in NUMBERS else f"{100 * value:+.1f}").replace("-", "−")


def metric_amount(metric: str, value: float) -> str:
    """So much of a metric, with its unit: `2.9 points`, `0.012` of an R²."""
    return f"{value:.3f}" if metric in NUMBERS else f"{100 * value:.1f} points"


def runs(numbers: Sequence[int]) -> str:
    """Ascending numbers with those in a row put together: `0–3, 7, 9–15`."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in found)


def _fields(record: Any) -> dict[str, object]:
    """What a data class or a model of pydantic holds, by name."""
    names = getattr(type(record), "model_fields", None) or {
        name: None for name, field in type(record).__dataclass_fields__.items() if field.repr
    }
    return {name: getattr(record, name) for name in names}


def _fields_as_table(record: object) -> Table:
    rows = [(field, short(value)) for field, value in _fields(record).items()]
    return Table(type(record).__name__, (), rows)


def _short(value: object) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= WIDTH else value[:WIDTH] + "…")
    shape, kind = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and kind is not None:  # an array or a tensor
        sizes = "×".join(str(size) for size in shape) or "single"
        return f"<{sizes} {str(kind).removeprefix('torch.')}>"
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value)
        items = [f"{_short(key)}: {_short(each)}" for key, each in islice(pairs.items(), _ITEMS)]
        return f"{{{_listed(items, len(pairs))}}}"
    if type(value) in (tuple, list, set, frozenset):
        held = cast("Sequence[object]", value)
        text = _listed([_short(each) for each in islice(held, _ITEMS)], len(held))
        if isinstance(value, tuple):
            return f"({text},)" if len(value) == 1 else f"({text})"
        return f"[{text}]" if isinstance(value, list) else f"{{{text}}}"
    if isinstance(value, Shown):
        own = repr(value)
        return own if "\n" not in own and len(own) <= WIDTH else f"{type(value).__name__}(…)"
    if callable(getattr(value, "state_dict", None)):  # a network, whose own text has a line for each module
        return f"<{type(value).__name__}>"
    return repr(value)


def _listed(shown: Sequence[str], number: int) -> str:
    return ", ".join([*shown, *([f"… {number - len(shown):,} more"] if number > len(shown) else [])])


def _first(rows: Sequence[_Row], room: int) -> tuple[Sequence[_Row], int]:
    """The rows that there is room for, a line less where it must be said how many are left; and how many are."""
    if len(rows) <= room:
        return rows, 0
    return rows[: room - 1], len(rows) - room + 1


def _cut(text: str, room: int) -> str:
    """One line of at most `room` characters that a terminal shows as they are."""
    text = "".join(c if c.isprintable() else " " for c in text[: 4 * room])
    return text if len(text) <= room else text[: room - 1] + "…"


def _aligned(head: Sequence[str], rows: Sequence[tuple[str, ...]]) -> list[str]:
    all_rows = [*([tuple(head)] if head else []), *rows]
    cells = [[*(_cut(cell, _CELL) for cell in row[:-1]), _cut(row[-1], WIDTH)] for row in all_rows]
    right = _right_aligned(head, rows)
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        for row in cells
    ]
    return [_cut(f"  {line}".rstrip(), WIDTH) for line in lines]


def _right_aligned(head: Sequence[str], rows: Iterable[tuple[str, ...]]) -> list[bool]:
    """Whether each column holds numbers alone."""
    columns = list(zip(*rows, strict=True)) or [("text",)] * len(head)
    return [all(_NUMBER.fullmatch(cell) for cell in column) for column in columns]


def _html_row(tag: str, row: Iterable[str], right: Iterable[bool]) -> str:
    cells = (
        f'<{tag} style="{_OF_CELL};text-align:{"right" if to_right else "left"}">{html.escape(cell)}</{tag}>'
        for cell, to_right in zip(row, right, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"
