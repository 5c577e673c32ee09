"""What the operators that fill a convolutional network give on the meta device, worked out here instead of by PyTorch.

PyTorch finds these shapes in Python, by decomposing the operator: 0.3 ms for a ReLU and 1 ms for a ReLU6, which made up
most of a trace. A shortcut answers plain cases only, with the shape, strides and dtype that PyTorch's own kernel gives
(`tests/graph/test_meta.py` compares them). To all else, also to what is wrong, it says None, and PyTorch is asked.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
_META = torch.device("meta")


def shortcut(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: Sequence[Tensor]) -> Any:
    """What `func(*args, **kwargs)` gives, `inputs` being the tensors in its arguments; None: ask PyTorch."""
    known = _SHORTCUTS.get(func)
    if known is None or kwargs or not all(type(x) is Tensor and x.is_meta for x in inputs):
        return None
    return known(*args)


def _row_major(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=_META)


def _element_wise(x: Tensor, *others: Any) -> Tensor | None:
    """Tensors of one floating dtype, shape and row-major strides; PyTorch has its own order for strides that are not.

    What is no tensor (a slope, a bound) leaves a floating dtype as it is.
    """
    out = _row_major(x.shape, x.dtype)
    if not x.is_floating_point() or x.stride() != out.stride():
        return None
    for y in others:
        if isinstance(y, Tensor):
            if y.dtype != x.dtype or y.shape != x.shape or y.stride() != x.stride():
                return None
        elif isinstance(y, complex):
            return None
    return out


def _in_place(x: Tensor, *others: Any) -> Tensor | None:
    return None if _element_wise(x, *others) is None else x


def _convolution(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor | None:
    """Row-major tensors that are not empty, with one stride, padding and dilation for each dimension of space."""
    if transposed or x.ndim != w.ndim or x.shape[1] != w.shape[1] * groups or 0 in x.shape:
        return None
    if not (len(stride) == len(padding) == len(dilation) == x.ndim - 2 and x.is_contiguous() and w.is_contiguous()):
        return None
    space = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True)
    ]
    return _row_major((x.shape[0], w.shape[0], *space), x.dtype) if min(space) > 0 else None


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *rest: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """In evaluation mode. The statistics that it saves for training are empty, as those of the CPU's kernel are."""
    if training:
        return None
    out = _row_major(x.shape, x.dtype)
    if x.stride() != out.stride():
        out, *_ = aten.native_batch_norm.default(x, weight, bias, mean, var, training, *rest)
    return out, _row_major((0,), x.dtype), _row_major((0,), x.dtype)


def _addmm(bias: Tensor, a: Tensor, b: Tensor) -> Tensor | None:
    """A linear layer on a matrix."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or bias.shape != b.shape[1:]:
        return None
    return _row_major((a.shape[0], b.shape[1]), a.dtype) if a.dtype == b.dtype == bias.dtype else None


def _mean(x: Tensor, dims: Sequence[int] | None, keepdim: bool = False) -> Tensor | None:
    """Over some dimensions, counted from the front or the back, of a row-major tensor of floating point."""
    if not dims or not x.is_floating_point() or not x.is_contiguous() or not -x.ndim <= min(dims) <= max(dims) < x.ndim:
        return None
    gone = {d % x.ndim for d in dims}
    if len(gone) < len(dims):
        return None
    return _row_major([1 if d in gone else n for d, n in enumerate(x.shape) if keepdim or d not in gone], x.dtype)


_ACTIVATIONS = "relu hardtanh leaky_relu elu silu gelu mish hardswish sigmoid hardsigmoid tanh".split()
_SHORTCUTS: dict[Any, Callable[..., Any]] = {
    aten.convolution.default: _convolution,
    aten.native_batch_norm.default: _batch_norm,
    aten.addmm.default: _addmm,
    aten.mean.dim: _mean,
    **{getattr(aten, name).default: _element_wise for name in _ACTIVATIONS},
    **{getattr(aten, f"{name}_").default: _in_place for name in _ACTIVATIONS},
    **{getattr(aten, name).Tensor: _element_wise for name in ("add", "mul")},
    **{getattr(aten, f"{name}_").Tensor: _in_place for name in ("add", "mul")},
}
