"""Which places of a checkpoint hold a model's tensors: found by names and shapes, not by a list of usual prefixes.

Trainers keep weights below keys (`state_dict`, `ema.module`) and put prefixes before names (`module.`, `_orig_mod.`,
`student.backbone.`). To all of them the same holds: the place of a tensor *ends* with its name in the model. What is
left before it is the root; a root under which all names of the model are found is a fit. A wrapper may sit in the
middle of a name too (`features.module.0.weight`): a part of a name that the model has nowhere, and that is alone at its
place, says nothing and is left out, on either side.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from prunit.checkpoints.reading import Held, Place

_COUNTER: Final = "num_batches_tracked"
"""Ending of a tensor that old checkpoints lack and that changes no output."""
_COUNTED: Final = ("n_averaged", "total_ops", "total_params", _COUNTER)
"""Endings of tensors that averaging and profilers leave in a state dict."""
_TRAINING: Final = ("loss", "criterion", "metric", "ema", "averag", "swa", "teacher", "momentum", "optim", "queue")
"""A module beside the network that is called so is of the training."""
_PARTS: Final = 0.5
"""A root that holds this share of what the best one holds is worth a look."""


@dataclass(frozen=True, eq=False)
class Fit:
    """What lies below one root: tensors of the model by name, and what does not fit."""

    root: Place
    found: Mapping[str, Held]
    missing: tuple[str, ...]
    odd: Mapping[str, Held]
    """Tensors with the right name and another shape."""
    left: tuple[Held, ...]
    """Tensors below the root that the model lacks, so that it may be of another model."""
    beside: bool = False
    """All that is left stands beside the model's own parts: an odd loss, or a part of another model."""
    rest: tuple[Place, ...] = ()
    """Further roots that what the first one lacks was taken from."""

    @property
    def whole(self) -> bool:
        return not self.missing and not self.left

    @property
    def key(self) -> str:
        """The root as a user names it, '.' for the names as they are."""
        return ".".join(self.root) or "."

    @cached_property
    def ids(self) -> frozenset[int]:
        """The tensors taken, to compare fits."""
        return frozenset(map(id, self.found.values()))


class Fitting:
    """How the tensors of a checkpoint fit a model with these tensors."""

    def __init__(self, own: Mapping[str, Tensor], held: Iterable[Held]) -> None:
        self.own, self.held = own, list(held)
        self.parts = {part for name in own for part in name.split(".")}
        self.first = {name.split(".")[0] for name in own}
        self.storage = {name: _storage(name, tensor) for name, tensor in own.items()}
        """The same for names that are tied to each other."""
        self._by_root: dict[Place, dict[str, Held]] = {}
        self._odd: dict[Place, dict[str, Held]] = {}
        self._match()

    def fits(self) -> list[Fit]:
        """The fits below one root each that lack nothing; where there are none, those put together from several.

        Then one more where that fails: the nearest. The deepest root of several with the same tensors counts.
        """
        roots = sorted({*self._by_root, *self._odd}, key=self._rank)
        most = len(self._by_root.get(roots[0], {})) if roots else 0
        near = [root for root in roots if len(self._by_root.get(root, {})) >= max(_PARTS * most, 1)] or roots[:1]
        alone = [self._fit(root, self._by_root.get(root, {})) for root in near]
        whole = _different(fit for fit in alone if fit.whole)
        if whole or not alone:
            return whole
        joined = _different(fit for fit in (self._joined(root) for root in near) if fit.whole)
        return joined or alone[:1]

    def with_buffers(self, key: Place) -> Fit | None:
        """The fit of the root that a key names where only buffers are missing there: these are taken from elsewhere.

        An average often holds parameters alone. None where there is no such root, or more than buffers is missing.
        """
        roots = sorted((root for root in self._by_root if through(root, key)), key=self._rank)
        fit = self._joined(roots[0]) if roots else None
        lent = [name for name in self.own if fit and name in fit.found and name not in self._by_root[roots[0]]]
        buffers = ("running_mean", "running_var", _COUNTER)
        return fit if fit and fit.whole and all(name.rpartition(".")[2] in buffers for name in lent) else None

    def partial(self) -> list[str]:
        """Roots that hold at least half of the model's tensors, as keys."""
        enough = _PARTS * len(self.own)
        return [".".join(root) or "." for root, found in self._by_root.items() if len(found) >= enough]

    def without(self, names: Iterable[str]) -> "Fitting":
        """The same without these tensors of the model, and without what has their names in the checkpoint."""
        gone = set(names)
        tables = [*self._by_root.values(), *self._odd.values()]
        there = {id(held) for table in tables for name, held in table.items() if name in gone}
        own = {name: tensor for name, tensor in self.own.items() if name not in gone}
        return Fitting(own, [held for held in self.held if id(held) not in there])

    def _rank(self, root: Place) -> tuple[int, int, int]:
        """The most that fits first, then what has the names at least, then the deepest."""
        return -len(self._by_root.get(root, {})), -len(self._odd.get(root, {})), -len(root)

    def _match(self) -> None:
        names = _spellings({name: tuple(name.split(".")) for name in self.own}, {p for h in self.held for p in h.place})
        kept = _collapsed([h.place for h in self.held], self.parts)
        for held, alone in zip(self.held, kept, strict=True):
            whole = tuple(range(len(held.place)))
            for indices in (whole, alone) if alone != whole else (whole,):
                for start in range(len(indices)):
                    name = names.get(tuple(held.place[i] for i in indices[start:]))
                    if name is None:
                        continue
                    table = self._by_root if _alike(held.tensor, self.own[name]) else self._odd
                    table.setdefault(held.place[: indices[start]], {}).setdefault(name, held)

    def _fit(self, root: Place, found: Mapping[str, Held]) -> Fit:
        there = {self.storage[name] for name in found}
        missing = tuple(
            name for name in self.own if self.storage[name] not in there and name.rpartition(".")[2] != _COUNTER
        )
        odd = {name: held for name, held in self._odd.get(root, {}).items() if name not in found}
        left = tuple(self._left(root, found))
        beside = all(held.place[len(root)] not in self.first for held in left)
        return Fit(root, found, missing, odd, left, beside)

    def _left(self, root: Place, found: Mapping[str, Held]) -> Iterable[Held]:
        taken = {id(held) for held in found.values()}
        within = {held.within for held in found.values()}
        others = {
            id(held)
            for other, fits in self._by_root.items()
            if len(other) > len(root) and other[len(root)] not in self.parts and len(fits) >= _PARTS * len(self.own)
            for held in fits.values()
        }
        odd = {id(held) for held in self._odd.get(root, {}).values()}
        for held in self.held:
            if held.place[: len(root)] != root or id(held) in taken | others | odd:
                continue
            top, last = held.place[len(root)], held.place[-1]
            beside = top not in self.first
            way = ".".join(held.place[len(root) :]).lower()
            training = any(word in way for word in _TRAINING)
            if last not in _COUNTED and not (beside and (training or held.within not in within)):
                yield held

    def _joined(self, root: Place) -> Fit:
        """What a root lacks taken from the nearest other ones, where there is only one choice."""
        found, rest = dict(self._by_root.get(root, {})), dict[Place, None]()
        for name in self.own:
            if name in found:
                continue
            there = [(_common(other, root), other, fits[name]) for other, fits in self._by_root.items() if name in fits]
            nearest = max((common for common, _, _ in there), default=0)
            choices = {id(held): (other, held) for common, other, held in there if common == nearest}
            if len(choices) == 1:
                (other, found[name]), *_ = choices.values()
                rest[other] = None
        return replace(self._fit(root, found), rest=tuple(rest))


def through(way: Place, key: Place) -> bool:
    """Whether the parts of a key follow each other somewhere on a way."""
    return any(way[i : i + len(key)] == key for i in range(len(way) - len(key) + 1))


def _different(fits: Iterable[Fit]) -> list[Fit]:
    """Each set of tensors once."""
    result: list[Fit] = []
    for fit in fits:
        if not any(fit.ids == other.ids or _same(fit, other) for other in result):
            result.append(fit)
    return result


def _same(one: Fit, other: Fit) -> bool:
    """The same values, whatever the place: a model saved twice, an average before it averages."""
    if one.found.keys() != other.found.keys():
        return False
    pairs = ((held.tensor, other.found[name].tensor) for name, held in one.found.items())
    return all(a.dtype == b.dtype and _equal(a, b) for a, b in pairs)


def _equal(a: Tensor, b: Tensor) -> bool:
    a, b = dense(a), dense(b)
    return bool(((a == b) | ((a != a) & (b != b))).all())


def dense(tensor: Tensor) -> Tensor:
    """The tensor with its zeros, where it was stored without."""
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def _alike(there: Tensor, own: Tensor) -> bool:
    kinds = (there.is_floating_point(), there.is_complex()), (own.is_floating_point(), own.is_complex())
    return there.shape == own.shape and kinds[0] == kinds[1]


def _storage(name: str, tensor: Tensor) -> object:
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() and tensor.data_ptr() else name


def _common(one: Place, other: Place) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length


def _spellings(places: Mapping[str, Place], there: set[str]) -> dict[Place, str]:
    """Names by their parts, in full and without those that nothing else stands beside and no place `there` has."""
    spelt = {place: name for name, place in places.items()}
    for (name, place), kept in zip(places.items(), _collapsed(list(places.values()), there), strict=True):
        spelt.setdefault(tuple(place[i] for i in kept), name)
    return spelt


def _collapsed(places: list[Place], known: set[str]) -> list[tuple[int, ...]]:
    """For each place the parts that stay without those that are no `known` ones and alone where they stand."""
    children: dict[Place, set[str]] = {}
    for place in places:
        for i, part in enumerate(place):
            children.setdefault(place[:i], set()).add(part)
    return [
        tuple(i for i, part in enumerate(place) if i == len(place) - 1 or part in known or len(children[place[:i]]) > 1)
        for place in places
    ]
