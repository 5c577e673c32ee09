"""How a flow runs through a network, whatever its layers are called: the calls of a forward pass, done another way.

A flow is what comes from an image of ones. It is followed from call to call by what is `Told` of each tensor:

power   the tensor holds the flow divided by 2^power. Sums of absolute weights grow as fan-in to the power of the depth
        and leave float32 after some twenty layers; a power of two changes no digit of them.
folds   rows and columns that are alike are held once, see `folded`.

Where a call is not known to take these, it gets the flow itself: all places, power 0.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from prunit.scores.folded import Fold, alike, size_of, total, unfolded, windowed
from prunit.scores.products import Convolution, convolution, linear

_ACTIVATIONS: Final = frozenset(
    "relu6 hardtanh clamp clip clamp_max hardswish hardsigmoid sigmoid special_expit log_sigmoid tanh atan arctan erf"
    " softsign softplus silu gelu mish elu celu selu softmax log_softmax".split()
)
"""Names, in torch, its functional module and its tensors, of activations that are not ReLU on the positive numbers."""
_EACH_PLACE: Final = frozenset(
    "relu leaky_relu rrelu dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout contiguous clone detach"
    " to float double neg abs positive".split()
)
"""What does the same to each number, and twice as much to twice of it."""
_MOVES: Final = frozenset(
    "flatten view reshape view_as reshape_as squeeze unsqueeze expand expand_as pad interpolate upsample pixel_shuffle"
    " pixel_unshuffle channel_shuffle native_channel_shuffle unfold fold roll flip rot90 getitem select narrow"
    " index_select transpose swapaxes movedim moveaxis t unflatten repeat tile unbind tensor_split hsplit vsplit"
    " adaptive_avg_pool1d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax cumsum"
    " max_pool1d max_pool3d avg_pool1d avg_pool3d".split()
)
"""What puts numbers elsewhere, repeats or adds them."""
_LOOKS: Final = frozenset(
    "ndim dim dtype device layout is_cuda is_meta is_cpu is_quantized is_sparse is_nested is_floating_point is_complex"
    " requires_grad grad_fn is_leaf get_device element_size names".split()
)
"""What is asked of a tensor that has nothing to do with its places."""
_SUMS: Final = frozenset(("add", "sub", "subtract", "maximum", "minimum"))
_TOP: Final = 2.0**40
_FURTHEST: Final = 120
"""Two to this power is within float32."""


class Plainly(Exception):
    """A call that cannot be done on what is held here: the pass has to be run with all places, and without powers."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a tensor of the flow holds."""

    power: int = 0
    folds: Mapping[int, Fold] = field(default_factory=dict)


_PLAIN: Final = Told()


def told_of(x: object) -> Told | None:
    """What is told of a tensor; None: it is no flow."""
    return x.__dict__.get("_prunit_flow") if isinstance(x, Tensor) else None


def tell(x: Tensor, told: Told) -> Tensor:
    """The tensor, a flow from now on."""
    x.__dict__["_prunit_flow"] = told
    return x


def ones(shape: Sequence[int], *, fold: bool, **how: Any) -> Tensor:
    """An image of ones, a batch of one."""
    folds = {d: Fold(0, n, 0) for d, n in enumerate(shape[1:], start=2) if n > 1} if fold else {}
    return tell(torch.ones(1, *(1 if d in folds else n for d, n in enumerate(shape, start=1)), **how), Told(0, folds))


class Homogeneous(TorchFunctionMode):
    """Within, twice the flow into a network is twice the flow out of it, whatever its activations and gates."""

    def __init__(self, *, powers: bool) -> None:
        super().__init__()
        self.powers, self.folded, self.left = powers, False, False
        """`folded`: a layer has run on a part of the places. `left`: a call got a flow without its power."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        flows = [t for t in (*args, *kwargs.values()) if told_of(t) is not None]
        if not flows:
            inner = [t for a in (*args, *kwargs.values()) if isinstance(a, list | tuple) for t in a]
            if not any(told_of(t) is not None for t in inner):
                return func(*args, **kwargs)
        raw = _name(func)
        name = raw.strip("_")
        if not args or (told := told_of(args[0])) is None:
            if name in ("cat", "concat", "concatenate", "stack") and flows == []:
                return self._joined(func, name, args, kwargs)
            if (
                name in ("mul", "multiply", "add")
                and len(args) > 1
                and isinstance(args[0], Tensor)
                and not _writes(raw)
            ):
                return self.__torch_function__(func, types, (args[1], args[0], *args[2:]), kwargs)
            return self._as_it_is(func, raw, args, kwargs)
        if getattr(func, "__name__", "") == "__get__" or name in ("size", "len", "is_contiguous", "numel", "stride"):
            return self._asked(func, name, args, kwargs, told)
        if name in _LOOKS:
            return func(*args, **kwargs)
        x, *more = args
        dim = more[0] if more else kwargs.get("dim", -1)
        # The softmax of attention stays: it weighs values in a product of matrices.
        attention = name == "softmax" and x.ndim > 2 and dim in (-1, x.ndim - 1)
        if name in _ACTIVATIONS and not attention:
            return tell(torch.relu(x), told)
        if name in _EACH_PLACE:
            return _tell_all(func(*args, **kwargs), told)
        rule = _RULES.get(name)
        if rule is not None and (found := rule(self, func, raw, args, kwargs, told)) is not NotImplemented:
            return found
        if name in _MOVES and len(flows) == 1 and not _writes(raw):
            return _tell_all(func(unfolded(x, told.folds), *more, **kwargs), Told(told.power))
        return self._as_it_is(func, raw, args, kwargs)

    def _as_it_is(self, func: Any, raw: str, args: Any, kwargs: Any) -> Any:
        """On the flows themselves."""
        marked = [told for a in _leaves((args, kwargs)) if (told := told_of(a)) is not None]
        changed = any(told.power or told.folds for told in marked)
        if changed and (_writes(raw) or "out" in kwargs):
            raise Plainly(raw)
        self.left = self.left or any(told.power for told in marked)
        if changed:
            args, kwargs = _mapped(args, _itself), _mapped(kwargs, _itself)
        return _tell_all(func(*args, **kwargs), _PLAIN)

    def _asked(self, func: Any, name: str, args: Any, kwargs: Any, told: Told) -> Any:
        """An attribute, or another question about a tensor's shape."""
        x = args[0]
        shape = size_of(x, told.folds)
        if name == "shape" or (name == "size" and len(args) == 1 and not kwargs):
            return shape
        if name == "size":
            return shape[args[1] if len(args) > 1 else kwargs["dim"]]
        if name == "len":
            return shape[0]
        if name == "numel":
            return shape.numel()
        if name in _LOOKS or name == "is_contiguous":
            return func(*args, **kwargs)
        return self._as_it_is(func, name, args, kwargs)

    def levelled(self, x: Tensor, told: Told) -> Tensor:
        """The flow, told of, with numbers that are far from the ends of float32."""
        if not self.powers:
            return tell(x, told)
        top = float(x.detach().amax())
        if not 0 < top < math.inf or 1 / _TOP <= top <= _TOP:
            return tell(x, told)
        power = math.frexp(top)[1]
        return tell(x * 2.0**-power, Told(told.power + power, told.folds))

    def _joined(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        parts = args[0]
        if not all(isinstance(t, Tensor) for t in parts) or len({t.ndim for t in parts}) > 1:
            return self._as_it_is(func, name, args, kwargs)
        dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % parts[0].ndim if name != "stack" else None
        tolds = [told_of(t) or _PLAIN for t in parts]
        if dim is None or any(dim in told.folds for told in tolds) or not all(map(told_of, parts)):
            return self._as_it_is(func, name, args, kwargs)
        power = max(told.power for told in tolds)
        level = [
            t if told.power == power else t * 2.0 ** (told.power - power) for t, told in zip(parts, tolds, strict=True)
        ]
        folded, folds = alike([(t, told.folds) for t, told in zip(level, tolds, strict=True)])
        return tell(func(folded, *args[1:], **kwargs), Told(power, folds))


def _name(func: Any) -> str:
    """What is called: of an attribute its name, of a method the one that it has in torch."""
    name = getattr(func, "__name__", "")
    return getattr(getattr(func, "__self__", None), "__name__", "") if name == "__get__" else name


def _writes(raw: str) -> bool:
    """Whether a call of this name changes its first tensor."""
    return (raw.endswith("_") and not raw.endswith("__")) or raw.startswith(("__i", "__set"))


def _leaves(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return [value]
    return [leaf for each in value for leaf in _leaves(each)]


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {k: _mapped(v, change) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_mapped(v, change) for v in value)
    return value


def _itself(x: Tensor) -> Tensor:
    told = told_of(x)
    if told is None or told == _PLAIN:
        return x
    whole = unfolded(x, told.folds)
    return tell(whole * 2.0 ** min(told.power, 1023) if told.power else whole, _PLAIN)


def _tell_all(out: Any, told: Told) -> Any:
    for leaf in _leaves(out):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            tell(leaf, told)
    return out


# ── rules: what a call gives on what is held; NotImplemented where it is not the plain case ──

Rule = Callable[[Homogeneous, Any, str, tuple[Any, ...], dict[str, Any], Told], Any]


def _scaled(value: Any, power: int) -> Any:
    """A constant that is added to a flow of that power."""
    if value is None or not power:
        return value
    if power > -_FURTHEST:
        return value * 2.0**-power
    if torch.as_tensor(value).any():
        raise Plainly("what is added is out of all proportion to the flow")
    return value


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


def _taken(names: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    return defaults | dict(zip(names.split(), args, strict=False)) | dict(kwargs)


def _convolution(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    given = _taken(
        "input weight bias stride padding dilation groups",
        args,
        kwargs,
        bias=None,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
    )
    x, w = given["input"], given["weight"]
    windows = _windows(x, w.shape[2:], given["stride"], given["padding"], given["dilation"])
    if told_of(w) is not None or told_of(given["bias"]) is not None or windows is None or x.ndim != w.ndim:
        return NotImplemented
    x, folds = windowed(x, told.folds, windows)
    mode.folded = mode.folded or bool(folds)
    bias, (_, *how) = _scaled(given["bias"], told.power), zip(*windows.values(), strict=True)
    out = convolution(x, w, bias, Convolution(*how, given["groups"]))
    if out is None:
        out = func(x, w, bias, given["stride"], given["padding"], given["dilation"], given["groups"])
    return mode.levelled(out, Told(told.power, folds))


def _transposed(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    given = _taken("input weight bias", args, kwargs, bias=None)
    if any(told_of(value) is not None for name, value in given.items() if name != "input"):
        return NotImplemented
    given["input"], given["bias"] = unfolded(given["input"], told.folds), _scaled(given["bias"], told.power)
    return mode.levelled(
        func(given.pop("input"), given.pop("weight"), given.pop("bias"), *args[3:], **given), Told(told.power)
    )


def _linear(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    given = _taken("input weight bias", args, kwargs, bias=None)
    x, w, bias = given["input"], given["weight"], given["bias"]
    if told_of(w) is not None or told_of(bias) is not None:
        return NotImplemented
    last = {d: fold for d, fold in told.folds.items() if d == x.ndim - 1}
    folds = {d: fold for d, fold in told.folds.items() if d not in last}
    out = linear(unfolded(x, last), w, _scaled(bias, told.power))
    return mode.levelled(out, Told(told.power, folds))


def _batch_norm(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    names = "input running_mean running_var weight bias training momentum eps"
    if func is torch.batch_norm:
        names = "input weight bias running_mean running_var training momentum eps cudnn_enabled"
    given = _taken(names, args, kwargs, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5)
    if given["training"] or given["running_mean"] is None or any(d < 2 for d in told.folds):
        return NotImplemented
    how = (given["weight"], _scaled(given["bias"], told.power), False, given["momentum"], given["eps"])
    out = F.batch_norm(given["input"], _scaled(given["running_mean"], told.power), given["running_var"], *how)
    return tell(out, told)


def _layer_norm(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    """Of twice the flow it is the same, but for what keeps it from dividing by nothing."""
    given = _taken("input normalized_shape weight bias eps", args, kwargs, weight=None, bias=None, eps=1e-5)
    x, shape = given["input"], list(given["normalized_shape"])
    normed = range(x.ndim - len(shape), x.ndim)
    inner = {d: fold for d, fold in told.folds.items() if d in normed}
    eps = max(given["eps"] * 4.0**-told.power, 1e-30) if told.power else given["eps"]
    out = F.layer_norm(unfolded(x, inner), shape, given["weight"], given["bias"], eps)
    return tell(out, Told(0, {d: fold for d, fold in told.folds.items() if d not in inner}))


def _max_pool(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    names = "input kernel_size stride padding dilation ceil_mode return_indices"
    given = _taken(names, args, kwargs, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False)
    given["stride"] = given["stride"] or given["kernel_size"]
    return _pooled(func, given, told, given["dilation"], plain=not given["ceil_mode"] and not given["return_indices"])


def _avg_pool(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    names = "input kernel_size stride padding ceil_mode count_include_pad divisor_override"
    given = _taken(names, args, kwargs, stride=None, padding=0, ceil_mode=False)
    given["stride"] = given["stride"] or given["kernel_size"]
    return _pooled(func, given, told, 1, plain=not given["ceil_mode"])


def _pooled(func: Any, given: dict[str, Any], told: Told, dilation: Any, *, plain: bool) -> Any:
    x = given.pop("input")
    windows = _windows(x, given["kernel_size"], given["stride"], given["padding"], dilation) if plain else None
    if windows is None:
        return _tell_all(func(unfolded(x, told.folds), **given), Told(told.power))
    x, folds = windowed(x, told.folds, windows)
    return tell(func(x, **given), Told(told.power, folds))


def _adaptive(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    given = _taken("input output_size", args, kwargs)
    x = given["input"]
    if _pair(given["output_size"], 2) == [1, 1] and x.ndim == 4 and told.folds:
        return _mean_over(x, (2, 3), told, keepdim=True)
    return tell(func(unfolded(x, told.folds), given["output_size"]), Told(told.power))


def _mean_over(x: Tensor, dims: Sequence[int], told: Told, *, keepdim: bool) -> Tensor:
    number = math.prod(size_of(x, told.folds)[d] for d in dims)
    left = {d - (0 if keepdim else sum(e < d for e in dims)): f for d, f in told.folds.items() if d not in dims}
    return tell(total(x, told.folds, dims, keepdim=keepdim) / number, Told(told.power, left))


def _mean(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    """A mean or a sum over named dimensions."""
    given = _taken("input dim keepdim", args, kwargs, dim=None, keepdim=False)
    x, dims = given.pop("input"), _pair(given.pop("dim"), 1)
    keepdim = given.pop("keepdim")
    if not dims or given or len(args) > 3 or not told.folds:
        return _tell_all(func(unfolded(x, told.folds), *args[1:], **kwargs), Told(told.power))
    dims = [d % x.ndim for d in dims]
    out = _mean_over(x, dims, told, keepdim=bool(keepdim))
    if raw == "mean":
        return out
    told_out = told_of(out)
    assert told_out is not None
    return tell(out * math.prod(size_of(x, told.folds)[d] for d in dims), told_out)


def _permute(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    x, *dims = args
    order = kwargs.get("dims", dims[0] if len(dims) == 1 and isinstance(dims[0], list | tuple) else dims)
    order = [d % x.ndim for d in order]
    return tell(
        func(*args, **kwargs), Told(told.power, {i: told.folds[d] for i, d in enumerate(order) if d in told.folds})
    )


def _chunk(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    return NotImplemented if dim % args[0].ndim in told.folds else _tell_all(func(*args, **kwargs), told)


def _glu(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    x, dim = args[0], args[1] if len(args) > 1 else kwargs.get("dim", -1)
    if dim % x.ndim in told.folds:
        x, told = unfolded(x, told.folds), Told(told.power)
    return tell(_shared(*x.chunk(2, dim)), told)


def _sum(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
    """Two of which at least one is a flow: what is added to a flow is divided as it is."""
    x, y = args[0], args[1] if len(args) > 1 else kwargs.get("other")
    if len(args) != 2 or set(kwargs) - {"alpha"}:
        return NotImplemented
    other = told_of(y)
    if other is None:
        if isinstance(y, Tensor) and not _fits(x, told, y):
            return NotImplemented
        return tell(func(x, _scaled(y, told.power), **kwargs), told)
    power = max(told.power, other.power)
    if power > other.power:
        y = y * 2.0 ** (other.power - power)
    if power > told.power:
        x = x.mul_(2.0 ** (told.power - power)) if _writes(raw) else x * 2.0 ** (told.power - power)
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
    if _writes(raw) and both[0] is not x:
        raise Plainly(raw)
    return both[0], both[1], folds


def _fits(x: Tensor, told: Told, y: Tensor) -> bool:
    """Whether a tensor that is no flow is the same for all places that are folded."""
    return y.ndim <= x.ndim and all(d < x.ndim - y.ndim or y.shape[d - x.ndim + y.ndim] == 1 for d in told.folds)


def _product(mode: Homogeneous, func: Any, raw: str, args: Any, kwargs: Any, told: Told) -> Any:
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
    return tell(x.copy_(product) if _writes(raw) else product, Told(power, folds))


def _shared(a: Tensor, b: Tensor) -> Tensor:
    """What a product of two flows lets pass: the larger factor (of equal ones the first), as through an open gate.

    Each factor gets half of the gradient, so that the weights of both are scored and what flows in flows out. Of the
    product itself each would get all: a block with a gate would count twice, and the flow through many of them would
    leave any number format.
    """
    shut = b == 0  # by the mask: a real gate without input is a constant
    same = (a / b).detach().masked_fill(shut, 0) * b
    return torch.where(shut, a, (a + same) / 2)


_RULES: Final[Mapping[str, Rule]] = {
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
