"""What plans and variants take on microcontrollers and NPUs, for people and for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from prunit.cli.safe import safe
from prunit.edge.portfolio import Portfolio
from prunit.report.parts import NAMES, amount, embedded_of, heads_of, notes_of, rows_of

if TYPE_CHECKING:
    from prunit.recipe.spending import Spent


def embedded(found: Portfolio, out: Console) -> None:
    """Print how good variants are as integers, and what they take on each part; nothing where none was made for one."""
    if not embedded_of(found):
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads_of(found):
        words = head in ("variant", "part")
        table.add_column(head, justify="left" if words else "right", overflow="fold", no_wrap=words)
    for row in rows_of(found):
        table.add_row(*map(safe, row))
    out.print(table)
    for note in notes_of(found):
        out.print(f"[dim]{safe(note)}[/]")


def spent(found: "Sequence[Spent]", out: Console) -> None:
    """Print where the cycles of a plan go on each part, and what could be wider for nothing."""
    for each in found:
        if each.layers:
            out.print(_layers(each))
        figures = ", ".join(
            f"{NAMES[name]} {amount(name, value)} (dense {amount(name, each.dense[name])})"
            for name, value in each.figures.items()
        )
        out.print(f"[bold]{safe(each.part.name)}[/] ({safe(each.tool)}; untrained weights): {safe(figures)}")
        if each.free:
            wider = ", ".join(f"{safe(name)} {width}" for name, width in each.free.items())
            out.print(f"may be wider for hardly more cycles (0.5 %), each by itself: {wider}")


def _layers(found: "Spent") -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"on {found.part.name}", overflow="fold")
    for column in ("operator", "reads", "makes", "cycles", "", "dense"):
        table.add_column(column, justify="left" if column == "operator" else "right", no_wrap=True)
    whole = sum(layer.cycles for layer in found.layers) or 1.0
    for layer in found.layers:
        table.add_row(
            safe(layer.layer),
            layer.operator,
            str(layer.reads),
            str(layer.makes),
            f"{layer.cycles:,.0f}",
            f"{layer.cycles / whole:.0%}",
            f"{layer.dense_cycles:,.0f}",
        )
    return table


def spent_json(found: "Sequence[Spent]") -> dict[str, Any]:
    """The same as plain data; nothing where no part was named."""
    if not found:
        return {}
    return {
        "parts": [
            {
                "part": each.part.name,
                "tool": each.tool,
                "figures": dict(each.figures),
                "dense": dict(each.dense),
                "layers": [asdict(layer) for layer in each.layers],
                "free": dict(each.free or {}),
            }
            for each in found
        ]
    }
