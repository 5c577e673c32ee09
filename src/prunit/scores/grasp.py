"""GraSP: keep the weights whose removal would lower the gradient's norm (Wang et al. 2020, 'Picking winning tickets').

With g = dL/dw and H the Hessian, pruning w changes the gradient flow by about -w (H g); the authors prune the largest
-w (H g), so the score that is kept high is w (H g). The logits are divided by T = 200 as in their code.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prunit.batches import Batch, task_of
from prunit.scores.network import Network
from prunit.scores.snip import gradient

TEMPERATURE = 200.0


def grasp(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """w (H g), signed: H g is the gradient of <g of all batches, held fixed; g of one batch>, summed over batches."""
    fixed = gradient(net, weights, batches, temperature=TEMPERATURE)
    total: dict[str, Tensor] = {}
    for batch in batches:
        live = {n: w.detach().requires_grad_() for n, w in weights.items()}
        loss = net.loss(live, batch, task_of(batches), temperature=TEMPERATURE)
        g = torch.autograd.grad(loss, list(live.values()), create_graph=True, materialize_grads=True)
        product = torch.stack([(fixed[n] * g_n).sum() for n, g_n in zip(live, g, strict=True)]).sum()
        second = torch.autograd.grad(product, list(live.values()), materialize_grads=True)
        for name, hg in zip(live, second, strict=True):
            total[name] = total[name] + hg if name in total else hg
    return {name: w * total[name] for name, w in weights.items()}
