"""A budget of time, met by timing: the widest plan that takes no longer on this machine than was asked.

No count tells what an engine takes: steps in widths cost it nothing, one channel more may cost a third. So plans are
tried. A dial (the share of the multiply-adds) is turned to where the time meets the budget, between plans that do and
plans that do not; then groups go one after the other from the narrower to the wider of the two plans beside that
point. What comes out is timed again, and narrowed where it was lucky the first time.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, Protocol

from prunit.allocate import Limit
from prunit.errors import BudgetError
from prunit.recipe.recipes import Decision
from prunit.recipe.steady import Watch, steadily
from prunit.recipe.stopwatch import Timing
from prunit.shown import Shown
from prunit.units import written

CLOSE: Final = 0.97
"""How much of the time a plan must use so that no wider one is looked for."""

_ROOM: Final = 0.98
"""How much of the time plans may use, so that what is built is not on the wrong side of the limit half of the time."""

_STEPS, _MIXES, _ROUNDS, _AGAIN = 5, 5, 3, 2
"""Plans that are timed for the dial, and then for groups, in each round; rounds; how often the result is timed again.

A round after the first one is only needed where the result of the one before took longer when it was timed again."""


class Path(Protocol):
    """Plans from narrow to wide, all within the limits of the budget that are known without timing."""

    @property
    def least(self) -> float:
        """The dial at minimum widths, a share of the multiply-adds."""
        ...

    @property
    def most(self) -> float:
        """The dial at which nothing but the known limits narrows the plan, at most 1."""
        ...

    def at(self, share: float) -> Decision:
        """The plan that takes at most this share of the dense multiply-adds."""
        ...

    def between(self, narrow: Decision, wide: Decision, names: Collection[str]) -> Decision | None:
        """The plan of `narrow` with these groups as in `wide`; None where that breaks a known limit."""
        ...


@dataclass
class Tried:
    """A plan that was timed, maybe several times: `took` are its shares of the time of the dense model."""

    decision: Decision
    share: float | None
    timings: list[Timing] = field(default_factory=list)

    @property
    def dense(self) -> bool:
        """Nothing is cut."""
        return self.decision.cost == self.decision.dense

    @property
    def took(self) -> float:
        """The middle one of the shares of the dense model's time that it took; 1 of the dense model itself."""
        return 1.0 if self.dense else median(1 / timing.times_faster for timing in self.timings)

    @property
    def macs(self) -> tuple[int, int]:
        """What says which of two plans is the wider one."""
        return self.decision.cost.macs, self.decision.cost.params


@dataclass(frozen=True, repr=False)
class Met(Shown):
    """The plan that meets a budget of time, how it was timed last, and all plans that were tried."""

    decision: Decision
    timing: Timing
    used: float
    """How much of the limit the plan takes: 1 is all of it."""
    tried: tuple[Tried, ...]


def meet(path: Path, limit: Limit, watch: Watch, *, tell: Callable[[int], None] = lambda done: None) -> Met:
    """The widest plan found on the path whose time at batch 1 is within the limit.

    `tell` is called with how many plans were timed. Raises `BudgetError` with the closest reachable point.
    """
    return _Search(path, limit, watch, tell).run()


class _Search:
    def __init__(self, path: Path, limit: Limit, watch: Watch, tell: Callable[[int], None]) -> None:
        self.path, self.limit, self.watch, self.tell = path, limit, watch, tell
        self.tried: dict[str, Tried] = {}
        self.dense_ms: list[float] = []

    # ── what is known ──

    @property
    def limit_ms(self) -> float:
        return self.limit.of({"latency_ms": median(self.dense_ms)})

    @property
    def goal(self) -> float:
        """The share of the dense model's time that may be taken."""
        return self.limit_ms / median(self.dense_ms)

    def meets(self, tried: Tried, room: float = _ROOM) -> bool:
        # The dense model takes what it takes, without noise.
        return tried.took <= self.goal * (1 if tried.dense else room)

    def close(self, tried: Tried) -> bool:
        return tried.took >= self.goal * _ROOM * CLOSE

    def time(self, *plans: tuple[Decision, float | None]) -> list[Tried]:
        """These plans as tried ones; timed now are those that never were."""
        entries = [self.tried.setdefault(decision.plan.hash, Tried(decision, share)) for decision, share in plans]
        self.clock([entry for entry in entries if not entry.timings])
        return entries

    def clock(self, entries: Sequence[Tried]) -> None:
        plans = {entry.decision.plan.hash: entry.decision.plan for entry in entries}
        for name, found in steadily(self.watch, plans).items():
            self.tried[name].timings += [timings[0] for timings in found]
            self.dense_ms += [timings[0].dense_p50_ms for timings in found]
        self.tell(sum(len(entry.timings) for entry in self.tried.values()))

    # ── the search ──

    def run(self) -> Met:
        ends = (self.path.most, self.path.least)
        wide, narrow = self.time(*((self.path.at(share), share) for share in ends))
        if not self.meets(wide) and not self.meets(narrow):
            # Very narrow layers can take longer than somewhat wider ones: look there before giving up.
            self.time(*((self.path.at(share), share) for share in self.near_narrowest()))
        for _ in range(_ROUNDS):
            met = [entry for entry in self.tried.values() if self.meets(entry)]
            if not met:
                break
            low = self.widened(max(met, key=lambda entry: entry.macs))
            for _ in range(0 if low.dense else _AGAIN):
                self.clock([low])
            if self.meets(low):
                return self.met(low)
        return self.met(self.first_that_holds())

    def near_narrowest(self) -> list[float]:
        """Two dials between minimum widths and what a plan as fast as asked should have."""
        least, share = self.path.least, max(min(self.goal, self.path.most), self.path.least)
        return [(least * share) ** 0.5, max(share / 2, least)]

    def widened(self, low: Tried) -> Tried:
        """The widest plan that meets the limit, as far as it is worth looking, from one that does."""
        high = self.next_wider(low)
        if high is None or self.close(low):
            return low
        reach = 1
        for _ in range(_STEPS):
            if low.share is None or high.share is None or self.close(low):
                break
            found = self.on_the_dial(low, high, reach)
            if found is None:
                break
            # No straight line, if one end alone moves: then go further from it, so that the other one moves too.
            if self.meets(found):
                low, reach = found, max(2 * reach, 1)
            else:
                high, reach = found, min(2 * reach, -1)
        return low if self.close(low) else self.mixed(low, high)

    def next_wider(self, low: Tried) -> Tried | None:
        """The narrowest plan that is wider than this one, and does not meet the limit."""
        wider = [entry for entry in self.tried.values() if entry.macs > low.macs and not self.meets(entry)]
        return min(wider, key=lambda entry: entry.macs, default=None)

    def on_the_dial(self, low: Tried, high: Tried, reach: int) -> Tried | None:
        """A plan between these two where a straight line says that the limit is met; None if there is none.

        `reach` is how many times as far to go as the line says: from `low`, or where it is negative from `high`.
        """
        assert low.share is not None
        assert high.share is not None
        least, most = low.share, high.share
        portion = _portion(low.took, high.took, self.goal * _ROOM)
        portion = min(portion * reach, 0.85) if reach > 0 else max(1 - (1 - portion) * -reach, 0.15)
        share = least + portion * (most - least)
        while most - least > 0.005 * most:
            decision = self.path.at(share)
            if decision.plan.hash == low.decision.plan.hash:
                least = share
            elif decision.plan.hash == high.decision.plan.hash:
                most = share
            else:
                return self.time((decision, share))[0]
            share = (least + most) / 2
        return None

    def mixed(self, low: Tried, high: Tried) -> Tried:
        """The narrower plan with as many groups as the limit allows as they are in a wider one.

        Where all groups but one fit, that one takes a step in time; the others may then become wider still, as they are
        in the next plan that does not meet the limit.
        """
        left, wide = _MIXES, high
        while left > 0 and not self.close(low):
            low, timed = self.mixed_with(low, wide.decision, wide.took, left)
            left -= timed
            wider = [e for e in self.tried.values() if e.macs[0] > 1.1 * wide.macs[0] and not self.meets(e)]
            if not wider:
                break
            wide = min(wider, key=lambda entry: entry.macs)
        return low

    def mixed_with(self, low: Tried, wide: Decision, took_many: float, most: int) -> tuple[Tried, int]:
        """The narrower plan with groups of this wider one, those first that cost least; and how many were timed."""
        narrow, timed = low.decision, 0
        # Not every group of a wider plan is wider: streams that stay whole there may make all else narrower.
        wider = [n for n, kept in wide.plan.keep.items() if len(kept) > len(narrow.plan.keep[n])]
        alone = {n: self.path.between(narrow, wide, {n}) for n in wider}
        names = [n for _, n in sorted((only.cost.macs, n) for n, only in alone.items() if only)]
        few, many, took_few = 0, len(names), low.took
        while many - few > 1 and timed < most and not self.close(low):
            step = round(_portion(took_few, took_many, self.goal * _ROOM) * (many - few))
            count = few + min(max(step, 1), many - few - 1)
            decision = self.path.between(narrow, wide, set(names[:count]))
            if decision is None:
                many = count
                continue
            (found,) = self.time((decision, None))
            timed += 1
            if self.meets(found):
                few, took_few, low = count, found.took, found
            else:
                many, took_many = count, found.took
        return low, timed

    def first_that_holds(self) -> Tried:
        """The widest plan that still meets the limit when it is timed again; `BudgetError` if none does."""
        for room in (_ROOM, 1.0):  # without room where nothing leaves any: it is within what was asked
            for entry in sorted(self.tried.values(), key=lambda entry: entry.macs, reverse=True):
                while self.meets(entry, room) and len(entry.timings) <= _AGAIN:
                    self.clock([entry])
                if self.meets(entry, room):
                    return entry
        raise self.unreachable()

    def met(self, entry: Tried) -> Met:
        timing = min(entry.timings, key=lambda timing: abs(1 / timing.times_faster - entry.took))
        return Met(entry.decision, timing, entry.took / self.goal, tuple(self.tried.values()))

    def unreachable(self) -> BudgetError:
        best = min(self.tried.values(), key=lambda entry: entry.took)
        dense_ms = median(self.dense_ms)
        found_ms = best.took * dense_ms
        narrowest = best.macs == min(entry.macs for entry in self.tried.values())
        where = "with every free group at its minimum width" if narrowest else "and narrower plans take longer"
        asked = best.decision.plan.origin.get("constraints", "")
        return BudgetError(
            f"budget cannot be met: {self.limit} asks for at most {written(self.limit_ms, 'latency_ms')} of"
            f" {written(dense_ms, 'latency_ms')}; the closest reachable, timed here at batch 1, is"
            f" {written(found_ms, 'latency_ms')} ({dense_ms / found_ms:.3g}x faster), {where}"
            + (f" ({asked})" if asked else ""),
            closest={**best.decision.cost.as_dict(), "latency_ms": found_ms},
        )


def _portion(low: float, high: float, goal: float) -> float:
    """Where between two times a third one lies, 0 to 1, kept away from both ends: a straight line is a guess."""
    return min(max((goal - low) / (high - low), 0.15), 0.85) if high > low else 0.5
