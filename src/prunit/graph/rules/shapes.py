"""Views, concatenations and parts: where each channel goes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunit.graph.labels import Block, Labels, inserted, permuted, reshaped, without
from prunit.graph.rules.elementwise import aligned
from prunit.graph.rules.seam import TracerLike, argument, dims_of, name_of, tensors

aten = torch.ops.aten
SLICES = {aten.slice, aten.split, aten.split_with_sizes, aten.unsafe_split}
"""Parts that keep the order: one as long as the whole is the whole (which `index_select` need not be)."""


def reshape(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """view, reshape: follow each element to its new place."""
    x = args[0]
    labels = t.labels(x)
    same_elements = x.numel() == out.numel()  # not so where `view` reads the memory as another dtype
    moved = reshaped(labels, tuple(x.shape), tuple(out.shape)) if same_elements else None
    if moved is None:
        t.pin_tensor(x, "operator view tears channels apart")
        moved = Labels(buffer=labels.buffer)
    for block in moved.blocks:
        if len(block.dims) > 1:
            # Channels spread over several dimensions: which of them may go depends on the code that follows.
            t.pin(block.ids, "operator view splits the channel dimension")
    t.set(out, moved)


def permute(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """permute, transpose, t."""
    x = args[0]
    order = list(range(x.ndim))
    if func.overloadpacket is aten.permute:
        order = [d % x.ndim for d in argument(func, args, kwargs, "dims")]
    elif x.ndim > 1:
        a, b = argument(func, args, kwargs, "dim0"), argument(func, args, kwargs, "dim1")
        a, b = (0, 1) if a is None else (a % x.ndim, b % x.ndim)
        order[a], order[b] = order[b], order[a]
    t.set(out, permuted(t.labels(x), order))


def unsqueeze(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """A new dimension of size 1."""
    t.set(out, inserted(t.labels(args[0]), argument(func, args, kwargs, "dim") % out.ndim))


def squeeze(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Dimensions of size 1 disappear."""
    x = args[0]
    dims = dims_of(argument(func, args, kwargs, "dim"), x.ndim)
    t.set(out, without(t.labels(x), [d for d in dims if x.shape[d] == 1], keepdim=False))


def expand(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Dimensions of size 1 repeated; new ones in front."""
    labels = t.labels(args[0])
    shift = out.ndim - args[0].ndim
    t.set(out, labels._replace(blocks=tuple(Block(tuple(d + shift for d in b.dims), b.ids) for b in labels.blocks)))


def repeat(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Dimensions tiled; new ones in front."""
    labels = t.labels(args[0])
    times = argument(func, args, kwargs, "repeats")
    shift = out.ndim - args[0].ndim
    blocks = []
    for dims, ids in labels.blocks:
        moved = tuple(d + shift for d in dims)
        blocks.append(Block(moved, np.tile(ids, [times[d] for d in moved])))
    t.set(out, Labels(tuple(blocks)))


def concatenate(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Channels one after the other; other dimensions line up."""
    parts = [x for x in args[0] if x.numel()]
    dim = argument(func, args, kwargs, "dim") % out.ndim
    ids: list[np.ndarray] = []
    for x in parts:
        block = t.labels(x).at(dim)
        if block is not None and len(block.dims) > 1:
            t.pin(block.ids, "operator cat on a part of the channels")
            block = None
        ids.append(np.zeros(x.shape[dim], np.int64) if block is None else block.ids)
    rest = [_without_dim(t, x, dim) for x in parts]
    blocks = list(aligned(t, rest, tuple(1 if d == dim else n for d, n in enumerate(out.shape)), "cat"))
    if any(i.any() for i in ids):
        blocks.append(Block((dim,), np.concatenate(ids)))
    t.set(out, Labels(tuple(sorted(blocks))))


def _without_dim(t: TracerLike, x: Tensor, dim: int) -> Tensor:
    """A stand-in for x with size 1 along `dim` and the labels of its other dimensions."""
    stand_in = torch.empty([1 if d == dim else n for d, n in enumerate(x.shape)], device="meta")
    t.set(stand_in, without(t.labels(x), [dim], keepdim=True)._replace(buffer=-2))
    return stand_in


def stack(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Tensors side by side along a new dimension."""
    dim = argument(func, args, kwargs, "dim") % out.ndim
    shape = tuple(n for d, n in enumerate(out.shape) if d != dim)
    t.set(out, Labels(inserted(Labels(aligned(t, list(args[0]), shape, "stack")), dim).blocks))


def part(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """slice, select, split, chunk, narrow: whole channels only; a cut at a fixed channel number pins them."""
    x = args[0]
    dim = argument(func, args, kwargs, "dim") % x.ndim
    labels = t.labels(x)
    outs = tensors(out)
    block = labels.at(dim)
    if func.overloadpacket in SLICES and len(outs) == 1 and outs[0].shape == x.shape:
        t.set(outs[0], labels)
        return
    if block is not None:
        t.pin(block.ids, f"{name_of(func)} takes channels by number")
    if labels.weight:
        # A part of a weight is not that weight, whose macs are counted with all its elements.
        labels = labels._replace(weight="", buffer=-2)
    for leaf in outs:
        t.set(leaf, without(labels, [dim], keepdim=leaf.ndim == x.ndim))


def nothing(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """The output holds new values that follow no channel: new_zeros, shape queries."""
    for leaf in tensors(out):
        t.set(leaf, Labels())
