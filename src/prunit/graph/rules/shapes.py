"""Views, concatenations and parts: where each channel goes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunit.graph.labels import Block, Labels, inserted, ordered, permuted, reshaped, without
from prunit.graph.rules.elementwise import aligned
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
)

aten = torch.ops.aten


def reshape(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """view, reshape: follow each element to its new place."""
    x = args[0]
    labels = t.labels(x)
    same_elements = x.numel() == out.numel()  # not so where `view` reads the memory as another dtype
    moved = reshaped(labels, tuple(x.shape), tuple(out.shape)) if same_elements else None
    if moved is None and labels.weight and same_elements:
        # A weight made flat: its inputs can be followed where the kernel stays as it is.
        kernel = [b for b in labels.blocks if b.dims[0] > 1]
        pin_blocks(t, kernel, "the size of a kernel")
        labels = labels._replace(blocks=tuple(b for b in labels.blocks if b.dims[0] < 2))
        moved = reshaped(labels, tuple(x.shape), tuple(out.shape))
    if moved is None:
        t.pin_tensor(x, "operator view tears channels apart")
        moved = labels._replace(blocks=())
    known = {id(b.ids) for b in labels.blocks}
    if labels.blocks:
        t.assume(x, unless="flatten" if out.ndim == 2 else "")
    blocks = []
    for block in moved.blocks:
        one = _along_one_dim(t, block) if len(block.dims) > 1 else block
        blocks.append(one)
        if len(one.dims) == 1 and id(one.ids) in known:
            _as_many_as_given(t, one, args[1])
        elif len(one.dims) == 1 and (one.dims[0] > 0 or labels.buffer < 0):  # no code counts batch times heads
            t.size(out.shape[one.dims[0]], one.ids)
    t.set(out, moved._replace(blocks=tuple(blocks)))


def _as_many_as_given(t: TracerLike, block: Block, shape: Any) -> None:
    """`reshape(B, C, -1)` where C is how many channels the module was given: then these must be the same ones."""
    (dim,), ids = block
    given = t.given(ids.size)
    if given is None or given is ids or shape[dim] != ids.size:
        return
    taken = t.reading("number", 3, ids)
    if taken == 1:
        t.unify(ids, given, "view to the width of the input")
    elif taken == 2:
        t.pin(ids, "operator view takes the width of the input")
        t.pin(given, "operator view takes the width of the input")


def _along_one_dim(t: TracerLike, block: Block) -> Block:
    """Channels that a view spreads over several dimensions: which of those shrinks?

    With two groups, `view(B, 2, C // 2, H, W)`, it is the last; with attention heads the one before, as a head goes
    whole; the first in a pixel shuffle written out. All positions along the others are then the same channel.
    """
    taken = t.reading("view", len(block.dims) + 1, block.ids)
    if taken == len(block.dims):
        t.pin(block.ids, "operator view splits the channel dimension")
        return block
    axis = len(block.dims) - 1 - taken
    rows = np.moveaxis(block.ids, axis, -1).reshape(-1, block.ids.shape[axis])
    alike(t, rows, "view")
    return Block((block.dims[axis],), rows[0])


def restride(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """as_strided to the same shape, as PyTorch's pooling does to keep a memory format, changes nothing; else it may."""
    x, labels = args[0], t.labels(args[0])
    if tuple(args[1]) != tuple(x.shape):
        t.pin_tensor(x, f"operator {name_of(func)} reads memory as it lies")
        labels = Labels(buffer=labels.buffer)
    t.set(out, labels)


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
    blocks: list[Block] = []
    if any([dim not in block.dims for x in parts for block in t.labels(x).blocks]):
        rest = [_without_dim(t, x, dim) for x in parts]
        blocks += aligned(t, rest, tuple(1 if d == dim else n for d, n in enumerate(out.shape)), "cat")
    joined = np.concatenate(ids)
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
    grown = tuple(d for d, n in enumerate(out.shape) if n > 1 and d >= shift and x.shape[d - shift] == 1)
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


def part(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """select, unbind, index_select: one channel or some, by number, so all stay; other dimensions are handed on."""
    x = args[0]
    dim = argument(func, args, kwargs, "dim") % x.ndim
    labels = t.labels(x)
    outs = tensors(out)
    block = labels.at(dim)
    if block is not None:
        t.pin(block.ids, f"{name_of(func)} takes channels by number")
    labels = _part_of(labels)
    for leaf in outs:
        t.set(leaf, without(labels, [dim], keepdim=leaf.ndim == x.ndim))


def _part_of(labels: Labels) -> Labels:
    # A part of a weight is not that weight, whose macs are counted with all its elements.
    return labels._replace(weight="", buffer=-2) if labels.weight else labels


def pieces(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """slice, split, chunk, narrow: runs of channels.

    Equal pieces that cover all channels may lose the same ones, as where the code takes a share of the shape. Pieces
    may also go their own ways, where the code takes their sizes from attributes.
    """
    x = args[0]
    dim = argument(func, args, kwargs, "dim") % x.ndim
    labels = t.labels(x)
    outs = tensors(out)
    block = labels.at(dim)
    if len(outs) == 1 and outs[0].shape == x.shape:
        t.set(outs[0], labels)
        return
    ends = _ends(func, args, kwargs, x.shape[dim], outs, dim)
    rest = without(_part_of(labels), [dim], keepdim=True)
    if block is None or len(block.dims) > 1 or not ends:
        if block is not None:
            t.pin(block.ids, f"{name_of(func)} takes channels by number")
        for leaf in outs:
            t.set(leaf, rest)
        return
    ids = block.ids
    followed = _followed(t, func, args, kwargs, ids, ends)
    for leaf, (start, stop) in zip(outs, ends, strict=True):
        if stop - start == 1:  # it cannot shrink, and what has size 1 has no labels
            t.pin(ids[start:stop], f"{name_of(func)} takes one channel")
        wide = followed and stop - start > 1
        blocks = (*rest.blocks, Block((dim,), ids[start:stop])) if wide else rest.blocks
        t.set(leaf, rest._replace(blocks=ordered(blocks)))


def _ends(func: Any, args: Any, kwargs: Any, size: int, outs: list[Tensor], dim: int) -> list[tuple[int, int]]:
    """Where each output starts and stops along the dimension; [] where it takes only every so-many-th channel."""
    if name_of(func) == "slice":
        start = argument(func, args, kwargs, "start") or 0
        start = min(max(start + size if start < 0 else start, 0), size)
        return [(start, start + outs[0].shape[dim])] if argument(func, args, kwargs, "step") == 1 else []
    stops = np.cumsum([leaf.shape[dim] for leaf in outs]).tolist()
    return [(stop - leaf.shape[dim], stop) for stop, leaf in zip(stops, outs, strict=True)]


def _followed(t: TracerLike, func: Any, args: Any, kwargs: Any, ids: np.ndarray, ends: list[tuple[int, int]]) -> bool:
    """Take a reading of runs of channels; False if they are pinned."""
    length = ends[0][1] - ends[0][0]
    equal = len(ids) % max(length, 1) == 0 and all(b - a == length and a % length == 0 for a, b in ends)
    # What the code was given: where a slice begins and ends, how long the parts of a split are; or it computed that
    # from the number of all channels.
    if name_of(func) == "slice":
        asked = [argument(func, args, kwargs, name) or 0 for name in ("start", "end")]
        edges = [(edge, wish) for edge, wish in zip(ends[0], asked, strict=True) if 0 < edge < len(ids)]
        given = [ids[edge:] if wish < 0 else ids[:edge] for edge, wish in edges]
    else:
        given = [ids[start:stop] for start, stop in ends]
    # Only sizes that a module holds can be changed to whatever each part keeps; a share of the shape cannot.
    readings = ["apart"] if any(t.holds(len(some)) for some in given) else []
    if equal:
        readings = [*readings, "alike"] if len(ends) == 1 else ["alike", *readings]
    taken = t.reading("part", len(readings) + 1, ids)
    if taken == len(readings):
        t.pin(ids, f"{name_of(func)} takes channels by number")
        return False
    if readings[taken] == "alike":
        rows = ids.reshape(-1, length)
        alike(t, rows, name_of(func))
    for some in [*given, ids]:
        t.size(len(some), some)
    return True


def index(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """x[i, j]: what is looked up by number stays whole; the dimensions that are not looked up are handed on."""
    x, wanted = args[0], args[1]
    labels = t.labels(x)
    looked_up = [d for d, i in enumerate(wanted) if i is not None]
    for leaf in tensors(wanted):
        t.pin_tensor(leaf, f"operator {name_of(func)} counts channels")
    for d in looked_up:
        block = labels.at(d)
        if block is not None:
            t.pin(block.ids, f"operator {name_of(func)} takes channels by number")
    together = looked_up == list(range(looked_up[0], looked_up[-1] + 1))
    width = max(wanted[d].ndim for d in looked_up)
    place = looked_up[0] if together else 0
    if any(wanted[d].dtype == torch.bool for d in looked_up):
        t.pin_tensor(x, f"operator {name_of(func)} takes elements by their values")
        t.set(out, Labels())
        return
    kept = without(_part_of(labels), looked_up, keepdim=False)
    blocks = tuple(Block(tuple(d + width * (d >= place) for d in b.dims), b.ids) for b in kept.blocks)
    t.set(out, Labels(blocks, buffer_for(t, [x])))


def embedding(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Rows of a table: each channel of the table is one of the output's."""
    table, numbers = args[0], args[1]
    labels = t.labels(table)
    t.pin(labels.ids(0), f"operator {name_of(func)} takes channels by number")
    t.pin_tensor(numbers, f"operator {name_of(func)} counts channels")
    made = labels.ids(1)
    t.produce(made)
    t.set(out, Labels(() if made is None else (Block((out.ndim - 1,), made),)))


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
    t.set(out, without(_part_of(labels), [dim], keepdim=True)._replace(buffer=buffer_for(t, [x])))


def nothing(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """The output holds values that follow no channel: numbers in order, random ones."""
    for leaf in tensors(out):
        t.set(leaf, Labels())
