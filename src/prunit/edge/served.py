"""`fleet.json` beside a manifest: which variant of a portfolio serves which device of the fleet that it was built for.

A file of its own: portfolios for no fleet lack it, and a device with an older prunit reads the manifest as ever.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, NonNegativeFloat, ValidationError

from prunit.edge.portfolio import Portfolio
from prunit.edge.records import Record
from prunit.errors import PortfolioError, unknown
from prunit.files import write_atomically

FILE: Final = "fleet.json"
VERSION: Final = 1


class Served(Record):
    """A device, what a model may cost there, and the variant that serves it.

    `goal` is as the user wrote it. `figures` and `limits` are by what it limits (`latency_ms`, `weight_bytes`, …): what
    the variant takes, times and energy as the device's profile predicts them before any training, and the most that was
    allowed. `kept` is what it has of the plan that was made for this device alone: of its multiply-adds or of its
    parameters, whichever is less; it may be more than 1. Without a variant `problem` says why.
    """

    device: str = Field(min_length=1)
    goal: str
    variant: str = ""
    figures: dict[str, NonNegativeFloat] = Field(default={})
    limits: dict[str, NonNegativeFloat] = Field(default={})
    kept: NonNegativeFloat | None = None
    problem: str = ""

    @property
    def used(self) -> float | None:
        """How much of its tightest limit the variant takes, 1.0 = all of it; None without a variant."""
        shares = [self.figures[name] / most for name, most in self.limits.items() if name in self.figures and most]
        return max(shares, default=None)


class Fleet(Record):
    """The devices of a fleet, each with what serves it. `slack` is how much less than its own plan a device may get."""

    format: Literal["prunit-fleet"] = "prunit-fleet"
    version: Literal[1] = VERSION
    slack: float = Field(ge=0, lt=1)
    devices: tuple[Served, ...]

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that serve a device, each once, in the order of the devices."""
        return tuple(dict.fromkeys(each.variant for each in self.devices if each.variant))

    @property
    def unserved(self) -> tuple[Served, ...]:
        """The devices that no variant serves."""
        return tuple(each for each in self.devices if not each.variant)

    def device(self, name: str) -> Served:
        """The device of this name; `UnknownNameError` where there is none."""
        for each in self.devices:
            if each.device == name:
                return each
        raise unknown("device", name, [each.device for each in self.devices])

    @staticmethod
    def read(folder: Path) -> "Fleet | None":
        """What the folder of a portfolio says of a fleet, None if it is for none; `PortfolioError` if it is damaged."""
        file = folder / FILE
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _damaged(file, str(error)) from error
        return Fleet.of_bytes(data, file)

    @staticmethod
    def of_bytes(data: bytes, where: Path | str) -> "Fleet":
        """The fleet of a file's content, which lies at `where`; `PortfolioError` if it is damaged."""
        try:
            return Fleet.model_validate_json(data.decode())
        except ValidationError as error:
            first = error.errors()[0]
            why = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        except ValueError as error:
            why = str(error)
        raise _damaged(where, why)

    def write(self, folder: Path) -> None:
        """Into the folder of a portfolio, whole or not at all."""
        write_atomically(folder / FILE, self.text())

    def text(self) -> str:
        """What the file holds."""
        return self.model_dump_json(indent=2) + "\n"

    def only(self, devices: Iterable[str]) -> "Fleet":
        """The same of these devices alone."""
        wanted = set(devices)
        return self.model_copy(update={"devices": tuple(each for each in self.devices if each.device in wanted)})


def of_variants(portfolio: Portfolio, names: Collection[str]) -> Portfolio:
    """The portfolio with these variants alone."""
    return portfolio.model_copy(
        update={"variants": tuple(v for v in portfolio.variants if v.name in names), "left_out": ()}
    )


def _damaged(where: Path | str, why: str) -> PortfolioError:
    why = " ".join(why.split())[:200]
    return PortfolioError(f"'{where}' does not say which variants serve which devices ({why})")


def variants_for(portfolio: Portfolio, folder: Path, device: str) -> tuple[str, ...]:
    """The variants for a device of the fleet that the portfolio in a folder was built for: see `variants_in`."""
    return variants_in(portfolio, Fleet.read(folder), device, folder)


def variants_in(portfolio: Portfolio, fleet: Fleet | None, device: str, folder: Path | str) -> tuple[str, ...]:
    """The variants for a device of a fleet: the one that serves it, and what was made of that with fewer bits.

    `folder` is where the portfolio lies, for messages. Raises `PortfolioError` where it is for no fleet or no variant
    serves the device, `UnknownNameError` for a device that is not in it.
    """
    if fleet is None:
        raise PortfolioError(
            f"the portfolio in '{folder}' was not built for a fleet ('{FILE}' is not there): leave --device out"
        )
    found = fleet.device(device)
    if not found.variant:
        raise PortfolioError(f"no variant of '{folder}' serves device '{device}': {found.problem}")
    names = [
        variant.name
        for variant in portfolio.variants
        if variant.name == found.variant or (variant.lowered and variant.lowered.twin == found.variant)
    ]
    if not names:
        raise PortfolioError(
            f"variant '{found.variant}', which serves device '{device}', is not in the portfolio in '{folder}' any more"
        )
    return tuple(names)
