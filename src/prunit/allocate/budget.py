"""What the result may cost, parsed from what a user writes."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from prunit.errors import ConfigError, unknown
from prunit.mcu.parts import PARTS, part
from prunit.units import UNITS, Kind, unit_of

KEYS: Final[Mapping[str, str]] = {
    "params": "params",
    "macs": "macs",
    "weights": "weight_bytes",
    "activations": "activation_bytes",
    "ram": "activation_bytes",
}
"""What a budget may limit, and the figure of `Cost` that it limits: counted, whatever the device."""

MEASURED: Final[Mapping[str, str]] = {"latency": "latency_ms", "faster": "latency_ms", "energy": "energy_mj"}
"""What it may limit on a device, and the figure that a profile of the device predicts (`latency=5ms@profile.json`)."""

TIMED: Final = ("latency", "faster")
"""Of these, what is met by timing plans on this machine where no profile is named (`latency=5ms`, `faster=2x`)."""

ON_PARTS: Final[Mapping[str, str]] = {
    "cycles": "cycles",
    "arena": "arena_bytes",
    "sram": "sram_bytes",
    "flash": "flash_bytes",
}
"""What it may limit on a microcontroller or an NPU, and the figure that its compiler or interpreter reports
(`cycles=250k@ethos-u55-128`, `arena=48KB@tflm`). A latency may be one of such a part too."""

_FIGURES: Final[Mapping[str, str]] = {**KEYS, **MEASURED, **ON_PARTS}
_KINDS: Final[Mapping[str, Kind]] = {"bytes": "bytes", "ms": "ms", "mj": "mj"}
"""How the amounts of a figure are given, by the end of its name; all others are counts."""

_HOW = "write a share of the dense cost (1/16, 0.25, 25%, 16x) or an amount (macs=20M, weights=500KB, latency=5ms)"
_FASTER = "write how many times faster than the dense model, more than 1: faster=2x"

_MEANT: Final[Mapping[str, tuple[str, ...]]] = {
    "write macs=…, multiply-adds": (
        *("mac", "madd", "madds", "multadds", "mults", "operations", "ops", "compute", "multiplyadds"),
    ),
    "write macs=…; one multiply-add is about two flops, so that flops=40M is about macs=20M": (
        *("flop", "flops", "mflops", "gflops", "flopcount", "floatingpointoperations", "bops"),
    ),
    "write params=…, how many weights there are": ("param", "parameter", "parameters", "numparams", "nparams"),
    "write weights=…, the bytes of all weights (about those of the file)": (
        *("size", "weight", "weightbytes", "modelsize", "file", "filesize", "disk", "storage", "bytes"),
        *("download", "mb", "kb"),
    ),
    "write ram=…, the most bytes that activations take at once; the weights' bytes are weights=…": (
        *("memory", "mem", "peak", "peakmemory", "vram", "activation", "activationbytes", "peakram"),
        *("activationmemory", "memorybytes", "workingset"),
    ),
    "write latency=5ms, timed on this machine, or latency=5ms@FILE with the profile of a device": (
        *("time", "latencyms", "ms", "runtime", "inference", "inferencetime", "delay", "duration", "seconds"),
    ),
    "write faster=2x, for at most half of the time that the dense model takes on this machine": (
        *("speed", "speedup", "fast", "quicker", "acceleration", "timesfaster", "slower"),
    ),
    "write latency=33ms, for 30 images a second one by one on this machine; latency=33ms@FILE for a device's profile": (
        *("fps", "throughput", "rate", "ips", "imagespersecond"),
    ),
    "write energy=2mJ@FILE with the profile of a device, as prunit probe-device makes it": (
        *("power", "joule", "joules", "battery", "energymj", "mj", "watt", "watts"),
    ),
    "write flash=256KB@PART, with tflm or an NPU such as ethos-u55-128 for PART": (
        *("rom", "flashbytes", "programmemory", "binary", "tflite", "flatbuffer"),
    ),
    "write arena=64KB@tflm, what TensorFlow Lite Micro takes of RAM": (
        *("tensorarena", "arenabytes", "arenasize", "scratch", "heap"),
    ),
    "write cycles=1M@PART, with the name of an NPU such as ethos-u55-128 for PART": (
        *("cycle", "clocks", "clockcycles", "ticks", "npucycles"),
    ),
    "say what of, params=1/4 for example: a budget is the share that is kept, or an amount": (
        *(
            "sparsity",
            "density",
            "ratio",
            "pruningratio",
            "prune",
            "compression",
            "keep",
            "channels",
            "amount",
            "share",
        ),
        *("filters", "width", "reduction"),
    ),
    "a budget limits what a model costs; its accuracy comes out of the training": ("accuracy", "acc", "top1", "loss"),
}
"""What others call these limits, without spaces, dashes and underscores, and what to write instead."""


@dataclass(frozen=True)
class Limit:
    """The most that one figure may be: a share of the dense cost, or an amount in elements, macs, bytes, ms or mJ.

    `profile` is the file of the device whose figure it is, or the name of a part (`mcu.parts`); '' for what is counted
    and for what is timed here.
    """

    key: str
    text: str
    share: float | None = None
    amount: float | None = None
    profile: str = ""

    @property
    def figure(self) -> str:
        """The name of what is limited, with its unit."""
        return _FIGURES[self.key]

    @property
    def part(self) -> str:
        """The microcontroller or NPU whose figure it is, '' if it is none's."""
        return self.profile if self.profile in PARTS else ""

    @property
    def timed(self) -> bool:
        """It is met by timing plans on this machine: nothing else tells the figure."""
        return self.key in TIMED and not self.profile

    def of(self, dense: Mapping[str, float]) -> float:
        """The limit as an amount (whole, where the figure is a count), for a model with these figures unpruned."""
        counted = self.key in KEYS
        if self.share is None:
            assert self.amount is not None
            return int(self.amount) if counted else self.amount
        return math.floor(_simple(self.share) * dense[self.figure]) if counted else self.share * dense[self.figure]

    def share_of(self, dense: Mapping[str, float]) -> float:
        """The share of the dense cost that the limit leaves, at most 1."""
        return min(1.0, self.of(dense) / (dense[self.figure] or 1))

    def __str__(self) -> str:
        return f"{self.key}={self.text}"


@dataclass(frozen=True, repr=False)
class Budget:
    """All limits hold at once."""

    limits: tuple[Limit, ...]

    @staticmethod
    def parse(what: "Budget | str | Mapping[str, float | str] | Iterable[str]") -> "Budget":
        """The budget in `"params=1/16"`, `"params=1/16,macs=20M"`, a list of such, or `{"params": 1/16}`.

        As a number, up to 1 is a share and more than 1 an amount. Raises `ConfigError`, or `UnknownNameError` for a
        key that does not exist.
        """
        if isinstance(what, Budget):
            return what
        if isinstance(what, str):
            what = [what]
        if isinstance(what, Mapping):
            pairs = list(what.items())
        elif isinstance(what, Iterable):
            pairs = [_pair(part) for text in what for part in str(text).split(",")]
        else:
            raise ConfigError(f'a budget says what it limits, {{"params": {what}}} for example; got {what!r} alone')
        if not pairs:
            raise ConfigError(f"the budget is empty: {_HOW}")
        limits = tuple(_limit(key.strip(), value) for key, value in pairs)
        figures = [limit.figure for limit in limits]
        for limit in limits:
            if figures.count(limit.figure) > 1:
                same = {"activation_bytes": "'activations' and 'ram'", "latency_ms": "'latency' and 'faster'"}
                also = f" ({same[limit.figure]} are the same)" if limit.figure in same else ""
                raise ConfigError(f"budget {', '.join(map(str, limits))} limits '{limit.key}' twice{also}")
        return Budget(limits)

    def __str__(self) -> str:
        return ",".join(map(str, self.limits))

    def __repr__(self) -> str:
        return f"Budget.parse({str(self)!r})"

    @property
    def timed(self) -> Limit | None:
        """The limit that is met by timing plans on this machine, if there is one."""
        return next((limit for limit in self.limits if limit.timed), None)

    @property
    def known(self) -> "Budget":
        """The other limits, which can be told without running anything; maybe none."""
        return Budget(tuple(limit for limit in self.limits if not limit.timed))

    @property
    def on_parts(self) -> tuple[Limit, ...]:
        """The limits that a microcontroller's or an NPU's own tools tell."""
        return tuple(limit for limit in self.limits if limit.part)

    @property
    def as_dict(self) -> dict[str, str]:
        """Limits as the user wrote them, by key."""
        return {limit.key: limit.text for limit in self.limits}

    @property
    def asks(self) -> frozenset[tuple[str, float | None, float | None, str]]:
        """What is limited how far, however it was written: the same for `params=1/4` and `params=25%`."""
        return frozenset((limit.figure, limit.share, limit.amount, limit.profile) for limit in self.limits)

    def tightest(self, dense: Mapping[str, float]) -> tuple[Limit, float]:
        """The limit that leaves the smallest share of the dense figures, and that share, at most 1.

        Not of a budget that is empty.
        """
        return min(((limit, limit.share_of(dense)) for limit in self.limits), key=lambda found: found[1])


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not value.strip():
        raise ConfigError(f"budget '{text}' is not KEY=LIMIT: {_HOW}")
    return key, value


def _limit(key: str, value: float | str) -> Limit:
    if key not in _FIGURES:
        said = re.sub(r"[\s_-]", "", key.lower())
        meant = next((text for text, names in _MEANT.items() if said in names), "")
        raise unknown("budget key", key, _FIGURES, meant=meant)
    text = str(value).strip()
    number, at, profile = text.partition("@")
    if key in ON_PARTS or (key in MEASURED and profile in PARTS):
        _check_part(key, number, profile, text)
    elif profile and key not in MEASURED:
        raise ConfigError(f"budget {key}={text}: '{at}{profile}' names a device, but {key} is the same on all of them")
    elif not profile and (at or (key in MEASURED and key not in TIMED)):
        how = f"write {key}={number}@FILE; prunit probe-device makes one"
        raise ConfigError(f"budget {key}={text} needs the profile of a device: {how}")
    if key == "faster":
        return Limit(key, text, 1 / _times_faster(number, text), None, profile)
    share, amount = _share_or_amount(key, number)
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"budget {key}={text} is not a share of the dense cost between 0 and 1: {_HOW}")
    if amount is not None and not (1 if key in KEYS else 1e-6) <= amount < math.inf:
        least = "at least 1" if key in KEYS else "more than 0"
        raise ConfigError(f"budget {key}={text} is not an amount of {least}: {_HOW}")
    if not isinstance(value, str) and share is not None and _simple(share).denominator <= 4096:
        text = str(_simple(share))
    return Limit(key, text, share, amount, profile)


def _check_part(key: str, number: str, profile: str, text: str) -> None:
    """`UnknownNameError` for a part that does not exist, `ConfigError` for one without such a figure, or none."""
    figure = _FIGURES[key]
    having = [name for name, each in PARTS.items() if figure in each.figures]
    if not profile:
        also = " (on every device alike: weights=…)" if key == "flash" else ""
        raise ConfigError(
            f"budget {key}={text} needs a part: write {key}={number}@{having[0]}; parts that tell {key} are"
            f" {', '.join(having)}{also}"
        )
    if key == "faster" or figure not in part(profile).figures:
        names = [name for name in ("latency", *ON_PARTS) if _FIGURES[name] in part(profile).figures]
        raise ConfigError(f"budget {key}={text}: of '{profile}' there is no {key}; limit {', '.join(names)}")


def _times_faster(number: str, text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*[xX×]?", number.strip())
    if match is None or not 1 < float(match[1]) < math.inf:
        raise ConfigError(f"budget faster={text}: {_FASTER}; a share of the time is latency=1/2")
    return float(match[1])


def _simple(share: float) -> Fraction:
    """The simple fraction that the share was meant to be (1/3 for 0.3333333333333333), else its exact value."""
    near = Fraction(share).limit_denominator(1_000_000)
    return near if math.isclose(near, share, rel_tol=1e-15) else Fraction(share)


def _share_or_amount(key: str, text: str) -> tuple[float | None, float | None]:
    match = re.fullmatch(r"(-?[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(?:/\s*([0-9.]+)|(%|[xX]|×|[a-zA-Zµμ]*))", text)
    if match is None:
        raise ConfigError(f"budget {key}={text} is not a number: {_HOW}")
    try:
        number, divisor, unit = float(match[1]), match[2], match[3] or ""
        if divisor:
            return number / float(divisor), None
        if unit == "%":
            return number / 100, None
        if unit in ("x", "X", "×"):
            return 1 / number, None
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"budget {key}={text} is not a number: {_HOW}") from error
    if not unit and number <= 1:
        return number, None
    kind = _kind_of(key)
    if not unit and _FIGURES[key].endswith(("_ms", "_mj")):
        raise ConfigError(f"budget {key}={text}: say in what unit, {', '.join(UNITS[kind])}")
    try:
        return None, number * unit_of(unit, kind) if unit else number
    except ConfigError as error:
        others = [name for name in _FIGURES if name != "faster" and _takes(name, unit)] if unit else []
        of_others = f"; in '{unit}' are {', '.join(others)}" if others else ""
        raise ConfigError(f"budget {key}={text}: {error}{of_others}") from None


def _kind_of(key: str) -> Kind:
    return _KINDS.get(_FIGURES[key].rpartition("_")[2], "count")


def _takes(key: str, unit: str) -> bool:
    return unit.lower() in map(str.lower, UNITS[_kind_of(key)])
