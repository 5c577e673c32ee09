"""The recipes: named ways from a model and a budget to a plan. A paper is a few lines here, not a module.

reconvene  unstructured pruning at initialisation -> sensitivity evaluator -> structured pruning of the layers that bear
           it (Eccles et al. 2024); the rectifier runs after the cut, see `surgery.rectify`
global     channels of all layers ranked together by their score (as SNAP, 3SP and PreCrop-like methods do)
complexity layers lose channels by their share of the parameters, multiply-adds or memory (Zawish et al. 2024)
uniform    every layer keeps the same share: the baseline
balanced   no layer is thin: the largest product of what layers keep, steps priced by what the budget limits
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import nn

from prunit.allocate import (
    MEASURED,
    Budget,
    Constraints,
    Densities,
    Meter,
    Target,
    balanced,
    global_threshold,
    uniform,
)
from prunit.batches import Batch
from prunit.cut.plans import Plan, choose
from prunit.errors import BudgetError, ConfigError, ModelError, PlanError
from prunit.graph import ChannelGraph, Group
from prunit.graph.running import example_tensors
from prunit.prices.costs import Cost, cost_of, named_widths
from prunit.recipe.case import Case, Found, rounded, told
from prunit.recipe.complexity import complexity
from prunit.recipe.config import PruneConfig
from prunit.recipe.devices import meters_of, step_of
from prunit.recipe.offered import RECIPES, Recipe, constraints_in, recipe_of
from prunit.recipe.reconvene import reconvene
from prunit.recipe.request import needs_data
from prunit.recipe.stopwatch import Timing
from prunit.recipe.streams import reachable, stay_whole
from prunit.recipe.within_ram import first_narrowing, settled
from prunit.scores import Saliency, Score, WeightScores, find, name_of, per_channel, score_weights
from prunit.scores.per_cost import macs_per_weight, per_cost
from prunit.shown import Shown

if TYPE_CHECKING:
    from prunit.recipe.blueprint import Blueprint

OnRound = Callable[[int, int], None]

Way = Callable[[Case], Found]
"""From the ranking of weights to a channel score and the widths that meet the target."""


@dataclass(frozen=True, repr=False)
class Decision(Shown):
    """A plan, what it costs beside the dense model, and why each group got its width."""

    plan: Plan
    cost: Cost
    dense: Cost
    why: Mapping[str, str]
    seconds: float
    used: Mapping[str, float]
    """How much of each limit of the budget the plan uses, 1.0 = all of it."""
    predicted: Mapping[str, tuple[float, float]]
    """What a device takes by its profile, `latency_ms` or `energy_mj`: the dense model and the plan."""
    measured: tuple[Timing, ...] = ()
    """What this machine took, one for each batch size, where the plan was chosen by it."""

    @property
    def binding(self) -> str:
        """The limit that keeps the plan from being wider, '' where nothing had to be pruned."""
        return max(self.used, key=lambda limit: self.used[limit]) if self.used and self.cost != self.dense else ""


@dataclass(frozen=True, repr=False)
class Scored(Shown):
    """A model whose weights were scored once: plans of several budgets and settings follow from it."""

    model: nn.Module
    graph: ChannelGraph
    batches: Sequence[Batch]
    method: Score
    score: str
    weights: WeightScores
    meters: Mapping[str, Meter]

    @cached_property
    def densities(self) -> Densities:
        """Of every group under any mask: all weights sorted, which takes longer than any plan."""
        return Densities(self.graph, self.weights)

    def decide(self, budget: Budget, config: PruneConfig, *, target: Target | None = None) -> Decision:
        """The plan of `config.recipe` within a budget; `target` is that budget on the graph, if it is there already."""
        started = time.perf_counter()
        config = _as_meant(config)
        target = target or first_reachable(self.graph, budget, config, self.meters)
        case = Case(
            *(self.model, target.graph, target, self.method, self.score, self.weights, self.batches, config),
            meters=self.meters,
            densities=lambda: self.densities,
        )
        found = settled(case, WAYS[config.recipe], lambda asked: _asked(self.graph, budget, asked, self.meters))
        case = found.case
        plan = choose(case.graph, found.scores, named_widths(case.graph, found.widths))
        return _decision(plan, case, found.why, cost_of(self.graph), time.perf_counter() - started)


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

    `score` is a method of the user's in place of `config.score`. Raises `BudgetError` with the closest reachable point,
    and `ConfigError` for a limit that is met by timing plans: that takes an engine, see `recipe.deciding`.
    """
    started = time.perf_counter()
    if budget.timed:
        raise ConfigError(
            f"budget {budget.timed} is met by timing plans, as prunit.plan and build do; name the profile of a device"
            f" ({budget.timed}@FILE) to predict it"
        )
    scored, target = scored_for(model, graph, batches, budget, config, score=score, on_round=on_round)
    decision = scored.decide(budget, config, target=target)
    return replace(decision, seconds=time.perf_counter() - started)


def scored_for(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Sequence[Batch],
    budget: Budget,
    config: PruneConfig,
    *,
    score: Score | Saliency | None = None,
    on_round: OnRound | None = None,
    blueprint: "Blueprint | None" = None,
) -> tuple[Scored, Target]:
    """The model's weights scored for plans of a budget and others like it, and that budget on the graph.

    `blueprint` is the model's, if there is one already.
    """
    recipe, method = method_of(config, score)
    name = name_of(score or config.score or recipe.score)
    if method.needs_data and not any(len(y_B) for _, y_B in batches):
        raise needs_data(name)
    if budget.on_parts and blueprint is None:
        from prunit.recipe.blueprint import Blueprint

        blueprint = Blueprint(model, graph, batches[0][0][:1])
    meters = meters_of(graph, budget, config, blueprint)
    target = first_reachable(graph, budget, config, meters)
    weights = score_weights(
        model,
        graph,
        _costed(method, target, config),
        batches,
        density=sparsest(target),
        seed=config.seed,
        on_round=on_round,
    )
    return Scored(model, graph, batches, method, name, weights, meters), target


def _costed(method: Score, target: Target, config: PruneConfig) -> Score:
    """The score for each unit of what the budget limits most, where no evaluator is there to see to it.

    A weight is one parameter. What a device measures goes by multiply-adds here, which it has most to do with.
    """
    if config.recipe != "reconvene" or config.evaluator != "none":
        return method
    limit, _ = target.tightest()
    return per_cost(method, macs_per_weight(target.graph)) if limit.key in ("macs", "cycles", *MEASURED) else method


def sparsest(target: Target) -> float:
    """The density down to which weights are thinned out and scored again.

    Reconvene's masks are about four to eight times sparser than the budget before enough of their filters are empty.
    """
    return max(target.tightest()[1] / 8, 1e-4)


def method_of(config: PruneConfig, score: Score | Saliency | None = None) -> tuple[Recipe, Score]:
    """The recipe and the score that a configuration names, or the score given; `UnknownNameError` if one is unknown."""
    recipe = recipe_of(config)
    method = find(score or config.score or recipe.score)
    return recipe, method if config.rounds is None else replace(method, rounds=config.rounds)


def _as_meant(config: PruneConfig) -> PruneConfig:
    """With what `residual=auto` means to a recipe that weighs streams itself."""
    if config.residual == "auto" and recipe_of(config).frees_streams:
        return config.model_copy(update={"residual": "prune"})
    return config


def constraints_of(config: PruneConfig, meters: Mapping[str, Meter] | None = None) -> Constraints:
    """What a configuration asks of widths; `ConfigError` for what can never hold.

    Where a device's profile or a part tells what widths take (`meters`), it does so better than the general table of an
    engine. An accelerator computes blocks of channels, and its widths go in these.
    """
    return constraints_in(config, max((step_of(meter) for meter in (meters or {}).values()), default=0))


def narrowest(
    graph: ChannelGraph, budget: Budget, config: PruneConfig, meters: Mapping[str, Meter] | None = None
) -> Target:
    """The budget on the graph, every group as narrow as the configuration lets it get; `BudgetError` beyond that."""
    config = _as_meant(config)
    meters = meters_of(graph, budget, config) if meters is None else meters
    constraints = constraints_of(config, meters)
    if constraints.round_to == "auto":
        constraints = replace(constraints, narrow=2)
    elif meters and config.round_to == "auto":
        constraints = replace(constraints, round_to=1)
    return reachable(Target(graph, budget, constraints, meters), config)


def first_reachable(
    graph: ChannelGraph, budget: Budget, config: PruneConfig, meters: Mapping[str, Meter] | None = None
) -> Target:
    """The budget on the graph, with residual streams whole or free to shrink; `BudgetError` if it cannot be met.

    Where only ram is limited, groups are whole that are not alive at the peak.
    """
    config = _as_meant(config)
    meters = meters_of(graph, budget, config) if meters is None else meters
    return first_narrowing(_asked(graph, budget, config, meters), config)


def _asked(graph: ChannelGraph, budget: Budget, config: PruneConfig, meters: Mapping[str, Meter]) -> Target:
    constraints = constraints_of(config, meters)
    target = Target(graph, budget, constraints, meters)
    if constraints.round_to == "auto":
        target = _narrow_enough(target, graph, config)
    elif meters and config.round_to == "auto" and not target.met_by(target.floor):
        # Blocks of channels are for speed; a budget that is out of reach with them comes first.
        target = Target(graph, budget, replace(constraints, round_to=1), meters)
    return reachable(target, config)


def _narrow_enough(target: Target, graph: ChannelGraph, config: PruneConfig) -> Target:
    """The target with the widths that save time, and narrower ones where the user's wishes are out of reach without.

    These are the budget itself, and streams that stay whole where single channels would leave them so: a narrower
    stream costs more accuracy than the coarser steps of all other layers bring in time.
    """

    def asked(constraints: Constraints) -> Target:
        return Target(graph, target.budget, constraints, target.meters)

    def reached(found: Target) -> bool:
        return found.met_by(found.floor) or found.met_by(found.ceiling)

    likes = target.constraints
    levels = [target, asked(replace(likes, narrow=1)), asked(replace(likes, narrow=2))]
    within = [found for found in levels if reached(found)]
    if len(within) > 1 and config.residual == "auto" and not stay_whole(within[0]):
        whole = stay_whole(asked(replace(likes, round_to=1)))
        within = [found for found in within if whole and stay_whole(found)] or within
    return next(iter(within), levels[-1])


def _decision(plan: Plan, case: Case, why: dict[str, str], dense: Cost, seconds: float) -> Decision:
    cost, widths = cost_of(case.graph, plan), np.array([plan.widths[g.name] for g in case.graph.groups])
    used = case.target.shares_used({**case.target.figures(widths), **cost.as_dict()})
    for limit, share in used.items():
        if share > 1:
            raise BudgetError(f"the plan takes {share:.4g} times what the budget {limit} allows")
    if not case.target.allowed.hold(widths):
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
    origin |= {name: getattr(config, name) for name in RECIPES[config.recipe].switches}
    if str(case.target.constraints):
        origin["constraints"] = str(case.target.constraints)
    predicted = {name: (meter(case.graph.sizes), meter(widths)) for name, meter in case.meters.items()}
    return Decision(replace(plan, origin=origin), cost, dense, why, seconds, used, predicted)


def _reason(group: Group, plan: Plan, case: Case, why: Mapping[str, str]) -> str:
    """Why a group has its width: what holds for every recipe first, then what the recipe says."""
    kept = len(plan.keep[group.name])
    if group.pinned:
        return f"whole: {group.pinned}"
    allowed, i = case.target.allowed, case.graph.index[group.name]
    if kept == allowed.most[i] < group.size:
        return f"maximum width, {allowed.most_by[i]}"
    if kept == allowed.least[i]:
        by = f", {allowed.least_by[i]}" if allowed.least_by[i] else ""
        return f"minimum width{by}" if kept < group.size else f"whole: its minimum width{by}"
    told = why.get(group.name, "")
    if kept == group.size and not told.startswith("whole"):
        rounded = allowed.step[i] > 1 and plan.widths != dict(plan.dense)
        return f"whole: {told}" if rounded else "whole: the budget asks for no less"
    return told


def example_batch(example: Any) -> Batch:
    """A batch without classes, for scores that need no data, from an example as `trace` takes it."""
    tensors = example_tensors(example)
    if not tensors:
        raise ModelError(f"the example holds no tensor: {type(example).__name__}")
    return tensors[0], torch.empty(0, dtype=torch.int64)


# ── the recipes ──


def _uniform(case: Case) -> Found:
    scores = per_channel(case.graph, case.weights, case.method.gather)
    why = {g.name: "the same share as everywhere" + rounded(case, g) for g in case.graph.groups}
    return scores, uniform(case.target, scores), why


def _balanced(case: Case) -> Found:
    scores = per_channel(case.graph, case.weights, case.method.gather)
    why = {g.name: "its steps lose least of the layers' product for what they save" for g in case.graph.groups}
    return scores, balanced(case.target, scores), why


def _global(case: Case) -> Found:
    scores = per_channel(case.graph, case.weights, case.method.gather)
    widths = global_threshold(case.target, scores)
    return scores, widths, told(case, scores, widths, "{} of {} rank too low", "none ranks too low")


WAYS: Final[Mapping[str, Way]] = {
    "reconvene": reconvene,
    "global": _global,
    "complexity": complexity,
    "uniform": _uniform,
    "balanced": _balanced,
}
"""The way to widths of each of the recipes in `recipe.offered`."""
