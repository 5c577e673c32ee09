"""Plans of one scoring as a dial is turned: the share of the multiply-adds, within a budget's other limits."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from prunit.allocate import Budget, Limit, Target
from prunit.prices.costs import cost_of, width_array
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import Decision, Scored


@dataclass(frozen=True)
class Dial:
    """Plans of one scoring from minimum widths to what the known limits of a budget allow: a `faster.Path`."""

    scored: Scored
    budget: Budget
    config: PruneConfig
    target: Target
    """The known limits on the graph, in which every group may be as narrow as it may get."""

    @property
    def least(self) -> float:
        """The share of the multiply-adds at minimum widths."""
        return _macs(self.target, self.target.floor)

    @property
    def most(self) -> float:
        """The share that the budget itself leaves, at most 1."""
        return min(
            (x.share_of(self.target.dense_figures) for x in self.budget.limits if x.figure == "macs"), default=1.0
        )

    def at(self, share: float) -> Decision:
        """The plan that takes at most this share of the multiply-adds, and no more than the known limits allow."""
        return self.scored.decide(limited(self.budget, self.target, share), self.config)

    def between(self, narrow: Decision, wide: Decision, names: Collection[str]) -> Decision | None:
        """The plan of `narrow` with these groups as in `wide`; None where that breaks a limit or constraint."""
        keep = {n: (wide if n in names else narrow).plan.keep[n] for n in narrow.plan.keep}
        graph, plan = self.scored.graph, replace(narrow.plan, keep=keep)
        widths = width_array(graph, plan.widths)
        if not self.target.allowed.hold(widths) or not self.target.met_by(widths):
            return None
        why = {n: (wide if n in names else narrow).why[n] for n in narrow.why}
        plan = replace(plan, origin={**plan.origin, "why": why})
        predicted = {name: (dense, self.scored.meters[name](widths)) for name, (dense, _) in narrow.predicted.items()}
        used = self.target.shares_used(self.target.figures(widths))
        return replace(narrow, plan=plan, cost=cost_of(graph, plan), why=why, used=used, predicted=predicted)


def _macs(target: Target, widths: np.ndarray) -> float:
    return target.model.at(widths).macs / max(target.dense.macs, 1)


def limited(budget: Budget, target: Target, share: float) -> Budget:
    """The known limits of a budget, and at most this share of the multiply-adds, or as few as can be."""
    least = target.model.at(target.floor).macs
    dial = Limit("macs", f"{share:.1%}", amount=max(int(share * target.dense.macs + 1e-6), least, 1))
    own = [limit for limit in budget.limits if limit.figure == "macs"]
    if own and own[0].of(target.dense_figures) <= dial.of(target.dense_figures):
        return budget
    return Budget((*(limit for limit in budget.limits if limit not in own), dial))
