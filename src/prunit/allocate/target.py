"""A budget on a graph: which widths meet it."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import numpy as np

from prunit.allocate.budget import KEYS, Budget, Limit
from prunit.allocate.constraints import Constraints
from prunit.errors import BudgetError, ConfigError
from prunit.graph import ChannelGraph
from prunit.prices.costs import Cost, CostModel, cost_model
from prunit.units import written

_FACTOR: Final = 1024
"""An amount up to this that was written without a unit may be meant as a factor."""


class Meter(Protocol):
    """A figure that a model has on a device at given widths of all groups, as the device's profile predicts it."""

    def __call__(self, widths: np.ndarray, /) -> float: ...

    def by_layer(self, widths: np.ndarray, /) -> np.ndarray:
        """What of it each layer takes, in the order of `graph.layers`."""
        ...


def told(meter: Meter, widths: np.ndarray) -> float:
    """The figure by the word of the device's own tools where the meter has an `exact` to ask, else as it predicts."""
    ask: Callable[[np.ndarray], float] | None = getattr(meter, "exact", None)
    return meter(widths) if ask is None else ask(widths)


class Target:
    """A budget on a graph: which widths meet it, and which each group may have.

    `graph` has those groups pinned that the constraints keep whole; `allowed` is what they leave to the others, `floor`
    and `ceiling` its least and its most widths. `meters` are by figure (`latency_ms`), for what no count gives. Raises
    `ConfigError` or `UnknownNameError` for constraints that the graph cannot fulfil, and for a limit without a meter.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        budget: Budget,
        constraints: Constraints | None = None,
        meters: Mapping[str, Meter] | None = None,
    ) -> None:
        self.constraints = constraints or Constraints()
        self.graph, self.budget = self.constraints.pinned(graph), budget
        self.allowed = self.constraints.resolve(self.graph)
        self.model: CostModel = cost_model(graph)
        self.meters = {limit.figure: _meter(limit, meters or {}) for limit in budget.limits if limit.key not in KEYS}
        self.dense = self.model.at(graph.sizes)
        self.dense_figures = self.figures(graph.sizes)
        self.most = {limit.figure: limit.of(self.dense_figures) for limit in budget.limits}

    @property
    def floor(self) -> np.ndarray:
        """The narrowest widths."""
        return self.allowed.least

    @property
    def ceiling(self) -> np.ndarray:
        """The widest widths: the dense ones, where no constraint asks for less."""
        return self.allowed.most

    def asking(self, limits: Iterable[Limit]) -> "Target":
        """The same target with these of its limits only."""
        target = copy.copy(self)
        target.budget = Budget(tuple(limits))
        figures = {limit.figure for limit in target.budget.limits}
        target.most = {name: most for name, most in self.most.items() if name in figures}
        target.meters = {name: meter for name, meter in self.meters.items() if name in figures}
        return target

    def at_most(self, widths: np.ndarray, by: str) -> "Target":
        """The same target with no group wider than these allowed widths; `by` says what set them."""
        target = copy.copy(self)
        target.allowed = self.allowed.at_most(widths, by)
        return target

    def keeping(self, names: Iterable[str], reason: str) -> "Target":
        """The same target with these groups as wide as they may be: pinned for this reason, if that is whole."""
        chosen = set(names)
        target = copy.copy(self)
        kept = np.array([group.name in chosen for group in self.graph.groups], dtype=bool)
        target.allowed = self.allowed.widest(kept)
        whole = kept & (self.ceiling == self.graph.sizes)
        target.graph = self.graph.pin([g.name for g, yes in zip(self.graph.groups, whole, strict=True) if yes], reason)
        return target

    def figures(self, widths: np.ndarray) -> dict[str, float]:
        """The cost at these widths, and what the meters say."""
        measured = {name: meter(widths) for name, meter in self.meters.items()}
        return {**self.model.at(widths).as_dict(), **measured}

    def tightest(self) -> tuple[Limit, float]:
        """The limit that leaves the smallest share of the dense model, and that share, at most 1."""
        return self.budget.tightest(self.dense_figures)

    def met_by(self, widths: np.ndarray) -> bool:
        """The figures at these widths are within every limit."""
        return self.cost_within(widths) is not None

    def cost_within(self, widths: np.ndarray) -> Cost | None:
        """The cost at these widths, if they are within every limit."""
        cost = self.model.at(widths)
        counted = cost.as_dict()
        # What is counted comes first: it is cheaper to ask.
        met = all(counted[name] <= most for name, most in self.most.items() if name in counted) and all(
            meter(widths) <= self.most[name] for name, meter in self.meters.items()
        )
        return cost if met else None

    def down(self, widths: np.ndarray) -> np.ndarray:
        """Allowed widths for these real ones: no wider, or where a device is limited the kind that suits it best.

        In the steps that an engine likes they are the nearest: a layer that should keep 15 channels keeps 16, which
        take no longer, and not 8. What the budget does not allow comes off all layers alike.

        Engines work on blocks of channels, so that 64 may take less than 57. Of the widths themselves and their nearest
        multiples of 8 and 16 these are the most channels that meet the budget; where none does, no wider ones.
        """
        plain = self.allowed.near(widths) if self.constraints.round_to == "auto" else self.allowed.down(widths)
        if not self.meters:
            return plain
        rounded = (self._near(widths, block) for block in (16, 8))
        met = [found for found in (*rounded, plain) if self.met_by(found)]
        return max(met, key=lambda found: int(found.sum())) if met else plain

    def _near(self, widths: np.ndarray, block: int) -> np.ndarray:
        """The allowed widths next to the nearest multiples of `block`, at least one of them."""
        near = np.maximum(np.rint(widths / block), 1) * block
        return self.allowed.down(np.where(widths >= self.ceiling, self.ceiling, near))

    def used(self, widths: np.ndarray) -> float:
        """How much of the tightest limit these widths use: 1 is all of it, more is too much."""
        return max(self.shares_used(self.figures(widths)).values(), default=0.0)

    def shares_used(self, figures: Mapping[str, float]) -> dict[str, float]:
        """How much of each limit these figures use, by the limit as the user wrote it."""
        return {str(x): figures[x.figure] / max(self.most[x.figure], 1e-9) for x in self.budget.limits}

    def check_reachable(self) -> None:
        """Raise `BudgetError` if even the narrowest widths cost more, and the widest too.

        On a device narrow layers can take longer than those that fill its blocks of channels.
        """
        if self.met_by(self.floor) or self.met_by(self.ceiling):
            return
        # A refusal is the device's own word, where there is one to ask.
        for meter in self.meters.values():
            told(meter, self.floor)
        if self.meters and self.met_by(self.floor):
            return
        found, dense = self.figures(self.floor), self.dense_figures
        parts = [
            f"{limit} asks for at most {_at_most(self.most[limit.figure], limit.figure)} of"
            f" {written(dense[limit.figure], limit.figure)}; the closest reachable is"
            f" {written(found[limit.figure], limit.figure)}{_meant(limit)}"
            for limit in self.budget.limits
            if found[limit.figure] > self.most[limit.figure]
        ]
        asked = f" ({self.constraints})" if str(self.constraints) else ""
        pinned = [f"'{g.name}' ({g.pinned})" for g in self.graph.groups if g.pinned]
        why = f"; whole groups: {', '.join(pinned[:4])}{', …' if len(pinned) > 4 else ''}" if pinned else ""
        # Where nothing could be followed there is no group that says why.
        notes = [n for n in self.graph.notes if n.startswith("operator ") and not any(n in p for p in pinned)]
        also = f"; not followed: {', '.join(notes[:3])}{', …' if len(notes) > 3 else ''}" if notes else ""
        raise BudgetError(
            f"budget cannot be met: {'; '.join(parts)}, with every free group at its minimum width{asked}{why}{also}",
            closest={k: float(v) for k, v in found.items()},
        )


def _meant(limit: Limit) -> str:
    """What somebody may have meant who wrote an amount that is a factor."""
    bare = limit.key in KEYS and limit.amount is not None and limit.text.isdecimal() and limit.amount <= _FACTOR
    return f" (for {limit.text} times less write {limit.key}={limit.text}x)" if bare else ""


def _at_most(value: float, figure: str) -> str:
    """With its unit; of counts ("10,000 of 271,450 params") that is said once."""
    return written(value, figure).removesuffix(f" {figure}")


def _meter(limit: Limit, meters: Mapping[str, Meter]) -> Meter:
    if limit.figure not in meters:
        raise ConfigError(
            f"budget {limit}: no meter for its {limit.key}; prunit.prices.meters makes one of a device's profile"
        )
    return meters[limit.figure]
