"""SynFlow: the flow through each weight of the absolute-valued network (Tanaka et al. 2020, 'Pruning neural networks
without any data by iteratively conserving synaptic flow').

R is the sum of the outputs for an all-ones input with every parameter replaced by its absolute value; a weight's score
is |w dR/dw|. Flow is conserved from layer to layer, so no layer is emptied before the last of its weights is the
weakest one left, provided that the network is scored again after each of many small steps.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from prunit.batches import Batch
from prunit.errors import ScoreError
from prunit.scores.network import Network


def synflow(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """|w dR/dw|; `weights` are non-negative already. Of `batches` only the shape of one image is used.

    Batch norms are taken as |gain| x + |shift| with statistics 0 and 1, as at initialisation: a mean that is
    subtracted would break the conservation that the method rests on. Raises no error on overflow; the caller
    checks that scores are finite and repeats in float64.
    """
    if not batches:
        raise ScoreError("SynFlow needs the shape of an image; pass batches=[(x_BCHW, y_B)], of any content")
    dtype = next(iter(weights.values())).dtype
    x_1CHW = torch.ones(1, *batches[0][0].shape[1:], dtype=dtype, device=net.device)
    live = {n: w.detach().requires_grad_() for n, w in weights.items()}
    flow = net.forward(live, x_1CHW, other=positive_rest(net, dtype)).sum()
    gradients = torch.autograd.grad(flow, list(live.values()), materialize_grads=True)
    # A layer norm or a gate can turn a flow negative.
    return {n: g.mul_(w).abs_() for (n, w), g in zip(weights.items(), gradients, strict=True)}


def positive_rest(net: Network, dtype: torch.dtype) -> dict[str, Tensor]:
    """Absolute values of the parameters that are not scored, and fresh statistics for batch norms."""
    rest = {n: p.abs().to(dtype) for n, p in net.other.items()}
    for name, b in net.buffers.items():
        rest[name] = b.abs().to(dtype) if b.is_floating_point() else b.clone()
    for path, module in net.model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            prefix = f"{path}." if path else ""
            rest[f"{prefix}running_mean"] = torch.zeros_like(rest[f"{prefix}running_mean"])
            rest[f"{prefix}running_var"] = torch.ones_like(rest[f"{prefix}running_var"])
    return rest
