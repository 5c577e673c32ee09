"""SNIP: |weight x gradient| of the loss at initialisation (Lee et al. 2019, 'SNIP: single-shot network pruning').

Also FORCE (de Jorge et al. 2021, 'Progressive skeletonization'): the gradient is that of the pruned network, the weight
the dense one, so a weight that was pruned can come back. Iterated without revival SNIP is 'iterative SNIP' there.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prunit.batches import Batch, task_of
from prunit.scores.network import Network


def snip(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """|w dL/dw| with the gradient summed over the batches (mean loss of each), batch norm on batch statistics."""
    g = gradient(net, weights, batches)
    return {name: (w * g[name]).abs() for name, w in weights.items()}


def force(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """|w0 dL/dw| with the dense weight w0 and the gradient at the pruned weights w."""
    g = gradient(net, weights, batches)
    return {name: (net.weights[name] * g[name]).abs() for name in weights}


def gradient(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], *, temperature: float = 1.0
) -> dict[str, Tensor]:
    """dL/dw summed over batches, L the task's mean loss; of a classifier the logits are divided by `temperature`."""
    total: dict[str, Tensor] = {}
    for batch in batches:
        live = {n: w.detach().requires_grad_() for n, w in weights.items()}
        loss = net.loss(live, batch, task_of(batches), temperature=temperature)
        # A weight that the first output does not depend on (an auxiliary head's) has gradient zero.
        for name, g in zip(live, torch.autograd.grad(loss, list(live.values()), materialize_grads=True), strict=True):
            total[name] = total[name] + g if name in total else g
    return total
