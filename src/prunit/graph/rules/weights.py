"""Convolutions and linear maps: where channels are made and summed over."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunit.graph.labels import Block, Labels, ordered
from prunit.graph.records import Geometry
from prunit.graph.rules.elementwise import aligned
from prunit.graph.rules.seam import TracerLike, alike, buffer_for, name_of, others, pin_blocks, tensors, tie

aten = torch.ops.aten
WITH_BIAS = {aten.addmm, aten.baddbmm}


def convolution(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """w_OIHW sums over x's channels and makes the output's; transposed weights are w_IOHW."""
    x, w, bias, stride, padding, dilation, transposed, _, groups = args
    labels, theirs = t.labels(w), t.labels(x)
    shape, kernel = x.shape, w.shape
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    made = x if transposed else out
    plain = all([b.dims == (1,) for b in theirs.blocks])
    if groups == 1 and kernel[in_dim] > 1 and not plain:  # its channels are the second dimension, if there is a choice
        for block in others(t, x, 0, 1):
            t.reject(block.ids)
    kept = [] if plain else _beside_channels(t, x, w, stride, padding, dilation, transposed)
    flat = None
    if len(shape) == 4 and not transposed:
        ways = (stride[0], stride[-1]), (padding[0], padding[-1]), (dilation[0], dilation[-1])
        flat = Geometry((shape[2], shape[3]), (kernel[2], kernel[3]), *ways, groups)
    t.use(w, "conv", made.numel() // made.shape[1] * w.numel(), [b.ids for b in kept], flat)
    for block in others(t, w, 0, 1) if not t.is_named(w) else ():
        t.reject(block.ids)
        t.pin(block.ids, "the size of a kernel")
    x_ids, i_ids, o_ids = theirs.ids(1), labels.ids(in_dim), labels.ids(out_dim)
    if groups == 1:
        t.contract(i_ids)
        tie(t, x_ids, i_ids, f"reads an input of {shape[1]} fixed channels")
        _summed(t, w, i_ids)
        t.produce(o_ids)
    elif transposed:
        o_ids = _grouped_transposed(t, x_ids, labels, x.shape[1], groups, w.shape[1])
        _summed(t, w, i_ids)
    elif x.shape[1] == groups:
        o_ids = _depthwise(t, x_ids, o_ids, w.shape[0] // groups)
        if x_ids is not None:
            t.size(groups, x_ids)
    else:
        _grouped(t, x_ids, labels, groups)
        _summed(t, w, i_ids)
    if bias is not None:
        t.along(bias, o_ids, "its bias has a fixed size")
    blocks = [*kept, *(() if o_ids is None else (Block((1,), o_ids),))]
    t.set(out, Labels(ordered(blocks)))


def _beside_channels(
    t: TracerLike, x: Tensor, w: Tensor, stride: Any, padding: Any, dilation: Any, up: bool
) -> list[Block]:
    """Labelled dimensions of x other than its channels that come out again.

    The batch does, and what a kernel slides along (the channels, in efficient channel attention) if it leaves their
    number alone.
    """
    kept: list[Block] = []
    for block in others(t, x, 1):
        d = block.dims[0]
        if block.dims == (0,):
            kept.append(block)
            continue
        i = d - 2
        same = not up and len(block.dims) == 1 and stride[i] == 1 and 2 * padding[i] == dilation[i] * (w.shape[d] - 1)
        if same:
            t.mix(block.ids, "convolved along channels")
            kept.append(block)
        else:
            t.pin(block.ids, "convolved along channels")
    return kept


def _summed(t: TracerLike, w: Tensor, ids: np.ndarray | None) -> None:
    """Over these channels `w` sums. Unless it is a parameter with its zeros where they were, a mask cannot zero it."""
    labels = t.labels(w)
    if not labels.weight or not labels.clean:
        t.mix(ids, "summed over with a weight that the model computes")


def _depthwise(t: TracerLike, x_ids: np.ndarray | None, o_ids: np.ndarray | None, times: int) -> np.ndarray | None:
    if x_ids is None or o_ids is None:
        tie(t, x_ids, o_ids, "a depthwise convolution of fixed channels")
    elif times == 1:
        t.unify(o_ids, x_ids, "depthwise")
    else:
        t.unify(o_ids, np.repeat(x_ids, times), "depthwise")
    return o_ids


def _grouped(t: TracerLike, x_ids: np.ndarray | None, w: Labels, groups: int) -> None:
    """Each of the `groups` keeps the same positions, so that they stay equally wide."""
    o_ids, i_ids = w.ids(0), w.ids(1)
    if o_ids is not None:
        t.produce(o_ids)
        rows = o_ids.reshape(groups, -1)
        alike(t, rows, "grouped")
        if rows.shape[1] == 1:
            t.pin(o_ids, "a grouped convolution with one output per group")
    t.contract(i_ids)
    if x_ids is None or i_ids is None:
        tie(t, x_ids, i_ids, "a grouped convolution reads fixed channels")
        return
    columns = x_ids.reshape(groups, -1)
    t.unify(columns, np.broadcast_to(i_ids, columns.shape), "grouped")


def _grouped_transposed(
    t: TracerLike, x_ids: np.ndarray | None, w: Labels, inputs: int, groups: int, outputs: int
) -> np.ndarray | None:
    """w_IOHW reads all channels, and has the outputs of one group: those of all groups keep the same positions."""
    i_ids, o_ids = w.ids(0), w.ids(1)
    if inputs == groups:  # depthwise: a group goes with its channel, and makes all of its outputs
        tie(t, x_ids, i_ids, "a depthwise convolution of fixed channels")
        t.pin(o_ids, "the outputs of one channel of a depthwise convolution")
        if x_ids is None or i_ids is None:
            return None
        t.size(groups, x_ids)
        return i_ids if outputs == 1 else np.repeat(i_ids, outputs)
    t.contract(i_ids)
    tie(t, x_ids, i_ids, "a grouped convolution reads fixed channels")
    if i_ids is not None:
        alike(t, i_ids.reshape(groups, -1), "grouped")
    t.produce(o_ids)
    return None if o_ids is None else np.tile(o_ids, groups)


def vector(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """mv, dot, vdot: the last dimension of a matrix or vector times a vector; mostly a norm of a weight asks for it."""
    a, b = args[:2]
    for tensor in (a, b):
        pin_blocks(t, [x for x in t.labels(tensor).blocks if len(x.dims) > 1], "a product over part of the channels")
    summed = t.labels(a).ids(a.ndim - 1), t.labels(b).ids(0)
    tie(t, *summed, f"reads a vector of {b.shape[0]} fixed channels")
    kept = others(t, a, a.ndim - 1)
    if t.labels(b).weight and buffer_for(t, [a]) >= -1 and not t.labels(a).weight:
        t.use(b, "linear", a.numel(), [x.ids for x in kept])
        t.contract(summed[1])
        _summed(t, b, summed[1])
    else:
        if buffer_for(t, [a, b]) == -1:
            t.macs(a.numel(), *(x.ids for x in t.labels(a).blocks))
        for ids in summed:
            t.mix(ids, f"{name_of(func)} over channels")
    t.set(out, Labels(ordered([x for x in kept if len(x.dims) == 1]), buffer_for(t, [a, b])))


def matmul(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """mm, bmm, addmm, baddbmm: a (…, m, k) times b (…, k, n); mostly one of them is a weight."""
    bias, (a, b) = (args[0], args[1:3]) if func.overloadpacket in WITH_BIAS else (None, args[:2])
    rows, columns = out.ndim - 2, out.ndim - 1
    macs = a.numel() * b.shape[-1]
    for tensor in (a, b):
        pin_blocks(t, [x for x in t.labels(tensor).blocks if len(x.dims) > 1], "a product over part of the channels")
    summed = t.labels(a).ids(columns), t.labels(b).ids(rows)
    tie(t, *summed, f"reads an input of {a.shape[-1]} fixed channels")
    is_weight = [bool(t.labels(x).weight) for x in (a, b)]
    if is_weight == [False, True]:
        t.use(b, "linear", macs, [x.ids for x in others(t, a, columns)])
        _role_of(t, b, summed[1], columns)
    elif is_weight == [True, False]:
        t.use(a, "linear", macs, [x.ids for x in others(t, b, rows)])
        _role_of(t, a, summed[0], rows)
    else:
        # Attention and the like. Whole heads are better to drop than what two activations are multiplied over.
        theirs = others(t, b, rows, *([0] if out.ndim == 3 else []))  # both have the same batch of matrices
        t.macs(macs, *(x.ids for x in t.labels(a).blocks), *(x.ids for x in theirs))
        for ids in summed:
            if ids is not None:
                t.reject(ids)
                t.mix(ids, f"{name_of(func)} multiplies two activations")
    mine, theirs = ([x for x in found if len(x.dims) == 1] for found in (others(t, a, columns), others(t, b, rows)))
    if out.ndim == 3 and a.shape[0] > 1:  # both have a batch of matrices: the same one, or it is fixed
        batches = t.labels(a).ids(0), t.labels(b).ids(0)
        tie(t, *batches, f"{name_of(func)} with fixed channels")
        theirs = [x for x in theirs if x.dims != (0,)]
        mine = mine if batches[1] is not None else [x for x in mine if x.dims != (0,)]
    blocks = [*mine, *theirs]
    t.set(out, Labels(ordered(blocks), buffer_for(t, [a, b])))
    if bias is not None:
        aligned(t, [out, bias], tuple(out.shape), name_of(func))


def attention(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """scaled_dot_product_attention as one operator: q_…LK, k_…SK and v_…SV; heads lie before these."""
    q, k, v = args[:3]
    for x in (q, k, v):
        pin_blocks(t, [b for b in t.labels(x).blocks if len(b.dims) > 1], "attention over part of the channels")
    for d in range(q.ndim - 2):
        mine = t.labels(q).ids(d)
        for x in (k, v):
            tie(t, mine, t.labels(x).ids(d), "attention with fixed heads")
    summed = t.labels(q).ids(q.ndim - 1), t.labels(k).ids(q.ndim - 1)
    tie(t, *summed, "attention with fixed channels")
    for ids in summed:
        if ids is not None:
            t.reject(ids)
            t.mix(ids, "attention multiplies two activations")
    heads = [b for b in t.labels(q).blocks if b.dims[0] < q.ndim - 2]
    made = t.labels(v).ids(q.ndim - 1)
    t.macs(q.numel() * k.shape[-2], *(b.ids for b in t.labels(q).blocks))
    t.macs(v.numel() * q.shape[-2], *(b.ids for b in t.labels(v).blocks))
    first, *rest = tensors(out)
    t.set(first, Labels((*heads, *(() if made is None else (Block((q.ndim - 1,), made),)))))
    for leaf in rest:
        t.set(leaf, Labels(buffer=-2))


def _role_of(t: TracerLike, w: Tensor, summed: np.ndarray | None, out_dim: int) -> None:
    """What the axes of a weight do in a product: it sums over one, and makes channels along the other."""
    t.contract(summed)
    _summed(t, w, summed)
    t.produce(t.labels(w).ids(out_dim))
