"""Convolutions and linear maps: where channels are made and summed over."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunit.graph.labels import Block, Labels
from prunit.graph.rules.elementwise import aligned
from prunit.graph.rules.seam import TracerLike, name_of, pin_others, tie

aten = torch.ops.aten
WITH_BIAS = {aten.addmm, aten.baddbmm}
COMPUTED = "a weight that the model computes"


def convolution(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """w_OIHW sums over x's channels and makes the output's; transposed weights are w_IOHW."""
    x, w, bias, _, _, _, transposed, _, groups = args
    labels = t.labels(w)
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    made = x if transposed else out
    t.use(w, "conv", made.numel() // made.shape[1] * w.numel())
    pin_others(t, x, 1, "convolved along channels")
    x_ids, o_ids = t.labels(x).ids(1), labels.ids(out_dim)
    if not labels.weight:
        t.pin(x_ids, f"convolved with {COMPUTED}")
        t.pin_tensor(w, COMPUTED)
    if groups == 1:
        t.contract(labels.ids(in_dim))
        tie(t, x_ids, labels.ids(in_dim), f"reads an input of {x.shape[1]} fixed channels")
        t.produce(o_ids)
    elif transposed:
        t.pin(x_ids, "a grouped transposed convolution")
        t.pin_tensor(w, "a grouped transposed convolution")
        o_ids = None  # the weight's own output axis is as long as one group's
    elif x.shape[1] == groups:
        _depthwise(t, x_ids, o_ids, w.shape[0] // groups)
    else:
        _grouped(t, x_ids, labels, groups)
    if bias is not None:
        tie(t, o_ids, t.labels(bias).ids(0), "its bias has a fixed size")
    t.set(out, Labels(() if o_ids is None else (Block((1,), o_ids),)))


def _depthwise(t: TracerLike, x_ids: np.ndarray | None, o_ids: np.ndarray | None, multiplier: int) -> None:
    if x_ids is None or o_ids is None:
        tie(t, x_ids, o_ids, "a depthwise convolution of fixed channels")
    elif multiplier == 1:
        t.unify(o_ids, x_ids, "depthwise")
    else:
        t.unify(o_ids, np.repeat(x_ids, multiplier), "depthwise")


def _grouped(t: TracerLike, x_ids: np.ndarray | None, w: Labels, groups: int) -> None:
    """Each of the `groups` keeps the same positions, so that they stay equally wide."""
    o_ids, i_ids = w.ids(0), w.ids(1)
    if o_ids is not None:
        t.produce(o_ids)
        rows = o_ids.reshape(groups, -1)
        t.unify(rows[1:], np.broadcast_to(rows[0], rows[1:].shape), "grouped")
        if rows.shape[1] == 1:
            t.pin(o_ids, "a grouped convolution with one output per group")
    t.contract(i_ids)
    if x_ids is None or i_ids is None:
        tie(t, x_ids, i_ids, "a grouped convolution reads fixed channels")
        return
    columns = x_ids.reshape(groups, -1)
    t.unify(columns, np.broadcast_to(i_ids, columns.shape), "grouped")


def matmul(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """mm, bmm, addmm, baddbmm: a (…, m, k) times b (…, k, n), one of them a weight that sums over the other."""
    bias, (a, b) = (args[0], args[1:3]) if func.overloadpacket in WITH_BIAS else (None, args[:2])
    macs = a.numel() * b.shape[-1]
    rows, columns = out.ndim - 2, out.ndim - 1
    if bool(t.labels(a).weight) == bool(t.labels(b).weight):
        # Attention and the like: what stays of such a product is no sum over channels that a mask could mimic.
        for operand in (a, b):
            t.pin_tensor(operand, f"operator {name_of(func)} multiplies two activations")
        t.fixed_macs(macs)
        t.set(out, Labels())
    elif t.labels(b).weight:
        t.use(b, "linear", macs)
        _linear(t, x=a, x_dim=columns, w=b, in_dim=rows, out=out)
    else:
        t.use(a, "linear", macs)
        _linear(t, x=b, x_dim=rows, w=a, in_dim=columns, out=out)
    if bias is not None:
        aligned(t, [out, bias], tuple(out.shape), name_of(func))


def _linear(t: TracerLike, *, x: Tensor, x_dim: int, w: Tensor, in_dim: int, out: Tensor) -> None:
    """`w` sums over dimension `x_dim` of x with its `in_dim`; its other dimension takes the place of that one."""
    labels = t.labels(w)
    out_dim = x_dim
    pin_others(t, x, x_dim, "a linear map is repeated for each channel")
    for block in labels.blocks:
        if block.dims not in ((in_dim,), (out_dim,)):
            t.pin(block.ids, "a linear map with a batch of weights")
    t.contract(labels.ids(in_dim))
    tie(t, t.labels(x).ids(x_dim), labels.ids(in_dim), f"reads an input of {x.shape[x_dim]} fixed channels")
    made = labels.ids(out_dim)
    t.produce(made)
    t.set(out, Labels(() if made is None else (Block((out_dim,), made),)))
