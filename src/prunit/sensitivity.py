"""How much the network reacts when one group alone is narrowed: the Pruning Sensitivity Evaluator of Reconvene.

The paper (Eccles et al. 2024) does not publish its formula. Three readings are built; the method card lists them:
`emptied` and `density` look at the mask alone (see `recipe`), `score` asks the network, here.
"""

from collections.abc import Mapping

import torch
from torch import nn

from prunit.batches import Batch
from prunit.cut.plans import Scores, Widths, choose
from prunit.errors import ScoreError
from prunit.graph import ChannelGraph
from prunit.scores.network import Network, untouched
from prunit.scores.synflow import synaptic_flow


def flow_lost(
    model: nn.Module, graph: ChannelGraph, scores: Scores, widths: Widths, example: Batch
) -> Mapping[str, float]:
    """Share of the network's synaptic flow (SynFlow's R, see there) that is lost when each group alone is narrowed.

    For each free group that `widths` narrows: 1 - R(narrowed) / R(dense), from 0 (nothing is lost) to 1 (all of it),
    where the channels that go are those with the lowest `scores`. One forward pass per group with one all-ones input
    of the shape of `example`'s images; the model is left as it was.
    """
    lost: dict[str, float] = {}
    image = example[0].shape[1:]
    with untouched(model, batch_statistics=False), torch.no_grad():
        net = Network(model, graph)
        weights = {n: w.abs().double() for n, w in net.weights.items()}
        dense = float(synaptic_flow(net, weights, image))
        if not 0 < dense < float("inf"):
            raise ScoreError(f"the synaptic flow of {type(model).__name__} is {dense}; the evaluator 'score' needs it")
        for group in graph.groups:
            width = widths.get(group.name, group.size)
            if group.pinned or width >= group.size:
                continue
            keep = graph.flat_keep(choose(graph, scores, {group.name: width}).keep)
            narrowed = dict(weights)
            for axis in graph.axes_of(group.name, "in"):
                if axis.tensor in narrowed:
                    gone = torch.from_numpy((~keep[axis.where]).nonzero()[0]).to(net.device)
                    narrowed[axis.tensor] = narrowed[axis.tensor].index_fill(axis.dim, gone, 0)
            lost[group.name] = 1 - float(synaptic_flow(net, narrowed, image)) / dense
    return lost
