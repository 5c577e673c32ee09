"""What is wrong with what was asked of places, as far as it shows without a model. Loads no torch."""

from prunit.errors import ConfigError
from prunit.recipe.config import BuildConfig
from prunit.recipe.places.pieces import Executor, Here
from prunit.recipe.rungs import IMP


def check_jobs(jobs: object, config: BuildConfig, trainings: int, *, what: str = "build") -> int:
    """So many trainings at the same time; `ConfigError` where that is no number, or there are fewer of them.

    `trainings` are those of `what` ('build', 'sweep', 'ladder') that need nothing of each other.
    """
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise ConfigError(f"jobs={jobs!r}: it must be a whole number, at least 1, of trainings at the same time")
    if jobs == 1:
        return 1
    check_shares(config, f"jobs={jobs} (--jobs)", what)
    if jobs > trainings:
        variants = f"{trainings} training{'s' * (trainings > 1)}"
        raise ConfigError(f"jobs={jobs} (--jobs): this {what} has {variants} that can run at once; ask for no more")
    return jobs


def check_shares(config: BuildConfig, asked: str, what: str) -> None:
    """Raise `ConfigError` for settings by which one training needs the machine alone, or the one before it."""
    if what == "ladder" and config.sparse.method == IMP:
        raise ConfigError(
            f"{asked}: by '{IMP}' each level of a ladder starts from the one before, so nothing can be trained beside"
            " it; leave it out, or mask by a score (--method snip)"
        )
    if config.train.devices > 1:
        raise ConfigError(
            f"{asked} trains variants beside each other, and train.devices={config.train.devices} each of them on"
            " several devices: give one of the two"
        )
    if config.effort.time is not None:
        raise ConfigError(
            f"{asked} and effort.time={config.effort.time} (--time): a time is shared out among trainings that come one"
            " after the other; say --epochs instead, or leave jobs out"
        )


def executor_for(jobs: "int | Executor", config: BuildConfig, trainings: int, *, what: str = "build") -> Executor:
    """Where so many trainings are done; `ConfigError` as by `check_jobs`."""
    if isinstance(jobs, int) or not hasattr(jobs, "open"):
        if check_jobs(jobs, config, trainings, what=what) == 1:
            return Here()
        from prunit.recipe.places.processes import Processes

        return Processes(int(jobs))
    if not isinstance(jobs, Here):
        check_shares(config, type(jobs).__name__, what)
    return jobs
