"""The recipes by name, as far as they can be told without torch; the ways to widths are in `recipe.recipes`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prunit.allocate import Constraints
from prunit.errors import unknown
from prunit.known import check_score
from prunit.recipe.config import PruneConfig


@dataclass(frozen=True)
class Recipe:
    """What a recipe does in a line, the score that it ranks by, and what it leaves to every layer."""

    line: str
    score: str
    min_share: float = 0.02
    min_width: int = 1
    """What every layer keeps at least, where the user does not say."""
    switches: tuple[str, ...] = ()
    """Settings of this recipe alone, which a plan tells of."""
    frees_streams: bool = False
    """Residual streams are free to shrink where the user leaves it open: the recipe knows what they are worth."""


RECIPES: Final[Mapping[str, Recipe]] = {
    "reconvene": Recipe(
        "prune weights at initialisation, then whole filters of the layers that bear it (Eccles et al. 2024)",
        "synflow",
        switches=("evaluator",),
    ),
    "global": Recipe("one ranking of all channels, lowest scores go", "snip"),
    "complexity": Recipe(
        "layers lose channels by their share of params, macs, memory, latency or energy (Zawish et al. 2024)",
        "random",
        min_share=0.1,
        min_width=4,
        switches=("mode", "draw", "shares", "memory", "memory_batch"),
    ),
    "uniform": Recipe("every layer keeps the same share of its channels", "magnitude"),
    "balanced": Recipe(
        "the largest product of the shares of weights that layers keep, each step priced by what is limited",
        "synflow",
        frees_streams=True,
    ),
}


def recipe_of(config: PruneConfig) -> Recipe:
    """The recipe that a configuration names; `UnknownNameError` if there is none."""
    if config.recipe not in RECIPES:
        raise unknown("recipe", config.recipe, RECIPES)
    return RECIPES[config.recipe]


def score_named(config: PruneConfig) -> str:
    """The name of the score that a configuration means; `UnknownNameError` if it or the recipe is not there."""
    name = config.score or recipe_of(config).score
    check_score(name)
    return name


def constraints_in(config: PruneConfig, step: int = 0) -> Constraints:
    """What a configuration asks of widths; `ConfigError` for what can never hold.

    `step` is the block of channels that an accelerator computes, where `round_to` leaves that open; 0: none.
    """
    recipe = recipe_of(config)
    return Constraints(
        round_to=step if step and config.round_to == "auto" else config.round_to,
        engine=config.engine,
        min_width=recipe.min_width if config.min_width is None else config.min_width,
        min_share=recipe.min_share if config.min_share is None else config.min_share,
        limits=config.limits,
        keep_first=config.keep_first,
        keep_last=config.keep_last,
    )
