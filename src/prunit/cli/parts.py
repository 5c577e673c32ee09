"""What plans and variants take on microcontrollers and NPUs, for people and for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.table import Table

from prunit.cli.safe import safe
from prunit.cli.show import console
from prunit.units import written

if TYPE_CHECKING:
    from prunit.recipe.spending import Spent

_NAMES: Final[Mapping[str, str]] = {
    "cycles": "cycles",
    "latency_ms": "time",
    "arena_bytes": "arena",
    "sram_bytes": "SRAM",
    "flash_bytes": "flash",
}


def figure(name: str, value: float) -> str:
    """A figure of a part with its unit, as in `arena 19.4 KB`."""
    shown = f"{value / 1e3:.3g}k" if name == "cycles" and value >= 1e3 else written(value, name)
    if name.endswith("_bytes"):
        shown = f"{value / 1e3:.4g} KB"
    return f"{_NAMES.get(name, name)} {shown.removesuffix(' cycles')}"


def spent(found: "Sequence[Spent]") -> None:
    """Where the cycles of a plan go on each part, and what could be wider for nothing."""
    out = console()
    for each in found:
        if each.layers:
            out.print(_layers(each))
        figures = ", ".join(
            f"{figure(name, value)} (dense {figure(name, each.dense[name]).partition(' ')[2]})"
            for name, value in each.figures.items()
        )
        out.print(f"[bold]{safe(each.part.name)}[/] ({safe(each.tool)}; untrained weights): {safe(figures)}")
        if each.free:
            wider = ", ".join(f"{safe(name)} {width}" for name, width in each.free.items())
            out.print(f"may be wider for no more cycles, each by itself: {wider}")


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
