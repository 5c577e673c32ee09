"""What each device of a fleet allows a model to cost, as settings of a build. Loads no torch."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from prunit.allocate import MEASURED, ON_PARTS, Budget
from prunit.edge.measuring.fleet import FleetDevice, read_fleet
from prunit.edge.measuring.profile import DeviceProfile
from prunit.edge.precision import name_in
from prunit.errors import ConfigError, FileError, UnknownNameError
from prunit.recipe.config import BuildConfig

_RESERVED = "dense"
"""The variant that every build has besides."""
_PARTS = "is told by the tools of a microcontroller or an NPU, and a fleet goes by profiles: build for it by --budget"


def goals_of(file: Path, profiles: Path) -> dict[str, str]:
    """The budget of each device in a list of them, with the file of its profile where it says of time or energy.

    This is what `fleet.goals` of a build's settings holds. `profiles` is the folder that `prunit probe-device --fleet`
    wrote. Raises `ConfigError` for a device without a goal or with one that is none, `FileError` for a list or a
    profile that is missing or no such thing.
    """
    if "," in str(profiles):
        raise ConfigError(f"--profiles '{profiles}': commas part the limits of a budget; rename the folder")
    if profiles.is_file():
        raise ConfigError(
            f"--profiles '{profiles}' is a file: name the folder in which the profiles of all devices lie, NAME.json"
            " each"
        )
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
    keys = [limit.partition("=")[0].strip() for limit in limits]
    on_part = next((key for key in keys if key in ON_PARTS), "")
    if on_part:
        raise ConfigError(f"{where}: {on_part} {_PARTS}")
    if any("@" in limit for limit in limits):
        raise ConfigError(f"{where}: leave out '@…'; times and energy are those of its own profile, '{profile}'")
    asks = [key in MEASURED for key in keys]
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
    _check_names(config)
    found: dict[str, Budget] = {}
    for name, text in config.fleet.goals.items():
        try:
            budget = found[name] = Budget.parse(text)
        except (ConfigError, UnknownNameError) as error:
            raise type(error)(f"device '{name}': {error}") from error
        if budget.on_parts:
            raise ConfigError(f"device '{name}': {budget.on_parts[0]} {_PARTS}")
        if budget.timed:
            raise ConfigError(f"device '{name}': {budget.timed} needs its profile: write {budget.timed}@FILE")
    return found


def _check_names(config: BuildConfig) -> None:
    """Raise `ConfigError` where devices cannot give their names to variants, which are the names of files."""
    taken: dict[str, str] = {}
    for name in config.fleet.goals:
        try:
            FleetDevice(name=name)
        except ValidationError as error:
            raise ConfigError(f"device '{name}': write its name with letters, digits and _ . - alone") from error
        if name.lower() == _RESERVED:
            raise ConfigError(f"a device called '{name}': so is the model that is not pruned; give it another name")
        for precision in dict.fromkeys(("fp32", *config.precision.of(name))):
            variant = name_in(name, precision)
            other = taken.setdefault(variant.lower(), name)  # two files must not be one where a file system has no case
            if other != name:
                raise ConfigError(f"devices '{other}' and '{name}' would both have a variant '{variant}': rename one")


def check_no_fleet(config: BuildConfig, what: str) -> None:
    """Raise `ConfigError` for a fleet in the settings of what serves none: `what` is 'a sweep' for example."""
    if config.fleet.goals:
        raise ConfigError(f"setting fleet.goals is for build and plan, not for {what}: leave it out")


def as_written(goals: Mapping[str, str]) -> dict[str, str]:
    """The goals as people wrote them: without files of profiles."""
    return {name: ",".join(limit.partition("@")[0] for limit in text.split(",")) for name, text in goals.items()}
