"""Density to width: an unstructured mask says how dense a layer should be, sqrt(density) of its channels stay.

A layer with the share s of its inputs and of its outputs has s squared of its weights, hence the root. Reconvene's
`density` reading and PreCrop (2022) share this rule.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from prunit.allocate.search import widest
from prunit.allocate.target import Target
from prunit.cut.plans import Widths
from prunit.graph import ChannelGraph
from prunit.prices.costs import named_widths

if TYPE_CHECKING:
    from torch import Tensor

_GRID = 160


class Densities:
    """Density of every group's layers under a mask of any global density."""

    def __init__(self, graph: ChannelGraph, weights: "Mapping[str, Tensor]", *, least: float = 1e-4) -> None:
        """`weights` are scores of weights by parameter name, as `scores.score_weights` gives them."""
        flat = {n: np.sort(w.detach().cpu().numpy().reshape(-1)) for n, w in weights.items()}
        everything = np.sort(np.concatenate(list(flat.values())))
        self.global_density = np.geomspace(least, 1.0, _GRID)
        cut = np.clip(np.round((1 - self.global_density) * len(everything)).astype(int), 0, len(everything) - 1)
        thresholds = everything[cut]
        self.by_group = np.ones((len(graph.groups), _GRID))
        for i, group in enumerate(graph.groups):
            makers = [a.tensor for a in graph.axes_of(group.name, "out") if a.tensor in flat]
            if makers:
                alive = sum(len(flat[m]) - np.searchsorted(flat[m], thresholds, side="left") for m in makers)
                self.by_group[i] = alive / sum(len(flat[m]) for m in makers)

    def at(self, dial: float) -> tuple[np.ndarray, float]:
        """Density of each group, and the global one, at a dial from 0 (sparsest) to 1 (dense)."""
        x = dial * (_GRID - 1)
        i = min(int(x), _GRID - 2)
        mix = x - i
        groups = (1 - mix) * self.by_group[:, i] + mix * self.by_group[:, i + 1]
        return groups, float((1 - mix) * self.global_density[i] + mix * self.global_density[i + 1])


def by_density(target: Target, densities: Densities) -> Widths:
    """Widths C sqrt(d) at the densest mask that meets the budget; pin the groups that shall stay whole."""
    return named_widths(target.graph, widest(target, lambda dial: target.graph.sizes * np.sqrt(densities.at(dial)[0])))
