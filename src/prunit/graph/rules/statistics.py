"""Normalisation and reductions: per channel, or over all channels at once, however many there are."""

from typing import Any

import numpy as np
from torch import Tensor

from prunit.graph.labels import Block, Labels, without
from prunit.graph.rules.seam import (
    TracerLike,
    alike,
    argument,
    buffer_for,
    dims_of,
    name_of,
    others,
    pin_blocks,
    tensors,
    tie,
)


def batch_norm(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """One mean, deviation, gain and shift per channel: they follow x's channels."""
    x, *vectors = args[:5]
    first = out[0] if isinstance(out, tuple | list) else out
    labels = t.labels(x)
    ids = labels.ids(1)
    # Standardised weights: their inputs lie along another dimension, and statistics are taken over them.
    for block in others(t, x, 1):
        t.mix(block.ids, f"statistics over channels ({name_of(func)})")
    along = ids
    for v in vectors:
        if isinstance(v, Tensor):
            mine = t.along(v, along, "batch norm over fixed channels")
            if along is ids and mine is not None and along is not None:
                along = mine  # a whole axis, to which the next ones are tied at once
    t.set(first, labels)
    for leaf in tensors(out):
        if leaf is not first and leaf.numel():
            t.set(leaf, Labels((Block((0,), ids),) if ids is not None and leaf.shape == (x.shape[1],) else (), -2))


def layer_norm(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Layer and RMS norm: statistics over the last dimensions, with the gain and shift of each position there."""
    x, shape, *vectors = args[:4]
    labels = t.labels(x)
    start = x.ndim - len(shape)
    for d in range(start, x.ndim):
        ids = labels.ids(d)
        for v in vectors:
            if isinstance(v, Tensor):
                tie(t, ids, t.labels(v).ids(d - start), f"{name_of(func)} over fixed channels")
        if ids is not None:
            t.size(x.shape[d], ids)
    _norm(t, func, x, start, out)


def group_norm(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Statistics over the channels of each group: all groups lose the same ones."""
    x, *vectors = args[:3]
    groups = args[6]
    ids = t.labels(x).ids(1)
    for v in vectors:
        if isinstance(v, Tensor):
            tie(t, ids, t.labels(v).ids(0), f"{name_of(func)} over fixed channels")
    alone = groups == x.shape[1] > 1  # each channel by itself, an instance norm: the number of groups follows
    if ids is not None and alone:
        t.size(groups, ids)
    elif ids is not None and groups > 1:
        alike(t, ids.reshape(groups, -1), name_of(func))
    _norm(t, func, x, 1, out, apart=1 if alone else -1)


def _norm(t: TracerLike, func: Any, x: Tensor, start: int, out: Any, *, apart: int = -1) -> None:
    """Label what a norm over the dimensions from `start` on gives; but for `apart` those are looked at together."""
    labels = t.labels(x)
    first, *statistics = tensors(out)
    pin_blocks(t, [b for b in labels.blocks if len(b.dims) > 1], f"statistics over channels ({name_of(func)})")
    kept = tuple(b for b in labels.blocks if len(b.dims) == 1)
    for block in kept:
        if block.dims[0] >= start and block.dims[0] != apart:
            t.mix(block.ids, f"statistics over channels ({name_of(func)})")
    t.set(first, labels._replace(blocks=kept))
    for leaf in statistics:
        t.set(leaf, Labels(tuple(b for b in kept if b.dims[0] < min(start, leaf.ndim) or b.dims[0] == apart), -2))


def weight_norm(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """A weight scaled by a gain for each position along `dim`, over its norm along the other dimensions."""
    w, gain = args[:2]
    dim = argument(func, args, kwargs, "dim") % w.ndim
    labels = t.labels(w)
    tie(t, labels.ids(dim), t.labels(gain).ids(dim), "weight norm over fixed channels")
    for block in others(t, w, dim):
        t.mix(block.ids, f"statistics over channels ({name_of(func)})")
    first, norms = tensors(out)
    t.set(first, labels)
    t.set(norms, Labels(tuple(b for b in labels.blocks if b.dims == (dim,)), -2))


def renormed(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Each position along `dim` scaled so that its norm along the other dimensions is at most a number."""
    x = args[0]
    dim = argument(func, args, kwargs, "dim") % x.ndim
    for block in others(t, x, dim):
        t.mix(block.ids, f"statistics over channels ({name_of(func)})")
    t.set(out, t.labels(x))


def reduction(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """sum, mean, max, norm … over dimensions; over channels it takes those that there are."""
    x = args[0]
    dims = dims_of(argument(func, args, kwargs, "dim"), x.ndim)
    keepdim = bool(kwargs.get("keepdim", argument(func, args, kwargs, "keepdim")))
    labels = t.labels(x)
    for d in dims:
        block = labels.at(d)
        if block is not None:
            t.mix(block.ids, f"{name_of(func)} over channels")
    for leaf in tensors(out):
        t.set(leaf, Labels(without(labels, dims, keepdim).blocks, buffer_for(t, [x])))


def position(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """argmax, max, median … with positions: over channels those are numbers of channels, which somebody may read."""
    x = args[0]
    reduction(t, func, args, kwargs, out)
    name, found = name_of(func), tensors(out)
    if len(found) == 1 and not name.startswith("arg"):  # the value alone
        return
    _numbered(t, func, args, kwargs, found[-1])
    if name == "kthvalue" and argument(func, args, kwargs, "k") != 1:
        block = t.labels(x).at(dims_of(argument(func, args, kwargs, "dim"), x.ndim)[0])
        if block is not None:
            t.pin(block.ids, "operator kthvalue asks for a channel by its rank")


def _numbered(t: TracerLike, func: Any, args: Any, kwargs: Any, positions: Tensor) -> None:
    """Label the positions along a dimension that an operator gives: of channels they must stay where they are read."""
    labels = t.labels(args[0])
    blocks = [labels.at(d) for d in dims_of(argument(func, args, kwargs, "dim"), args[0].ndim)]
    ids = [block.ids.reshape(-1) for block in blocks if block is not None]
    if ids:
        t.set(positions, t.labels(positions)._replace(counts=(np.concatenate(ids), name_of(func))))


def softmax(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Over channels it is a distribution over those that there are."""
    x = args[0]
    labels = t.labels(x)
    block = labels.at(argument(func, args, kwargs, "dim") % max(x.ndim, 1))
    if block is not None:
        t.mix(block.ids, f"{name_of(func)} over channels")
    for leaf in tensors(out):
        t.set(leaf, Labels(labels.blocks))


def along_free_dim(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """cumsum, roll, sort, topk: nothing happens to channels if they run along another dimension."""
    x = args[0]
    if name_of(func) == "topk" and argument(func, args, kwargs, "k") == 1:  # a maximum
        reduction(t, func, args, {**kwargs, "keepdim": True}, out)
        _numbered(t, func, args, kwargs, tensors(out)[-1])
        return
    labels = t.labels(x)
    dims = dims_of(argument(func, args, kwargs, "dim", "dims"), x.ndim)
    for d in dims:
        block = labels.at(d)
        if block is not None:
            t.pin(block.ids, f"operator {name_of(func)} runs over channels")
    for leaf in tensors(out):
        t.set(leaf, Labels(without(labels, dims, keepdim=True).blocks))
