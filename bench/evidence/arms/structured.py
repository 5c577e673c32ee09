"""Whole channels at initialisation: Reconvene's readings and the structured baselines."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.evidence.case import Case, Pruned, cut
from prunit.allocate import Densities, by_density, global_threshold
from prunit.batches import Batch
from prunit.cut.plans import Scores, choose
from prunit.cut.surgery import Rectify
from prunit.prices.costs import cost_model
from prunit.recipe.recipes import decide, sparsest
from prunit.scores import per_channel, score_weights
from prunit.scores.network import Network
from prunit.scores.snip import gradient

Prune = Callable[[Case], Pruned]


def reconvene(evaluator: str, rectifier: Rectify, *, round_to: int | str = 1) -> Prune:
    """The paper's recipe in one reading of its evaluator and of its rectifier; single channels, or widths in steps."""
    return _by_recipe({"recipe": "reconvene", "evaluator": evaluator, "round_to": round_to}, rectifier)


def uniform_width(case: Case) -> Pruned:
    """Every layer keeps the same share of its channels; the widths alone differ from the default recipe."""
    return _by_recipe({"recipe": "uniform"}, "reinit")(case)


def width_multiplier(case: Case) -> Pruned:
    """The same with residual streams as narrow as everything else: the network that its authors scale by one number."""
    return _by_recipe({"recipe": "uniform", "residual": "prune"}, "all")(case)


def by_complexity(mode: str) -> Prune:
    """Layers lose channels by their share of the complexity that a mode means, expected form; new weights."""
    return _by_recipe({"recipe": "complexity", "mode": mode}, "reinit")


def global_ranking(score: str) -> Prune:
    """Channels of all layers ranked together by a score of weights, summed."""
    return _by_recipe({"recipe": "global", "score": score}, "reinit")


def _by_recipe(settings: Mapping[str, Any], rectifier: Rectify) -> Prune:
    def prune(case: Case) -> Pruned:
        dense = case.make()
        config = case.config.model_validate(case.config.model_dump() | dict(settings))
        return cut(case, decide(dense, case.graph, case.batches, case.budget, config).plan, rectifier, dense)

    return prune


def density_to_width(rectifier: Rectify) -> Prune:
    """Every layer narrowed to C √density of a SynFlow mask: no layer is spared. With fresh weights, PreCrop."""

    def prune(case: Case) -> Pruned:
        dense, graph = case.make(), case.target.graph
        density = sparsest(case.target)
        weights = score_weights(dense, graph, "synflow", case.batches, density=density, seed=case.task.seed)
        widths = by_density(case.target, Densities(graph, weights))
        return cut(case, choose(graph, per_channel(graph, weights, "last"), widths), rectifier, dense)

    return prune


def random_filters(case: Case) -> Pruned:
    """Channels of all layers drawn at random, every one equally likely."""
    return _ranked(case, random_scores(case, case.task.seed), "reinit")


def random_scores(case: Case, seed: int) -> Scores:
    """A number between 0 and 1 for every channel."""
    generator = torch.Generator().manual_seed(seed)
    return {group.name: torch.rand(group.size, generator=generator) for group in case.graph.groups}


def snap(case: Case) -> Pruned:
    """SNAP, one shot: the channels whose gates the loss feels least go; weights are inherited, as in its code."""
    return _ranked(case, gate_scores(case), "none")


def three_sp(case: Case) -> Pruned:
    """3SP's compute-aware form: the same divided by the multiply-adds that the channel costs; weights are renewed."""
    model, sizes = cost_model(case.graph), case.graph.sizes
    dense = model.at(sizes).macs
    scores: dict[str, Tensor] = {}
    for i, (name, felt) in enumerate(gate_scores(case).items()):
        narrower = sizes - (np.arange(len(sizes)) == i)
        # A group of one channel cannot be narrowed; all of it is what the channel costs.
        each = dense - model.at(narrower).macs if sizes[i] > 1 else dense
        scores[name] = felt / max(each, 1)
    return _ranked(case, scores, "reinit")


def gate_scores(case: Case) -> Scores:
    """|dL/dc| of a gate c = 1 on every channel, where the layers that read it get it: |sum of w dL/dw over them|.

    In front of a batch norm a gate would be without effect; behind it is where a channel's readers are.
    """
    graph = case.graph
    signed = score_weights(case.make(), graph, _weight_times_gradient, case.batches, seed=case.task.seed)
    total = np.zeros(int(graph.offsets[-1]))
    for axis in graph.axes:
        if axis.reads and axis.tensor in signed:
            weight = signed[axis.tensor]
            others = [d for d in range(weight.ndim) if d != axis.dim]
            felt = weight.double().sum(others).numpy()
            np.add.at(total, axis.where[axis.where >= 0], felt[axis.where >= 0])
    spans = zip(graph.groups, graph.offsets, strict=False)
    return {g.name: torch.from_numpy(np.abs(total[start : start + g.size])) for g, start in spans}


def _weight_times_gradient(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    g = gradient(net, weights, batches)
    return {name: weight * g[name] for name, weight in weights.items()}


def _ranked(case: Case, scores: Scores, rectifier: Rectify) -> Pruned:
    """Channels of all layers ranked together, cut and rectified."""
    widths = global_threshold(case.target, scores)
    return cut(case, choose(case.target.graph, scores, widths), rectifier)
