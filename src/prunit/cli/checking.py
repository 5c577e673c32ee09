"""What is wrong with a command line, as far as it shows without a model: told at once, since none of it loads torch.

Each function imports what it needs, so that a mistake in an option waits for nothing.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunit.cli.options import HERE, Places
from prunit.errors import ConfigError, FileError, PlanError

if TYPE_CHECKING:
    from prunit.allocate import Budget
    from prunit.edge.reading import Listing
    from prunit.recipe import BuildConfig
    from prunit.recipe.outs import Out, OutFile


def check_build(config: "BuildConfig", into: "Out", *, resume: bool, places: Places = HERE) -> None:
    """Raise what is wrong with a build, its folder and address, and with where its variants are to be trained."""
    from prunit.recipe.folder import check_folder, check_resumes
    from prunit.recipe.request import check_kept, check_request

    check_places(places, config, len(check_request(config)))
    check_kept(config)
    with into.naming():
        check_folder(into.folder, resume=resume)
        check_resumes(into.folder, config)
    check_sent(into)


def check_sweep(
    config: "BuildConfig",
    recipes: Sequence[str],
    into: "Out",
    *,
    eta: int,
    held_out: float | None,
    resume: bool,
    places: Places = HERE,
) -> None:
    """Raise what is wrong with a sweep; `into` and `places` as for `check_build`."""
    from prunit.recipe.entrants import check_entrants, check_place, check_same, settings_of, trainings_of
    from prunit.recipe.fleets.goals import check_no_fleet
    from prunit.recipe.request import check_request

    check_no_fleet(config, "a sweep")
    settings = {name: settings_of(name) for name in recipes}
    budgets = {name: budget for name, budget in check_request(config).items() if budget}
    check_entrants(settings, budgets, eta, held_out)
    check_places(places, config, trainings_of(settings, budgets), what="sweep")
    with into.naming():
        check_place(into.folder, resume=resume)
        check_same(into.folder, config, recipes, eta)
    check_sent(into)


def check_ladder(config: "BuildConfig", into: "Out", *, resume: bool, places: Places = HERE) -> None:
    """Raise what is wrong with a ladder; `into` and `places` as for `check_build`."""
    from prunit.recipe.folder import check_folder, check_resumes
    from prunit.recipe.request import check_model_and_task
    from prunit.recipe.rungs import check_rewind, rungs_of

    check_places(places, config, len(rungs_of(config)) + 1, what="ladder")
    check_rewind(config)
    check_model_and_task(config)
    with into.naming():
        check_folder(into.folder, resume=resume)
        check_resumes(into.folder, config, kind="ladder")
    check_sent(into)


def check_sent(into: "Out | OutFile") -> None:
    """Raise what is wrong with the address that results go to, if they go to one."""
    from prunit.remote import ends_with_process

    into.check()
    if ends_with_process(into.address):
        raise ConfigError(
            f"--out {into.shown_address}: what lies in memory is gone when this command ends (it is for Python): give a"
            " folder, or an address that stays"
        )


def check_places(places: Places, config: "BuildConfig", trainings: int, *, what: str = "build") -> None:
    """Raise what is wrong with where so many trainings of `what` ('build', 'sweep', 'ladder') are to be done."""
    from prunit.recipe.places.asked import check_jobs, check_ray

    check_jobs(places.jobs or 1, config, trainings, what=what)
    check_ray(places.ray, places.cpus, places.gpus, config, what=what)


def check_plan(config: "BuildConfig", *, shape: tuple[str, int] | None) -> "Budget":
    """The budget that a plan is for; raises what is wrong. `shape` is what the model is for where there are no data."""
    from prunit.recipe.request import check_without_data, one_budget

    budget = one_budget(config)
    if shape is not None:
        check_without_data(config.prune)
        built_for(config.model, *shape)
    return budget


def check_fleet_plan(config: "BuildConfig", *, shape: tuple[str, int] | None) -> None:
    """Raise what is wrong with plans for the fleet in a configuration; `shape` as for `check_plan`."""
    from prunit.recipe.request import check_request, check_without_data

    check_request(config)
    if shape is not None:
        check_without_data(config.prune)
        built_for(config.model, *shape)


def check_shrink(config: "BuildConfig", checkpoint: Path, *, shape: tuple[str, int] | None) -> None:
    """Raise what is wrong with shrinking the weights in a checkpoint; `shape` as for `check_plan`."""
    from prunit.recipe.request import check_checkpoint, check_model_and_task

    check_model_and_task(config)
    check_checkpoint(checkpoint)
    if shape is not None:
        built_for(config.model, *shape)


def listed(config: "BuildConfig", data_dir: Path | None, download: bool) -> "Listing | None":
    """The files of a configuration's folder of images, None for other data; raises what is wrong with either."""
    from prunit.recipe.request import listed as run

    if not Path(config.data).is_dir():
        return run(config, data_dir, download=download)
    from prunit.cli.progress import Bars

    with Bars() as bars:  # there may be a million of them
        bars.wait(f"reading {config.data}")
        return run(config, data_dir, download=download)


def built_for(name: str, shape: str, classes: int) -> tuple[int, int]:
    """Channels and side of the images (C×H×W) that a model is for; raises what is wrong with them or its name."""
    from prunit.known import check_built_for, check_model

    check_model(name)
    match = re.fullmatch(r"(\d+)[x×](\d+)[x×](\d+)", shape)
    if match is None or match[2] != match[3] or "0" in match.groups():
        raise ConfigError(f"--input {shape}: write it as C×H×W with H = W, for example 3x32x32")
    check_built_for(name, num_classes=classes)
    return int(match[1]), int(match[2])


def check_writable(out: Path, example: str) -> None:
    """Refuse what is a folder, or lies below a file, before anything is computed; `example` is a good file name."""
    if out.is_dir():
        raise FileError(f"--out {out}: it is a folder; name the file to write, for example {out / example}")
    if out.parent.is_file():
        raise FileError(f"--out {out}: '{out.parent}' is a file, not a folder")


def check_replaces(out: Path) -> bool:
    """Whether there is a plan in this file, which a new one may replace; `FileError` if it holds something else."""
    if not out.exists():
        return False
    from prunit.cut.plans import Plan

    try:
        Plan.from_json(out.read_text())
    except (PlanError, UnicodeDecodeError) as error:
        raise FileError(
            f"--out {out}: the file is there and holds no plan; choose another name, or remove it"
        ) from error
    return True
