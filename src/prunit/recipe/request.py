"""What is wrong with a request, as far as it shows without a model: names, settings, files. Loads no torch.

The command line asks here first, so that a mistake is told at once; `build` and its like ask again, since they may be
called from Python.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunit import user
from prunit.allocate import Budget
from prunit.edge import data_sets, runtimes
from prunit.errors import ConfigError, DataError, FileError, PrunitError, ScoreError, unknown
from prunit.known import NETWORKS, SCORES, check_model, check_score, check_task
from prunit.mcu.parts import Part, part
from prunit.mcu.tools import check_tools
from prunit.recipe.config import BuildConfig, EffortConfig, PruneConfig, StartConfig
from prunit.recipe.fleets.goals import budgets_of, check_no_fleet
from prunit.recipe.offered import constraints_in, score_named

if TYPE_CHECKING:
    from prunit.edge.measuring.profile import DeviceProfile
    from prunit.edge.reading import Listing


def check_request(config: BuildConfig) -> dict[str, Budget | None]:
    """The budget of each variant by name, None for the dense one; an error for what can be refused without data.

    Of a fleet these are the devices, which are served by as many variants at most.
    """
    fleet = bool(config.fleet.goals)
    budgets: dict[str, Budget | None] = {"dense": None, **(budgets_of(config) if fleet else {})}
    for budget in () if fleet else map(Budget.parse, config.budgets):
        other = budgets.setdefault(variant_name(budget), budget)
        if other != budget:
            raise ConfigError(f"budgets {other} and {budget} would both be called '{variant_name(budget)}': build one")
    check_start(config.start, config.effort)
    for name in config.by_variant:
        if not budgets.get(name):
            raise unknown("variant", name, [n for n, budget in budgets.items() if budget], "by_variant names them.")
        if config.prune_of(name).pin != config.prune.pin:
            raise ConfigError(f"by_variant.{name}.pin: the model is read once for all variants; set prune.pin")
    config.precision.check_variants(budgets)
    check_tools(parts_of(config, budgets.values()))
    for prune in (config.prune, *map(config.prune_of, config.by_variant)):
        score_named(prune)
        constraints_in(prune)
    alike: dict[Any, str] = {}
    for name, budget in budgets.items():
        if budget:
            prune = config.prune_of(name)
            profiles_of(budget, prune)
            check_timable(budget, prune)
            other = alike.setdefault((budget.asks, prune.model_dump_json()), name)
            if other != name and not fleet:
                raise ConfigError(f"budgets {budgets[other]} and {budget} ask for the same: build one")
    check_model_and_task(config)
    return budgets


def check_model_and_task(config: BuildConfig) -> None:
    """Raise for names of a model and a task behind which nothing can be."""
    check_model(config.model)
    if ":" in config.task:
        user.check(config.task, error=ConfigError)
    else:
        check_task(config.task)


def check_kept(config: BuildConfig) -> None:
    """Raise for a network by name that is to be kept as it is made: it is made with random weights."""
    if config.start.dense == "keep" and not config.start.weights and config.model in NETWORKS:
        raise ConfigError(
            "start.dense=keep (--dense keep) keeps the dense model as it is made, and"
            f" '{config.model}' is made with random weights: give a file of trained ones, with --weights FILE"
        )


def check_start(config: StartConfig, effort: EffortConfig) -> None:
    """Raise for settings that have no effect without a trained start, or that a build's time decides; and for a score
    or a file of weights that is not there."""
    if config.epochs is not None and effort.time is not None:
        raise ConfigError(
            f"start.epochs={config.epochs} (--fine-tune) says how long variants train, and effort.time={effort.time}"
            " (--time) too: give one"
        )
    if config.epochs is not None and config.epochs < config.rounds:
        raise ConfigError(
            f"start.rounds={config.rounds} (--rounds) are more than start.epochs={config.epochs} (--fine-tune): each"
            " round takes at least one epoch"
        )
    if config.key and not config.weights:
        raise ConfigError(f"start.key={config.key} says which weights of a file to take, and start.weights names none")
    if config.score:
        check_score(config.score)
    if config.weights:
        check_checkpoint(Path(config.weights))
    if config.point == "trained" or (config.point == "auto" and (config.weights or config.dense == "keep")):
        return
    for name in ("score", "lr", "epochs", "rounds", "recalibrate"):
        if getattr(config, name) != StartConfig.model_fields[name].default:
            option = " (--fine-tune)" if name == "epochs" else ""
            raise ConfigError(
                f"start.{name}{option} is for variants that begin with trained weights: add --start trained"
            )


def check_checkpoint(file: Path) -> None:
    """Raise `FileError` for weights that are not there."""
    if not file.exists():
        raise FileError(f"there is no checkpoint '{file}'")


def check_without_data(config: PruneConfig) -> None:
    """Raise `ScoreError` where the score looks at images, for a plan that is made without any."""
    if SCORES[score_named(config)].needs_data:
        raise needs_data(score_named(config))


def needs_data(score: str) -> ScoreError:
    """The error of a score that gets no images."""
    return ScoreError(
        f"score '{score}' needs images and their classes: pass batches=[(x_BCHW, y_B)], on the command line --data"
    )


def listed(config: BuildConfig, data_dir: Path | None, *, download: bool = False) -> "Listing | None":
    """The image files of a configuration's data, None where they are no folder and no list; raises what is wrong.

    Data for a task of the user's own come from a factory, of which only the file or the module is looked for.
    """
    if ":" not in config.task:
        return data_sets.listed(config.data, data_sets.place_of(data_dir), config.task, download=download)
    if ":" in config.data:
        user.check(config.data, error=DataError)
    return None


def profiles_of(budget: Budget, config: PruneConfig) -> dict[str, tuple[str, "DeviceProfile"]]:
    """By figure the profile that it is predicted with, and its file: those of the budget, and that of a mode.

    Raises `FileError` for a file that is no profile or of another engine, `ConfigError` where a mode has none.
    """
    files = {limit.figure: limit.profile for limit in budget.limits if limit.profile and not limit.part}
    wanted = _figure(config.mode) if config.recipe == "complexity" else ""
    if wanted and wanted not in files and wanted not in {limit.figure for limit in budget.on_parts}:
        # The file of another limit is of the same device, most likely.
        file = config.profile or next(iter(files.values()), "")
        if not file:
            raise ConfigError(
                f"the mode '{config.mode}' needs the profile of a device: set prune.profile=FILE; prunit probe-device"
                " makes one"
            )
        files[wanted] = file
    if not files:
        return {}
    from prunit.edge.measuring.profile import DeviceProfile

    read = {file: DeviceProfile.read(Path(file), engine=config.engine) for file in set(files.values())}
    return {figure: (file, read[file]) for figure, file in files.items()}


def _figure(mode: str) -> str:
    """What a device has to tell for a mode of the recipe 'complexity', '' where layers are counted."""
    from prunit.allocate.by_complexity import MODES

    return MODES[mode].figure


def check_timable(budget: Budget, config: PruneConfig, *, every: bool = False) -> None:
    """Raise `ConfigError` where plans have to be timed, for the budget or as all are, and their engine is missing."""
    if (budget.timed or every) and (why := untimable(config.engine)):
        how = f"; or name the profile of a device that runs it ({budget.timed}@FILE)" if budget.timed else ""
        raise ConfigError(
            f"plans are timed in the engine that the models are for, {config.engine} (prune.engine): {why}{how}"
        )


def untimable(engine: str) -> str:
    """Why plans cannot be timed in an engine here, '' if they can. That the default one is missing says who times."""
    if engine == runtimes.DEFAULT:
        return ""
    if engine not in runtimes.RUNTIMES:
        return "prunit has no runtime of it"
    try:
        runtimes.runtime(engine).version()
    except PrunitError as error:
        return str(error)
    return ""


def parts_of(config: BuildConfig, budgets: Iterable[Budget | None]) -> tuple[Part, ...]:
    """The parts that all variants of a build are made for: those of its budgets, then the other targets."""
    limited = [limit.part for budget in budgets if budget for limit in budget.on_parts]
    return tuple(part(name) for name in dict.fromkeys((*limited, *config.parts.targets)))


def variant_name(budget: Budget) -> str:
    """A file name for the variant of a budget: `params=1/16` becomes `params-1-16`; without devices."""
    text = "-".join(f"{limit.key}-{limit.text.partition('@')[0]}" for limit in budget.limits)
    return "-".join(re.findall(r"[a-z0-9.]+", text.replace("%", "-percent").replace("×", "x").lower()))


def one_budget(config: BuildConfig) -> Budget:
    """The budget that a plan is for, once all that needs no model is checked; of the default ones the first."""
    check_no_fleet(config, "a plan of one variant")
    budgets = [budget for budget in check_request(config).values() if budget]
    if len(budgets) != 1 and config.budgets != BuildConfig().budgets:
        texts = ", ".join(config.budgets) or "none"
        raise ConfigError(f"a plan is for one budget, got {len(budgets)}: {texts}; give one --budget")
    return budgets[0]
