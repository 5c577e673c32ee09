"""What variants take on microcontrollers and NPUs, and how good they are as integers."""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from prunit.edge.embedded import Embedded, OnPart
from prunit.edge.portfolio import Portfolio, Variant
from prunit.report import numbers
from prunit.report.tables import simple_table, text

NAMES: Final[Mapping[str, str]] = {
    "cycles": "cycles",
    "latency_ms": "time",
    "arena_bytes": "arena",
    "sram_bytes": "SRAM",
    "flash_bytes": "flash",
}
"""What people call the figures."""

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "cycles": ("cycles",),
    "time": ("latency_ms",),
    "arena or SRAM": ("arena_bytes", "sram_bytes"),
    "flash": ("flash_bytes",),
}
"""Of the tables: the figures that stand in each column, of which a part has one."""


def amount(name: str, value: float) -> str:
    """A figure of a part with its unit: `96.3 k`, `0.19 ms`, `19.4 KB`."""
    if name.endswith("_bytes"):
        return numbers.size(round(value))
    return f"{value:.3g} ms" if name.endswith("_ms") else numbers.count(round(value))


def embedded_of(portfolio: Portfolio) -> list[tuple[Variant, Embedded]]:
    """The variants that have a form for microcontrollers and NPUs."""
    return [(variant, variant.embedded) for variant in portfolio.variants if variant.embedded]


def parts_of(portfolio: Portfolio) -> dict[str, OnPart]:
    """The parts that variants were made for, each with what it reports of the first of these."""
    found: dict[str, OnPart] = {}
    for _, each in embedded_of(portfolio):
        for on in each.parts:
            found.setdefault(on.part, on)
    return found


def rows_of(portfolio: Portfolio) -> Iterator[list[str]]:
    """A row for each variant on each part, under `heads_of`; a variant's own figures stand in its first one."""
    metric = portfolio.task.metric
    for variant, each in embedded_of(portfolio):
        gap = each.against
        own = [
            variant.name,
            numbers.score(metric, each.accuracy),
            "–" if gap is None else numbers.gain(metric, gap.difference),
        ]
        for on in each.parts:
            yield [*own, on.part, *(_figure(on, names) for names in COLUMNS.values())]
            own = ["", "", ""]


def heads_of(portfolio: Portfolio) -> list[str]:
    """The heads of these rows."""
    return ["variant", f"int8 {portfolio.task.metric}", "to float", "part", *COLUMNS]


def notes_of(portfolio: Portfolio) -> list[str]:
    """What there is to say: which parts in which configuration, variants over their budgets, weights trained for it."""
    found = [
        f"{name}: {each.tool}" + (f", {', '.join(each.settings.values())}" if each.settings else "")
        for name, each in parts_of(portfolio).items()
    ]
    for variant, each in embedded_of(portfolio):
        for on in each.parts:
            found += [
                f"“{variant.name}” takes {times:.3f} times the {NAMES[name]} that its budget allows on {on.part}"
                for name, times in on.over.items()
            ]
        if each.tuned:
            epochs = f"{each.tuned} epoch{'s' * (each.tuned > 1)}"
            found.append(f"“{variant.name}”: weights trained for integers, {epochs}; the float file keeps its own")
    missing = [v.name for v in portfolio.variants if not v.embedded and not v.lowered] if parts_of(portfolio) else []
    if missing:
        found.append(f"not made for these parts: {', '.join(f'“{name}”' for name in missing)}")
    return found


def parts_section(portfolio: Portfolio) -> str:
    """The table and its notes as HTML; '' where no variant was made for a part."""
    if not embedded_of(portfolio):
        return ""
    caption = "Integers on microcontrollers and NPUs: cycles and time as the part's compiler estimates them"
    rows = [list(map(text, row)) for row in rows_of(portfolio)]
    notes = "".join(f'<p class="note">{text(note)}.</p>' for note in notes_of(portfolio))
    table = simple_table(caption, list(map(text, heads_of(portfolio))), rows)
    return table + notes


def _figure(on: OnPart, names: Collection[str]) -> str:
    found = next((name for name in names if name in on.figures), None)
    return "–" if found is None else amount(found, on.figures[found])
