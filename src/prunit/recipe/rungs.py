"""The variants of a ladder as they are asked for: sparse models by their density. Loads no torch."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from prunit.errors import ConfigError, unknown
from prunit.known import SCORES
from prunit.recipe.config import BuildConfig, SparseConfig
from prunit.recipe.fleets.goals import check_no_fleet

IMP: Final = "imp"


@dataclass(frozen=True)
class Rung:
    """A variant: its name, the share of weights that was asked for, and after how many levels of `imp` it is there."""

    name: str
    density: float
    level: int


def rungs_of(config: BuildConfig) -> list[Rung]:
    """The variants in the order in which they come about; `ConfigError` for what cannot be made."""
    check_no_fleet(config, "a ladder")
    sparse = config.sparse
    if sparse.method != IMP and sparse.method not in SCORES:
        raise unknown("method", sparse.method, (IMP, *SCORES))
    rungs: dict[int | float, Rung] = {}
    for text in sparse.densities:
        try:
            density = float(Fraction(text.removesuffix("%"))) / (100 if text.endswith("%") else 1)
        except (ValueError, ZeroDivisionError) as error:
            raise ConfigError(f"density '{text}': write a share of the weights, for example 1/16 or 5%") from error
        if not 0 < density < 1:
            raise ConfigError(f"density '{text}': it must lie between 0 and 1; the dense model is there anyway")
        # The number of levels that comes closest, as in the paper: three levels of 20 % for a half.
        level = max(1, round(math.log(density) / math.log(1 - sparse.fraction)))
        rung = Rung("density-" + text.replace("/", "-").replace("%", "-percent"), density, level)
        other = rungs.setdefault(level if sparse.method == IMP else density, rung)
        if other != rung:
            raise ConfigError(f"densities of {other.name} and {rung.name} are the same model: leave one out")
    config.precision.check_variants(["dense", *(rung.name for rung in rungs.values())])
    return sorted(rungs.values(), key=lambda rung: -rung.density)


def rewind_of(sparse: SparseConfig, epochs: int) -> int:
    """Epochs of so many after which weights are kept; DNNShifter's 2,000 steps are 3 % of its 160 epochs.

    Raises `ConfigError` where nothing would be left of the training.
    """
    found = sparse.rewind if sparse.rewind is not None else min(max(1, round(0.03 * epochs)), epochs - 1)
    if found >= epochs:
        raise ConfigError(f"sparse.rewind={found}: it must be less than train.epochs={epochs}")
    return found


def check_rewind(config: BuildConfig) -> None:
    """Raise `ConfigError` where nothing would be left of a training whose epochs are set."""
    if config.train.epochs is not None:
        rewind_of(config.sparse, config.train.epochs)
