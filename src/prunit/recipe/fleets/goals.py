"""What each device of a fleet allows a model to cost, as settings of a build. Loads no torch."""

from collections.abc import Mapping
from pathlib import Path

from prunit.allocate import MEASURED, Budget
from prunit.edge.measuring.fleet import FleetDevice, read_fleet
from prunit.edge.measuring.profile import DeviceProfile
from prunit.errors import ConfigError, FileError, UnknownNameError
from prunit.recipe.config import BuildConfig

_RESERVED = "dense"
"""The variant that every build has besides."""


def goals_of(file: Path, profiles: Path) -> dict[str, str]:
    """The budget of each device in a list of them, with the file of its profile where it says of time or energy.

    This is what `fleet.goals` of a build's settings holds. `profiles` is the folder that `prunit probe-device --fleet`
    wrote. Raises `ConfigError` for a device without a goal or with one that is none, `FileError` for a list or a
    profile that is missing or no such thing.
    """
    if "," in str(profiles):
        raise ConfigError(f"--profiles '{profiles}': commas part the limits of a budget; rename the folder")
    devices = read_fleet(file)
    without = [device.name for device in devices if not device.budget.strip()]
    if without:
        raise ConfigError(
            f"'{file}' says no goal for {', '.join(without)}: give each device what a model may cost there, budget ="
            ' "latency=8ms" for example, or leave it out'
        )
    threads = {device.name: device.threads for device in devices}
    return {device.name: _goal(device, threads[device.like or device.name], file, profiles) for device in devices}


def _goal(device: FleetDevice, threads: int, file: Path, profiles: Path) -> str:
    """The device's budget as `--budget` would have it; its profile must be there if it is asked."""
    profile = profiles / f"{device.like or device.name}.json"
    limits = [limit.strip() for limit in device.budget.split(",")]
    where = f"'{file}': device '{device.name}', budget {device.budget}"
    if any("@" in limit for limit in limits):
        raise ConfigError(f"{where}: leave out '@…'; times and energy are those of its own profile, '{profile}'")
    asks = [limit.partition("=")[0].strip() in MEASURED for limit in limits]
    full = ",".join(f"{limit}@{profile}" if asked else limit for limit, asked in zip(limits, asks, strict=True))
    try:
        Budget.parse(full)
    except (ConfigError, UnknownNameError) as error:
        raise type(error)(f"{where}: {error}") from error
    if any(asks):
        if not profile.exists():
            raise FileError(
                f"{where}: there is no profile '{profile}'; prunit probe-device LAYERS --fleet {file} --out {profiles}"
                " makes it"
            )
        found = DeviceProfile.read(profile)
        if found.threads != threads:
            raise ConfigError(
                f"{where}: '{profile}' was measured with threads = {found.threads}, the list says {threads}: set the"
                " same, or measure it again (--fresh)"
            )
    return full


def budgets_of(config: BuildConfig) -> dict[str, Budget]:
    """What each device of a build's fleet allows; `ConfigError` for what does not go together with one."""
    if config.budgets != BuildConfig().budgets:
        raise ConfigError(
            f"budgets {', '.join(config.budgets)} and a fleet: in a build for a fleet they are the devices' own; leave"
            " --budget out, or --fleet"
        )
    if config.by_variant:
        raise ConfigError("by_variant and a fleet: which device's plan a variant will be is not known before")
    found: dict[str, Budget] = {}
    for name, text in config.fleet.goals.items():
        if name.lower() == _RESERVED:
            raise ConfigError(f"a device called '{name}': so is the model that is not pruned; give it another name")
        budget = found[name] = Budget.parse(text)
        if budget.on_parts:
            raise ConfigError(
                f"device '{name}': {budget.on_parts[0]} is told by tools of a microcontroller, and a fleet's devices by"
                " their profiles; build for it by --budget"
            )
        if budget.timed:
            raise ConfigError(f"device '{name}': {budget.timed} needs its profile: write {budget.timed}@FILE")
    return found


def check_no_fleet(config: BuildConfig, what: str) -> None:
    """Raise `ConfigError` for a fleet in the settings of what serves none: `what` is 'a sweep' for example."""
    if config.fleet.goals:
        raise ConfigError(f"setting fleet.goals is for build and plan, not for {what}: leave it out")


def as_written(goals: Mapping[str, str]) -> dict[str, str]:
    """The goals as people wrote them: without files of profiles."""
    return {name: ",".join(limit.partition("@")[0] for limit in text.split(",")) for name, text in goals.items()}
