"""Rounding to a grid in quantisation-aware training: with one step for a tensor, or one for each channel."""

from typing import Any

from torch import Tensor

from prunit.graph.labels import Labels
from prunit.graph.rules.seam import TracerLike, argument, name_of, tensors


def fake_quantised(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """fake_quantize_per_tensor_affine, …per_channel_affine: element by element; zero stays zero.

    The steps and zero points of each channel follow the channels.
    """
    x = args[0]
    axis = argument(func, args, kwargs, "axis")
    if axis is not None:
        _each(t, x, axis, args[1:3])
    _rounded(t, x, out)


def observed(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """The same with a range that is updated from the smallest and largest value of all channels, or of each."""
    x = args[0]
    per_channel = argument(func, args, kwargs, "per_row_fake_quant")
    axis = argument(func, args, kwargs, "ch_axis") % x.ndim if per_channel else -1
    if per_channel:
        _each(t, x, axis, args[3:7])
    for block in t.labels(x).blocks:
        if block.dims != (axis,):
            t.mix(block.ids, f"the range of all channels ({name_of(func)})")
    _rounded(t, x, out)


def _each(t: TracerLike, x: Tensor, axis: int, vectors: Any) -> None:
    ids = t.labels(x).ids(axis)
    for vector in vectors:
        t.along(vector, ids, "a quantiser of fixed channels, or one that has not run yet")


def _rounded(t: TracerLike, x: Tensor, out: Any) -> None:
    first, *masks = tensors(out)
    t.set(first, t.labels(x))
    for leaf in masks:  # for the backward pass: which elements were not clipped
        t.set(leaf, Labels(t.labels(x).blocks, -2))
