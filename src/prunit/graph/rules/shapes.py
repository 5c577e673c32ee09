"""Tensors put together, repeated, made and taken to patches: where each channel goes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunit.graph.labels import Block, Labels, inserted, ordered, without
from prunit.graph.rules.elementwise import aligned
from prunit.graph.rules.seam import (
    TracerLike,
    alike,
    argument,
    buffer_for,
    name_of,
    others,
    part_of,
    tensors,
)


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
    if not parts:  # a detector that finds nothing
        parts = [x for x in args[0] if x.ndim == out.ndim]
    dim = argument(func, args, kwargs, "dim") % out.ndim
    ids: list[np.ndarray] = []
    for x in parts:
        block = t.labels(x).at(dim)
        if block is not None and len(block.dims) > 1:
            t.pin(block.ids, "operator cat on a part of the channels")
            block = None
        ids.append(np.zeros(x.shape[dim], np.int64) if block is None else block.ids)
    blocks: list[Block] = []
    if any([dim not in block.dims for x in parts for block in t.labels(x).blocks]):
        rest = [_without_dim(t, x, dim) for x in parts]
        blocks += aligned(t, rest, tuple(1 if d == dim else n for d, n in enumerate(out.shape)), "cat")
    joined = np.concatenate([*ids, np.empty(0, np.int64)])
    if joined.any():
        blocks.append(Block((dim,), joined))
    t.set(out, Labels(ordered(blocks), buffer_for(t, parts)))


def _without_dim(t: TracerLike, x: Tensor, dim: int) -> Tensor:
    """A stand-in for x with size 1 along `dim` and the labels of its other dimensions."""
    stand_in = torch.empty([1 if d == dim else n for d, n in enumerate(x.shape)], device="meta")
    t.set(stand_in, without(t.labels(x), [dim], keepdim=True)._replace(buffer=-2))
    return stand_in


def stack(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Tensors side by side along a new dimension."""
    dim = argument(func, args, kwargs, "dim") % out.ndim
    shape = tuple(n for d, n in enumerate(out.shape) if d != dim)
    parts = list(args[0])
    blocks = inserted(Labels(aligned(t, parts, shape, "stack")), dim).blocks
    t.set(out, Labels(blocks, buffer_for(t, parts)))


def filled(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """zeros, ones, full, new_zeros …: equal values, as many as the code asks for."""
    t.set(out, Labels(_made_up(t, tuple(d for d, n in enumerate(out.shape) if n > 1), out)))


def expand(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Dimensions of size 1 repeated, as often as the code asks for; new ones in front."""
    x = args[0]
    labels = t.labels(x)
    shift = out.ndim - x.ndim
    blocks = [Block(tuple(d + shift for d in b.dims), b.ids) for b in labels.blocks]
    grown = tuple(d for d, n in enumerate(out.shape) if n > 1 and (d < shift or x.shape[d - shift] == 1))
    if grown:
        blocks += _made_up(t, grown, out)
    t.set(out, labels._replace(blocks=ordered(blocks)))


def _made_up(t: TracerLike, dims: tuple[int, ...], out: Tensor) -> tuple[Block, ...]:
    """Channels that nothing made, as many as what they are combined with, unless the code fixes their number."""
    if not dims:
        return ()
    blocks = tuple(Block((d,), t.made_up(out.shape[d])) for d in dims)
    if t.reading("fill", 2, np.concatenate([b.ids for b in blocks])):
        return ()
    for block in blocks:
        t.size(out.shape[block.dims[0]], block.ids)
    return blocks


def pixel_shuffle(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """r * r channels become r * r pixels of one: those stay or go together."""
    x, r = args[0], args[1]
    dim = x.ndim - 3
    labels = t.labels(x)
    ids = labels.ids(dim)
    blocks = list(without(labels, [dim], keepdim=True).blocks)
    for block in blocks:
        if block.dims[-1] > dim:
            t.pin(block.ids, f"operator {name_of(func)} resamples a channel dimension")
    blocks = [b for b in blocks if b.dims[-1] < dim]
    if ids is not None:
        if name_of(func) == "pixel_shuffle":
            columns = ids.reshape(-1, r * r)
            alike(t, columns.T, name_of(func))
            ids = columns[:, 0]
        else:
            ids = np.repeat(ids, r * r)
        blocks.append(Block((dim,), ids))
    t.set(out, Labels(tuple(blocks)))


def channel_shuffle(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Channels of each group in turn: the groups lose the same ones."""
    x, groups = args[0], args[1]
    labels = t.labels(x)
    ids = labels.ids(1)
    blocks = list(without(labels, [1], keepdim=True).blocks)
    if ids is not None:
        rows = ids.reshape(groups, -1)
        alike(t, rows, name_of(func))
        blocks.append(Block((1,), np.ascontiguousarray(rows.T).reshape(-1)))
    t.set(out, Labels(ordered(blocks)))


def patches(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """im2col: every channel gives one row for each place in its kernel, one channel after the other."""
    x = args[0]
    labels = t.labels(x)
    dim = x.ndim - 3
    blocks = [b for b in without(labels, [dim], keepdim=True).blocks if b.dims[-1] < dim]
    for block in others(t, x, *range(dim + 1)):
        t.pin(block.ids, f"operator {name_of(func)} resamples a channel dimension")
    ids = labels.ids(dim)
    if ids is not None:
        blocks.append(Block((dim,), np.repeat(ids, out.shape[dim] // x.shape[dim])))
    t.set(out, Labels(tuple(blocks)))


def unpatched(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """col2im: the rows of one channel stay or go together."""
    x = args[0]
    labels = t.labels(x)
    dim = x.ndim - 2
    blocks = [b for b in without(labels, [dim], keepdim=True).blocks if b.dims[-1] < dim]
    ids = labels.ids(dim)
    if ids is not None:
        columns = ids.reshape(out.shape[dim], -1)
        alike(t, columns.T, name_of(func))
        blocks.append(Block((dim,), columns[:, 0]))
    t.set(out, Labels(tuple(blocks)))


def windows(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Tensor.unfold: windows along one dimension, their elements along a new last one."""
    x = args[0]
    labels = t.labels(x)
    dim = argument(func, args, kwargs, "dimension") % x.ndim
    block = labels.at(dim)
    if block is not None:
        t.pin(block.ids, f"operator {name_of(func)} takes windows of channels")
    t.set(out, without(part_of(labels), [dim], keepdim=True)._replace(buffer=buffer_for(t, [x])))


def nothing(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """The output holds values that follow no channel: numbers in order, random ones."""
    for leaf in tensors(out):
        t.set(leaf, Labels())
