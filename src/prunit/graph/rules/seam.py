"""What a rule may ask of the tracer, and the small helpers that rules share."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor

from prunit.graph.labels import Block, Labels
from prunit.graph.records import Geometry

_PLAIN = frozenset((int, float, bool, str, type(None)))


T = TypeVar("T")


def by_operator(find: Callable[[Any], T]) -> Callable[[Any], T]:
    """A function of an operator that is asked once for each: PyTorch's operators are there for good.

    They are known by identity, as PyTorch hashes them in Python, which takes as long as a small rule.
    """
    known: dict[int, tuple[Any, T]] = {}

    def found(func: Any) -> T:
        hit = known.get(id(func))
        if hit is None:
            hit = known[id(func)] = func, find(func)
        return hit[1]

    return found


class TracerLike(Protocol):
    """What a rule may call; see `Tracer`, which implements it."""

    module_path: str

    def labels(self, tensor: Tensor) -> Labels: ...
    def along(self, vector: Tensor, ids: np.ndarray | None, why: str) -> np.ndarray | None: ...
    def is_named(self, tensor: Tensor) -> bool: ...
    def set(self, tensor: Tensor, labels: Labels) -> None: ...
    def unify(self, a: np.ndarray, b: np.ndarray, why: str) -> None: ...
    def pin(self, ids: np.ndarray | None, why: str) -> None: ...
    def pin_tensor(self, tensor: Tensor, why: str) -> None: ...
    def contract(self, ids: np.ndarray | None) -> None: ...
    def produce(self, ids: np.ndarray | None) -> None: ...
    def mix(self, ids: np.ndarray | None, why: str) -> None: ...
    def reading(self, what: str, readings: int, ids: np.ndarray) -> int: ...
    def reject(self, ids: np.ndarray) -> None: ...
    def size(self, value: int, ids: np.ndarray) -> None: ...
    def written(self, sizes: Sequence[int], place: int, ids: np.ndarray) -> None: ...
    def holds(self, value: int) -> bool: ...
    def assume(self, tensor: Tensor, *, unless: str = "") -> None: ...
    def given(self, size: int) -> np.ndarray | None: ...
    def made_up(self, size: int) -> np.ndarray: ...
    def is_made_up(self, ids: np.ndarray) -> bool: ...
    def macs(self, macs: int, *ids: np.ndarray) -> None: ...
    def use(
        self,
        weight: Tensor,
        kind: str,
        macs: int,
        others: Sequence[np.ndarray] = (),
        geometry: Geometry | None = None,
    ) -> None: ...


def tensors(tree: Any) -> list[Tensor]:
    """All tensors in an operator's arguments or outputs, which nest nothing but lists, tuples and dicts.

    Written out because `pytree.tree_leaves`, which looks the type of every value up, took a fifth of a trace.
    """
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list | tuple):
        return []
    found: list[Tensor] = []
    for part in tree:
        kind = type(part)
        if kind is Tensor:
            found.append(part)
        elif kind not in _PLAIN:
            found += tensors(part)
    return found


def operands(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """All tensors in an operator's arguments; a list that starts with an int holds nothing else."""
    given = (*args, *kwargs.values()) if kwargs else args
    return tensors([arg for arg in given if not (type(arg) is list and arg and type(arg[0]) is int)])


def buffer_for(t: TracerLike, inputs: list[Tensor]) -> int:
    """Where a new tensor made from `inputs` lives: -1, a new activation, or -2 if it is made from parameters alone."""
    for tensor in inputs:
        if t.labels(tensor).buffer >= 0:
            return -1
    return -2


def tie(t: TracerLike, a: np.ndarray | None, b: np.ndarray | None, why: str) -> None:
    """The same channels on both sides; if one side is not labelled the other is pinned."""
    if a is not None and b is not None:
        t.unify(a, b, why)
    else:
        t.pin(a if b is None else b, why)


def alike(t: TracerLike, rows: np.ndarray, why: str) -> None:
    """All rows of these ids hold the same channels, position by position."""
    t.unify(rows[1:], np.broadcast_to(rows[0], rows[1:].shape), why)


def others(t: TracerLike, tensor: Tensor, *dims: int) -> list[Block]:
    """The blocks of a tensor that lie on other dimensions than `dims`, or on several at once."""
    return [b for b in t.labels(tensor).blocks if len(b.dims) != 1 or b.dims[0] not in dims]


def pin_blocks(t: TracerLike, blocks: list[Block], why: str) -> None:
    """Keep all channels of these blocks."""
    for block in blocks:
        t.pin(block.ids, why)


def argument(func: Any, args: Any, kwargs: Any, *names: str) -> Any:
    """The argument that the operator's schema calls one of `names`, its default where it was not passed, else None."""
    for name, i, default in _declared(func):
        if name in names:
            if name in kwargs:
                return kwargs[name]
            return args[i] if i < len(args) else default
    return None


@by_operator
def _declared(func: Any) -> list[tuple[str, int, Any]]:
    """Name, place and default of each argument; asked of the schema itself they take longer than a rule."""
    return [(declared.name, i, declared.default_value) for i, declared in enumerate(func._schema.arguments)]


def dims_of(dim: Any, ndim: int) -> list[int]:
    """An operator's `dim` argument as ascending, non-negative numbers; None or [] means all."""
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return list(range(ndim))
    return sorted({d % max(ndim, 1) for d in (dim if isinstance(dim, Sequence) else [dim])})


@by_operator
def name_of(func: Any) -> str:
    """The operator's plain name: 'add_' of aten.add_.Tensor."""
    return func.overloadpacket.__name__


def part_of(labels: Labels) -> Labels:
    """Labels of a part of a tensor. A part of a weight is not that weight: its macs are counted with all elements."""
    return labels._replace(weight="", buffer=-2) if labels.weight else labels
