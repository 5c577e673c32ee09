"""What a Linux device says of itself: memory, clock, heat, battery. Each reading is None where there is no such sensor.

A sensor that disappears, or gives nonsense, is one that is not there: serving goes on without it.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UNLIMITED_BYTES: Final = 1 << 60
"""A control group that says more than this limits nothing."""


@dataclass(frozen=True)
class Readings:
    """What was read. `load` is the mean number of runnable processes per core over a minute; `clock` the present share
    of the highest frequency; `battery` 0 to 1, None on the mains.
    """

    memory_bytes: int | None = None
    load: float | None = None
    clock: float | None = None
    celsius: float | None = None
    hot: bool = False
    battery: float | None = None

    @property
    def throttled(self) -> bool:
        """The device is too hot, or its clock far below the highest while there is work for it."""
        busy = self.load is not None and self.load > 0.5
        return self.hot or (busy and self.clock is not None and self.clock < 0.6)


def read(root: Path = Path("/")) -> Readings:
    """All readings now, from the kernel's files below `root`."""
    celsius, hot = _heat(root / "sys/class/thermal")
    return Readings(
        memory_bytes=_memory(root),
        load=_load(root / "proc"),
        clock=_clock(root / "sys/devices/system/cpu"),
        celsius=celsius,
        hot=hot,
        battery=_battery(root / "sys/class/power_supply"),
    )


def _number(file: Path) -> float | None:
    with suppress(OSError, ValueError, IndexError):  # some drivers give an empty file
        return float(file.read_text(encoding="ascii").split()[0])
    return None


def _text(file: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return file.read_text(encoding="utf-8").strip()
    return ""


def _memory(root: Path) -> int | None:
    """What is available on the machine, or what the control group leaves of its limit if that is less."""
    found: list[int] = []
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            with suppress(ValueError, IndexError):
                found.append(1024 * int(line.split()[1]))
    group = root / "sys/fs/cgroup"
    for limit, used in (
        (group / "memory.max", group / "memory.current"),
        (group / "memory/memory.limit_in_bytes", group / "memory/memory.usage_in_bytes"),
    ):
        most, now = _number(limit), _number(used)
        if most is not None and now is not None and most < _UNLIMITED_BYTES:
            found.append(max(int(most - now), 0))
    return min(found, default=None)


def _load(proc: Path) -> float | None:
    load = _number(proc / "loadavg")
    cores = sum(line.startswith("processor") for line in _text(proc / "cpuinfo").splitlines())
    return load / cores if load is not None and cores else None


def _clock(cpus: Path) -> float | None:
    shares: list[float] = []
    for folder in _folders(cpus, "cpu[0-9]*"):
        now, most = (_number(folder / "cpufreq" / name) for name in ("scaling_cur_freq", "cpuinfo_max_freq"))
        if now is not None and most:
            shares.append(min(now / most, 1.0))
    return sum(shares) / len(shares) if shares else None


def _heat(zones: Path) -> tuple[float | None, bool]:
    """The hottest zone, and whether any is past the point from which the kernel cools it."""
    hottest, hot = None, False
    for zone in _folders(zones, "thermal_zone*"):
        value = _number(zone / "temp")
        if value is None or not -50_000 < value < 200_000:
            continue
        hottest = max(value / 1000, hottest if hottest is not None else -273.0)
        for kind in _folders(zone, "trip_point_*_type"):
            trip = _number(zone / kind.name.replace("_type", "_temp"))
            hot |= _text(kind) == "passive" and trip is not None and trip > 0 and value >= trip
    return hottest, hot


def _battery(supplies: Path) -> float | None:
    """The emptiest battery while none is charged."""
    shares: list[float] = []
    for supply in _folders(supplies, "*"):
        capacity = _number(supply / "capacity")
        if _text(supply / "type") == "Battery" and capacity is not None:
            if _text(supply / "status") in ("Charging", "Full", "Not charging"):
                return None
            shares.append(min(max(capacity / 100, 0.0), 1.0))
    return min(shares, default=None)


def _folders(folder: Path, pattern: str) -> Iterable[Path]:
    with suppress(OSError):
        return sorted(folder.glob(pattern))
    return ()
