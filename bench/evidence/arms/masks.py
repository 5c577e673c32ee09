"""Unstructured pruning at initialisation: weights are masked and stay zero, the tensors keep their dense shapes."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from bench.evidence.case import Case, Pruned
from prunit.errors import BudgetError
from prunit.prices.costs import cost_of
from prunit.recipe.recipes import decide, sparsest
from prunit.scores import per_channel, score_weights
from prunit.scores.per_cost import macs_per_weight
from prunit.train.sparse import KeptZero, zeroed


def thinned(score: str) -> Callable[[Case], Pruned]:
    """The arm that keeps the highest-scored weights within the budget."""

    def prune(case: Case) -> Pruned:
        density = _density(case)
        scores = score_weights(case.make(), case.graph, score, case.batches, density=density, seed=case.task.seed)
        flat = torch.cat([s.reshape(-1) for s in scores.values()])
        order = torch.argsort(flat, descending=True, stable=True)
        kept = torch.zeros(len(flat), dtype=torch.bool)
        kept[order[: _how_many(case, scores, order)]] = True
        parts = kept.split([s.numel() for s in scores.values()])
        return masked(case, {n: part.view(s.shape) for (n, s), part in zip(scores.items(), parts, strict=True)})

    return prune


def counterpart(case: Case) -> Pruned:
    """The mask of which Reconvene's reading 'emptied' drops the empty channels: its unstructured counterpart.

    The channels that go have at most the threshold as their score, and so has every weight that the mask drops.
    """
    dense = case.make()
    config = case.config.model_copy(update={"evaluator": "emptied"})
    decision = decide(dense, case.graph, case.batches, case.budget, config)
    density = sparsest(case.target)
    weights = score_weights(dense, case.graph, "synflow", case.batches, density=density, seed=case.task.seed)
    channels = per_channel(case.graph, weights, "last")
    gone = [
        float(channels[name][sorted(set(range(decision.plan.dense[name])) - set(kept))].max())
        for name, kept in decision.plan.keep.items()
        if len(kept) < decision.plan.dense[name]
    ]
    threshold = max(gone, default=-math.inf)
    return masked(case, {name: weight > threshold for name, weight in weights.items()})


def masked(case: Case, masks: Mapping[str, Tensor]) -> Pruned:
    """The dense model with these weights zero from the start and in every step of its training."""
    model = case.make()
    zeroed(model, masks)
    KeptZero(model, masks)
    share = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
    return Pruned(model, None, masks, note=f"{share:.3%} of the weights")


def _density(case: Case) -> float:
    """The density down to which an iterative score thins out: what is asked for."""
    key, _, text = case.task.budget.partition("=")
    if key == "density":
        return share_of(text)
    if key == "macs":
        return max(case.target.tightest()[1] / 2, 1e-4)
    total = sum(math.prod(case.graph.tensors[layer.weight].shape) for layer in case.graph.layers)
    return max(_room(case, total) / total, 1e-4)


def _room(case: Case, total: int) -> int:
    """How many weights a budget of parameters leaves, after the biases and norms, which stay."""
    dense = cost_of(case.graph)
    most = int(case.budget.limits[0].of(dense.as_dict()))
    room = most - (dense.params - total)
    if room < 1:
        raise BudgetError(
            f"{case.task.budget} asks for at most {most:,} parameters; {dense.params - total:,} are biases and norms,"
            " which a mask of weights cannot drop: ask for more"
        )
    return room


def _how_many(case: Case, scores: Mapping[str, Tensor], order: Tensor) -> int:
    """How many of the weights in this order the budget leaves."""
    key, _, text = case.task.budget.partition("=")
    if key == "density":
        return max(1, math.floor(share_of(text) * len(order)))
    if key == "params":
        return min(_room(case, len(order)), len(order))
    macs = macs_per_weight(case.graph)
    each = np.concatenate([np.full(s.numel(), macs[name]) for name, s in scores.items()])
    most = case.budget.limits[0].of(cost_of(case.graph).as_dict())
    return int(np.searchsorted(np.cumsum(each[order.numpy()]), most, side="right"))


def share_of(text: str) -> float:
    """A share written as 1/31.6 or 0.05."""
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)


def sparse_cost(case: Case, masks: Mapping[str, Tensor]) -> tuple[int, int]:
    """Parameters that are not masked, and multiply-adds with them: what a device without waste would pay."""
    dense = cost_of(case.graph)
    gone = {name: int((~mask).sum()) for name, mask in masks.items()}
    saved = sum(gone.get(layer.weight, 0) * layer.positions for layer in case.graph.layers)
    return dense.params - sum(gone.values()), dense.macs - saved
