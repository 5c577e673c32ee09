"""Plans within what a part reports: found by a table, told by the part's own tools, found again where these differ.

The table adds up single layers. What the whole network takes may be a few per cent more or less: the compiler overlaps
the loading of weights with the layer before, and keeps what fits in fast memory. So its word on the plan corrects the
table there, and the search goes again until the plan holds and little of the limits is left.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from prunit.allocate import Budget, Limit, Meter, balance
from prunit.errors import BudgetError
from prunit.prices.costs import width_array
from prunit.recipe.config import PruneConfig
from prunit.recipe.filling import fills
from prunit.recipe.on_parts import BLOCK, PartMeter
from prunit.recipe.recipes import Decision, Scored
from prunit.units import written

ROUNDS: Final = 8
"""How often a search goes at the most."""
CLOSE: Final = 0.02
"""How much of the limits may stay unused before a search goes again."""
_OF_TIME: Final = ("cycles", "latency_ms")
_STRICTER: Final = 1.01
"""From one round to the next where a plan did not hold: corrected once, it most often does."""


def met_by_tools(scored: Scored, budget: Budget, config: PruneConfig) -> Decision:
    """The widest plan found whose figures are within the budget as the parts' own tools report them.

    An accelerator's whole blocks of channels suit wide layers. Where a budget leaves layers about a block, half blocks
    may hold much more: both are tried, and the better balanced plan is taken.
    Raises `BudgetError` with the closest reachable figures, which are those of the tools too.
    """
    found: list[Decision] = []
    refused: BudgetError | None = None
    for each in _roundings(scored, config):
        try:
            found.append(_met(scored, budget, each))
        except BudgetError as error:
            refused = refused or error
    if not found:
        assert refused is not None
        raise refused
    return max(found, key=lambda decision: balance(scored.graph, decision.plan.widths))


def _timed(scored: Scored) -> bool:
    return any(meter.predicts and name in _OF_TIME for name, meter in _of(scored))


def _roundings(scored: Scored, config: PruneConfig) -> list[PruneConfig]:
    if config.round_to != "auto" or not _timed(scored):
        return [config]
    return [config, config.model_copy(update={"round_to": BLOCK // 2})]


def _met(scored: Scored, budget: Budget, config: PruneConfig) -> Decision:
    """The widest plan found under one rounding of widths."""
    best: Decision | None = None
    closest: tuple[float, Mapping[str, float]] | None = None
    seen: set[str] = set()
    strict, filling = 1.0, fills(limit.figure for limit in budget.limits)
    for _ in range(ROUNDS):
        try:
            decision = scored.decide(budget, config)
        except BudgetError:
            if best is None and closest is None:
                raise
            break
        widths = width_array(scored.graph, decision.plan.widths)
        used, told = _told(scored, budget, widths)
        worst = max(used.values(), default=0.0)
        if worst <= 1 and (best is None or _better(scored, decision, best)):
            best = replace(
                decision, used={**decision.used, **used}, predicted={**decision.predicted, **_pairs(scored, told)}
            )
        if closest is None or worst < closest[0]:
            closest = worst, told
        again = decision.plan.hash in seen
        if (worst <= 1 and (worst >= 1 - CLOSE or again or filling)) or not _predicted(scored):
            break
        strict = strict * _STRICTER if worst > 1 and again else strict
        seen.add(decision.plan.hash)
        scored = replace(scored, meters=_corrected(scored.meters, widths, strict))
    if best is None:
        assert closest is not None
        raise _unmet(
            budget.on_parts, closest[1], {name: meter.exact(scored.graph.sizes) for name, meter in _of(scored)}
        )
    return best


def _better(scored: Scored, one: Decision, other: Decision) -> bool:
    return balance(scored.graph, one.plan.widths) > balance(scored.graph, other.plan.widths)


def _of(scored: Scored) -> list[tuple[str, PartMeter]]:
    return [(name, meter) for name, meter in scored.meters.items() if isinstance(meter, PartMeter)]


def _predicted(scored: Scored) -> bool:
    return any(meter.predicts for _, meter in _of(scored))


def _told(scored: Scored, budget: Budget, widths: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """How much of each limit on a part is used, and by figure what the parts say."""
    told = {name: meter.exact(widths) for name, meter in _of(scored)}
    dense = {name: meter.exact(scored.graph.sizes) for name, meter in _of(scored)}
    return {str(limit): told[limit.figure] / limit.of(dense) for limit in budget.on_parts}, told


def _pairs(scored: Scored, told: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    return {name: (meter.exact(scored.graph.sizes), told[name]) for name, meter in _of(scored)}


def _corrected(meters: Mapping[str, Meter], widths: np.ndarray, strict: float) -> dict[str, Meter]:
    return {n: m.corrected(widths, strict) if isinstance(m, PartMeter) else m for n, m in meters.items()}


def _unmet(limits: tuple[Limit, ...], told: Mapping[str, float], dense: Mapping[str, float]) -> BudgetError:
    parts = [
        f"{limit} asks for at most {written(limit.of(dense), limit.figure)} of"
        f" {written(dense[limit.figure], limit.figure)}; the closest found takes"
        f" {written(told[limit.figure], limit.figure)}"
        for limit in limits
        if told[limit.figure] > limit.of(dense)
    ]
    return BudgetError(f"budget cannot be met: {'; '.join(parts)}", closest=dict(told))
