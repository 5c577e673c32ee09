"""What the operators that fill a convolutional network give on the meta device, worked out here instead of by PyTorch.

PyTorch finds these shapes in Python, by decomposing the operator: 0.3 ms for a ReLU and 1 ms for a ReLU6, which made up
most of a trace. A shortcut answers plain cases only, with the shape, strides and dtype that PyTorch's own kernel gives
(`tests/graph/test_meta.py` compares them). To all else, also to what is wrong, it says None, and PyTorch is asked.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prunit.graph.remembered import answer
from prunit.graph.rules.seam import by_operator, operands
from prunit.graph.running import to_meta

aten = torch.ops.aten
_META = torch.device("meta")


def shortcut(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: Sequence[Tensor]) -> Any:
    """What `func(*args, **kwargs)` gives, `inputs` being the tensors in its arguments; None: ask PyTorch."""
    known = _shortcut_of(func)
    if known is None:
        return None
    for x in inputs:
        if type(x) is not Tensor or not x.is_meta:
            return None
    if kwargs:
        if known is _empty:
            return _empty(*args, **kwargs)
        return known(*args) if func in _GELU and kwargs in _APPROXIMATIONS else None
    return known(*args)


@by_operator
def _shortcut_of(func: Any) -> Callable[..., Any] | None:
    return _SHORTCUTS.get(func)


class MetaMode(TorchDispatchMode):
    """A mode for running models on meta tensors: what an operator gives comes from `answered`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the wrapper that this saves costs as much as a rule; nothing is compiled here

    def answered(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any, list[Tensor]]:
        """What the operator gives, the arguments that it was computed from, and the tensors among those."""
        inputs = operands(args, kwargs)
        # A constant that the model keeps or makes on another device.
        if len(inputs) > 1 and len({x.is_meta for x in inputs}) > 1:
            args, kwargs = to_meta(args), to_meta(kwargs)
            inputs = operands(args, kwargs)
        out = shortcut(func, args, kwargs, inputs)
        return answer(func, args, kwargs, inputs) if out is None else out, args, kwargs, inputs


class OnMeta(MetaMode):
    """Runs operators on meta tensors, and nothing else.

    PyTorch alone does so too, but loads its compiler for it, which takes longer than all of a plan.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.answered(func, args, kwargs or {})[0]


def on_meta(func: Any, args: tuple[Any, ...], inputs: list[Tensor]) -> Any:
    """What the operator gives, all its tensors being plain ones on the meta device."""
    known = _shortcut_of(func)
    out = None if known is None else known(*args)
    return answer(func, args, {}, inputs) if out is None else out


def _row_major(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=_META)


def in_rows(x: Tensor) -> bool:
    """The strides are row-major, those of dimensions of size 1 too."""
    return x.stride() == _strides(x.shape)


@lru_cache(1 << 12)
def _strides(shape: torch.Size) -> tuple[int, ...]:
    """Row-major ones."""
    steps = [1]
    for n in reversed(shape[1:]):
        steps.append(steps[-1] * max(n, 1))
    return tuple(reversed(steps)) if shape else ()


@cache
def _nothing(dtype: torch.dtype) -> Tensor:
    """An empty vector, made once."""
    return _row_major((0,), dtype)


def _is_dense(x: Tensor) -> bool:
    """Elements fill their memory in some order of the dimensions that the strides leave no doubt about.

    Of dimensions of size 1 strides say little, so that only a batch of one is taken.
    """
    step, last = 1, 0
    if 1 in x.shape[1:]:
        return False
    for stride, n in sorted(zip(x.stride(), x.shape, strict=True)):
        if stride != step or stride == last:
            return False
        step, last = step * n, stride
    return True


def _element_wise(x: Tensor, *others: Any) -> Tensor | None:
    """Of one floating dtype: tensors that are all row-major or all alike in their strides, and vectors.

    One of them has the shape to which the others broadcast. What is no tensor (a slope, a bound) leaves a floating
    dtype as it is.
    """
    if not x.is_floating_point():
        return None
    if _all_alike(x, others):
        return _row_major(x.shape, x.dtype)
    whole, tensors = x, [x]
    for y in others:
        if isinstance(y, Tensor):
            if y.dtype != x.dtype:
                return None
            tensors.append(y)
            if y.ndim > whole.ndim or (y.ndim == whole.ndim and y.numel() > whole.numel()):
                whole = y
        elif isinstance(y, complex):
            return None
    lies_in_rows = in_rows(whole)
    if not lies_in_rows and not _is_dense(whole):
        return None
    for y in tensors:
        if y is not whole and not _follows(y, whole, lies_in_rows):
            return None
    if lies_in_rows:
        return _row_major(whole.shape, x.dtype)
    return torch.empty_strided(whole.shape, whole.stride(), dtype=x.dtype, device=_META)


def _all_alike(x: Tensor, others: Sequence[Any]) -> bool:
    """All are row-major tensors of one shape and dtype."""
    if not in_rows(x):
        return False
    for y in others:
        if type(y) is not Tensor or y.shape != x.shape or y.dtype != x.dtype or y.stride() != x.stride():
            return False
    return True


def _follows(y: Tensor, whole: Tensor, lies_in_rows: bool) -> bool:
    """y broadcasts to the shape of `whole`, and has no order of dimensions of its own."""
    if y.shape == whole.shape and y.stride() == whole.stride():
        return True
    fits = all(n in (1, m) for n, m in zip(reversed(y.shape), reversed(whole.shape), strict=False))
    return fits and in_rows(y) and (lies_in_rows or y.numel() == max(y.shape, default=1))


def _in_place(x: Tensor, *others: Any) -> Tensor | None:
    if not x.ndim and len(others) == 1 and type(others[0]) is int:  # batch norm counts its batches
        return x
    if x.is_floating_point() and _all_alike(x, others):
        return x
    out = _element_wise(x, *others)
    return x if out is not None and out.shape == x.shape else None


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
    """Weights that are row-major, with one stride, padding and dilation for each dimension of space; nothing is empty.

    The result is row-major whatever the order of `x` is.
    """
    if transposed or x.ndim != w.ndim or x.shape[1] != w.shape[1] * groups or 0 in x.shape:
        return None
    if not (len(stride) == len(padding) == len(dilation) == x.ndim - 2 and w.is_contiguous()):
        return None
    sizes, kernel = x.shape, w.shape
    shape = [sizes[0], kernel[0]]
    for i in range(len(stride)):
        n = (sizes[i + 2] + 2 * padding[i] - dilation[i] * (kernel[i + 2] - 1) - 1) // stride[i] + 1
        if n < 1:
            return None
        shape.append(n)
    return _row_major(shape, x.dtype)


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *rest: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """The statistics that it saves for training are those of each channel; empty in evaluation, as the CPU's are."""
    if training:
        # Those that it keeps are written to, which changes nothing here.
        if not in_rows(x) or x.numel() <= x.shape[1] or not _single_kind(x, weight, bias):
            return None
        each = (x.shape[1],)
        return _row_major(x.shape, x.dtype), _row_major(each, x.dtype), _row_major(each, x.dtype)
    if in_rows(x):
        out = _row_major(x.shape, x.dtype)
    else:
        out, *_ = aten.native_batch_norm.default(x, weight, bias, mean, var, training, *rest)
    return out, _nothing(x.dtype), _nothing(x.dtype)


def _empty(
    size: Sequence[int], dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None
) -> Tensor | None:
    """An empty vector on the meta device: every batch norm asks for one."""
    plain = layout in (None, torch.strided) and not pin_memory and isinstance(dtype, torch.dtype)
    return _row_major((0,), dtype) if plain and list(size) == [0] and device == _META else None


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


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """With a mean and a deviation for each place that is left; all row-major whatever the order of `x` is."""
    left = x.ndim - len(shape)
    if not shape or tuple(x.shape[left:]) != tuple(shape) or not _single_kind(x, weight, bias):
        return None
    if not in_rows(x) and not _is_dense(x):
        return None
    places = (*x.shape[:left], *[1] * len(shape))
    return _row_major(x.shape, x.dtype), _row_major(places, x.dtype), _row_major(places, x.dtype)


def _group_norm(
    x: Tensor, weight: Any, bias: Any, batch: int, channels: int, space: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Of a row-major tensor, with a mean and a deviation for each group."""
    fits = x.ndim > 1 and x.shape[:2] == (batch, channels) and x.numel() == batch * channels * space > 0
    if not fits or channels % groups or not _single_kind(x, weight, bias) or not in_rows(x):
        return None
    each = (batch, groups)
    return _row_major(x.shape, x.dtype), _row_major(each, x.dtype), _row_major(each, x.dtype)


def _single_kind(x: Tensor, *vectors: Tensor | None) -> bool:
    """float32 or float64, all of them: statistics of shorter kinds may be of another."""
    return x.dtype in (torch.float32, torch.float64) and all(v is None or v.dtype == x.dtype for v in vectors)


def _softmax(x: Tensor, dim: int, convert: Any = None) -> Tensor | None:
    """In the dtype of a row-major tensor of floating point."""
    if convert or not x.is_floating_point() or not -x.ndim <= dim < x.ndim or not x.numel() or not in_rows(x):
        return None
    return _row_major(x.shape, x.dtype)


def _matmul(a: Tensor, b: Tensor) -> Tensor | None:
    """Products of two matrices, or of two batches of matrices."""
    if not 2 <= a.ndim == b.ndim <= 3 or a.dtype != b.dtype:
        return None
    if a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        return None
    return _row_major((*a.shape[:-1], b.shape[-1]), a.dtype)


def _cat(parts: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    """Row-major tensors of one dtype that are not empty."""
    first = parts[0] if parts else None
    if first is None or not -first.ndim <= dim < first.ndim or 0 in first.shape:
        return None
    dim %= first.ndim
    dtype, before, after = first.dtype, first.shape[:dim], first.shape[dim + 1 :]
    total, last = 0, first.shape
    for x in parts:
        shape = x.shape
        if shape != last:
            if shape[:dim] != before or shape[dim + 1 :] != after or not shape[dim]:
                return None
            last = shape
        if x.dtype != dtype or not in_rows(x):
            return None
        total += shape[dim]
    return _row_major((*before, total, *after), dtype)


def _pooled(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Tensor | None:
    """Pairs for height and width, padding of at most half a kernel, a row-major tensor of floating point."""
    if x.ndim not in (3, 4) or not x.is_floating_point() or not x.numel() or not in_rows(x):
        return None
    if not all(len(pair) == 2 for pair in (kernel, stride, padding, dilation)):
        return None
    if min(*kernel, *stride, *dilation) < 1 or any(not 0 <= 2 * p <= k for p, k in zip(padding, kernel, strict=True)):
        return None
    space = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(x.shape[-2:], kernel, stride, padding, dilation, strict=True)
    ]
    return _row_major((*x.shape[:-2], *space), x.dtype) if min(space) > 0 else None


def _max_pool(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor] | None:
    """The largest values and where they are, sizes rounded down."""
    out = None if ceil_mode else _pooled(x, kernel, stride or kernel, padding, dilation)
    return None if out is None else (out, _row_major(out.shape, torch.int64))


def _avg_pool(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Tensor | None:
    """Means, sizes rounded down."""
    return None if ceil_mode or divisor == 0 else _pooled(x, kernel, stride or kernel, padding, (1, 1))


def _upsampled(x: Tensor, size: Sequence[int], *how: Any) -> Tensor | None:
    """A row-major batch of images of floating point at another size."""
    if x.ndim != 4 or len(size) != 2 or min(size) < 1 or not x.is_floating_point() or not x.numel() or not in_rows(x):
        return None
    return _row_major((*x.shape[:2], *size), x.dtype)


_ACTIVATIONS = "relu hardtanh leaky_relu elu silu gelu mish hardswish sigmoid hardsigmoid tanh".split()
_OF_TWO = "add sub mul div".split()
_GELU = frozenset((aten.gelu.default, aten.gelu_.default))
_APPROXIMATIONS = ({"approximate": "none"}, {"approximate": "tanh"})
_SHORTCUTS: dict[Any, Callable[..., Any]] = {
    aten.convolution.default: _convolution,
    aten.native_batch_norm.default: _batch_norm,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_group_norm.default: _group_norm,
    aten.empty.memory_format: _empty,
    aten.addmm.default: _addmm,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
    aten.mean.dim: _mean,
    aten.cat.default: _cat,
    aten._softmax.default: _softmax,
    aten._safe_softmax.default: _softmax,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.avg_pool2d.default: _avg_pool,
    aten.upsample_bilinear2d.default: _upsampled,
    **{getattr(aten, name).default: _element_wise for name in _ACTIVATIONS},
    **{getattr(aten, f"{name}_").default: _in_place for name in _ACTIVATIONS},
    **{getattr(getattr(aten, name), kind): _element_wise for name in _OF_TWO for kind in ("Tensor", "Scalar")},
    **{getattr(getattr(aten, f"{name}_"), kind): _in_place for name in _OF_TWO for kind in ("Tensor", "Scalar")},
}
