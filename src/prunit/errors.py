"""Every error that prunit raises on purpose.

    PrunitError                 a mistake that its message lets the user repair; the command line shows one line, exit 2
    ├── UnknownNameError        a model, data set, score, recipe, key … that does not exist (the nearest one is named)
    ├── ConfigError             a setting that is malformed or contradicts another
    ├── ModelError              the user's model cannot be built, called or traced
    │   └── SurgeryError        the cut model would not run (a size is fixed in its forward)
    ├── ScoreError              a score cannot be computed on this model (it is not finite, needs data, …)
    ├── BudgetError             no plan meets the budget; names the closest reachable point
    ├── TrainingError           a training that diverged: its loss or its weights are no longer finite
    ├── OptimizerError          an optimiser that cannot be made anew for the cut model
    ├── PlanError               a plan that does not fit the model
    ├── DataError               a data set that is missing, incomplete or broken
    ├── FileError               a file that cannot be read or written, or is not what its name says
    │   └── PortfolioError      a portfolio folder that is incomplete or fails its own checks
    ├── DeviceError             a device or engine that is not there
    ├── WorkerError             a process or a node that worked on a variant has ended before it was done
    └── MissingExtraError       an optional package that is not installed

A message says what was asked, what was found, where, and what to do next.
"""

import difflib
from collections.abc import Iterable
from typing import Final


class PrunitError(Exception):
    """Base class: catch this to catch everything that prunit raises on purpose."""


class UnknownNameError(PrunitError):
    """A name that does not exist. Build it with `unknown`, which finds the nearest name."""


class ConfigError(PrunitError):
    """A setting that is malformed or contradicts another one."""


class ModelError(PrunitError):
    """The user's model cannot be built, called on its example, or traced."""


class UncoveredError(ModelError):
    """A device profile without the times of some layers of a model; the message names them."""


class SurgeryError(ModelError):
    """The cut model would not run; the message names the module whose size is fixed in code, `module` its path."""

    def __init__(self, message: str, module: str = "") -> None:
        super().__init__(message)
        self.module = module


class ScoreError(PrunitError):
    """A score cannot be computed on this model."""


class BudgetError(PrunitError):
    """No plan meets the budget.

    `closest` holds the cost of the closest reachable point by the names and in the units of `Cost` (params, macs,
    weight_bytes, activation_bytes), and what the budget limits on a device (latency_ms, energy_mj).
    """

    def __init__(self, message: str, closest: dict[str, float] | None = None) -> None:
        super().__init__(message)
        self.closest = closest or {}


class TrainingError(PrunitError):
    """A training that diverged; the message names the epoch, the learning rate and what to try."""


class OptimizerError(PrunitError):
    """An optimiser, or its state, that cannot be cut as its model was; the message names the parameter and the key."""


class PlanError(PrunitError):
    """A plan that does not fit the model or is not a plan."""


class DataError(PrunitError):
    """A data set that is missing, incomplete or broken."""


class FileError(PrunitError):
    """A file that cannot be read or written, or does not hold what its name says."""


class PortfolioError(FileError):
    """A portfolio folder that is incomplete or whose files do not match its manifest."""


class DeviceError(PrunitError):
    """A device or an inference engine that is not there."""


class WorkerError(PrunitError):
    """A process or a node that worked on a variant has ended before it was done; the message names the variant."""


class MissingExtraError(PrunitError):
    """An optional package that is not installed; the message holds the command that installs it."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs the package '{package}': pip install 'prunit[{extra}]'")


def unknown(
    kind: str, name: str, known: Iterable[str], hint: str = "", *, meant: str = "", near: str | None = None
) -> UnknownNameError:
    """The error for a `kind` ('score', 'budget key', …) called `name` that is none of `known`.

    `meant` says what to write instead of what others call so; else the nearest name is guessed, or `near` if given.
    """
    names = sorted(known)
    if near is None:
        near = next(iter(difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.4)), "")
    guess = f": {meant}." if meant else f"; did you mean '{near}'?" if near else "."
    more = f" {hint}" if hint else ""
    return UnknownNameError(f"unknown {kind} '{name}'{guess} Known: {', '.join(names)}.{more}")


def harmless(text: str) -> str:
    """The text with all that is no printable character written out (`\\x1b`): a terminal shows it and does not obey.

    Names of files, keys of checkpoints and errors of other programs may hold escape sequences, or reverse the direction
    of what follows. Spaces that do not break stay.
    """
    return "".join(c if c.isprintable() or c in _KEPT else c.encode("unicode_escape").decode() for c in text)


_KEPT: Final = "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"
