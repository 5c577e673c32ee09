"""A computed weight in its dense shape, computed from what a plan keeps of its originals alone.

Zeros in the originals are not enough for `mask`: a norm of nothing is 0/0, a spectral norm counts filters that are
gone, softplus makes a weight of a zero. So the originals are gathered, the weight is computed as the compact layer
computes it, and scattered into zeros; buffers that it writes (singular vectors) are written where they stand.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from prunit.graph.computed import Computed, computed_weights, replaced
from prunit.graph.inverse import iterate_power
from prunit.graph.records import ChannelGraph
from prunit.graph.running import named_modules, named_tensors


@dataclass
class _Kept:
    """Kept positions by dimension: of each tensor that it is computed from, and of the weight (with its size)."""

    originals: Mapping[str, Mapping[int, Tensor]]
    weight: Mapping[int, tuple[int, Tensor]]
    whole: bool = False
    """It is being traced: computed from all of its originals."""


def compute_on_kept(model: nn.Module, graph: ChannelGraph, keep: np.ndarray) -> None:
    """From now on the weights of `model`, which is changed, are computed on what `keep` (`flat_keep`) leaves."""
    cuts: dict[str, dict[int, Tensor]] = {}
    for axis in graph.axes:
        stays = keep[axis.where]
        if not stays.all():
            cuts.setdefault(axis.tensor, {})[axis.dim] = torch.from_numpy(np.flatnonzero(stays))
    for item in computed_weights(model) if cuts else ():
        mine = {name: cuts[item.prefix + name] for name in item.places if item.prefix + name in cuts}
        if not mine:
            continue
        kept = _Kept(mine, {dim: (item.shape[dim], index) for dim, index in cuts.get(item.main, {}).items()})
        if isinstance(item.source, tuple):
            key, hook = item.source
            again, inner = isinstance(hook, _HookOnKept), getattr(hook, "inner", hook)
            item.module._forward_pre_hooks[key] = ours = _HookOnKept(inner, item.name, kept)
            item = Computed(item.path, item.module, item.name, (key, ours))
        else:
            again = isinstance(item.source, _ListOnKept)
            item.source.__class__ = _ListOnKept
            item.source.__dict__["kept"] = kept
        if not again:
            _settle(item)


def settle_cut(small: nn.Module, model: nn.Module) -> None:
    """Let the spectral norms of `small` find the singular vectors of what a cut left of the weights of `model`."""
    items = computed_weights(small)
    dense = named_tensors(model) if items else {}
    for item in items:
        if any(place.tensor.shape != dense[item.prefix + name].shape for name, place in item.places.items()):
            _settle(item)


def _settle(item: Computed) -> None:
    iterate_power(item)
    item.refresh()


@contextmanager
def computed_whole(model: nn.Module) -> Iterator[None]:
    """Meanwhile they are computed from all of their originals, for who follows the channels."""
    found = [
        held.kept
        for _, module in named_modules(model)
        for held in (module, *module._forward_pre_hooks.values())
        if isinstance(held, _ListOnKept | _HookOnKept)
    ]
    for kept in found:
        kept.whole = True
    try:
        yield
    finally:
        for kept in found:
            kept.whole = False


class _ListOnKept(ParametrizationList):
    """Parametrizations that see the kept channels of their originals."""

    kept: _Kept

    def forward(self) -> Tensor:
        """The weight, zero where nothing is kept."""
        item = Computed("", self, "", self)
        return _computed(item, self.kept, super().forward)


class _HookOnKept:
    """A hook that sees the kept channels of its layer's tensors."""

    def __init__(self, inner: Callable[..., Any], name: str, kept: _Kept) -> None:
        self.inner, self.name, self.kept = inner, name, kept

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        item = Computed("", module, self.name, (0, self.inner))
        module.__dict__[self.name] = _computed(item, self.kept, item.run)


def _computed(item: Computed, kept: _Kept, run: Callable[[], Tensor]) -> Tensor:
    # Out of sight of modes that go by the functions that are called: they see the dense layer alone.
    with torch._C.DisableTorchFunction():
        if kept.whole:
            return run()
        places = item.places
        dense = {name: places[name].tensor for name in kept.originals}
        parts: dict[str, Tensor] = {}
        for name, tensor in dense.items():
            for dim, index in kept.originals[name].items():
                tensor = tensor.index_select(dim, index.to(tensor.device))
            parts[name] = tensor
        with replaced(item, parts):
            weight = run()
            written = {name: places[name].tensor for name in parts if not places[name].is_parameter}
        for name, now in written.items():
            _write(dense[name], now, kept.originals[name])
        for dim, (size, index) in kept.weight.items():
            shape = [size if d == dim else n for d, n in enumerate(weight.shape)]
            weight = weight.new_zeros(shape).index_copy(dim, index.to(weight.device), weight)
        return weight


def _write(dense: Tensor, part: Tensor, cuts: Mapping[int, Tensor]) -> None:
    """Put the kept positions of a buffer back where they stand."""
    where = [cuts.get(d, torch.arange(n)).to(dense.device) for d, n in enumerate(dense.shape)]
    with torch.no_grad():
        dense[torch.meshgrid(*where, indexing="ij")] = part
