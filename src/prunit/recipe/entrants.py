"""What a sweep is told: the recipes that compete, how they are judged, and a folder. Loads no torch."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from prunit.errors import ConfigError, unknown
from prunit.recipe.config import BuildConfig, validated
from prunit.recipe.folder import read_json
from prunit.recipe.lock import LOCK, check_free
from prunit.recipe.offered import RECIPES

TRIALS: Final = "trials.json"
PORTFOLIO: Final = "portfolio"
"""What a sweep leaves in its folder: what was tried, and the portfolio of the front."""

HELD_OUT: Final = 0.2
"""The share of the training images that judges where nothing else is there to do so."""

DEFAULT_RECIPES: Final = ("reconvene", "reconvene:emptied", "uniform", "complexity:pa", "complexity:fa")
_SWITCH: Final = {"reconvene": "evaluator", "complexity": "mode"}
"""What the word after a recipe's name sets: reconvene:emptied, complexity:fa."""


def settings_of(recipe: str) -> dict[str, str]:
    """The settings of `prune` in a recipe as a sweep is told of it: NAME or NAME:SWITCH."""
    name, _, switch = recipe.partition(":")
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    if switch and name not in _SWITCH:
        raise ConfigError(
            f"recipe '{recipe}': {name} has no switch; write {name}, or one of {', '.join(_SWITCH)}:SWITCH"
        )
    found = {"recipe": name} | ({_SWITCH[name]: switch} if switch else {})
    validated({"prune": found})
    return found


def check_entrants(
    settings: Mapping[str, object], budgets: Mapping[str, object], eta: int, held_out: float | None
) -> None:
    """Raise `ConfigError` for a sweep of nothing, or whose trials cannot be judged."""
    if not settings:
        raise ConfigError("a sweep needs at least one recipe")
    if not budgets:
        raise ConfigError("a sweep needs at least one budget")
    if eta < 2:
        raise ConfigError(f"eta={eta}: at least 2, the number of trials of which one goes on")
    if held_out is not None and not 0 < held_out < 1:
        raise ConfigError(f"held_out={held_out}: a share of the training images between 0 and 1")


def trainings_of(recipes: Collection[str], budgets: Collection[str]) -> int:
    """How many trainings of a sweep may run beside each other: its first rung, or what is built in the end."""
    return max(len(recipes) * len(budgets) if len(recipes) > 1 else 0, len(budgets) + 1)


def check_place(folder: Path, *, resume: bool) -> None:
    """Raise `ConfigError` if a sweep runs in the folder, or it is not one to sweep in; nothing is written."""
    check_free(folder, what="sweep", shown=folder)
    check_content(folder, resume=resume)


def check_content(folder: Path, *, resume: bool) -> None:
    """Raise `ConfigError` if the folder holds something else, or a sweep that is not to be resumed."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"'{folder}' is a file: choose a folder (--out) that is empty or not there yet")
    if not (folder / TRIALS).exists():
        if folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
            raise ConfigError(f"'{folder}' is not empty: choose a folder (--out) that is empty or not there yet")
    elif not resume:
        raise ConfigError(f"'{folder}' already holds a sweep: continue it with --resume, or choose another (--out)")


def check_same(folder: Path, config: BuildConfig, recipes: Sequence[str], eta: int) -> None:
    """Raise `ConfigError` where the folder holds a sweep of other settings, as far as these show without data."""
    if not (folder / TRIALS).exists():
        return
    before = read_json(folder / TRIALS)
    asked = before.get("asked") if isinstance(before, dict) else None
    now: dict[str, Any] = {**config.model_dump(mode="json", exclude={"probe"}), "recipes": list(recipes), "eta": eta}
    if config.task != "classification":  # what `auto` means for residual streams, the task itself says
        now["prune"]["residual"] = None
    for name, value in now.items():
        then = asked.get(name) if isinstance(asked, dict) else None
        if name == "prune" and isinstance(then, dict) and value["residual"] is None:
            then = {**then, "residual": None}
        if then != value:
            raise ConfigError(other_settings(folder))


def other_settings(folder: Path) -> str:
    """The message for a folder whose sweep was asked for something else."""
    return f"'{folder}' holds a sweep of other settings: repeat those, or choose another (--out)"
