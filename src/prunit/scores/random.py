"""Random scores: uniform over all weights, or with the Erdős-Rényi-kernel layer densities.

ERK (Evci et al. 2020, 'Rigging the Lottery'; Liu et al. 2022, 'The Unreasonable Effectiveness of Random Pruning')
gives a layer w_OIHW a density proportional to (O + I + H + W) / (O I H W).
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prunit.batches import Batch
from prunit.scores.network import Network


def uniform(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """A draw from U(0, 1) for every weight: the same expected density in every layer."""
    return {name: _draw(w, generator) for name, w in weights.items()}


def erk(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """Random within a layer, and between layers so that a global threshold gives the ERK densities.

    Keeping the fraction d of a layer is keeping the draws above 1 - d. With density d_l = min(1, eps p_l), the draw
    u is pruned once eps < (1 - u) / p_l, so that quotient, negated, ranks all weights as eps falls.
    """
    return {name: -(1 - _draw(w, generator)) / _erk_share(w) for name, w in weights.items()}


def _draw(w: Tensor, generator: torch.Generator) -> Tensor:
    # Drawn on the CPU, so that a seed means the same on every device.
    return torch.rand(w.shape, generator=generator).to(w.device)


def _erk_share(w_OIHW: Tensor) -> float:
    return sum(w_OIHW.shape) / math.prod(w_OIHW.shape)
