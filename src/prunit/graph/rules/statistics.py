"""Normalisation and reductions: what mixes channels keeps them whole."""

from typing import Any

from torch import Tensor

from prunit.graph.labels import Block, Labels, without
from prunit.graph.rules.seam import TracerLike, argument, dims_of, name_of, pin_others, tensors, tie


def batch_norm(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """One mean, deviation, gain and shift per channel: they follow x's channels."""
    x, *vectors = args[:5]
    first = out[0] if isinstance(out, tuple | list) else out
    labels = t.labels(x)
    pin_others(t, x, 1, f"operator {name_of(func)} takes statistics over channels")
    ids = labels.ids(1)
    for v in vectors:
        if isinstance(v, Tensor):
            tie(t, ids, t.labels(v).ids(0), "batch norm over fixed channels")
    block = () if ids is None else (Block((1,), ids),)
    t.set(first, Labels(block, labels.buffer))
    for leaf in tensors(out):
        if leaf is not first:
            t.set(leaf, Labels((Block((0,), ids),) if ids is not None and leaf.shape == (x.shape[1],) else ()))


def channel_norm(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Group and layer norm: their statistics mix channels, so these stay whole."""
    for leaf in tensors((args, kwargs)):
        t.pin_tensor(leaf, f"statistics over channels ({name_of(func)})")
    for leaf in tensors(out):
        t.set(leaf, Labels())


def reduction(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """sum, mean, max, norm … over dimensions; channels that are summed over stay whole."""
    x = args[0]
    dims = dims_of(argument(func, args, kwargs, "dim"), x.ndim)
    keepdim = bool(argument(func, args, kwargs, "keepdim"))
    labels = t.labels(x)
    for d in dims:
        block = labels.at(d)
        if block is not None:
            t.pin(block.ids, f"operator {name_of(func)} reduces over channels")
    for leaf in tensors(out):
        t.set(leaf, Labels(without(labels, dims, keepdim).blocks))


def along_free_dim(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """softmax, cumsum, flip, roll, sort, topk: nothing happens to channels if they run along another dimension."""
    x = args[0]
    labels = t.labels(x)
    dims = dims_of(argument(func, args, kwargs, "dim", "dims"), x.ndim)
    for d in dims:
        block = labels.at(d)
        if block is not None:
            t.pin(block.ids, f"operator {name_of(func)} runs over channels")
    for leaf in tensors(out):
        t.set(leaf, Labels(without(labels, dims, keepdim=True).blocks))
