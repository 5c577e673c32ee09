"""Which variant serves which device of a fleet, as rows of a table: for the page and the command line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prunit.edge.served import Fleet, Served
from prunit.errors import PortfolioError
from prunit.report.tables import simple_table, text
from prunit.units import written

HEADS: Final = ("device", "goal", "variant", "predicted", "of the limit", "of its own plan")


def fleet_of(folder: Path) -> Fleet | None:
    """The fleet that the portfolio in a folder was built for; None where there is none, or what is said is damaged."""
    try:
        return Fleet.read(folder)
    except PortfolioError:
        return None


def rows_of(fleet: Fleet) -> Iterator[tuple[str, ...]]:
    """A row for each device, under `HEADS`."""
    for each in fleet.devices:
        yield (
            each.device,
            each.goal,
            each.variant or "none",
            ", ".join(written(value, name) for name, value in each.figures.items()) or "–",
            _share(each.used),
            _share(each.kept),
        )


def notes_of(fleet: Fleet) -> list[str]:
    """What there is to say of the table: how its last columns are meant, and who is not served."""
    slack = f"{1 - fleet.slack:.0%}"
    return [
        "Predicted is what the goal limits, times and energy by the device's profile, before any training. “Of its own"
        " plan”: of the multiply-adds or parameters that a plan for this device alone has, whichever is less; at least"
        f" {slack} was asked.",
        *(f"{each.device} is served by no variant: {each.problem}" for each in fleet.unserved),
    ]


def fleet_section(fleet: Fleet) -> str:
    """The content of the section, in HTML."""
    rows = [[text(cell) for cell in row] for row in rows_of(fleet)]
    notes = "".join(f'<p class="note">{text(note)}</p>' for note in notes_of(fleet))
    return simple_table("Devices and the variants that serve them", HEADS, rows) + notes


def headline_of(fleet: Fleet) -> str:
    """How many variants serve how many devices, in a sentence."""
    served: list[Served] = [each for each in fleet.devices if each.variant]
    variants, devices = len(fleet.variants), len(served)
    return (
        f"{variants} variant{'s' * (variants != 1)} serve{'s' * (variants == 1)} {devices} of {len(fleet.devices)}"
        f" device{'s' * (len(fleet.devices) != 1)}"
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
