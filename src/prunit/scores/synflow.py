"""SynFlow: the flow through each weight of the absolute-valued network (Tanaka et al. 2020, 'Pruning neural networks
without any data by iteratively conserving synaptic flow').

R is the sum of the outputs for an all-ones input with every parameter replaced by its absolute value; a weight's score
is |w dR/dw|. Flow is conserved from layer to layer, so no layer is emptied before the last of its weights is the
weakest one left, provided that the network is scored again after each of many small steps.

The theorems ask for activations with f(x) = f'(x) x, so that R = 1ᵀ |W_L| … |W_1| 1. ReLU is one. ReLU6 and sigmoid
are none: the flow is huge, and where they are flat no gradient comes back. So all of them are ReLU to the flow, see
`flow.Homogeneous`.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from prunit.batches import Batch
from prunit.errors import ScoreError
from prunit.scores.flow import Homogeneous
from prunit.scores.network import Network
from prunit.scores.told import Plainly, ones, told_of

_WITHIN: Final = {torch.float32: 60, torch.float64: 900}
"""A flow of less than two to this power times what is held is told as it is: its scores are within the dtype."""


def synflow(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """|w dR/dw|; `weights` are non-negative already. Of `batches` only the shape of one image is used.

    The scores of a network whose flow leaves the range of its dtype are divided by one power of two, all of them. Where
    a flow cannot be followed so, no error is raised on overflow: the caller checks that scores are finite and repeats
    in float64.
    """
    if not batches:
        raise ScoreError("SynFlow needs the shape of an image; pass batches=[(x_BCHW, y_B)], of any content")
    live = {n: w.detach().requires_grad_() for n, w in weights.items()}
    flow, power = _flow(net, live, batches[0][0].shape[1:], powers=True)
    gradients = torch.autograd.grad(flow, list(live.values()), materialize_grads=True)
    if power and abs(power) <= _WITHIN[flow.dtype]:
        gradients = [g.mul_(2.0**power) for g in gradients]
    # A layer norm can turn a flow negative.
    return {n: g.mul_(w).abs_() for (n, w), g in zip(weights.items(), gradients, strict=True)}


def synaptic_flow(net: Network, weights: Mapping[str, Tensor], image: Sequence[int]) -> Tensor:
    """R at non-negative `weights`, a scalar in their dtype, for images of shape `image` (C, H, W).

    Batch norms are taken as |gain| x + |shift| with statistics 0 and 1, as at initialisation: a mean that is
    subtracted would break the conservation that the method rests on. Activations are taken as ReLU, products of two
    flows as `flowing._shared` says.
    """
    return _flow(net, weights, image, powers=False)[0]


def _flow(net: Network, weights: Mapping[str, Tensor], image: Sequence[int], *, powers: bool) -> tuple[Tensor, int]:
    """R divided by a power of two, and which."""
    dtype = next(iter(weights.values())).dtype
    if not net.plainly:
        image_1CHW = ones(image, fold=True, dtype=dtype, device=net.device)
        mode = Homogeneous(powers=powers and dtype in _WITHIN)
        try:
            with mode:
                out = net.forward(weights, image_1CHW, other=_positive_rest(net, dtype))
            told = told_of(out)
            if told is not None and not told.folds:
                net.levelled = mode.held.powers and not mode.held.left
                return out.sum(), told.power
        except Plainly:
            pass
        except RuntimeError:
            if not mode.held.folded:
                raise
        net.plainly = True
    net.levelled = False
    with Homogeneous(powers=False):
        image_1CHW = ones(image, fold=False, dtype=dtype, device=net.device)
        return net.forward(weights, image_1CHW, other=_positive_rest(net, dtype)).sum(), 0


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
