"""Operators that work element by element, and those that resample space and leave channels alone."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunit.graph.labels import Block, Labels, ordered
from prunit.graph.rules.seam import TracerLike, argument, buffer_for, dims_of, name_of, operands, tensors

aten = torch.ops.aten
KEEP_ZERO = {aten.mul: 2, aten.div: 1, aten.neg: 1}
"""Operators that keep the zeros of (this many of) their operands: a parameter scaled by a gain is still a weight."""


def pointwise(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Operands share channels where they line up; the output has them too."""
    inputs = operands(args, kwargs)
    if type(out) is Tensor:
        labels = _as_one(t, inputs, out, func)
        if labels is not None:
            t.set(out, labels)
            return
    for leaf in tensors(out):
        shape = tuple(leaf.shape)
        source = _weight_among(t, inputs, shape)
        if source is not None:
            # The weight's own axes go first: they are the ones that its consumers sum over.
            blocks = aligned(t, [source, *(i for i in inputs if i is not source)], shape, name_of(func))
            labels = t.labels(source)
            clean = labels.clean and any(i is source for i in inputs[: KEEP_ZERO.get(func.overloadpacket, 0)])
            t.set(leaf, Labels(blocks, weight=labels.weight, clean=clean))
        else:
            # Engines run element-wise steps in place, so the output lives in the memory of an operand of its size.
            buffer = max((t.labels(i).buffer for i in inputs if i.shape == leaf.shape), default=-1)
            t.set(leaf, Labels(aligned(t, inputs, shape, name_of(func)), max(buffer, buffer_for(t, inputs))))
    if not tensors(out):
        for leaf in inputs:
            t.pin_tensor(leaf, f"operator {name_of(func)} looks at values")


def _as_one(t: TracerLike, inputs: list[Tensor], out: Tensor, func: Any) -> Labels | None:
    """Labels of an output whose operands, activations among them, are labelled along the same dimensions.

    That is the plain case of `pointwise`, and nearly all that occurs: an activation function, a sum, a gate. None: it
    is another.
    """
    shape, buffer, blocks = out.shape, -2, None
    for tensor in inputs:
        labels = t.labels(tensor)
        mine = labels.blocks
        if blocks is None:
            blocks = mine
        elif len(mine) != len(blocks) or any([a.dims != b.dims for a, b in zip(mine, blocks, strict=True)]):
            return None
        if tensor.ndim != len(shape):
            return None
        if labels.buffer >= 0:
            buffer = max(buffer, labels.buffer if tensor.shape == shape else -1)
    if blocks is None or buffer == -2:
        return None
    for tensor in inputs[1:]:
        for mine, first in zip(t.labels(tensor).blocks, blocks, strict=True):
            t.unify(first.ids, mine.ids, name_of(func))
    return Labels(ordered(blocks), buffer)


def _weight_among(t: TracerLike, inputs: list[Tensor], shape: tuple[int, ...]) -> Tensor | None:
    """The first weight of that shape, if no activation takes part."""
    if any(t.labels(i).buffer >= 0 for i in inputs):
        return None
    return next((i for i in inputs if t.labels(i).weight and tuple(i.shape) == shape), None)


def aligned(t: TracerLike, inputs: list[Tensor], shape: tuple[int, ...], name: str) -> tuple[Block, ...]:
    """Blocks of an output of `shape` to which the inputs broadcast; unifies what lines up, pins what cannot."""
    if len(inputs) == 1 and inputs[0].shape == shape:  # an activation function: nothing to line up
        return tuple(sorted(t.labels(inputs[0]).blocks))
    shifted: list[_Operand] = []
    for tensor in inputs:
        shift = len(shape) - tensor.ndim
        blocks = [Block(tuple(d + shift for d in b.dims), b.ids) for b in t.labels(tensor).blocks]
        shifted.append(((1,) * shift + tuple(tensor.shape), blocks))
    result: list[Block] = []
    for dims in _components([b for _, blocks in shifted for b in blocks]):
        problem = _misfit(shifted, dims)
        if problem:
            for block in (b for _, blocks in shifted for b in blocks if b.dims[0] in dims):
                t.pin(block.ids, f"{name} {problem}")
            continue
        size = [shape[d] for d in dims]
        first, *others = (_over(b, dims, size) for _, blocks in shifted for b in blocks if b.dims[0] in dims)
        for ids in others:
            t.unify(first, ids, name)
        result.append(Block(dims, first))
    return tuple(sorted(result))


_Operand = tuple[tuple[int, ...], list[Block]]
"""Shape and blocks of an operand after broadcasting has put dimensions in front."""


def _misfit(operands: list[_Operand], dims: tuple[int, ...]) -> str:
    """Why channels along `dims` cannot be followed through all operands, '' if they can."""
    for sizes, blocks in operands:
        mine = [b for b in blocks if b.dims[0] in dims]
        covered = {d for b in mine for d in b.dims}
        if any(sizes[d] > 1 and d not in covered for d in dims):
            return "with a tensor whose size is fixed"
        if len(mine) > 1:
            return "mixes channels of two dimensions"
    return ""


def _over(block: Block, dims: tuple[int, ...], size: list[int]) -> np.ndarray:
    """The block's ids, repeated over those of `dims` that it does not cover."""
    if block.dims == dims:
        return block.ids
    view = [n if d in block.dims else 1 for d, n in zip(dims, size, strict=True)]
    return np.broadcast_to(block.ids.reshape(view), size)


def _components(blocks: list[Block]) -> list[tuple[int, ...]]:
    """Dimensions of the blocks, joined where blocks overlap."""
    found: list[set[int]] = []
    for block in blocks:
        joined = set(block.dims)
        for other in [f for f in found if f & joined]:
            joined |= other
            found.remove(other)
        found.append(joined)
    return [tuple(sorted(f)) for f in found]


def like_first(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Outputs have the labels of the first input and its memory: views, copies, casts, dropout."""
    for leaf in tensors(out):
        t.set(leaf, t.labels(args[0]))


def same_shape(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """zeros_like and the like: new values, but their shape follows the channels of the input."""
    for leaf in tensors(out):
        t.set(leaf, Labels(t.labels(args[0]).blocks))


def pooling(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Space is resampled or padded, channels stay: poolings, interpolation."""
    x = args[0]
    labels = t.labels(x)
    space = next(n for n in (1, 2, 3) if f"{n}d" in name_of(func))
    kept: list[Block] = []
    for block in labels.blocks:
        if max(block.dims) < x.ndim - space:
            kept.append(block)
        elif (moved := _averaged(t, func, args, kwargs, block, space)) is not None:
            kept.append(moved)
        else:
            t.pin(block.ids, f"operator {name_of(func)} resamples a channel dimension")
    first, *others = tensors(out)
    t.set(first, Labels(tuple(kept)))
    for leaf in others:  # the indices of a max pooling, which no engine stores
        t.set(leaf, t.labels(first))


def flipped(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """flip: channels go to their new places; of those that stay the order is reversed alike."""
    x = args[0]
    labels = t.labels(x)
    dims = dims_of(argument(func, args, kwargs, "dims"), x.ndim)
    blocks = []
    for block in labels.blocks:
        turned = [i for i, d in enumerate(block.dims) if d in dims]
        if turned and (labels.weight or len(block.dims) > 1):
            t.pin(block.ids, f"operator {name_of(func)} runs over channels")
        elif turned:
            blocks.append(Block(block.dims, np.flip(block.ids, tuple(turned)).copy()))
        else:
            blocks.append(block)
    t.set(out, Labels(tuple(blocks)))


def _averaged(t: TracerLike, func: Any, args: Any, kwargs: Any, block: Block, space: int) -> Block | None:
    """The channels after a mean over each one's neighbours, as many as before (local response norm); None: not so."""
    if not name_of(func).startswith("avg_pool") or len(block.dims) != 1:
        return None
    i = block.dims[0] - args[0].ndim + space
    kernel, stride, pads = (argument(func, args, kwargs, n) or [0] for n in ("kernel_size", "stride", "padding"))
    k, step, pad = (n[i] if len(n) > 1 else n[0] for n in (kernel, stride, pads))
    ids = block.ids
    own = np.flatnonzero(ids)
    if not own.size or (step or k) != 1:
        return None
    start, stop = int(own[0]), int(own[-1]) + 1  # zeros were put before and behind
    if start + len(ids) - stop + 2 * pad != k - 1:
        return None
    t.mix(ids[start:stop], f"{name_of(func)} over neighbouring channels")
    return Block(block.dims, ids[start:stop])


def gated(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """glu: one half of the channels times the sigmoid of the other half; both lose the same ones."""
    x = args[0]
    dim = argument(func, args, kwargs, "dim") % x.ndim
    blocks = []
    for block in t.labels(x).blocks:
        if dim not in block.dims:
            blocks.append(block)
        elif len(block.dims) == 1:
            halves = block.ids.reshape(2, -1)
            t.unify(halves[0], halves[1], name_of(func))
            if halves.shape[1] > 1:
                blocks.append(Block(block.dims, halves[0]))
            else:  # what has size 1 has no labels
                t.pin(block.ids, f"operator {name_of(func)} makes one channel")
        else:
            t.pin(block.ids, f"operator {name_of(func)} on a part of the channels")
    t.set(out, Labels(tuple(blocks)))


def sampled(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """grid_sample: every channel of x_BC… is read at the same places grid_B…2, as if it were resized."""
    x, grid = args[:2]
    for block in t.labels(x).blocks:
        if max(block.dims) > 1:
            t.pin(block.ids, f"operator {name_of(func)} resamples a channel dimension")
    t.pin_tensor(grid, f"{name_of(func)} takes these channels for places in an image")
    kept = tuple(b for b in t.labels(x).blocks if max(b.dims) < 2)
    t.set(out, Labels(kept))


def places(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """affine_grid: places in an image from the six numbers of a turn, of which none can go."""
    t.pin_tensor(args[0], f"{name_of(func)} takes these channels for a turn of an image")
    t.set(out, Labels())


def unpooled(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """max_unpool: every channel goes back to the places that a pooling has noted for it."""
    x, places = args[:2]
    space = 3 if "3d" in name_of(func) else 2
    blocks = aligned(t, [x, places], tuple(x.shape), name_of(func))
    for block in blocks:
        if max(block.dims) >= x.ndim - space:
            t.pin(block.ids, f"operator {name_of(func)} resamples a channel dimension")
    t.set(out, Labels(tuple(b for b in blocks if max(b.dims) < x.ndim - space)))


def padding(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """constant_pad_nd: new channels are fixed ones; channels are never cropped."""
    x = args[0]
    blocks = []
    pads = argument(func, args, kwargs, "pad")
    added = {x.ndim - 1 - i // 2: (pads[i], pads[i + 1]) for i in range(0, len(pads), 2) if any(pads[i : i + 2])}
    for dims, ids in t.labels(x).blocks:
        touched = set(dims) & set(added)
        if not touched:
            blocks.append(Block(dims, ids))
        elif len(dims) == 1 and min(added[dims[0]]) >= 0:
            blocks.append(Block(dims, np.pad(ids, added[dims[0]])))
        else:
            t.pin(ids, f"operator {name_of(func)} crops channels")
    t.set(out, Labels(tuple(blocks)))
