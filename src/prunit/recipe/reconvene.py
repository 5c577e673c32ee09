"""Reconvene (Eccles et al. 2024): which layers bear structured pruning, in several readings of its evaluator.

docs/cards/reconvene.md says what the paper tells and what is ours. The rectifier runs after the cut, see
`surgery.rectify`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from prunit.allocate import Densities, by_density, global_threshold
from prunit.allocate.search import widest
from prunit.prices.costs import named_widths
from prunit.recipe.case import Case, Found, rounded, threshold, told
from prunit.recipe.collapse import collapse
from prunit.scores import per_channel
from prunit.sensitivity import flow_lost


def reconvene(case: Case) -> Found:
    """The widths that the configured evaluator finds."""
    return EVALUATORS[case.config.evaluator](case)


def _emptied(case: Case) -> Found:
    """Reading 'emptied': thin out the weights until the channels that are empty by then meet the budget.

    A layer of which the mask empties no channel is sensitive and stays whole: tau = 0 in the method card. If the mask
    disconnects the network before that, the widths just before are narrowed further by equal shares.
    """
    scores = per_channel(case.graph, case.weights, "last")
    widths = global_threshold(case.target, scores)
    lost, at = collapse(case.graph, scores)
    if threshold(case.target, scores, widths) < at:
        some, none = "the mask empties {} of {}", "sensitive, the mask empties none"
        return scores, widths, told(case, scores, widths, some, none)
    before = np.array([int((scores[g.name] >= at).sum()) for g in case.graph.groups])
    found = widest(case.target, lambda share: share * before)
    end = f"before it cuts the network at '{lost}'; then by equal shares"
    sizes = zip(case.graph.groups, before, strict=True)
    why = {g.name: f"the mask empties {g.size - left} of {g.size} {end}{rounded(case, g)}" for g, left in sizes}
    return scores, named_widths(case.graph, found), why


def _density(case: Case) -> Found:
    """Reading 'density': a layer is sensitive if the mask leaves it denser than the network; others C sqrt(density).

    Which layers are sensitive hangs on the mask's density, and that on the budget: start from the budget's share. If
    the layers that are left cannot meet the budget, only those more than twice, four times … as dense stay whole.
    """
    densities = case.densities()
    share = case.target.tightest()[1]
    by_group, overall = densities.at(_dial_of(densities, share))

    def sensitive(tau: float) -> list[str]:
        free = [g.name for g in case.graph.groups if not g.pinned]
        return [n for n in free if by_group[case.graph.index[n]] > tau * overall]

    return _relaxing(case, densities, sensitive, (1, 2, 4, 8, 16), "over {:g} times as dense as the network's mask")


def _score(case: Case) -> Found:
    """Reading 'score': a layer is sensitive if narrowing it alone loses much synaptic flow, relative to the worst one.

    Each layer is narrowed to the width that the density rule would give it if all layers were narrowed.
    """
    densities = case.densities()
    scores = per_channel(case.graph, case.weights, case.method.gather)
    widths = by_density(case.target, densities)
    lost = flow_lost(case.model, case.graph, scores, widths, case.batches[0])
    worst = max(lost.values(), default=0.0) or 1.0

    def sensitive(tau: float) -> list[str]:
        return [name for name, value in lost.items() if value / worst > tau]

    return _relaxing(
        case, densities, sensitive, (0.5, 0.7, 0.9), "narrowing it loses over {:g} of the worst one's flow"
    )


def _none(case: Case) -> Found:
    """No evaluator: every layer bears pruning, each keeps C sqrt(density)."""
    scores = per_channel(case.graph, case.weights, case.method.gather)
    return scores, by_density(case.target, case.densities()), _narrowed(case)


def _relaxing(
    case: Case,
    densities: Densities,
    sensitive: Callable[[float], list[str]],
    thresholds: Sequence[float],
    reason: str,
) -> Found:
    """Widths by density with the sensitive layers whole, at the strictest threshold that the budget allows."""
    scores = per_channel(case.graph, case.weights, case.method.gather)
    first = case.config.tau
    for tau in (first, *(t for t in thresholds if t > first)) if first is not None else thresholds:
        whole = sensitive(tau)
        target = case.target.keeping(whole, "sensitive")
        if target.met_by(target.floor):
            spared = {n: f"whole: sensitive, {reason.format(tau)}" for n in whole}
            return scores, by_density(target, densities), _narrowed(case) | spared
    return scores, by_density(case.target, densities), _narrowed(case)


def _narrowed(case: Case) -> dict[str, str]:
    return {g.name: "√(density of its mask)" + rounded(case, g) for g in case.graph.groups}


def _dial_of(densities: Densities, share: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if densities.at(middle)[1] < share else (low, middle)
    return low


EVALUATORS: Final[Mapping[str, Callable[[Case], Found]]] = {
    "emptied": _emptied,
    "density": _density,
    "score": _score,
    "none": _none,
}
