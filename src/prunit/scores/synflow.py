"""SynFlow: the flow through each weight of the absolute-valued network (Tanaka et al. 2020, 'Pruning neural networks
without any data by iteratively conserving synaptic flow').

R is the sum of the outputs for an all-ones input with every parameter replaced by its absolute value; a weight's score
is |w dR/dw|. Flow is conserved from layer to layer, so no layer is emptied before the last of its weights is the
weakest one left, provided that the network is scored again after each of many small steps.

The theorems ask for activations with f(x) = f'(x) x, so that R = 1ᵀ |W_L| … |W_1| 1. ReLU is one. ReLU6 and sigmoid
are none: the flow is huge, and where they are flat no gradient comes back. So all of them are ReLU to the flow, see
`_Homogeneous`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from prunit.batches import Batch
from prunit.errors import ScoreError
from prunit.scores.network import Network


def synflow(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """|w dR/dw|; `weights` are non-negative already. Of `batches` only the shape of one image is used.

    Raises no error on overflow; the caller checks that scores are finite and repeats in float64.
    """
    if not batches:
        raise ScoreError("SynFlow needs the shape of an image; pass batches=[(x_BCHW, y_B)], of any content")
    live = {n: w.detach().requires_grad_() for n, w in weights.items()}
    flow = synaptic_flow(net, live, batches[0][0].shape[1:])
    gradients = torch.autograd.grad(flow, list(live.values()), materialize_grads=True)
    # A layer norm can turn a flow negative.
    return {n: g.mul_(w).abs_() for (n, w), g in zip(weights.items(), gradients, strict=True)}


def synaptic_flow(net: Network, weights: Mapping[str, Tensor], image: Sequence[int]) -> Tensor:
    """R at non-negative `weights`, a scalar in their dtype, for images of shape `image` (C, H, W).

    Batch norms are taken as |gain| x + |shift| with statistics 0 and 1, as at initialisation: a mean that is
    subtracted would break the conservation that the method rests on. Activations are taken as ReLU, products of two
    flows as `_shared` says.
    """
    dtype = next(iter(weights.values())).dtype
    x_1CHW = torch.ones(1, *image, dtype=dtype, device=net.device).as_subclass(_Flow)
    with _Homogeneous():
        out = net.forward(weights, x_1CHW, other=_positive_rest(net, dtype))
    return out.sum().as_subclass(Tensor)


def _positive_rest(net: Network, dtype: torch.dtype) -> dict[str, Tensor]:
    """Absolute values of the parameters that are not scored, and batch norms with fresh statistics.

    Where all gains of a batch norm are 0, as some residual branches start, they are 1: the branch opens with the first
    step of training, and its weights are to be told apart before that.
    """
    rest = {n: p.abs().to(dtype) for n, p in net.other.items()}
    for name, b in net.buffers.items():
        rest[name] = b.abs().to(dtype) if b.is_floating_point() else b.clone()
    for path, module in net.model.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        prefix = f"{path}." if path else ""
        if module.track_running_stats:
            rest[f"{prefix}running_mean"] = torch.zeros_like(rest[f"{prefix}running_mean"])
            rest[f"{prefix}running_var"] = torch.ones_like(rest[f"{prefix}running_var"])
        gain = rest.get(f"{prefix}weight")
        if gain is not None and not gain.any():
            rest[f"{prefix}weight"] = torch.ones_like(gain)
    return rest


class _Flow(Tensor):
    """What comes from the image, so that a product of two flows can be told from one with a parameter."""


_ACTIVATIONS = frozenset(
    "relu6 hardtanh clamp clip clamp_max hardswish hardsigmoid sigmoid special_expit log_sigmoid tanh atan arctan erf"
    " softsign softplus silu gelu mish elu celu selu softmax log_softmax".split()
)
"""Names, in torch, its functional module and its tensors, of activations that are not ReLU on the positive numbers."""


class _Homogeneous(TorchFunctionMode):
    """Within, twice the flow into a network is twice the flow out of it, whatever its activations and gates."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", "").rstrip("_"), kwargs or {}
        if not args or not isinstance(args[0], _Flow):
            return func(*args, **kwargs)
        x, *more = args
        dim = more[0] if more else kwargs.get("dim", -1)
        # The softmax of attention stays: it weighs values in a product of matrices.
        attention = name == "softmax" and x.ndim > 2 and dim in (-1, x.ndim - 1)
        if name in _ACTIVATIONS and not attention:
            return torch.relu(x)
        if name in ("mul", "multiply") and more and isinstance(more[0], _Flow) and more[0].is_floating_point():
            product = _shared(x, more[0])
            return x.copy_(product) if func.__name__.endswith("_") else product
        if name == "glu":
            return _shared(*x.chunk(2, dim))
        return func(*args, **kwargs)


def _shared(a: Tensor, b: Tensor) -> Tensor:
    """What a product of two flows lets pass: the larger factor (of equal ones the first), as through an open gate.

    Each factor gets half of the gradient, so that the weights of both are scored and what flows in flows out. Of the
    product itself each would get all: a block with a gate would count twice, and the flow through many of them would
    leave any number format.
    """
    if b.numel() > a.numel():
        a, b = b, a
    shut = b == 0  # by the mask: a real gate without input is a constant
    same = (a / b).detach().masked_fill(shut, 0) * b
    return torch.where(shut, a, (a + same) / 2)
