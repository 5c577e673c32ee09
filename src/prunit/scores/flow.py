"""How a flow runs through a network, whatever its layers are called: the calls of a forward pass, done another way.

A flow is what comes from an image of ones. It is followed from call to call by what is `Told` of each tensor:

power   the tensor holds the flow divided by 2^power. Sums of absolute weights grow as fan-in to the power of the depth
        and leave float32 after some twenty layers; a power of two changes no digit of them.
folds   rows and columns that are alike are held once, see `folded`.

Where a call is not known to take these, it gets the flow itself: all places, power 0.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from prunit.scores.flowing import RULES
from prunit.scores.folded import alike, size_of, unfolded
from prunit.scores.told import (
    PLAIN,
    Held,
    Plainly,
    Told,
    itself,
    leaves,
    mapped,
    name_of,
    tell,
    tell_all,
    told_of,
    writes,
)

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


class Homogeneous(TorchFunctionMode):
    """Within, twice the flow into a network is twice the flow out of it, whatever its activations and gates."""

    def __init__(self, *, powers: bool) -> None:
        super().__init__()
        self.held = Held(powers=powers)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        flows = [t for t in (*args, *kwargs.values()) if told_of(t) is not None]
        if not flows:
            inner = [t for a in (*args, *kwargs.values()) if isinstance(a, list | tuple) for t in a]
            if not any(told_of(t) is not None for t in inner):
                return func(*args, **kwargs)
        raw = name_of(func)
        name = raw.strip("_")
        if not args or (told := told_of(args[0])) is None:
            if name in ("cat", "concat", "concatenate", "stack") and flows == []:
                return self._joined(func, name, args, kwargs)
            if name in ("mul", "multiply", "add") and len(args) == 2 and not kwargs and isinstance(args[0], Tensor):
                if not writes(raw):
                    return self.__torch_function__(func, types, args[::-1])
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
            return tell_all(func(*args, **kwargs), told)
        rule = RULES.get(name)
        if rule is not None and (found := rule(self.held, func, raw, args, kwargs, told)) is not NotImplemented:
            return found
        filled = name == "pad" and (kwargs.get("value") or any(args[3:]))  # with another number than 0
        if name in _MOVES and len(flows) == 1 and not writes(raw) and not filled:
            return tell_all(func(unfolded(x, told.folds), *more, **kwargs), Told(told.power))
        return self._as_it_is(func, raw, args, kwargs)

    def _as_it_is(self, func: Any, raw: str, args: Any, kwargs: Any) -> Any:
        """On the flows themselves."""
        marked = [told for a in leaves((args, kwargs)) if (told := told_of(a)) is not None]
        changed = any(told.power or told.folds for told in marked)
        if changed and (writes(raw) or "out" in kwargs):
            raise Plainly(raw)
        self.held.left = self.held.left or any(told.power for told in marked)
        if changed:
            args, kwargs = mapped(args, itself), mapped(kwargs, itself)
        return tell_all(func(*args, **kwargs), PLAIN)

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

    def _joined(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        parts = args[0]
        if not all(isinstance(t, Tensor) for t in parts) or len({t.ndim for t in parts}) > 1:
            return self._as_it_is(func, name, args, kwargs)
        dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % parts[0].ndim if name != "stack" else None
        tolds = [told_of(t) or PLAIN for t in parts]
        if dim is None or any(dim in told.folds for told in tolds) or not all(map(told_of, parts)):
            return self._as_it_is(func, name, args, kwargs)
        power = max(told.power for told in tolds)
        level = [
            t if told.power == power else t * 2.0 ** (told.power - power) for t, told in zip(parts, tolds, strict=True)
        ]
        folded, folds = alike([(t, told.folds) for t, told in zip(level, tolds, strict=True)])
        return tell(func(folded, *args[1:], **kwargs), Told(power, folds))
