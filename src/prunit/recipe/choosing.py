"""The measured choice: of plans that meet the same budget, the fastest here that costs no accuracy.

What may compete is decided without a clock. Plans of one recipe and one budget differ in what their widths are
multiples of; the one with the recipe's own rounding is the default, and another one competes only where it gives up
nothing that accuracy hangs on, see `why_not`. Other recipes and allocations do not compete: the evidence finds none of
them "same" or "better" at equal cost (docs/evidence.md).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prunit.allocate import Budget
from prunit.errors import BudgetError, ConfigError
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import Decision, Scored
from prunit.recipe.stopwatch import Timing
from prunit.shown import Shown, Table
from prunit.units import written

ROUNDINGS: Final = (8, 16, 4, 1)
"""What widths may be multiples of besides the default. Single channels too: where an engine has no fast kernel for any
width, as for grouped convolutions of few channels, all that layouts change for is lost.
"""

ENOUGH: Final = 0.95
"""How much of the default plan's parameters, multiply-adds, and use of the budget a plan has at least that competes."""

_NARROWEST: Final = 0.5
"""How much of the channels that the default plan keeps in a layer a plan keeps there at least."""

NOISE: Final = 1.03
"""How many times faster a plan must be so that it counts as faster."""


@dataclass(frozen=True, repr=False)
class Candidate(Shown):
    """A plan that may be chosen: by its name, with its times here; `out` says why it is not, '' where it may be."""

    name: str
    decision: Decision
    timings: tuple[Timing, ...] = ()
    out: str = ""

    @property
    def as_dict(self) -> dict[str, Any]:
        """As plain data: what it costs, what it takes at each batch size, and why it is out."""
        return {
            "name": self.name,
            "plan": self.decision.plan.hash,
            **self.decision.cost.as_dict(),
            "used": dict(self.decision.used),
            "timings": [vars(timing) for timing in self.timings],
            "out": self.out,
        }


@dataclass(frozen=True, repr=False)
class Chosen(Shown):
    """A decision, and what it was chosen from: nothing where there was no choice, or nothing was timed."""

    decision: Decision
    candidates: tuple[Candidate, ...] = ()

    @property
    def timed(self) -> bool:
        """Plans were timed for it."""
        return any(candidate.timings for candidate in self.candidates)

    def chosen(self, candidate: Candidate) -> bool:
        """This is the one."""
        return candidate.decision.plan.hash == self.decision.plan.hash

    def as_dict(self) -> dict[str, Any]:
        """As plain data: the candidates in the order in which they were tried, the chosen one marked."""
        return {"candidates": [{**c.as_dict, "chosen": self.chosen(c)} for c in self.candidates]}

    def _table(self) -> Table:
        rows = [
            (
                c.name,
                written(c.decision.cost.params, "params"),
                written(c.decision.cost.macs, "macs"),
                ", ".join(f"{t.p50_ms:.3g} ms at batch {t.batch}" for t in c.timings),
                "chosen" if self.chosen(c) else c.out,
            )
            for c in self.candidates
        ]
        return Table(f"Chosen of {len(rows)} plans", ("plan", "params", "macs", "p50", ""), rows)


def candidates_of(scored: Scored, default: Decision, budget: Budget, config: PruneConfig) -> list[Candidate]:
    """The default plan, and those with other roundings that differ from it and from each other.

    A rounding that the user gave as a number leaves no choice.
    """
    found = [Candidate(f"round_to={config.round_to}", default)]
    if config.round_to != "auto" or default.cost == default.dense:
        return found
    hashes, streams = {default.plan.hash}, [g.name for g in scored.graph.groups if g.coupled]
    for round_to in ROUNDINGS:
        try:
            other = scored.decide(budget, config.model_copy(update={"round_to": round_to}))
        except (BudgetError, ConfigError):
            continue  # multiples this coarse do not reach the budget, or leave a layer no width
        if other.plan.hash not in hashes:
            hashes.add(other.plan.hash)
            found.append(Candidate(f"round_to={round_to}", other, out=why_not(other, default, streams)))
    return found


def why_not(other: Decision, default: Decision, streams: Collection[str] = ()) -> str:
    """Why a plan may cost accuracy that the default one does not, '' where nothing says so.

    It must use nearly as much of the budget, have nearly as many parameters and multiply-adds, and no layer may be
    much narrower: a plan that is faster because there is less of it is no better plan. Nor may a residual stream be
    narrower, which all layers of a stage write to and read from.
    """
    for figure in ("params", "macs"):
        share = getattr(other.cost, figure) / max(getattr(default.cost, figure), 1)
        if share < ENOUGH:
            return f"has {share:.1%} of the {figure}"
    binding = default.binding
    if binding and other.used[binding] < ENOUGH * default.used[binding]:
        return f"uses {other.used[binding]:.1%} of {binding}"
    kept = other.plan.widths
    for name in streams:
        if kept[name] < ENOUGH * default.plan.widths[name]:
            return f"narrows the residual stream '{name}' to {kept[name]} of {default.plan.widths[name]} channels"
    name, width = min(default.plan.widths.items(), key=lambda item: kept[item[0]] / item[1], default=("", 1))
    if name and kept[name] < _NARROWEST * width:
        return f"keeps {kept[name]} channels of '{name}' instead of {width}"
    return ""


def fastest(candidates: Sequence[Candidate]) -> Candidate:
    """The first of those that are fastest at batch 1, and among these at the largest batch, but for noise.

    All have been timed at the same batch sizes, ascending; those that are out count for nothing. The default comes
    first, so that it stays unless another one is faster by more than noise, and slower at no batch size.
    """
    left = [candidate for candidate in candidates if candidate.timings and not candidate.out]
    default = left[0].timings
    left = [
        candidate
        for candidate in left
        if all(t.times_faster * NOISE >= d.times_faster for t, d in zip(candidate.timings, default, strict=True))
    ]
    for which in (0, -1):
        best = max(candidate.timings[which].times_faster for candidate in left)
        left = [c for c in left if c.timings[which].times_faster * NOISE >= best]
    return left[0]


def told(chosen: Candidate, candidates: Sequence[Candidate], engine: str) -> str:
    """What was timed, in a line for a plan's origin."""
    first = chosen.timings[0]
    timed = [f"{c.name} {c.timings[0].times_faster:.2f}x" for c in candidates if c.timings and not c.out]
    among = f"; chosen of {', '.join(timed)}" if len(timed) > 1 else ""
    return f"{in_words(first, engine)}{among}"


def in_words(timing: Timing, engine: str) -> str:
    """A timing in a line: how many times faster than the dense model, and where."""
    return (
        f"{timing.times_faster:.2f}x faster than dense at batch {timing.batch} ({timing.p50_ms:.3g} of"
        f" {timing.dense_p50_ms:.3g} ms untrained, {engine}, {timing.threads} thread{'s' * (timing.threads > 1)})"
    )


def with_timings(candidates: Sequence[Candidate], timings: Mapping[str, Sequence[Timing]]) -> list[Candidate]:
    """The candidates with the times found of those that were timed, by name."""
    return [Candidate(c.name, c.decision, tuple(timings.get(c.name, c.timings)), c.out) for c in candidates]
