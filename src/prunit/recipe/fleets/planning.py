"""A plan for each device of a fleet, and the fewest of these plans that serve all devices: known before any training.

Every device has a plan of its own, made for its limits alone. A plan may serve another device too if it is within all
of that one's limits and keeps most of what the device's own plan has (`serves`). Where two devices' own plans are about
as large and neither is within the other's limits, one within both is looked for (`_between`). Of all these the
smallest set is chosen that serves everybody (`cover.fewest`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from time import perf_counter
from typing import Final

import numpy as np
from torch import nn

from prunit.allocate import KEYS, Budget, Limit, Meter, Target
from prunit.batches import Batch
from prunit.cut.plans import keep_all
from prunit.edge.served import Fleet, Served
from prunit.errors import BudgetError
from prunit.graph import ChannelGraph
from prunit.prices.costs import cost_of, width_array
from prunit.recipe.config import PruneConfig
from prunit.recipe.devices import meters_of
from prunit.recipe.fleets.cover import fewest, served_by
from prunit.recipe.fleets.goals import as_written
from prunit.recipe.recipes import Decision, Scored, scored_for

DENSE: Final = "dense"
_PAIRS, _TRIES = 12, 4
"""So many pairs of devices are looked at for a plan within both their limits; plans that are made for one of them."""

OnDevice = Callable[[str, str], None]
"""Called with a device, and with what there is to say of it ('' while its plan is made)."""


@dataclass(frozen=True)
class Fit:
    """A device: its limits on the graph, and the plan that was made for them alone; without one `problem` says why."""

    name: str
    target: Target
    own: Decision | None = None
    problem: str = ""
    dense: bool = False
    """The model as it is meets the limits."""
    seconds: float = 0.0
    """What making the plan took."""

    def met_by(self, decision: Decision) -> bool:
        """The plan is within all limits of the device."""
        return decision is self.own or self.target.met_by(self.widths(decision))

    def widths(self, decision: Decision) -> np.ndarray:
        """Of the plan, in the graph's order."""
        return width_array(self.target.graph, decision.plan.widths)

    def kept(self, decision: Decision) -> float:
        """What a plan has of the device's own one: of its multiply-adds or parameters, whichever is less."""
        assert self.own is not None
        pairs = ((decision.cost.macs, self.own.cost.macs), (decision.cost.params, self.own.cost.params))
        return min(1.0 if theirs == ours else theirs / max(ours, 1) for theirs, ours in pairs)


@dataclass(frozen=True)
class Planned:
    """Which variant serves which device, the plan of each variant that is to be trained, and how long that took."""

    fleet: Fleet
    decisions: Mapping[str, Decision]
    seconds: float


def planned_for(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Sequence[Batch],
    budgets: Mapping[str, Budget],
    config: PruneConfig,
    *,
    slack: float,
    on_device: OnDevice = lambda name, told: None,
) -> Planned:
    """The fewest plans that serve all devices, `budgets` by device; a variant is called after a device that it serves.

    The model is left as it was. A device that no plan can serve is told with the closest point, and does not hold up
    the others. Raises `BudgetError` if that is so of all of them, and `ModelError` where a profile lacks layers.
    """
    fits = fits_of(model, graph, batches, budgets, config, on_device=on_device)
    return fewest_of(model, graph, batches, fits, config, slack=slack, on_device=on_device)


def fits_of(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Sequence[Batch],
    budgets: Mapping[str, Budget],
    config: PruneConfig,
    *,
    on_device: OnDevice = lambda name, told: None,
) -> list[Fit]:
    """Each device with the plan that was made for it alone; those that ask for the same share one. As `planned_for`."""
    made: dict[frozenset[tuple[str, float | None, float | None, str]], Fit] = {}
    fits: list[Fit] = []
    for name, budget in budgets.items():
        on_device(name, "")
        if budget.asks not in made:
            made[budget.asks] = _fit(name, model, graph, batches, budget, config)
        fits.append(replace(made[budget.asks], name=name))
        if fits[-1].problem:
            on_device(name, f"no variant for device '{name}': {fits[-1].problem}")
    if all(fit.problem for fit in fits):
        told = "; ".join(f"{fit.name}: {fit.problem}" for fit in fits)
        raise BudgetError(f"no device of the fleet can be served: {told}")
    return fits


def fewest_of(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Sequence[Batch],
    fits: Sequence[Fit],
    config: PruneConfig,
    *,
    slack: float,
    on_device: OnDevice = lambda name, told: None,
) -> Planned:
    """The fewest plans that serve these devices, and the table of who is served by which."""
    started = perf_counter()
    to_serve = [fit for fit in fits if fit.own and not fit.dense]
    plans = {fit.own.plan.hash: fit.own for fit in to_serve if fit.own}
    chosen = _chosen(plans, to_serve, slack)
    if len(set(chosen.values())) > 1:

        @lru_cache(maxsize=2)  # the scores of a large network are as large as itself
        def scored(budget: Budget) -> Scored:
            return scored_for(model, graph, batches, budget, config)[0]

        for a, b in _near(to_serve, slack):
            on_device(a.name, "")
            for first, second in ((a, b), (b, a)):
                found = _between(first, second, scored(first.target.budget), config)
                if found and min(a.kept(found), b.kept(found)) >= 1 - slack:
                    plans.setdefault(found.plan.hash, found)
                    break
        chosen = _chosen(plans, to_serve, slack)
    names = _named(chosen, plans, to_serve)
    by_device = {device: names[plan] for device, plan in chosen.items()}
    decisions = {names[plan]: plans[plan] for plan in dict.fromkeys(chosen.values())}
    decisions = {fit.name: decisions[fit.name] for fit in fits if fit.name in decisions}
    served = tuple(_served(fit, by_device.get(fit.name, ""), decisions) for fit in fits)
    seconds = perf_counter() - started + sum({id(fit.own): fit.seconds for fit in fits}.values())
    return Planned(Fleet(slack=slack, devices=served), decisions, seconds)


def serves(fit: Fit, decision: Decision, slack: float) -> bool:
    """Whether a plan may serve a device: within all its limits, with at least 1 - slack of what its own plan has."""
    return fit.met_by(decision) and (decision is fit.own or fit.kept(decision) >= 1 - slack)


def _fit(
    name: str, model: nn.Module, graph: ChannelGraph, batches: Sequence[Batch], budget: Budget, config: PruneConfig
) -> Fit:
    started = perf_counter()
    fit = Fit(name, Target(graph, budget, None, meters_of(graph, budget, config)))
    if fit.target.met_by(graph.sizes):
        cost = cost_of(graph)
        whole = Decision(keep_all(graph), cost, cost, {}, 0.0, {}, {})
        return replace(fit, own=whole, dense=True)
    try:
        scored, target = scored_for(model, graph, batches, budget, config)
        own = scored.decide(budget, config, target=target)
        return replace(fit, own=own, seconds=perf_counter() - started)
    except BudgetError as error:
        return replace(fit, problem=str(error))


def _chosen(plans: Mapping[str, Decision], fits: Sequence[Fit], slack: float) -> dict[str, str]:
    """By device the hash of the plan that serves it: as few plans as can be, of equals the larger ones."""
    largest_first = sorted(plans, key=lambda key: (plans[key].cost.macs, plans[key].cost.params), reverse=True)
    table = {
        key: {fit.name: fit.kept(plans[key]) for fit in fits if serves(fit, plans[key], slack)} for key in largest_first
    }
    return served_by(table, fewest(table))


def _named(chosen: Mapping[str, str], plans: Mapping[str, Decision], fits: Sequence[Fit]) -> dict[str, str]:
    """By plan a device's name: of those that it serves the first whose own plan it is, else the first."""
    names: dict[str, str] = {}
    for key in dict.fromkeys(chosen.values()):
        served = [fit for fit in fits if chosen[fit.name] == key]
        own = [fit for fit in served if fit.own and fit.own.plan.hash == key]
        names[key] = (own or served)[0].name
    return names


def _served(fit: Fit, variant: str, decisions: Mapping[str, Decision]) -> Served:
    (goal,) = as_written({"": str(fit.target.budget)}).values()
    variant = DENSE if fit.dense else variant
    if not variant:
        return Served(device=fit.name, goal=goal, limits=fit.target.most, problem=fit.problem)
    decision = fit.own if fit.dense else decisions[variant]
    assert decision is not None
    figures = fit.target.figures(fit.widths(decision))
    return Served(
        device=fit.name,
        goal=goal,
        variant=variant,
        figures={name: figures[name] for name in fit.target.most},
        limits=fit.target.most,
        kept=fit.kept(decision),
    )


# ── one plan within the limits of two devices ──


def _near(fits: Sequence[Fit], slack: float) -> list[tuple[Fit, Fit]]:
    """Pairs of devices whose own plans are about as large, of which neither serves the other device."""
    found: list[tuple[Fit, Fit]] = []
    for a, b in combinations(fits, 2):
        if a.own and b.own and a.own.plan.hash != b.own.plan.hash:
            alike = min(a.kept(b.own), b.kept(a.own)) >= 1 - slack
            if alike and not serves(a, b.own, slack) and not serves(b, a.own, slack):
                found.append((a, b))
    return found[:_PAIRS]


def _between(a: Fit, b: Fit, scored: Scored, config: PruneConfig) -> Decision | None:
    """A plan within the limits of both devices; None if none was found. `scored` is for `a`.

    Times of two devices cannot both be limits of one plan. So that of `a` is taken down until `b` has what it asks for.
    """
    meters: dict[str, Meter] = {**b.target.meters, **scored.meters}
    scored, times = replace(scored, meters=meters), 1.0
    for _ in range(_TRIES):
        try:
            decision = scored.decide(_both(a, b, times), config)
        except BudgetError:
            return None
        figures, most = b.target.figures(b.widths(decision)), b.target.most
        if a.met_by(decision) and b.met_by(decision):
            return decision
        over = max((figures[name] / most[name] for name in b.target.meters), default=1.0)
        times /= 1.002 * max(over, 1.0)
    return None


def _both(a: Fit, b: Fit, times: float) -> Budget:
    """The limits of both devices: the tighter of what is counted; of what is measured those of `a`, `times` them."""
    limits: dict[str, Limit] = {}
    for fit in (b, a):
        for limit in fit.target.budget.limits:
            most, before = fit.target.most[limit.figure], limits.get(limit.figure)
            if limit.key in KEYS:
                most = min(most, before.amount or most) if before else most
                limits[limit.figure] = Limit(limit.key, str(int(most)), None, most)
            else:
                most *= times if fit is a else 1
                unit = limit.figure.rpartition("_")[2].replace("mj", "mJ")
                key = "latency" if limit.key == "faster" else limit.key
                text = f"{most:.6g}{unit}@{limit.profile}"
                limits[limit.figure] = Limit(key, text, None, most, limit.profile)
    return Budget(tuple(limits.values()))
