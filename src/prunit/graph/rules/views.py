"""Views of a tensor in other dimensions: which of them the channels lie along."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunit.graph.labels import Block, Labels, inserted, permuted, reshaped, without
from prunit.graph.rules.seam import (
    TracerLike,
    alike,
    argument,
    dims_of,
    name_of,
    pin_blocks,
)

aten = torch.ops.aten


def reshape(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """view, reshape: follow each element to its new place."""
    x = args[0]
    labels = t.labels(x)
    same_elements = x.numel() == out.numel()  # not so where `view` reads the memory as another dtype
    old, new = tuple(x.shape), tuple(out.shape)
    if same_elements and not x.numel():  # what a detector has not found is as wide as what it would have
        old, new = tuple(n or 1 for n in old), tuple(n or 1 for n in new)
        same_elements = math.prod(old) == math.prod(new)
    moved = reshaped(labels, old, new) if same_elements else None
    if moved is None and same_elements:
        # Dimensions that an `expand` has made count no channels if they are made one with some: repeat_interleave.
        real = tuple(b for b in labels.blocks if not t.is_made_up(b.ids))
        if len(real) < len(labels.blocks):
            pin_blocks(t, [b for b in labels.blocks if t.is_made_up(b.ids)], "view of channels repeated")
            labels = labels._replace(blocks=real)
            moved = reshaped(labels, old, new)
    if moved is None and labels.weight and same_elements:
        # A weight made flat: its inputs can be followed where the kernel stays as it is.
        kernel = [b for b in labels.blocks if b.dims[0] > 1]
        pin_blocks(t, kernel, "the size of a kernel")
        labels = labels._replace(blocks=tuple(b for b in labels.blocks if b.dims[0] < 2))
        moved = reshaped(labels, old, new)
    if moved is None:
        t.pin_tensor(x, "operator view tears channels apart")
        moved = labels._replace(blocks=())
    known = {id(b.ids) for b in labels.blocks}
    if labels.blocks:
        t.assume(x, unless="flatten" if out.ndim == 2 else "")
    blocks = []
    for block in moved.blocks:
        if x.ndim == 2 and len(block.dims) > 1 and block.dims[0] == 1:
            blocks.append(_image_of_row(t, block, out))
            continue
        one = _along_one_dim(t, block) if len(block.dims) > 1 else block
        blocks.append(one)
        if len(one.dims) == 1 and id(one.ids) in known:
            _as_many_as_given(t, one, args[1])
        elif len(one.dims) == 1 and (one.dims[0] > 0 or labels.buffer < 0):  # no code counts batch times heads
            t.size(out.shape[one.dims[0]], one.ids)
        if x.ndim == 2 < out.ndim and one.dims == (1,) and labels.buffer >= 0 and x.shape[1] == out.shape[1]:
            _pixel_of_row(t, one, out)
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


def _image_of_row(t: TracerLike, block: Block, out: Tensor) -> Block:
    """A row x_BN viewed as an image, `fc(z).view(-1, C, H, W)`: its channels shrink, with all of their pixels.

    Those are the first of its dimensions or, where they are put there later, the last; in a shorter one, x_BGC, rather
    the last. How many there are may stand in the code itself.
    """
    last = len(block.dims) - 1
    readings = [(0, False), (0, True), (last, False), (last, True)]
    taken = t.reading("image", 5, block.ids) if last > 1 else t.reading("row", 5, block.ids)
    if taken == len(readings):
        t.pin(block.ids, f"operator view makes an image of {out.shape[1]} fixed channels")
        return block
    axis, is_written = readings[taken if last > 1 else (taken + 2) % 4]
    rows = np.moveaxis(block.ids, axis, -1).reshape(-1, block.ids.shape[axis])
    alike(t, rows, "view")
    if is_written:
        t.written(out.shape[1:], block.dims[axis] - 1, rows[0])
    else:
        t.size(out.shape[block.dims[axis]], rows[0])
    return Block((block.dims[axis],), rows[0])


def _pixel_of_row(t: TracerLike, block: Block, out: Tensor) -> None:
    """`view(-1, C, 1, 1)` of x_BC: the code may write out how many channels there are."""
    taken = t.reading("pixel", 3, block.ids)
    if taken == 1:
        t.written(out.shape[1:], 0, block.ids)
    elif taken == 2:
        t.pin(block.ids, f"operator view makes an image of {out.shape[1]} fixed channels")


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
