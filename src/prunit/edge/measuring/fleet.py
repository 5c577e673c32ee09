"""The devices of a fleet: the list of them, and each probed over ssh, what `prunit probe-device --fleet` does.

A device needs prunit with its extra `edge`, a POSIX shell, and an ssh server that lets you in without asking (a key, an
agent). The list of layers goes there through ssh's input, the profile comes back through its output; nothing stays on
the device.
"""

import re
import shlex
import subprocess
import threading
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, cast

from pydantic import Field, PositiveInt, ValidationError

from prunit.edge.measuring.profile import DeviceProfile, LayerList
from prunit.edge.records import Record
from prunit.errors import ConfigError, DeviceError, FileError

NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
"""What a device may be called: its profile's file has that name."""
_SAFE: Final = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15")
"""No question is asked that nobody would answer, and a device that has gone is noticed within a minute."""
_AT_ONCE: Final = 16
_SAID: Final = 200
"""Characters of what a device said that are told."""


class FleetDevice(Record):
    """How one device is reached, or one of many that are alike, and what a model may cost there.

    name     of its profile's file
    host     as ssh has it: HOST, USER@HOST, or a name of its settings; '' where nobody needs to go there
    command  prunit on the device
    threads  of the inference engine there
    options  more arguments of ssh, ["-p", "2222"]
    budget   its limits as `--budget` has them, without '@FILE': times and energy are those of its own profile
    like     the name of another device whose profile it takes, for devices alike with goals of their own
    """

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    host: Annotated[str, Field(pattern=r"^([^\s-]\S*)?$")] = ""
    command: Annotated[str, Field(min_length=1)] = "prunit"
    threads: PositiveInt = 1
    options: tuple[str, ...] = ()
    budget: str = ""
    like: str = ""


class _Fleet(Record):
    device: Annotated[tuple[FleetDevice, ...], Field(min_length=1)]


class Probed(NamedTuple):
    """What came of a device: the file of its profile, or what went wrong. `new`: it was measured just now."""

    device: FleetDevice
    file: Path
    new: bool = False
    problem: str = ""


def read_fleet(file: Path) -> tuple[FleetDevice, ...]:
    """The devices in a TOML file, each a table `[[device]]`; `FileError` or `ConfigError` for what is none."""
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileError(f"there is no list of devices '{file}'; it has a table [[device]] with name and host") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileError(f"'{file}' is no list of devices: {error}") from error
    if wrong := _misnamed(data):
        raise ConfigError(f"'{file}' is no list of devices: {wrong}")
    try:
        devices = _Fleet.model_validate(data).device
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"'{file}' is no list of devices: {where}: {first['msg']}; it has tables [[device]] with name and host, and"
            " command, threads, options, budget and like where they are wanted"
        ) from error
    taken: dict[str, str] = {}
    for name in (device.name for device in devices):
        other = taken.get(name.lower())
        taken[name.lower()] = name
        if other == name:
            raise ConfigError(f"'{file}' has two devices called '{name}': profiles are named after them")
        if other is not None:  # two files must not be one where a file system has no case
            raise ConfigError(
                f"'{file}' has devices '{other}' and '{name}', whose names differ in case only: their profiles would be"
                " one file on some systems; rename one"
            )
    by_name = {device.name: device for device in devices}
    for device in devices:
        if device.like and (device.like not in by_name or by_name[device.like].like):
            measured = ", ".join(name for name, each in by_name.items() if not each.like) or "none"
            other = by_name.get(device.like)
            why = f"is itself like '{other.like}'" if other else "is not in the list"
            raise ConfigError(
                f"'{file}': device '{device.name}' is like '{device.like}', which {why}: like names a device with a"
                f" profile of its own; those that have one are {measured}"
            )
    return devices


def _misnamed(data: dict[str, Any]) -> str:
    """What is wrong with the tables of a list, or with the name of a device; '' if the rest is to be told."""
    more = next((key for key in data if key != "device"), None)
    if more is not None:
        return f"'{more}' is not known; each device is a table [[device]], with name and host"
    tables = data.get("device")
    if isinstance(tables, dict):
        return "[device] is one table; write [[device]], with two brackets, for each device"
    for table in cast("list[Any]", tables) if isinstance(tables, list) else ():
        name = cast("dict[str, Any]", table).get("name") if isinstance(table, dict) else None
        if isinstance(name, str) and not re.fullmatch(NAME, name):
            return (
                f"device {name!r}: write its name with the letters A-Z and a-z, digits and _ . - alone, and none of . -"
                " at its beginning"
            )
    return ""


def probe_fleet(
    devices: Sequence[FleetDevice],
    layers: LayerList,
    folder: Path,
    *,
    fresh: bool = False,
    ssh: str = "ssh",
    longest_s: float = 3600.0,
    on_device: Callable[[Probed], None] = lambda probed: None,
) -> list[Probed]:
    """Have all devices measure these layers, at the same time; NAME.json of each lands in the folder.

    A profile that is there and covers the layers, with as many threads, is kept unless `fresh`. What goes wrong with a
    device is its own affair: it is told, the others go on. `on_device` is called as each is done. Devices that are like
    another one are left out. Raises `FileError` where the folder cannot be made, `DeviceError` without an ssh client.
    """
    devices = [device for device in devices if not device.like]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder '{folder}': {error.strerror or error}") from error
    telling = threading.Lock()

    def one(device: FleetDevice) -> Probed:
        found = _probed(device, layers, folder / f"{device.name}.json", fresh=fresh, ssh=ssh, longest_s=longest_s)
        with telling:
            on_device(found)
        return found

    with ThreadPoolExecutor(min(len(devices), _AT_ONCE) or 1) as pool:
        return list(pool.map(one, devices))


def _probed(device: FleetDevice, layers: LayerList, file: Path, *, fresh: bool, ssh: str, longest_s: float) -> Probed:
    if not fresh and _serves(file, device, layers):
        return Probed(device, file)
    if not device.host:
        return Probed(device, file, problem=f"it has no host: give it one, or copy its profile to '{file}'")
    command = [ssh, *_SAFE, *device.options, "--", device.host, script(device)]
    try:
        done = subprocess.run(
            command, input=layers.model_dump_json(), capture_output=True, text=True, timeout=longest_s, check=False
        )
    except FileNotFoundError:
        raise DeviceError(f"there is no '{ssh}': install an ssh client, or probe each device by itself") from None
    except (subprocess.TimeoutExpired, UnicodeDecodeError, OSError) as error:
        return Probed(device, file, problem=f"{type(error).__name__}: {error}"[:_SAID])
    if done.returncode:
        return Probed(device, file, problem=_why(device, done))
    try:
        profile = DeviceProfile.model_validate_json(done.stdout)
    except ValidationError as error:
        said = " ".join(done.stdout.split())[:60]
        return Probed(device, file, problem=f"what came back is no profile ({error.error_count()} problems): {said!r}")
    if None in profile.points_of(layers.layers):
        return Probed(device, file, problem="its profile lacks some of the layers; is its prunit of the same version?")
    profile.write(file)
    return Probed(device, file, new=True)


def script(device: FleetDevice) -> str:
    """What the shell of a device is given: layers in, profile out, its own folder gone afterwards."""
    # `command` may be several words, a path from the home folder, a variable: it is for the shell, as in a login.
    probe = f'{device.command} probe-device "$d/layers.json" --out "$d/profile.json" --threads {device.threads}'
    inner = (
        'd=$(mktemp -d) || exit 1; trap \'rm -rf "$d"\' EXIT; cat > "$d/layers.json" &&'
        f' {probe} >&2 && cat "$d/profile.json"'
    )
    return f"sh -c {shlex.quote(inner)}"


def _serves(file: Path, device: FleetDevice, layers: LayerList) -> bool:
    """Whether there is a profile already that covers these layers."""
    if not file.exists():
        return False
    try:
        profile = DeviceProfile.read(file)
    except FileError:
        return False  # of another version, say: it is measured anew
    return profile.threads == device.threads and None not in profile.points_of(layers.layers)


def _why(device: FleetDevice, done: "subprocess.CompletedProcess[str]") -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = lines[-1][-_SAID:] if lines else "it said nothing"
    if done.returncode == 255:  # of ssh itself
        return f"ssh {device.host}: {said}"
    if done.returncode == 127:
        return f"'{device.command}' is not there ({said}): install prunit[edge] on it, or set 'command'"
    return f"exit status {done.returncode}: {said}"
