"""What users and hardware ask of widths besides a budget, and what that means for each group of a graph."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from prunit.allocate.allowed import Allowed
from prunit.allocate.liked import Liked, liked
from prunit.edge import runtimes
from prunit.edge.runtimes.widths import liking
from prunit.errors import ConfigError, UnknownNameError
from prunit.graph import ChannelGraph, Group, Layer
from prunit.shown import Shown

_HOW = "write [least, most], each a share of the channels up to 1 (0.5) or a number of channels (16)"


@dataclass(frozen=True, repr=False)
class Constraints(Shown):
    """Every allocator and recipe keeps to these.

    A group that is cut keeps a width at which the layers that make it have a multiple of `round_to` output channels.
    A channel that occurs k times there (in a grouped convolution, once in each of its k parts) counts k times. A dense
    width that is no multiple may stay as it is; a group narrower than one multiple always does.

    With `round_to="auto"` each group goes in the steps that `engine` likes at all layers that make or read it
    (`edge.runtimes.widths`), and no narrower than saves time there. For budgets that are out of reach so, `narrow`
    allows one step at the least (1), and powers of two below (2).

    Every group keeps at least `min_share` of its channels and never fewer than `min_width`: a layer with no channel
    would cut the input off from the output. `limits` give the least and the most that groups keep one of whose
    producers has a name like the pattern; up to 1 these are shares, above that numbers of channels. Where several
    patterns fit, all hold. Least widths are rounded up to the next multiple, most widths down.

    With `keep_first` and `keep_last` the channels stay whole that the first layer makes, and those that the last
    hidden one does: the last convolution or linear map whose outputs another one reads.

    Raises `ConfigError` for what can never hold, and `resolve` for what cannot hold on a graph.
    """

    round_to: int | Literal["auto"] = 1
    min_width: int = 1
    min_share: float = 0.02
    limits: Mapping[str, Sequence[float]] = field(default_factory=dict, hash=False)
    keep_first: bool = False
    keep_last: bool = False
    engine: str = runtimes.DEFAULT
    narrow: Literal[0, 1, 2] = 0

    def __post_init__(self) -> None:
        if not 0 <= self.min_share <= 1 or self.min_width < 1:
            raise ConfigError(
                f"min_share must be in [0, 1] and min_width at least 1, got {self.min_share} and {self.min_width}"
            )
        if self.round_to == "auto":
            liking(self.engine)
        elif isinstance(self.round_to, bool) or not isinstance(self.round_to, int) or self.round_to < 1:
            raise ConfigError(
                f"round_to must be a whole number of channels, at least 1, or 'auto', got {self.round_to!r}"
            )
        limits = {pattern: _pair(pattern, limit) for pattern, limit in self.limits.items()}
        object.__setattr__(self, "limits", MappingProxyType(limits))

    def __str__(self) -> str:
        """What was asked that differs from the defaults, '' if nothing does; `narrow` follows from the budget."""
        default = Constraints()
        told = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "narrow"}
        told = {name: value for name, value in told.items() if value != getattr(default, name)}
        limits = ", ".join(f"{pattern}: {_shown(limit)}" for pattern, limit in self.limits.items())
        return ", ".join(f"{name}={{{limits}}}" if name == "limits" else f"{name}={v}" for name, v in told.items())

    def pinned(self, graph: ChannelGraph) -> ChannelGraph:
        """The graph with the groups pinned that `keep_first` and `keep_last` name."""
        if self.keep_first:
            graph = graph.pin(_made_by(graph, graph.layers[:1]), "made by the first layer (keep_first)")
        if self.keep_last:
            graph = graph.pin(_last_hidden(graph), "made by the last hidden layer (keep_last)")
        return graph

    def resolve(self, graph: ChannelGraph) -> Allowed:
        """The widths that each group of a graph, as `pinned` returns it, may have.

        Raises `UnknownNameError` for a pattern that no producer's name fits, and `ConfigError` where no width is left.
        """
        self._check_patterns(graph)
        ones = np.ones(len(graph.groups), dtype=np.int64)
        likes = liked(graph, self.engine) if self.round_to == "auto" else Liked(_steps(graph, self.round_to), ones)
        each = zip(graph.groups, likes.steps, likes.least, strict=True)
        bounds = [self._bounds(group, int(step), int(worth)) for group, step, worth in each]
        least = np.array([b.least for b in bounds], dtype=np.int64)
        steps = np.array([b.step for b in bounds], dtype=np.int64)
        return Allowed(
            least,
            np.array([b.most for b in bounds], dtype=np.int64),
            steps,
            tuple(b.least_by for b in bounds),
            tuple(b.most_by for b in bounds),
            knee=np.maximum(steps, least) if self.narrow == 2 else None,
        )

    def _bounds(self, group: Group, step: int, worth: int) -> "_Bounds":
        if group.pinned:
            return _Bounds(group.size, group.size, step)
        # A hair is taken off so that 0.07 * 100 counts as 7.
        low = _Bound(min(max(self.min_width, math.ceil(self.min_share * group.size - 1e-9)), group.size), "")
        high = _Bound(group.size, "")
        for pattern, (least, most) in self.limits.items():
            if _fits(group, pattern):
                wanted = math.ceil(_channels(least, group) - 1e-9)
                low = max(low, _Bound(min(wanted, group.size), f"limit '{pattern}'"), key=lambda bound: bound.width)
                wanted = math.floor(_channels(most, group) + 1e-9)
                high = min(high, _Bound(wanted, f"limit '{pattern}'"), key=lambda bound: bound.width)
        least = -(-low.width // step) * step
        if self.narrow == 2:
            least = min(least, 2 ** (low.width - 1).bit_length())  # the next power of two
        elif not self.narrow and high.width >= worth:
            least = max(least, worth)
        most = high.width if high.width == group.size else high.width // step * step
        # Where no multiple is left below it, the dense width is the only one.
        least = min(least, group.size) if most == group.size else least
        if not 1 <= least <= most and self.round_to == "auto" and low.width <= high.width:
            # What the user asks for comes before what the engine likes.
            return _Bounds(low.width, high.width, 1, low.by, high.by)
        if not 1 <= least <= most:
            raise ConfigError(_no_width_left(group, low, high, step, self.round_to))
        to = f"for {self.engine}" if self.round_to == "auto" else f"to {self.round_to}"
        rounded = f"rounded {to}" if least > low.width else ""
        return _Bounds(least, most, step, ", ".join(filter(None, (low.by, rounded))), high.by)

    def _check_patterns(self, graph: ChannelGraph) -> None:
        for pattern, (_, most) in self.limits.items():
            found = [group for group in graph.groups if _fits(group, pattern)]
            if not found:
                names = list(dict.fromkeys(p for g in graph.groups for p in g.producers))
                near = difflib.get_close_matches(pattern.strip("*?."), names, n=4, cutoff=0) or names[:4]
                more = ", …" if len(names) > len(near) else ""
                raise UnknownNameError(
                    f"limit '{pattern}' fits no module that makes channels; the nearest are {', '.join(near)}{more}"
                )
            whole = found[0]
            if all(group.pinned for group in found) and _channels(most, whole) < whole.size:
                raise ConfigError(
                    f"limit '{pattern}' lets group '{whole.name}' keep at most {most:g} of its {whole.size} channels,"
                    f" but all of them must stay: {whole.pinned}; drop the limit, or what keeps the group whole"
                )


class _Bound(NamedTuple):
    """A width and the limit that set it, '' if none did."""

    width: int
    by: str


class _Bounds(NamedTuple):
    least: int
    most: int
    step: int
    least_by: str = ""
    most_by: str = ""


def _pair(pattern: str, limit: Sequence[float]) -> tuple[float, float]:
    if isinstance(limit, str) or not isinstance(limit, Sequence) or len(limit) != 2:
        raise ConfigError(f"limit '{pattern}' = {limit!r} is not a pair: {_HOW}")
    where = f"limit '{pattern}' = {_shown(limit)}"
    for value in limit:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(f"{where} holds {value!r}: {_HOW}")
        if value > 1 and value != int(value):
            raise ConfigError(f"{where} holds {value!r}, no whole number of channels: {_HOW}")
    least, most = limit
    if most == 0:
        raise ConfigError(f"{where} leaves no channel: {_HOW}")
    if least > most and (least <= 1) == (most <= 1):
        raise ConfigError(f"{where} asks for more at least than at most: {_HOW}")
    return least, most


def _shown(limit: Sequence[float]) -> str:
    """As the user wrote it: 16 for 16.0."""
    return f"[{', '.join(f'{x:g}' if isinstance(x, float) else repr(x) for x in limit)}]"


def _channels(limit: float, group: Group) -> float:
    return limit * group.size if limit <= 1 else limit


def _fits(group: Group, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (group.name, *group.producers))


def _no_width_left(group: Group, low: _Bound, high: _Bound, step: int, round_to: int | str) -> str:
    least = f"{low.by or 'the minimum width'} asks for at least {low.width}"
    most = f"{high.by} for at most {high.width}" if high.by else f"it has {group.size}"
    among = f" and round_to={round_to} for multiples of {step}" if step > 1 else ""
    return (
        f"group '{group.name}' of {group.size} channels has no width left: {least}, {most}{among}; loosen one of them"
    )


def _steps(graph: ChannelGraph, round_to: int) -> np.ndarray:
    """For each group the smallest number of channels that are a multiple of `round_to` on every axis that makes it."""
    if round_to == 1:
        return np.ones(len(graph.groups), dtype=np.int64)
    steps = []
    for i, group in enumerate(graph.groups):
        first, end = graph.offsets[i], graph.offsets[i + 1]
        axes = [axis.where for axis in graph.axes_of(group.name, "out")]
        times = {int(((first <= where) & (where < end)).sum()) // group.size for where in axes} or {1}
        steps.append(math.lcm(*(round_to // math.gcd(round_to, k) for k in times)))
    return np.array(steps, dtype=np.int64)


def _made_by(graph: ChannelGraph, layers: Sequence[Layer]) -> list[str]:
    weights = {layer.weight for layer in layers}
    return [g.name for g in graph.groups if any(axis.tensor in weights for axis in graph.axes_of(g.name, "out"))]


def _last_hidden(graph: ChannelGraph) -> list[str]:
    for layer in reversed(graph.layers):
        hidden = [name for name in _made_by(graph, [layer]) if graph.axes_of(name, "in")]
        if hidden:
            return hidden
    return []
