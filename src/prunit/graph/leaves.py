"""Layers of torch.nn as the operators that they run, so that nobody waits for PyTorch to ask for those.

A layer's call goes through hooks, its forward, a function of torch.nn.functional and PyTorch's dispatcher back into
Python: in a convolutional network nearly always to run one operator. Here each class of layer says which operators
those are; `modules.following` asks for them where nothing on the way could do anything else. A layer that is used in
another way than the plain one says None, and is run as ever. `tests/graph/test_leaves.py` compares the operators and
arguments of both ways.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunit.graph.code import Numbers
from prunit.graph.meta import in_rows

aten = torch.ops.aten


class Runner(Protocol):
    """Who runs operators on plain tensors of the meta device."""

    def run(self, func: Any, args: tuple[Any, ...], inputs: list[Tensor], numbers: Numbers) -> Any:
        """What an operator gives; `inputs` are the tensors among `args`, `numbers` what `numbers_of` finds there."""
        ...

    def reserve(self) -> None:
        """An empty vector was asked for, as a batch norm does before it runs."""
        ...


Leaf = Callable[[dict[str, Any], Tensor, Runner], Tensor | None]
"""Runs a layer of these attributes on a tensor. None, before anything has run: it is not the plain case."""

_SIZES: Final[Numbers] = ((),)
"""The numbers of an operator that is given a list of sizes, which count as none."""
_OF_CONVOLUTION: Final[Numbers] = 4 * _SIZES


def _plain(*tensors: Any) -> bool:
    """Tensors on the meta device with which neither autograd nor inference mode has anything to do."""
    for x in tensors:
        if type(x) is not Tensor or not x.is_meta or x.requires_grad or x.is_inference():
            return False
    return True


def _convolution(own: dict[str, Any], x: Tensor, by: Runner) -> Tensor | None:
    stride, padding, dilation, groups = own["stride"], own["padding"], own["dilation"], own["groups"]
    w, bias = own["_parameters"].get("weight"), own["_parameters"].get("bias")
    inputs = [x, w] if bias is None else [x, w, bias]
    if not type(stride) is type(padding) is type(dilation) is tuple or own["padding_mode"] != "zeros":
        return None
    if not _plain(*inputs[1:]) or not all([type(n) is int for n in (*stride, *padding, *dilation, groups)]):
        return None
    space = x.ndim - 2
    if not len(stride) == len(padding) == len(dilation) == space or x.shape[1] != w.shape[1] * groups:
        return None
    how = ([*stride], [*padding], [*dilation], False, [0] * space, groups)
    return by.run(aten.convolution.default, (x, w, bias, *how), inputs, _OF_CONVOLUTION)


def _batch_norm(*ranks: int) -> Leaf:
    def leaf(own: dict[str, Any], x: Tensor, by: Runner) -> Tensor | None:
        """In evaluation mode, by the statistics that it keeps."""
        eps, momentum, buffers = own["eps"], own["momentum"], own["_buffers"]
        if own["training"] or x.ndim not in ranks or type(eps) is not float or type(momentum) is not float or eps < 0:
            return None
        w, bias = own["_parameters"].get("weight"), own["_parameters"].get("bias")
        mean, var = buffers.get("running_mean"), buffers.get("running_var")
        vectors = [v for v in (w, bias, mean, var) if v is not None]
        if mean is None or var is None or not _plain(*vectors) or not x.numel():
            return None
        each = x.shape[1]
        for v in vectors:
            if v.numel() != each:
                return None
        by.reserve()
        args = (x, w, bias, mean, var, False, momentum, eps)
        return by.run(aten.native_batch_norm.default, args, [x, *vectors], (momentum, eps))[0]

    return leaf


def _linear(own: dict[str, Any], x: Tensor, by: Runner) -> Tensor | None:
    """Of rows, or of what lies in memory as rows do."""
    w, bias = own["_parameters"].get("weight"), own["_parameters"].get("bias")
    if not _plain(w) or (bias is not None and not _plain(bias)) or x.ndim < 2 or x.shape[-1] != w.shape[1]:
        return None
    if x.ndim == 2:
        turned = by.run(aten.t.default, (w,), [w], ())
        if bias is None:
            return by.run(aten.mm.default, (x, turned), [x, turned], ())
        return by.run(aten.addmm.default, (bias, x, turned), [bias, x, turned], ())
    if not in_rows(x) or not x.numel():  # by its strides, as PyTorch goes by those of dimensions of size 1 too
        return None
    *outer, width = x.shape
    rows, wide = [x.numel() // width, width], [*outer, w.shape[0]]
    if bias is None:
        turned = by.run(aten.t.default, (w,), [w], ())
        flat = by.run(aten.view.default, (x, rows), [x], _SIZES)
        out = by.run(aten.mm.default, (flat, turned), [flat, turned], ())
        return by.run(aten._unsafe_view.default, (out, wide), [out], _SIZES)
    flat = by.run(aten.view.default, (x, rows), [x], _SIZES)
    turned = by.run(aten.t.default, (w,), [w], ())
    out = by.run(aten.addmm.default, (bias, flat, turned), [bias, flat, turned], ())
    return by.run(aten.view.default, (out, wide), [out], _SIZES)


def _layer_norm(own: dict[str, Any], x: Tensor, by: Runner) -> Tensor | None:
    shape, eps = own["normalized_shape"], own["eps"]
    w, bias = own["_parameters"].get("weight"), own["_parameters"].get("bias")
    inputs = [v for v in (x, w, bias) if v is not None]
    if type(shape) is not tuple or not shape or x.shape[-len(shape) :] != shape or type(eps) is not float:
        return None
    if not _plain(*inputs) or any([v.shape != shape for v in inputs[1:]]) or not x.numel():
        return None
    return by.run(aten.native_layer_norm.default, (x, [*shape], w, bias, eps), inputs, ((), eps))[0]


def _mean(own: dict[str, Any], x: Tensor, by: Runner) -> Tensor | None:
    """An adaptive pooling to one pixel."""
    if own["output_size"] not in (1, (1, 1)) or x.ndim != 4 or not x.numel() or not in_rows(x):
        return None
    if x.is_contiguous(memory_format=torch.channels_last):  # the order of dimensions is handed on, where there is one
        return None
    return by.run(aten.mean.dim, (x, [-1, -2], True), [x], ((-1, -2),))


def _same(own: dict[str, Any], x: Tensor, by: Runner) -> Tensor | None:
    return x


def _dropout(own: dict[str, Any], x: Tensor, by: Runner) -> Tensor | None:
    return None if own["training"] or not 0 <= own["p"] <= 1 else x


def _activation(name: str, *numbers: float) -> Leaf:
    plain = getattr(aten, name).default
    written = getattr(getattr(aten, f"{name}_", None), "default", None)

    def leaf(own: dict[str, Any], x: Tensor, by: Runner) -> Tensor | None:
        if not own.get("inplace"):
            return by.run(plain, (x, *numbers), [x], numbers)
        by.run(written, (x, *numbers), [x], numbers)
        return x

    return leaf


def _gelu(own: dict[str, Any], x: Tensor, by: Runner) -> Tensor | None:
    return by.run(aten.gelu.default, (x,), [x], ()) if own["approximate"] == "none" else None


LEAVES: Final[dict[type[nn.Module], Leaf]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    nn.BatchNorm1d: _batch_norm(2, 3),
    nn.BatchNorm2d: _batch_norm(4),
    nn.BatchNorm3d: _batch_norm(5),
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
    nn.AdaptiveAvgPool2d: _mean,
    nn.Identity: _same,
    nn.Dropout: _dropout,
    nn.ReLU: _activation("relu"),
    nn.ReLU6: _activation("hardtanh", 0.0, 6.0),
    nn.SiLU: _activation("silu"),
    nn.Hardswish: _activation("hardswish"),
    nn.Hardsigmoid: _activation("hardsigmoid"),
    nn.Mish: _activation("mish"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.Tanh: _activation("tanh"),
    nn.GELU: _gelu,
}
"""The plain ways, by class; subclasses may do as they like."""

_FUNCTIONS: Final = (
    "conv1d conv2d conv3d batch_norm linear layer_norm adaptive_avg_pool2d dropout relu relu6 silu hardswish"
    " hardsigmoid mish gelu"
).split()
_OF_TORCH: Final = "conv1d conv2d conv3d batch_norm layer_norm relu relu_ sigmoid tanh dropout".split()
_SEEN: Final[list[tuple[Any, str, Any]]] = [
    *((F, name, getattr(F, name)) for name in _FUNCTIONS),
    *((torch, name, getattr(torch, name)) for name in _OF_TORCH),
    *(
        (kind, name, vars(kind)[name])
        for leaf in LEAVES
        for kind in leaf.__mro__[:-1]
        for name in ("forward", "_conv_forward", "_check_input_dim", "__call__", "_call_impl", "__getattr__")
        if name in vars(kind)
    ),
]
"""Code that a layer's call goes through, as it was when this module was loaded."""


def untouched() -> bool:
    """Whether nobody has put other code in place of PyTorch's, for all layers of a class or all modules."""
    return all([getattr(holder, name, None) is code for holder, name, code in _SEEN])


def leaf_of(module: nn.Module) -> Leaf | None:
    """The plain way of a layer; None where it has none, or attributes of its own hide those of its class."""
    leaf = LEAVES.get(type(module))
    if leaf is None or not module.__dict__.keys().isdisjoint(_OVERLAID):
        return None
    return leaf


_OVERLAID: Final = frozenset("forward weight bias running_mean running_var _conv_forward _check_input_dim".split())
