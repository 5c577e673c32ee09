"""The recipes: named ways from a model and a budget to a plan. A paper is a few lines here, not a module.

reconvene  unstructured pruning at initialisation -> sensitivity evaluator -> structured pruning of the layers that bear
           it (Eccles et al. 2024); the rectifier runs after the cut, see `surgery.rectify`
global     channels of all layers ranked together by their score (as SNAP, 3SP and PreCrop-like methods do)
uniform    every layer keeps the same share: the baseline
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from prunit.allocate import Budget, Constraints, Densities, Target, by_density, global_threshold, uniform
from prunit.allocate.search import widest
from prunit.batches import Batch
from prunit.costs import Cost, cost_of, named_widths
from prunit.errors import BudgetError, ModelError, PlanError, ScoreError, unknown
from prunit.graph import ChannelGraph, Group
from prunit.plans import Plan, Scores, Widths, choose
from prunit.recipe.collapse import collapse
from prunit.recipe.config import PruneConfig
from prunit.scores import Saliency, Score, WeightScores, find, name_of, per_channel, score_weights
from prunit.scores.per_cost import macs_per_weight, per_cost
from prunit.sensitivity import flow_lost

OnRound = Callable[[int, int], None]

Found = tuple[Scores, Widths, dict[str, str]]
"""Scores of channels, widths, and what there is to say about the width of a group."""


@dataclass(frozen=True)
class Decision:
    """A plan, what it costs beside the dense model, and why each group got its width."""

    plan: Plan
    cost: Cost
    dense: Cost
    why: Mapping[str, str]
    seconds: float


@dataclass(frozen=True)
class Recipe:
    """A way to widths: from the ranking of weights to a channel score and the widths that meet the target."""

    line: str
    score: str
    widths: "Callable[[_Case], Found]"


@dataclass(frozen=True)
class _Case:
    """What a recipe decides on."""

    model: nn.Module
    graph: ChannelGraph
    target: Target
    method: Score
    score: str
    weights: WeightScores
    batches: Sequence[Batch]
    config: PruneConfig


_STREAM_PATIENCE = 3.0
"""How much narrower the other layers may get before a residual stream shrinks too; a judgement, not a result."""


def decide(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Sequence[Batch],
    budget: Budget,
    config: PruneConfig,
    *,
    score: Score | Saliency | None = None,
    on_round: OnRound | None = None,
) -> Decision:
    """The plan of `config.recipe` within the budget; the model is left as it was.

    `score` is a method of the user's in place of `config.score`. Raises `BudgetError` with the closest reachable point.
    """
    started = time.perf_counter()
    recipe, method = method_of(config, score)
    name = name_of(score or config.score or recipe.score)
    dense = cost_of(graph)
    if method.needs_data and not any(len(y_B) for _, y_B in batches):
        raise ScoreError(
            f"score '{name}' needs images and their classes: pass batches=[(x_BCHW, y_B)], on the command line --data"
        )
    target = first_reachable(graph, budget, config)  # before the scores: they take longer than it does to refuse
    weights = score_weights(
        model,
        graph,
        _costed(method, graph, budget, config),
        batches,
        density=sparsest(budget, dense),
        seed=config.seed,
        on_round=on_round,
    )
    case = _Case(model, target.graph, target, method, name, weights, batches, config)
    scores, widths, why = recipe.widths(case)
    return _decision(choose(target.graph, scores, widths), case, why, dense, time.perf_counter() - started)


def _costed(method: Score, graph: ChannelGraph, budget: Budget, config: PruneConfig) -> Score:
    """The score for each unit of what the budget limits most, where no evaluator is there to see to it.

    A weight is one parameter, so only multiply-adds make a difference.
    """
    if config.recipe != "reconvene" or config.evaluator != "none":
        return method
    dense = cost_of(graph)
    tightest = min(budget.limits, key=lambda limit: Budget((limit,)).tightest_share(dense))
    return per_cost(method, macs_per_weight(graph)) if tightest.key == "macs" else method


def sparsest(budget: Budget, dense: Cost) -> float:
    """The density down to which weights are thinned out and scored again.

    Reconvene's masks are about four to eight times sparser than the budget before enough of their filters are empty.
    """
    return max(budget.tightest_share(dense) / 8, 1e-4)


def method_of(config: PruneConfig, score: Score | Saliency | None = None) -> tuple[Recipe, Score]:
    """The recipe and the score that a configuration names, or the score given; `UnknownNameError` if one is unknown."""
    if config.recipe not in RECIPES:
        raise unknown("recipe", config.recipe, RECIPES)
    recipe = RECIPES[config.recipe]
    method = find(score or config.score or recipe.score)
    return recipe, method if config.rounds is None else replace(method, rounds=config.rounds)


def constraints_of(config: PruneConfig) -> Constraints:
    """What a configuration asks of widths; `ConfigError` for what can never hold."""
    return Constraints(
        round_to=config.round_to,
        min_width=config.min_width,
        min_share=config.min_share,
        limits=config.limits,
        keep_first=config.keep_first,
        keep_last=config.keep_last,
    )


def first_reachable(graph: ChannelGraph, budget: Budget, config: PruneConfig) -> Target:
    """The budget on the graph, with residual streams whole or free to shrink; `BudgetError` if it cannot be met.

    With `residual="auto"` streams stay whole while the other layers need not get more than `_STREAM_PATIENCE` times
    narrower for it than if every layer kept the same share. A stream that a limit narrows is as wide as that allows.
    """
    free = Target(graph, budget, constraints_of(config))
    whole = free.keeping([g.name for g in free.graph.groups if g.coupled and not g.pinned], "residual stream")
    if config.residual == "prune":
        free.check_reachable()
        return free
    if config.residual == "auto":
        free.check_reachable()
        # The share that all layers would keep if the streams shrank along, and what that leaves if they do not.
        share = widest(free, lambda share: share * graph.sizes)[free.graph.free].sum() / max(
            graph.sizes[free.graph.free].sum(), 1
        )
        return whole if whole.met_by(whole.allowed.down(share / _STREAM_PATIENCE * graph.sizes)) else free
    if whole.met_by(whole.floor):
        return whole
    try:
        whole.check_reachable()
    except BudgetError as error:
        if not free.met_by(free.floor):
            raise
        raise BudgetError(f"{error}; it can be met with prune.residual=auto", error.closest) from error
    return whole


def _decision(plan: Plan, case: _Case, why: dict[str, str], dense: Cost, seconds: float) -> Decision:
    cost = cost_of(case.graph, plan)
    for name, most in case.target.most.items():
        if cost.as_dict()[name] > most:
            raise BudgetError(f"the plan costs {cost.as_dict()[name]:,} {name}, more than the {most:,} asked for")
    if not case.target.allowed.hold(np.array([plan.widths[g.name] for g in case.graph.groups])):
        raise PlanError(f"recipe '{case.config.recipe}' breaks the constraints on widths: {case.target.constraints}")
    config, why = case.config, {g.name: _reason(g, plan, case, why) for g in case.graph.groups}
    origin: dict[str, Any] = {
        "recipe": config.recipe,
        "score": case.score,
        "budget": str(case.target.budget),
        "seed": config.seed,
        "residual": config.residual,
        "why": why,
    }
    if config.recipe == "reconvene":
        origin["evaluator"] = config.evaluator
    if str(case.target.constraints):
        origin["constraints"] = str(case.target.constraints)
    return Decision(Plan(plan.keep, plan.dense, origin, plan.inputs), cost, dense, why, seconds)


def _reason(group: Group, plan: Plan, case: _Case, why: Mapping[str, str]) -> str:
    """Why a group has its width: what holds for every recipe first, then what the recipe says."""
    kept = len(plan.keep[group.name])
    if group.pinned:
        return f"whole: {group.pinned}"
    allowed, i = case.target.allowed, case.graph.index[group.name]
    if kept == allowed.least[i]:
        by = f", {allowed.least_by[i]}" if allowed.least_by[i] else ""
        return f"minimum width{by}" if kept < group.size else f"whole: its minimum width{by}"
    if kept == allowed.most[i] < group.size:
        return f"maximum width, {allowed.most_by[i]}"
    told = why.get(group.name, "")
    if kept == group.size and not told.startswith("whole"):
        rounded = allowed.step[i] > 1 and plan.widths != dict(plan.dense)
        return f"whole: {told}" if rounded else "whole: the budget asks for no less"
    return told


def example_batch(example: Any) -> Batch:
    """A batch without classes, for scores that need no data, from an example as `trace` takes it."""
    inputs = example.values() if isinstance(example, dict) else example
    first = inputs if isinstance(inputs, Tensor) else next((x for x in inputs if isinstance(x, Tensor)), None)
    if first is None:
        raise ModelError(f"the example holds no tensor: {type(example).__name__}")
    return first, torch.empty(0, dtype=torch.int64)


# ── the recipes ──


def _uniform(case: _Case) -> Found:
    scores = per_channel(case.graph, case.weights, case.method.gather)
    why = {g.name: "the same share as everywhere" + _rounded(case, g) for g in case.graph.groups}
    return scores, uniform(case.target, scores), why


def _global(case: _Case) -> Found:
    scores = per_channel(case.graph, case.weights, case.method.gather)
    widths = global_threshold(case.target, scores)
    return scores, widths, _told(case, scores, widths, "{} of {} rank too low", "none ranks too low")


def _reconvene(case: _Case) -> Found:
    return EVALUATORS[case.config.evaluator](case)


def _emptied(case: _Case) -> Found:
    """Reading 'emptied': thin out the weights until the channels that are empty by then meet the budget.

    A layer of which the mask empties no channel is sensitive and stays whole: tau = 0 in the method card. If the mask
    disconnects the network before that, the widths just before are narrowed further by equal shares.
    """
    scores = per_channel(case.graph, case.weights, "last")
    widths = global_threshold(case.target, scores)
    lost, at = collapse(case.graph, scores)
    if _threshold(case.target, scores, widths) < at:
        some, none = "the mask empties {} of {}", "sensitive, the mask empties none"
        return scores, widths, _told(case, scores, widths, some, none)
    before = np.array([int((scores[g.name] >= at).sum()) for g in case.graph.groups])
    found = widest(case.target, lambda share: share * before)
    end = f"before it cuts the network at '{lost}'; then by equal shares"
    sizes = zip(case.graph.groups, before, strict=True)
    why = {g.name: f"the mask empties {g.size - left} of {g.size} {end}{_rounded(case, g)}" for g, left in sizes}
    return scores, named_widths(case.graph, found), why


def _threshold(target: Target, scores: Scores, widths: Widths) -> float:
    """The highest score that is gone for the budget's sake: the last channel to go never comes back.

    What a group loses to a limit on its width goes whatever its score.
    """
    cut = [g for g, most in zip(target.graph.groups, target.ceiling, strict=True) if widths[g.name] < most]
    gone = (float(scores[g.name].sort().values[g.size - widths[g.name] - 1]) for g in cut)
    return max(gone, default=-math.inf)


def _told(case: _Case, scores: Scores, widths: Widths, some: str, none: str) -> dict[str, str]:
    """What a threshold on channel scores did to each group; `some` says how many of its channels are below it."""
    threshold = _threshold(case.target, scores, widths)
    below = np.array([int((scores[g.name] <= threshold).sum()) for g in case.graph.groups])
    left = case.target.allowed.up(case.graph.sizes - below)
    why: dict[str, str] = {}
    for i, g in enumerate(case.graph.groups):
        spared = widths[g.name] - left[i]
        back = f"; the budget spares {spared}" if spared > 0 else ""
        told = some.format(below[i], g.size) + _rounded(case, g) + back if below[i] else none
        why[g.name] = told if widths[g.name] < g.size else f"whole: {told}"
    return why if threshold > -math.inf else {}


def _rounded(case: _Case, group: Group) -> str:
    """What there is to add about a group whose widths go in steps."""
    in_steps = case.target.allowed.step[case.graph.index[group.name]] > 1
    return f", rounded to {case.target.constraints.round_to}" if in_steps else ""


def _density(case: _Case) -> Found:
    """Reading 'density': a layer is sensitive if the mask leaves it denser than the network; others C sqrt(density).

    Which layers are sensitive hangs on the mask's density, and that on the budget: start from the budget's share. If
    the layers that are left cannot meet the budget, only those more than twice, four times … as dense stay whole.
    """
    densities = Densities(case.graph, case.weights)
    share = case.target.budget.tightest_share(case.target.dense)
    by_group, overall = densities.at(_dial_of(densities, share))

    def sensitive(tau: float) -> list[str]:
        free = [g.name for g in case.graph.groups if not g.pinned]
        return [n for n in free if by_group[case.graph.index[n]] > tau * overall]

    return _relaxing(case, densities, sensitive, (1, 2, 4, 8, 16), "over {:g} times as dense as the network's mask")


def _score(case: _Case) -> Found:
    """Reading 'score': a layer is sensitive if narrowing it alone loses much synaptic flow, relative to the worst one.

    Each layer is narrowed to the width that the density rule would give it if all layers were narrowed.
    """
    densities = Densities(case.graph, case.weights)
    scores = per_channel(case.graph, case.weights, case.method.gather)
    widths = by_density(case.target, densities)
    lost = flow_lost(case.model, case.graph, scores, widths, case.batches[0])
    worst = max(lost.values(), default=0.0) or 1.0

    def sensitive(tau: float) -> list[str]:
        return [name for name, value in lost.items() if value / worst > tau]

    return _relaxing(
        case, densities, sensitive, (0.5, 0.7, 0.9), "narrowing it loses over {:g} of the worst one's flow"
    )


def _none(case: _Case) -> Found:
    """No evaluator: every layer bears pruning, each keeps C sqrt(density)."""
    scores = per_channel(case.graph, case.weights, case.method.gather)
    return scores, by_density(case.target, Densities(case.graph, case.weights)), _narrowed(case)


def _relaxing(
    case: _Case,
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
            told = {n: f"whole: sensitive, {reason.format(tau)}" for n in whole}
            return scores, by_density(target, densities), _narrowed(case) | told
    return scores, by_density(case.target, densities), _narrowed(case)


def _narrowed(case: _Case) -> dict[str, str]:
    return {g.name: "√(density of its mask)" + _rounded(case, g) for g in case.graph.groups}


def _dial_of(densities: Densities, share: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if densities.at(middle)[1] < share else (low, middle)
    return low


EVALUATORS: Final[Mapping[str, Callable[[_Case], Found]]] = {
    "emptied": _emptied,
    "density": _density,
    "score": _score,
    "none": _none,
}

RECIPES: Final[Mapping[str, Recipe]] = {
    "reconvene": Recipe(
        "prune weights at initialisation, then whole filters of the layers that bear it (Eccles et al. 2024)",
        "synflow",
        _reconvene,
    ),
    "global": Recipe("one ranking of all channels, lowest scores go", "snip", _global),
    "uniform": Recipe("every layer keeps the same share of its channels", "magnitude", _uniform),
}
