"""A network read as groups of channels: frozen plain data, names and numbers, never live modules.

A *group* is the set of all parameter axes that must keep the same channels: a convolution's outputs, its batch
norm, every consumer's inputs, and whatever is added to it. An axis may hold several groups (a concatenation), each
of them evenly: every channel of the group equally often. Channels of all groups are numbered in one flat space:
channel c of group g is number `offsets[g] + c`. An axis maps each of its positions to such a number, or to -1 for
a position that is never cut. So `keep[axis.where]`, with `keep` a boolean array over the flat space that ends in
one extra True, says which positions of the axis stay.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from prunit.errors import PlanError, unknown
from prunit.shown import Shown, Table, count

Role = Literal["out", "in", "both", "along"]
"""What an axis does: makes channels ('out'), sums over them ('in'), both, or holds one value for each ('along').

Both is what tied weights do: those of an encoder that the decoder has too.
"""


@dataclass(frozen=True, repr=False)
class Group(Shown):
    """Channels that shrink together.

    `name` is the module that makes them first; `producers` are all modules that do (more than one: their outputs
    are added, as in a residual stream). `pinned` is the reason why the group must stay whole, '' if it may shrink.
    `mixed` says which operator looks at all of its channels at once (the statistics of a layer norm), '' if none does:
    such a channel matters even where no weight reads it.
    """

    name: str
    size: int
    producers: tuple[str, ...]
    pinned: str = ""
    mixed: str = ""

    @property
    def coupled(self) -> bool:
        """Several layers write to these channels: a residual stream."""
        return len(self.producers) > 1


@dataclass(frozen=True, eq=False, repr=False)
class Axis(Shown):
    """One dimension of one parameter or buffer; `where[i]` is the flat channel number of position i, or -1.

    Axes that hold the same channels may share the array: it is to be read only.
    """

    tensor: str
    dim: int
    role: Role
    where: np.ndarray

    @property
    def makes(self) -> bool:
        """It makes channels, whatever else it does."""
        return self.role in ("out", "both")

    @property
    def reads(self) -> bool:
        """It sums over channels, whatever else it does: `mask` must zero it."""
        return self.role in ("in", "both")


@dataclass(frozen=True)
class TensorInfo:
    """A parameter or buffer of the dense model."""

    shape: tuple[int, ...]
    element_bytes: int
    is_parameter: bool


@dataclass(frozen=True)
class Geometry:
    """How a 2D convolution goes over its input, which is `size` large: (height, width) each, and how many `groups`."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int = 1


@dataclass(frozen=True, repr=False)
class Layer(Shown):
    """One use of a convolution or linear weight: it costs `positions` multiply-adds per weight for one example.

    `geometry` is that of a 2D convolution which goes down or keeps its size, None for everything else.
    """

    module: str
    weight: str
    kind: Literal["conv", "linear"]
    positions: int
    geometry: Geometry | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Product(Shown):
    """Multiply-adds that belong to no weight (attention): `macs` times what each of `wheres` keeps, for `batch` inputs.

    A `where` may run over the inputs too, where the code puts them into one dimension with the heads.
    """

    macs: int
    wheres: tuple[np.ndarray, ...]
    batch: int = 1


@dataclass(frozen=True, eq=False, repr=False)
class CodeSize(Shown):
    """An int that the code of a module reads, and that counts channels: `split(x, self.width, 1)`.

    It is the module's attribute `name`, or entry `index` of that list or tuple, and must become the number of kept
    channels in `where`.
    """

    module: str
    name: str
    index: int | None
    where: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Activation(Shown):
    """A tensor that lives from step `born` to step `dies` of the forward pass.

    It has `per_position` elements for each entry of `where`, flat channel numbers as in `Axis`. Where further of its
    dimensions hold channels, so many for each combination with those of `others`. It is one of `batch` examples: 1,
    unless a dimension of channels runs over the examples, too.
    """

    where: np.ndarray
    per_position: int
    element_bytes: int
    born: int
    dies: int
    others: tuple[np.ndarray, ...] = ()
    batch: int = 1


@dataclass(frozen=True, eq=False, repr=False)
class ChannelGraph(Shown):
    """What `trace` found: groups, the axes that hold them, and what the network costs."""

    groups: tuple[Group, ...]
    axes: tuple[Axis, ...]
    layers: tuple[Layer, ...]
    tensors: Mapping[str, TensorInfo]
    activations: tuple[Activation, ...]
    products: tuple[Product, ...]
    notes: tuple[str, ...] = ()
    """What could not be followed, for the user: operator, module, and the groups pinned for it."""
    code_sizes: tuple[CodeSize, ...] = ()
    choices: tuple[tuple[str, str, int], ...] = ()
    """How the tracer read what the code left open (module, what, which reading); see `graph.choices`."""
    caches: tuple[tuple[Any, ...], ...] = ()
    """Containers (module, attribute, keys inside) that a forward pass fills: what they hold is stale after a cut."""
    inputs: Any = None
    """Shapes and dtypes of the example, as plain data; see `graph.inputs`."""
    training_inputs: Any = None
    """The same of the example that training mode was read on, where that is another one."""

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Position of each group by name."""
        return {group.name: i for i, group in enumerate(self.groups)}

    @cached_property
    def offsets(self) -> np.ndarray:
        """Flat number of each group's channel 0, then the number of all channels: shape (groups + 1,)."""
        return np.concatenate([[0], np.cumsum([g.size for g in self.groups])]).astype(np.int64)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Dense width of each group."""
        return np.diff(self.offsets)

    @cached_property
    def free(self) -> np.ndarray:
        """Which groups may shrink."""
        return np.array([not g.pinned for g in self.groups], dtype=bool)

    def group(self, name: str) -> Group:
        """The group of that name."""
        if name not in self.index:
            raise unknown("group", name, self.index)
        return self.groups[self.index[name]]

    def axes_of(self, name: str, role: Role | None = None) -> list[Axis]:
        """The axes that hold channels of a group, all or those of one role; what is both has either."""
        i = self.index[self.group(name).name]
        roles = (role, "both") if role in ("out", "in") else (role,)
        return [a for a in self._axes_by_group[i] if role is None or a.role in roles]

    @cached_property
    def _axes_by_group(self) -> list[list[Axis]]:
        found: list[list[Axis]] = [[] for _ in self.groups]
        for axis in self.axes:
            numbers = axis.where[axis.where >= 0]
            for i in np.unique(np.searchsorted(self.offsets, numbers, side="right") - 1):
                found[i].append(axis)
        return found

    def flat_keep(self, keep: Mapping[str, Sequence[int]]) -> np.ndarray:
        """Kept channels by group as booleans over the flat space, with one True at the end for position -1.

        A group that `keep` does not name stays whole.
        """
        flat = np.ones(int(self.offsets[-1]) + 1, dtype=bool)
        for name, channels in keep.items():
            group = self.group(name)
            kept = np.asarray(channels)
            if not kept.size or kept.min() < 0 or kept.max() >= group.size:
                raise PlanError(
                    f"plan keeps channels {_span(channels)} of group '{name}', which has 0 to {group.size - 1};"
                    " was the plan made for another model?"
                )
            if group.pinned and len(channels) < group.size:
                raise PlanError(
                    f"plan cuts group '{name}' to {len(channels)} of {group.size}: it is pinned ({group.pinned})"
                )
            start = self.offsets[self.index[name]]
            flat[start : start + group.size] = False
            flat[start + kept] = True
        return flat

    def pin(self, names: Iterable[str], reason: str) -> "ChannelGraph":
        """The same graph with these groups pinned too."""
        chosen = set(names)
        groups = tuple(replace(g, pinned=g.pinned or reason) if g.name in chosen else g for g in self.groups)
        return replace(self, groups=groups)

    def _table(self) -> Table:
        params = sum(math.prod(info.shape) for info in self.tensors.values() if info.is_parameter)
        channels, free = sum(g.size for g in self.groups), sum(not g.pinned for g in self.groups)
        parts = (count(len(self.groups), "group"), count(channels, "channel"), count(len(self.layers), "layer"))
        title = f"ChannelGraph: {', '.join(parts)}, {params:,} params; {free} may shrink"
        rows = [(g.name, f"{g.size:,}", count(len(g.producers), "layer"), _state(g)) for g in self.groups]
        return Table(title, ("group", "channels", "made by", ""), rows, self.notes)


def _state(group: Group) -> str:
    return f"whole: {group.pinned}" if group.pinned else f"mixed by {group.mixed}" if group.mixed else ""


def _span(channels: Sequence[int]) -> str:
    return f"{min(channels)} to {max(channels)}" if len(channels) else "(none)"
