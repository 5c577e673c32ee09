"""Scores per unit of what a budget limits: what is lost for each multiply-add that is saved, not for each weight.

Thresholding plain scores gives the mask that keeps most of them for a number of weights. Where multiply-adds are
limited, a weight used at 1,024 positions of the image costs as much as 1,024 used at one. 3SP (van Amersfoort et
al. 2020) divides its scores of channels by what they cost; here it is done for weights, within each round, so that any
score and any rule from masks to widths can be used with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from prunit.batches import Batch
from prunit.graph import ChannelGraph
from prunit.scores import Score
from prunit.scores.network import Network


def per_cost(method: Score, costs: Mapping[str, float]) -> Score:
    """The method with the saliency of every weight divided by the cost of its tensor in `costs` (1 where it has none).

    Only ratios between the costs matter.
    """
    least = min(costs.values(), default=1.0)

    def saliency(
        net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator, /
    ) -> dict[str, Tensor]:
        found = method.saliency(net, weights, batches, generator)
        return {name: s * (least / costs[name]) if name in costs else s for name, s in found.items()}

    return replace(method, saliency=saliency, each=False)


def macs_per_weight(graph: ChannelGraph) -> dict[str, int]:
    """How many multiply-adds of one example each weight of a layer takes part in, by parameter name."""
    found: dict[str, int] = {}
    for layer in graph.layers:
        found[layer.weight] = found.get(layer.weight, 0) + layer.positions
    return found
