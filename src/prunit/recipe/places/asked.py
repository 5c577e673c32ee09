"""What is wrong with what was asked of places, as far as it shows without a model. Loads no torch."""

import socket
from importlib.util import find_spec
from typing import Final

from prunit.errors import ConfigError, DeviceError, MissingExtraError
from prunit.recipe.config import BuildConfig
from prunit.recipe.places.pieces import Executor, Here
from prunit.recipe.rungs import IMP

LOCAL: Final = "local"
"""In the place of an address of Ray: on this machine, started and ended with the build."""
_ANSWER_S: Final = 5.0
"""How long an address may take to answer."""


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
        at_once = check_jobs(jobs, config, trainings, what=what)
        if at_once == 1:
            return Here()
        from prunit.recipe.places.processes import Processes

        return Processes(at_once)
    if not isinstance(jobs, Here):
        check_shares(config, type(jobs).__name__, what)
    return jobs


def check_ray(
    address: str | None, cpus: int | None, gpus: float | None, config: BuildConfig, *, what: str = "build"
) -> None:
    """Raise what is wrong with trainings on Ray at an address (None: not asked for), as far as that shows from here."""
    if address is None:
        for option, value in (("--cpus-per-trial", cpus), ("--gpus-per-trial", gpus)):
            if value is not None:
                raise ConfigError(f"{option} {value:g} is of trainings on Ray: say --ray local, or --ray ADDRESS")
        return
    check_shares(config, f"--ray {address}", what)
    place = _place_of(address)
    if find_spec("ray") is None:
        raise MissingExtraError("--ray", "ray", "ray")
    if place:
        check_answers(address)


def check_answers(address: str) -> None:
    """Raise `DeviceError` where nobody listens at HOST:PORT, `ConfigError` for what is no address."""
    place = _place_of(address)
    if place is None:
        return
    try:
        socket.create_connection(place, timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise DeviceError(
            f"--ray {address}: nobody answers there ({error.__class__.__name__}); start Ray with `ray start --head`, or"
            " say local"
        ) from error


def _place_of(address: str) -> tuple[str, int] | None:
    """Host and port, None where Ray itself knows them."""
    if address in (LOCAL, "auto"):
        return None
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in host:
        raise ConfigError(f"--ray {address}: write local, auto, or the HOST:PORT that `ray start --head` shows")
    return host.strip("[]"), int(port)
