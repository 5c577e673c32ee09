"""Search over widths under the same budget: what a user gets who tries widths instead of ranking channels.

Both draw widths at random and narrow them alike until the budget is met. One trains each candidate for a short while
on most of the training images and keeps the one that is best on the others; the test images are not looked at. The
other asks a zero-cost proxy (the synaptic flow; Abdelfattah et al. 2021) of many more.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from bench.evidence.arms.structured import random_scores
from bench.evidence.case import Case, Pruned, cut
from prunit.allocate.search import widest
from prunit.batches import Dataset, Split, stratified
from prunit.cut.plans import Plan, choose
from prunit.prices.costs import named_widths
from prunit.recipe.source import example_of
from prunit.scores.network import Network, untouched
from prunit.scores.synflow import synaptic_flow
from prunit.train import train
from prunit.train.config import final_accuracy

_NARROWEST = 0.1
"""Before the budget is looked at, layers keep this share or more."""
_HELD_OUT = 0.2


def random_search(case: Case) -> Pruned:
    """The widths of the candidate that learns best in a few epochs, trained from the start."""
    short = case.task.training.model_copy(update={"epochs": case.task.search.epochs})
    held_out = _validation(case.dataset)
    accuracies: list[float] = []
    plans = candidates(case, case.task.search.candidates)
    for plan in plans:
        *_, last = train(cut(case, plan, "reinit").model, held_out, short)
        accuracies.append(final_accuracy([last]))
    best = int(np.argmax(accuracies))
    return replace(cut(case, plans[best], "reinit"), note=f"candidate {best + 1} of {len(plans)}")


def proxy_search(case: Case) -> Pruned:
    """The widths of the candidate with the most synaptic flow."""
    plans = candidates(case, case.task.search.proxies)
    image = example_of(case.dataset).shape[1:]
    flows = [flow(cut(case, plan, "reinit").model, case, image) for plan in plans]
    best = int(np.argmax(flows))
    return replace(cut(case, plans[best], "reinit"), note=f"candidate {best + 1} of {len(plans)}")


def candidates(case: Case, n: int) -> list[Plan]:
    """Plans of random widths, as wide as the budget allows."""
    target, rng = case.target, np.random.default_rng(case.task.seed)
    sizes, scores = target.graph.sizes, random_scores(case, case.task.seed)
    plans = []
    for _ in range(n):
        share = rng.uniform(_NARROWEST, 1, len(sizes))

        def widths_at(dial: float, share: np.ndarray = share) -> np.ndarray:
            return sizes * np.minimum(1, dial * share / share.min())

        plans.append(choose(target.graph, scores, named_widths(target.graph, widest(target, widths_at))))
    return plans


def flow(model: nn.Module, case: Case, image: torch.Size) -> float:
    """SynFlow's R, in float64. The sum of its scores, the proxy, is R times the number of layers: the same order."""
    with untouched(model, batch_statistics=False), torch.no_grad():
        net = Network(model, case.graph)
        return float(synaptic_flow(net, {n: w.abs().double() for n, w in net.weights.items()}, image))


def _validation(dataset: Dataset) -> Dataset:
    """The training images alone, a part of them, evenly from the classes, to test on."""
    y_B = dataset.train.y_B
    held = torch.zeros(len(y_B), dtype=torch.bool)
    held[stratified(y_B, int(_HELD_OUT * len(y_B)), seed=0)] = True
    parts = [Split(dataset.train.x_BCHW[part], y_B[part]) for part in (~held, held)]
    return replace(dataset, train=parts[0], test=parts[1])
