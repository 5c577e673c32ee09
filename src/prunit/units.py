"""Amounts with units, read as people write them and written to be read: KB and MB are powers of 1000, KiB of 1024."""

import difflib
import re
from collections.abc import Mapping
from typing import Final, Literal

from prunit.errors import ConfigError

Kind = Literal["count", "bytes", "ms", "mj"]

UNITS: Final[Mapping[Kind, Mapping[str, float]]] = {
    "count": {"k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9},
    "bytes": {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "ms": {"us": 1e-3, "ms": 1, "s": 1e3},
    "mj": {"uJ": 1e-3, "mJ": 1, "J": 1e3},
}
"""What an amount of each kind may be given in, and how many counts, bytes, milliseconds or millijoules that is."""

_SHORT: Final = {"k": "kb", "m": "mb", "g": "gb", "ki": "kib", "mi": "mib", "gi": "gib"}
"""Bytes as many leave their B out: 256K is 256 KB, 64Ki is 64 KiB."""

_SAID: Final[Mapping[str, tuple[str, ...]]] = {
    "k": ("thousand",),
    "M": ("million", "millions", "mio", "mn"),
    "G": ("billion", "billions"),
    "B": ("byte", "bytes"),
    "KB": ("kilobyte", "kilobytes", "ko"),
    "MB": ("megabyte", "megabytes", "mo"),
    "GB": ("gigabyte", "gigabytes", "go"),
    "us": ("usec", "microseconds"),
    "ms": ("msec", "millis", "milliseconds"),
    "s": ("sec", "second", "seconds"),
    "mJ": ("millijoule", "millijoules"),
    "J": ("joule", "joules"),
}
"""Units as people say them, and how they are written here."""


def unit_of(text: str, kind: Kind) -> float:
    """How much one of the unit is, whatever its case; `ConfigError` with the nearest of the known ones."""
    known = {name.lower(): value for name, value in UNITS[kind].items()}
    unit = text.lower().replace("µ", "u").replace("μ", "u")
    unit = _SHORT.get(unit, unit) if kind == "bytes" else unit
    if unit in known:
        return known[unit]
    names = list(UNITS[kind])
    counted = re.fullmatch(r"([kmgb])(macs?|madds?|params?|flops?)", unit) if kind == "count" else None
    if counted and counted[2].startswith("flop"):
        raise ConfigError(
            f"unknown unit '{text}': flops are about twice as many as multiply-adds; half of it is macs=…"
        )
    word = next((name for name, said in _SAID.items() if unit in said), "") or (
        names[list(known).index(counted[1])] if counted else ""
    )
    if word in names:
        raise ConfigError(f"unknown unit '{text}', known are {', '.join(names)}; write {word}")
    other = any(unit in map(str.lower, units) for units in UNITS.values())
    near = [] if other else difflib.get_close_matches(unit, known, n=1, cutoff=0.6)
    guess = f"; did you mean {names[list(known).index(near[0])]}?" if near else ""
    raise ConfigError(f"unknown unit '{text}', known are {', '.join(names)}{guess}")


def bytes_of_text(text: str) -> int:
    """A size as people write it: 200MB, 1.5 GB, 256K, 64KiB, 4096. Raises `ConfigError`."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    how = f"'{text}' is no size: write 200MB, 1.5GB, 64KiB or a number of bytes"
    if not found or float(found[1]) <= 0:
        raise ConfigError(how)
    try:
        return round(float(found[1]) * (unit_of(found[2], "bytes") if found[2] else 1))
    except ConfigError as error:
        raise ConfigError(f"{how} ({error})") from None


def written(value: float, figure: str) -> str:
    """The value of a figure (`params`, `macs`, `…_bytes`, `…_ms`, `…_mj`) with its unit; counts and bytes exact."""
    if figure.endswith("_bytes"):
        return _bytes(round(value))
    for ending, unit in (("_ms", "ms"), ("_mj", "mJ")):
        if figure.endswith(ending):
            return f"{value:.3g} {unit}"
    return f"{round(value):,} {figure}"


def _bytes(value: int) -> str:
    for name in ("GB", "MB", "KB"):
        size = round(UNITS["bytes"][name])
        if value >= size:
            whole, rest = divmod(value, size)
            digits = f"{rest:0{len(str(size)) - 1}d}".rstrip("0")
            return f"{whole}{'.' if digits else ''}{digits} {name}"
    return f"{value} B"


_SECONDS: Final[Mapping[str, float]] = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPOKEN: Final[Mapping[str, str]] = {
    "sec": "s",
    "second": "s",
    "min": "m",
    "minute": "m",
    "hr": "h",
    "hour": "h",
    "day": "d",
}


def seconds_of(text: str) -> float:
    """Seconds of a duration as people write it: 90s, 30m, 1.5h, 1h30m; `ConfigError` for anything else."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text.strip().lower())
    joined = "".join(f"{number}{unit}" for number, unit in parts)
    units: list[str] = [_SPOKEN.get(str(unit).removesuffix("s"), str(unit)) for _, unit in parts]
    if not parts or joined != re.sub(r"\s", "", text.lower()) or not all(unit in _SECONDS for unit in units):
        raise ConfigError(f"duration '{text}': write it with its unit, as 90s, 30m, 2h or 1h30m")
    seconds = sum(float(number) * _SECONDS[unit] for (number, _), unit in zip(parts, units, strict=True))
    if seconds <= 0:
        raise ConfigError(f"duration '{text}': it must be more than nothing")
    return seconds
