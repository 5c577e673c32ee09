"""From what one forward pass found (ids, unions, pins) to the channel graph."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from torch import nn

from prunit.errors import ModelError
from prunit.graph.choices import Choices, Site, Step
from prunit.graph.records import (
    Activation,
    Axis,
    ChannelGraph,
    CodeSize,
    Geometry,
    Group,
    Layer,
    Product,
    Role,
    TensorInfo,
)


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


class _RawAxis(NamedTuple):
    """One axis of a tensor by name; '' for one that the model makes as it runs, of channels as it needs them."""

    tensor: str
    dim: int
    start: int
    size: int


@dataclass
class Findings:
    """What the tracer writes down while the model runs; ids start at 1, 0 is 'never cut'."""

    axes: list[_RawAxis] = field(default_factory=list)
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
    ran: set[nn.Module] = field(default_factory=set)
    """Modules whose own code ran an operator."""
    caches: tuple[tuple[Any, ...], ...] = ()
    _next_id: int = 1
    _axis_of: dict[int, int] = field(default_factory=dict)
    _keep_alive: list[np.ndarray] = field(default_factory=list)
    _parent: list[int] = field(default_factory=list)
    _edges: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    _buffers: list[tuple[Sequence[np.ndarray], int, int, int, int]] = field(default_factory=list)
    _last_use: list[int] = field(default_factory=list)

    def new_axis(self, tensor: str, dim: int, size: int) -> np.ndarray:
        """Fresh ids for one axis of a parameter."""
        ids = np.arange(self._next_id, self._next_id + size)
        self._axis_of[id(ids)] = len(self.axes)
        self._keep_alive.append(ids)
        self._parent.append(len(self.axes))
        self.axes.append(_RawAxis(tensor, dim, self._next_id, size))
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
        self.axes.append(_RawAxis(tensor, 0, self._next_id, len(ids)))
        self._next_id += len(ids)
        return same

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
        self._last_use.append(len(self.steps))
        return len(self._buffers) - 1

    def touch(self, buffer: int) -> None:
        """The activation is read or written now."""
        if buffer >= 0:
            self._last_use[buffer] = len(self.steps)

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
        labels = np.arange(count)
        while (apart := a != b).any():
            low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
            np.minimum.at(labels, high, low)
            while (labels[labels] != labels).any():
                labels = labels[labels]
            a, b = labels[low], labels[high]
        return labels[base]

    def activations(self, where_of: np.ndarray) -> tuple[Activation, ...]:
        """Activations with flat channel numbers in place of ids."""
        found: dict[int, np.ndarray] = {}
        for wheres, *_ in self._buffers:  # most hold the channels of another one too
            for ids in wheres:
                if id(ids) not in found:
                    found[id(ids)] = where_of[ids]
        return tuple(
            Activation(found[id(first)], per, size, born, last, tuple([found[id(ids)] for ids in others]), batch)
            for ((first, *others), per, batch, size, born), last in zip(self._buffers, self._last_use, strict=True)
        )


class Resolved(NamedTuple):
    """The channel graph, and the flat channel number of every id (-1: never cut)."""

    graph: ChannelGraph
    where_of: np.ndarray
    classes: np.ndarray
    """As `Findings.classes` gives them."""
    assumed: bool
    """Something about free channels was assumed of the code: it is to be checked."""


def resolve(findings: Findings, tensors: Mapping[str, TensorInfo], pin: Sequence[str], choices: Choices) -> Resolved:
    """The channel graph of a traced model, with the modules whose names match `pin` left whole."""
    classes = findings.classes()
    roles = _axis_roles(findings)
    modules = {use.weight: use.module or use.weight for use in reversed(findings.uses)}
    order = {use.weight: i for i, use in reversed(list(enumerate(findings.uses)))}
    outs = [a for i, a in enumerate(findings.axes) if roles.get(i) in ("out", "both")]
    outs.sort(key=lambda axis: order.get(axis.tensor, len(order)))
    where_of, members, sizes = _number_groups(findings.axes, outs, classes)
    pinned = _reasons(findings.pins, classes, where_of, sizes)
    mixed = _reasons(findings.mixed, classes, where_of, sizes)
    for number, size in enumerate(sizes):
        if size == 1:
            pinned.setdefault(number, "it has one channel")
    groups = []
    for number, axes in enumerate(members):
        producers = tuple(dict.fromkeys(modules.get(a.tensor, a.tensor) for a in axes))
        matched = next((p for p in pin if any(fnmatchcase(m, p) for m in producers)), None)
        reason = f"asked for by pin '{matched}'" if matched else pinned.get(number, "")
        groups.append(Group(producers[0], sizes[number], producers, reason, mixed.get(number, "")))
    _check_patterns(pin, [m for g in groups for m in g.producers])
    where_of_id = where_of[classes]
    starts = [a.start for a in findings.axes]  # the axes' ids follow one another, so each ends where the next starts
    held = np.maximum.reduceat(where_of_id, starts) >= 0 if starts else []
    axes = tuple(
        [
            Axis(a.tensor, a.dim, roles.get(i, "along"), where)
            for i, (a, where) in enumerate(zip(findings.axes, _wheres(findings, where_of_id), strict=True))
            if held[i] and a.tensor
        ]
    )
    layers = tuple(
        Layer(u.module, u.weight, cast(Literal["conv", "linear"], u.kind), u.positions, u.geometry)
        for u in findings.uses
    )
    notes = tuple(
        dict.fromkeys(str(p) for _, p in findings.pins if p.why.startswith(("operator ", "the model's code")))
    )
    free = np.append(np.repeat([not g.pinned for g in groups], sizes), False)  # the last one is for -1
    code_sizes = [
        CodeSize(h.module, h.name, h.entry, where_of_id[h.ids])
        for h in findings.held_sizes
        if free[where_of_id[h.ids]].any()
    ]
    graph = ChannelGraph(
        _unique_names(groups),
        axes,
        layers,
        dict(tensors),
        findings.activations(where_of_id),
        _products(findings, where_of_id),
        notes,
        _each_once(code_sizes),
        choices.as_tuple(),
        findings.caches,
    )
    assumed = (
        findings.assumed
        or bool(code_sizes)
        or any(s.open and free[where_of_id[s.ids.reshape(-1)]].any() for s in findings.sites)
    )
    return Resolved(graph, where_of_id, classes, assumed and bool(free.any()))


def _wheres(findings: Findings, where_of_id: np.ndarray) -> list[np.ndarray]:
    """The channels along each axis; axes that were unified whole share one array."""
    found: list[np.ndarray] = []
    for i, axis in enumerate(findings.axes):
        root = findings.root(i)
        found.append(found[root] if root < i else where_of_id[axis.start : axis.start + axis.size])
    return found


def _products(findings: Findings, where_of_id: np.ndarray) -> tuple[Product, ...]:
    """Those that no channel changes as one, the others with the channels that they depend on."""
    fixed, found = 0, []
    for macs, axes, batch in findings.products:
        wheres = [where.reshape(-1) for where in (where_of_id[ids] for ids in axes) if (where >= 0).any()]
        if wheres:
            found.append(Product(macs // math.prod(w.size for w in wheres), tuple(wheres), batch))
        else:
            fixed += macs // batch
    return (*found, Product(fixed, ())) if fixed else tuple(found)


def _each_once(sizes: list[CodeSize]) -> tuple[CodeSize, ...]:
    found: dict[tuple[str, str, int | None, bytes], CodeSize] = {}
    for size in sizes:
        found.setdefault((size.module, size.name, size.index, size.where.tobytes()), size)
    return tuple(found.values())


def _axis_roles(findings: Findings) -> dict[int, Role]:
    starts = np.array([a.start for a in findings.axes])
    roles: dict[int, Role] = {}
    for ids, role in findings.roles:
        axis = findings._axis_of.get(id(ids))
        touched = [axis] if axis is not None else _axes_at(ids, starts)
        for i in touched:
            roles[i] = role if roles.get(i, role) == role else "both"
    return roles


def _axes_at(ids: np.ndarray, starts: np.ndarray) -> list[int]:
    """The axes that these ids lie on."""
    return np.unique(np.searchsorted(starts, ids[ids > 0], side="right") - 1).tolist()


def _number_groups(
    axes: list[_RawAxis], outs: list[_RawAxis], classes: np.ndarray
) -> tuple[np.ndarray, list[list[_RawAxis]], list[int]]:
    """Flat channel number of every class that a weight produces (else -1); each group's producing axes and its size.

    A group is the channels that occur on the same axes, equally often. So every axis holds a group evenly or not at
    all: a cost follows from widths alone, and a layer never loses all its channels while its group keeps one.
    (In `cat(a, b) + c` the channels of a and c are one group and those of b and c another.)
    """
    codes = np.random.default_rng(0).integers(1, 1 << 63, len(axes), dtype=np.uint64)
    count = int(classes.max()) + 1
    signature = np.zeros(count, dtype=np.uint64)
    np.add.at(signature, classes[1:], np.repeat(codes, [a.size for a in axes]))
    made = [classes[a.start : a.start + a.size] for a in outs]
    found, first = np.unique(np.concatenate([np.empty(0, np.int64), *made]), return_index=True)
    order = np.argsort(first)
    found = found[order]  # the classes that are produced, in the order of their producers
    _, first, group = np.unique(signature[found], return_index=True, return_inverse=True)
    group = np.argsort(np.argsort(first))[group]  # groups in that order too
    where_of = np.full(count, -1, dtype=np.int64)
    where_of[found[np.argsort(group, kind="stable")]] = np.arange(len(found))
    group_of = np.full(count, -1, dtype=np.int64)
    group_of[found] = group
    members: list[list[_RawAxis]] = [[] for _ in first]
    if outs:
        count = len(members)
        places = np.repeat(np.arange(len(outs)) * count, [a.size for a in outs]) + group_of[np.concatenate(made)]
        for place in np.unique(places).tolist():  # by axis, then by group
            members[place % count].append(outs[place // count])
    return where_of, members, np.bincount(group, minlength=len(first)).tolist()


def _reasons(
    noted: list[tuple[np.ndarray, Pin]], classes: np.ndarray, where_of: np.ndarray, sizes: list[int]
) -> dict[int, str]:
    """What was first noted about each group that anything was noted about."""
    ends = np.cumsum(sizes)
    found: dict[int, str] = {}
    for ids, pin in noted:
        numbers = where_of[classes[ids.reshape(-1)]]
        for group in np.unique(np.searchsorted(ends, numbers[numbers >= 0], side="right")):
            found.setdefault(int(group), str(pin))
    return found


def _check_patterns(pin: Sequence[str], modules: list[str]) -> None:
    for pattern in pin:
        if not any(fnmatchcase(m, pattern) for m in modules):
            raise ModelError(
                f"pin '{pattern}' matches no module that makes channels; those are {', '.join(modules[:12])}"
                + (", …" if len(modules) > 12 else "")
            )


def _unique_names(groups: list[Group]) -> tuple[Group, ...]:
    """A module called twice with different weights could name two groups: number the later ones."""
    seen: dict[str, int] = {}
    unique = []
    for g in groups:
        seen[g.name] = seen.get(g.name, 0) + 1
        unique.append(g if seen[g.name] == 1 else replace(g, name=f"{g.name}#{seen[g.name]}"))
    return tuple(unique)
