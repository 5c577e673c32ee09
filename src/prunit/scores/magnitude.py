"""Magnitude: |weight|, and of channels the L1 norm (Li et al. 2017, 'Pruning filters for efficient ConvNets').

The plainest score; needs no data and no pass through the network.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prunit.batches import Batch
from prunit.scores.network import Network


def magnitude(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """|w| of every weight."""
    return {name: w.abs() for name, w in weights.items()}
