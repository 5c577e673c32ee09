"""What the tracer writes down while a model runs: ids of channels, which are the same, and what was computed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from prunit.graph.choices import Site, Step
from prunit.graph.records import Activation, Geometry, Role


class Pin(NamedTuple):
    """Why channels must stay, and the module where that was found."""

    why: str
    module: str

    def __str__(self) -> str:
        return f"{self.why} in '{self.module}'" if self.module else self.why


class Use(NamedTuple):
    """One use of a weight: `positions` multiply-adds per weight for one example."""

    weight: str
    kind: str
    positions: int
    module: str
    geometry: Geometry | None = None


class Pass(NamedTuple):
    """A forward pass in one of the two modes on these inputs, positional and by keyword.

    Its last step is the one before `end`.
    """

    training: bool
    inputs: tuple[Any, Any]
    end: int
    on_values: bool = False
    """It was read on the model's own tensors: on meta tensors it runs up to `end`, told what it saw."""


class HeldSize(NamedTuple):
    """An attribute of a module that counts the channels `ids`; see `records.CodeSize`.

    A `helper` did not run when this was found: its parent may have asked it.
    """

    module: str
    name: str
    entry: int | None
    ids: np.ndarray
    helper: bool

    @property
    def place(self) -> tuple[str, str, int | None]:
        """The attribute, or its entry."""
        return self.module, self.name, self.entry


class RawAxis(NamedTuple):
    """One axis of a tensor by name; '' for one that the model makes as it runs, of channels as it needs them."""

    tensor: str
    dim: int
    start: int
    size: int


@dataclass
class Findings:
    """What the tracer writes down while the model runs; ids start at 1, 0 is 'never cut'."""

    axes: list[RawAxis] = field(default_factory=list)
    pins: list[tuple[np.ndarray, Pin]] = field(default_factory=list)
    roles: list[tuple[np.ndarray, Role]] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    mixed: list[tuple[np.ndarray, Pin]] = field(default_factory=list)
    products: list[tuple[int, tuple[np.ndarray, ...], int]] = field(default_factory=list)
    held_sizes: list[HeldSize] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    rejected: list[np.ndarray] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    assumed: bool = False
    gives_values: bool = False
    training_uses: list[Use] = field(default_factory=list)
    """Uses of weights in the pass in training mode."""
    passes: list[Pass] = field(default_factory=list)
    """What ran on meta tensors, in this order; `steps` has the steps of all."""
    unread: str = ""
    """Why training mode was not read, if so, for the user."""
    evaluated: int = 0
    """So many of the axes were known after the pass in evaluation mode."""
    ran: set[nn.Module] = field(default_factory=set)
    """Modules whose own code ran an operator."""
    called: set[nn.Module] = field(default_factory=set)
    """Modules that ran at all."""
    caches: tuple[tuple[Any, ...], ...] = ()
    _next_id: int = 1
    _axis_of: dict[int, int] = field(default_factory=dict)
    _keep_alive: list[np.ndarray] = field(default_factory=list)
    _parent: list[int] = field(default_factory=list)
    _edges: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    _buffers: list[tuple[Sequence[np.ndarray], int, int, int, int]] = field(default_factory=list)
    last_use: list[int] = field(default_factory=list)
    """By the number of an activation, the last step that has read or written it."""

    def new_axis(self, tensor: str, dim: int, size: int) -> np.ndarray:
        """Fresh ids for one axis of a parameter."""
        ids = np.arange(self._next_id, self._next_id + size)
        self._axis_of[id(ids)] = len(self.axes)
        self._keep_alive.append(ids)
        self._parent.append(len(self.axes))
        self.axes.append(RawAxis(tensor, dim, self._next_id, size))
        self._next_id += size
        return ids

    def new_axis_like(self, tensor: str, ids: np.ndarray) -> np.ndarray | None:
        """The axis of a vector that holds the same channels as a whole axis does; None if `ids` are no whole axis.

        It has ids of its own, but those that are handed on are those of the other axis, as if the two were unified.
        """
        like = self._axis_of.get(id(ids))
        if like is None:
            return None
        same = ids[:]
        self._axis_of[id(same)] = len(self.axes)
        self._keep_alive.append(same)
        self._parent.append(self.root(like))
        self.axes.append(RawAxis(tensor, 0, self._next_id, len(ids)))
        self._next_id += len(ids)
        return same

    def is_made_up(self, ids: np.ndarray) -> bool:
        """Whether they are those of a whole axis that belongs to no tensor."""
        axis = self._axis_of.get(id(ids))
        return axis is not None and not self.axes[axis].tensor

    def unify(self, a: np.ndarray, b: np.ndarray, why: str, module: str) -> None:
        """Note that a and b hold the same channels; where one is 0 the other is pinned."""
        if a is b:
            return
        if a.shape != b.shape:  # a rule went astray: better to keep these channels than to relate the wrong ones
            pin = Pin(f"operator {why} relates channels of different number", module)
            self.pins += [(a, pin), (b, pin)]
            return
        axis_a, axis_b = self._axis_of.get(id(a)), self._axis_of.get(id(b))
        if axis_a is not None and axis_b is not None:
            # Two whole axes, position by position: one union instead of one for each channel.
            root_a, root_b = self.root(axis_a), self.root(axis_b)
            self._parent[max(root_a, root_b)] = min(root_a, root_b)
            return
        a, b = a.reshape(-1), b.reshape(-1)
        fixed = (a == 0) | (b == 0)
        if fixed.any():
            self.pins.append((np.maximum(a, b)[fixed], Pin(f"{why} with fixed channels", module)))
            a, b = a[~fixed], b[~fixed]
        self._edges.append((a, b))

    def new_buffer(self, wheres: Sequence[np.ndarray], per_position: int, batch: int, element_bytes: int) -> int:
        """A new activation that is born now; `wheres` are the ids along each of its labelled dimensions, at least one.

        It has so many elements for each position, of so many examples.
        """
        self._buffers.append((wheres, per_position, batch, element_bytes, len(self.steps)))
        self.last_use.append(len(self.steps))
        return len(self._buffers) - 1

    def root(self, axis: int) -> int:
        """The first of the axes that were unified whole with this one."""
        while self._parent[axis] != axis:
            axis = self._parent[axis]
        return axis

    def classes(self) -> np.ndarray:
        """For every id the number of its class, the ids of the same channel: shape (ids + 1,), entry 0 is 0."""
        # Axes that were unified whole share the numbers of the first of them, so there are far fewer numbers than ids.
        first_of: list[int] = []
        count = 1
        for i, axis in enumerate(self.axes):
            root = self.root(i)
            first_of.append(count if root == i else first_of[root])
            count += axis.size if root == i else 0
        shifts = [first - axis.start for first, axis in zip(first_of, self.axes, strict=True)]
        base = np.arange(self._next_id)
        base[1:] += np.repeat(np.array(shifts, np.int64), [a.size for a in self.axes])
        if not self._edges:
            return base
        a = base[np.concatenate([e[0] for e in self._edges])]
        b = base[np.concatenate([e[1] for e in self._edges])]
        return _joined(count, a, b)[base]

    def activations(self, where_of: np.ndarray) -> tuple[Activation, ...]:
        """Activations with flat channel numbers in place of ids."""
        found: dict[int, np.ndarray] = {}
        for wheres, *_ in self._buffers:  # most hold the channels of another one too
            for ids in wheres:
                if id(ids) not in found:
                    found[id(ids)] = where_of[ids]
        return tuple(
            Activation(found[id(first)], per, size, born, last, tuple([found[id(ids)] for ids in others]), batch)
            for ((first, *others), per, batch, size, born), last in zip(self._buffers, self.last_use, strict=True)
        )


_MANY = 1 << 18
"""So many edges are worth loading a library for."""


def _joined(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """For each of `count` nodes the least one that edges from a to b join it with."""
    if len(a) > _MANY and (found := _joined_by_scipy(count, a, b)) is not None:
        return found
    labels = np.arange(count)
    while (apart := a != b).any():
        low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
        np.minimum.at(labels, high, low)
        while (labels[labels] != labels).any():
            labels = labels[labels]
        a, b = labels[low], labels[high]
    return labels


def _joined_by_scipy(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """The same, four times faster where a flattened weight has millions of ids; None without scipy."""
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
    except ImportError:
        return None
    edges = coo_array((np.ones(len(a), np.int8), (a.astype(np.int32), b.astype(np.int32))), shape=(count, count))
    _, number = connected_components(edges, directed=False)
    least = np.empty(count, np.int64)
    least[number[::-1]] = np.arange(count)[::-1]  # of several that are written to one place the last one stays
    return least[number]
