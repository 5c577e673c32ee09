"""What calls give on what is held of a flow, see `flow`; NotImplemented where it is not the plain case."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from prunit.scores.folded import Fold, alike, size_of, total, unfolded, windowed
from prunit.scores.products import Convolution, convolution, linear
from prunit.scores.told import Held, Plainly, Told, scaled, tell, tell_all, told_of, writes

_SUMS: Final = frozenset(("add", "sub", "subtract", "maximum", "minimum"))

Rule = Callable[[Held, Any, str, tuple[Any, ...], dict[str, Any], Told], Any]


def _pair(value: Any, space: int) -> list[int] | None:
    if isinstance(value, int):
        return [value] * space
    if not isinstance(value, list | tuple) or not all(isinstance(n, int) for n in value):
        return None
    return list(value) * space if len(value) == 1 else list(value)


def _windows(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any) -> dict[int, Any] | None:
    space = x.ndim - 2
    sizes = [_pair(value, space) for value in (kernel, stride, padding, dilation)]
    if any(found is None or len(found) != space for found in sizes):
        return None
    return dict(enumerate(zip(*sizes, strict=True), start=2))  # pyright: ignore[reportArgumentType]


def _taken(names: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return dict(defaults) | dict(zip(names.split(), args, strict=False)) | dict(kwargs)


def _convolution(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    given = _taken(
        "input weight bias stride padding dilation groups",
        args,
        kwargs,
        {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1},
    )
    x, w = given["input"], given["weight"]
    windows = _windows(x, w.shape[2:], given["stride"], given["padding"], given["dilation"])
    if told_of(w) is not None or told_of(given["bias"]) is not None or windows is None or x.ndim != w.ndim:
        return NotImplemented
    x, folds = windowed(x, told.folds, windows)
    held.folded = held.folded or bool(folds)
    bias, (_, stride, padding, dilation) = scaled(given["bias"], told.power), zip(*windows.values(), strict=True)
    out = convolution(x, w, bias, Convolution(stride, padding, dilation, given["groups"]))
    if out is None:
        out = func(x, w, bias, given["stride"], given["padding"], given["dilation"], given["groups"])
    return held.levelled(out, Told(told.power, folds))


def _transposed(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    given = _taken("input weight bias", args, kwargs, {"bias": None})
    if any(told_of(value) is not None for name, value in given.items() if name != "input"):
        return NotImplemented
    given["input"], given["bias"] = unfolded(given["input"], told.folds), scaled(given["bias"], told.power)
    return held.levelled(
        func(given.pop("input"), given.pop("weight"), given.pop("bias"), *args[3:], **given), Told(told.power)
    )


def _linear(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    given = _taken("input weight bias", args, kwargs, {"bias": None})
    x, w, bias = given["input"], given["weight"], given["bias"]
    if told_of(w) is not None or told_of(bias) is not None:
        return NotImplemented
    last = {d: fold for d, fold in told.folds.items() if d == x.ndim - 1}
    folds = {d: fold for d, fold in told.folds.items() if d not in last}
    out = linear(unfolded(x, last), w, scaled(bias, told.power))
    return held.levelled(out, Told(told.power, folds))


def _batch_norm(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    names = "input running_mean running_var weight bias training momentum eps"
    if func is torch.batch_norm:
        names = "input weight bias running_mean running_var training momentum eps cudnn_enabled"
    given = _taken(names, args, kwargs, {"weight": None, "bias": None, "training": False, "momentum": 0.1, "eps": 1e-5})
    if given["training"] or given["running_mean"] is None or any(d < 2 for d in told.folds):
        return NotImplemented
    how = (given["weight"], scaled(given["bias"], told.power), False, given["momentum"], given["eps"])
    out = F.batch_norm(given["input"], scaled(given["running_mean"], told.power), given["running_var"], *how)
    return tell(out, told)


def _layer_norm(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    """Of twice the flow it is the same, but for what keeps it from dividing by nothing."""
    given = _taken("input normalized_shape weight bias eps", args, kwargs, {"weight": None, "bias": None, "eps": 1e-5})
    x, shape = given["input"], list(given["normalized_shape"])
    normed = range(x.ndim - len(shape), x.ndim)
    inner = {d: fold for d, fold in told.folds.items() if d in normed}
    eps = max(given["eps"] * 4.0 ** min(-told.power, 500), 1e-30) if told.power else given["eps"]
    out = F.layer_norm(unfolded(x, inner), shape, given["weight"], given["bias"], eps)
    return tell(out, Told(0, {d: fold for d, fold in told.folds.items() if d not in inner}))


def _max_pool(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    names = "input kernel_size stride padding dilation ceil_mode return_indices"
    given = _taken(
        names, args, kwargs, {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False}
    )
    given["stride"] = given["stride"] or given["kernel_size"]
    return _pooled(func, given, told, given["dilation"], plain=not given["ceil_mode"] and not given["return_indices"])


def _avg_pool(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    names = "input kernel_size stride padding ceil_mode count_include_pad divisor_override"
    given = _taken(names, args, kwargs, {"stride": None, "padding": 0, "ceil_mode": False})
    given["stride"] = given["stride"] or given["kernel_size"]
    return _pooled(func, given, told, 1, plain=not given["ceil_mode"])


def _pooled(func: Any, given: dict[str, Any], told: Told, dilation: Any, *, plain: bool) -> Any:
    x = given.pop("input")
    windows = _windows(x, given["kernel_size"], given["stride"], given["padding"], dilation) if plain else None
    if windows is None:
        return tell_all(func(unfolded(x, told.folds), **given), Told(told.power))
    x, folds = windowed(x, told.folds, windows)
    return tell(func(x, **given), Told(told.power, folds))


def _adaptive(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    given = _taken("input output_size", args, kwargs, {})
    x = given["input"]
    if _pair(given["output_size"], 2) == [1, 1] and x.ndim == 4 and told.folds:
        return _mean_over(x, (2, 3), told, keepdim=True)
    return tell(func(unfolded(x, told.folds), given["output_size"]), Told(told.power))


def _mean_over(x: Tensor, dims: Sequence[int], told: Told, *, keepdim: bool) -> Tensor:
    number = math.prod(size_of(x, told.folds)[d] for d in dims)
    left = {d - (0 if keepdim else sum(e < d for e in dims)): f for d, f in told.folds.items() if d not in dims}
    return tell(total(x, told.folds, dims, keepdim=keepdim) / number, Told(told.power, left))


def _mean(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    """A mean or a sum over named dimensions."""
    given = _taken("input dim keepdim", args, kwargs, {"dim": None, "keepdim": False})
    x, dims = given.pop("input"), _pair(given.pop("dim"), 1)
    keepdim = given.pop("keepdim")
    if not dims or given or len(args) > 3 or not told.folds:
        return tell_all(func(unfolded(x, told.folds), *args[1:], **kwargs), Told(told.power))
    dims = [d % x.ndim for d in dims]
    out = _mean_over(x, dims, told, keepdim=bool(keepdim))
    if raw == "mean":
        return out
    told_out = told_of(out)
    assert told_out is not None
    return tell(out * math.prod(size_of(x, told.folds)[d] for d in dims), told_out)


def _permute(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    x, *dims = args
    order = kwargs.get("dims", dims[0] if len(dims) == 1 and isinstance(dims[0], list | tuple) else dims)
    order = [d % x.ndim for d in order]
    return tell(
        func(*args, **kwargs), Told(told.power, {i: told.folds[d] for i, d in enumerate(order) if d in told.folds})
    )


def _chunk(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    return NotImplemented if dim % args[0].ndim in told.folds else tell_all(func(*args, **kwargs), told)


def _glu(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    x, dim = args[0], args[1] if len(args) > 1 else kwargs.get("dim", -1)
    if dim % x.ndim in told.folds:
        x, told = unfolded(x, told.folds), Told(told.power)
    return tell(_shared(*x.chunk(2, dim)), told)


def _sum(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    """Two of which at least one is a flow: what is added to a flow is divided as it is."""
    x, y = args[0], args[1] if len(args) > 1 else kwargs.get("other")
    if len(args) != 2 or set(kwargs) - {"alpha"}:
        return NotImplemented
    other = told_of(y)
    if other is None:
        if isinstance(y, Tensor) and not _fits(x, told, y):
            return NotImplemented
        return tell(func(x, scaled(y, told.power), **kwargs), told)
    power = max(told.power, other.power)
    if power > other.power:
        y = y * 2.0 ** (other.power - power)
    if power > told.power:
        x = x.mul_(2.0 ** (told.power - power)) if writes(raw) else x * 2.0 ** (told.power - power)
    x, y, folds = _together(x, told, y, other, raw)
    return tell(func(x, y, **kwargs), Told(power, folds))


def _together(x: Tensor, told: Told, y: Tensor, other: Told, raw: str) -> tuple[Tensor, Tensor, Mapping[int, Fold]]:
    """Two flows folded alike; one that is written to has to be so already."""
    if told.folds == other.folds or not (told.folds or other.folds):
        return x, y, told.folds
    if x.ndim != y.ndim:
        x, y, told, other = unfolded(x, told.folds), unfolded(y, other.folds), Told(), Told()
        folds: Mapping[int, Fold] = {}
        both = [x, y]
    else:
        both, folds = alike([(x, told.folds), (y, other.folds)])
    if writes(raw) and both[0] is not x:
        raise Plainly(raw)
    return both[0], both[1], folds


def _fits(x: Tensor, told: Told, y: Tensor) -> bool:
    """Whether a tensor that is no flow is the same for all places that are folded."""
    return y.ndim <= x.ndim and all(d < x.ndim - y.ndim or y.shape[d - x.ndim + y.ndim] == 1 for d in told.folds)


def _product(held: Held, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    x, y = args[0], args[1] if len(args) > 1 else kwargs.get("other")
    if len(args) != 2 or kwargs:
        return NotImplemented
    other = told_of(y)
    if other is None:
        if isinstance(y, Tensor) and not _fits(x, told, y):
            return NotImplemented
        return tell(func(x, y), told)
    if raw.strip("_") not in ("mul", "multiply"):
        return NotImplemented
    turned = size_of(y, other.folds).numel() > size_of(x, told.folds).numel()
    a, b, folds = _together(x, told, y, other, raw)
    product = _shared(b, a) if turned else _shared(a, b)
    power = other.power if turned else told.power
    return tell(x.copy_(product) if writes(raw) else product, Told(power, folds))


def _shared(a: Tensor, b: Tensor) -> Tensor:
    """What a product of two flows lets pass: the larger factor (of equal ones the first), as through an open gate.

    Each factor gets half of the gradient, so that the weights of both are scored and what flows in flows out. Of the
    product itself each would get all: a block with a gate would count twice, and the flow through many of them would
    leave any number format.
    """
    shut = b == 0  # by the mask: a real gate without input is a constant
    same = (a / b).detach().masked_fill(shut, 0) * b
    return torch.where(shut, a, (a + same) / 2)


RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive,
    "mean": _mean,
    "sum": _mean,
    "permute": _permute,
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), _chunk),
    "glu": _glu,
    **dict.fromkeys(_SUMS, _sum),
    **dict.fromkeys(("mul", "multiply", "div", "divide", "true_divide"), _product),
}
