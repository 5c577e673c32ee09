"""From what one forward pass found (ids, unions, pins) to the channel graph."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, cast

import numpy as np

from prunit.errors import ModelError
from prunit.graph.choices import Choices
from prunit.graph.findings import Findings, Pin, RawAxis
from prunit.graph.records import (
    Axis,
    ChannelGraph,
    CodeSize,
    Group,
    Layer,
    Product,
    Role,
    TensorInfo,
)

_NOTED = ("operator ", "the model's code", "training mode fails")
"""How reasons begin that are about the whole model's code, and so are among the graph's notes."""


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
    uses = [*findings.uses, *findings.training_uses]
    modules = {use.weight: use.module or use.weight for use in reversed(uses)}
    order = {use.weight: i for i, use in reversed(list(enumerate(uses)))}
    outs = [a for i, a in enumerate(findings.axes) if roles.get(i) in ("out", "both")]
    outs.sort(key=lambda axis: order.get(axis.tensor, len(order)))
    where_of, members, sizes = _number_groups(findings.axes, outs, classes)
    pinned = _reasons(findings.pins, classes, where_of, sizes)
    mixed = _reasons(findings.mixed, classes, where_of, sizes)
    read = _read(findings, roles, classes, where_of, sizes)
    only_training = {axis.start for axis in findings.axes[findings.evaluated :]}
    for number, size in enumerate(sizes):
        if size == 1:
            pinned.setdefault(number, "it has one channel")
        # A device never runs it, and so nobody would gain from what training loses.
        if all(axis.start in only_training for axis in members[number]):
            pinned.setdefault(number, "only training mode runs it")
        # It may be a head that some caller reads, with other inputs or from outside. Cut, it would be wrong without a
        # word, for a single class broadcasts.
        if number not in read:
            pinned.setdefault(number, "nothing was seen to read it")
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
    notes = tuple(dict.fromkeys(str(p) for _, p in findings.pins if p.why.startswith(_NOTED))) + (
        (findings.unread,) if findings.unread else ()
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


def _read(
    findings: Findings, roles: Mapping[int, Role], classes: np.ndarray, where_of: np.ndarray, sizes: list[int]
) -> set[int]:
    """The groups that a weight sums over, or that an operator looks at as a whole."""
    axes = [a for i, a in enumerate(findings.axes) if roles.get(i) in ("in", "both")]
    ids = [np.arange(a.start, a.start + a.size) for a in axes] + [ids.reshape(-1) for ids, _ in findings.mixed]
    numbers = where_of[classes[np.concatenate([np.empty(0, np.int64), *ids])]]
    return set(_groups_of(numbers, np.repeat(np.arange(len(sizes)), sizes), len(sizes)))


def _groups_of(numbers: np.ndarray, group_of: np.ndarray, count: int) -> list[int]:
    """Which of so many groups these flat channel numbers are of, in order; -1 is of none."""
    return _present(group_of[numbers[numbers >= 0]], count)


def _present(numbers: np.ndarray, count: int) -> list[int]:
    """The different ones among numbers below `count`, in order; that `np.unique` sorts them takes longer."""
    found = np.zeros(count, bool)
    found[numbers] = True
    return np.flatnonzero(found).tolist()


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
    axes: list[RawAxis], outs: list[RawAxis], classes: np.ndarray
) -> tuple[np.ndarray, list[list[RawAxis]], list[int]]:
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
    every = np.concatenate([np.empty(0, np.int64), *made])
    first = np.full(count, len(every))
    first[every[::-1]] = np.arange(len(every))[::-1]  # of several places the last one written holds: the first
    found = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(every))]
    # So these are the classes that are produced, in the order of their producers.
    _, first, group = np.unique(signature[found], return_index=True, return_inverse=True)
    group = np.argsort(np.argsort(first))[group]  # groups in that order too
    where_of = np.full(count, -1, dtype=np.int64)
    where_of[found[np.argsort(group, kind="stable")]] = np.arange(len(found))
    group_of = np.full(count, -1, dtype=np.int64)
    group_of[found] = group
    members: list[list[RawAxis]] = [[] for _ in first]
    if outs:
        count = len(members)
        places = np.repeat(np.arange(len(outs)) * count, [a.size for a in outs]) + group_of[every]
        for place in _present(places, len(outs) * count):  # by axis, then by group
            members[place % count].append(outs[place // count])
    return where_of, members, np.bincount(group, minlength=len(first)).tolist()


def _reasons(
    noted: list[tuple[np.ndarray, Pin]], classes: np.ndarray, where_of: np.ndarray, sizes: list[int]
) -> dict[int, str]:
    """What was first noted about each group that anything was noted about."""
    group_of = np.repeat(np.arange(len(sizes)), sizes)
    where_of_id = where_of[classes] if noted else where_of
    found: dict[int, str] = {}
    for ids, pin in noted:
        for group in _groups_of(where_of_id[ids.reshape(-1)], group_of, len(sizes)):
            if group not in found:
                found[group] = str(pin)
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
