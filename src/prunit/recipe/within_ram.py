"""What a limit on `ram` does to widths, whatever the recipe: groups at the peak are narrowed, and no others.

Bytes alive at once are no sum over layers, as parameters and multiply-adds are. A few layers at high resolution hold
the peak, and narrowing any others frees nothing: docs/adr/026-ram-at-the-peak.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from prunit.allocate import Complexity, Target, by_complexity, closer
from prunit.allocate.at_peak import RAM, at_peak, grown, narrowing_at_peak
from prunit.allocate.by_complexity import MODES
from prunit.cut.plans import Scores
from prunit.errors import BudgetError
from prunit.prices.costs import width_array
from prunit.recipe.case import Case, Found
from prunit.recipe.config import PruneConfig
from prunit.recipe.filling import filled
from prunit.recipe.streams import with_streams

Asked = Callable[[PruneConfig], Target]
"""The budget on the graph under the constraints of a configuration, its residual streams kept or free to shrink."""

_ROUNDS: Final = 8
"""How often what the peak gave back of the other limits is shared out anew."""


@dataclass(frozen=True)
class Settled:
    """What was decided, and the case that it was decided on: scores of channels, widths of groups, and why."""

    case: Case
    scores: Scores
    widths: np.ndarray
    why: dict[str, str]


def only_ram(target: Target) -> bool:
    """Nothing else is limited, and the widest widths take too much."""
    return set(target.most) == {RAM} and not target.met_by(target.ceiling)


def first_narrowing(base: Target, config: PruneConfig) -> Target:
    """The target that a recipe meets first, with residual streams whole or free to shrink."""
    return with_streams(narrowing_at_peak(base, base.ceiling) if only_ram(base) else base, config)


def settled(case: Case, find: Callable[[Case], Found], asked: Asked) -> Settled:
    """The widths that a recipe's `find` comes to within a budget that may limit ram; `case` has the target to meet.

    Other limits are met first. Where that takes too much ram, groups at the peak are narrowed further as the recipe
    has it, and what this frees of the other limits is shared out again among all others. At last every group grows
    that still may.
    """
    if RAM not in case.target.most:
        return _found(case, find)
    base = asked(case.config)
    if base.met_by(base.ceiling):
        return _found(case, find)
    if only_ram(base):
        return _alone(case, find, base, asked)
    try:
        return _shared(case, find, base)
    except BudgetError:  # on a device narrower may be slower, so that limits may be met together but not in turn
        return _found(case, find)


def _found(case: Case, find: Callable[[Case], Found]) -> Settled:
    scores, found, why = find(case)
    widths = closer(case.target, width_array(case.graph, found))
    wider = filled(case.target, widths)
    return Settled(case, scores, wider, why if wider is widths else _told(case, why, wider - widths))


def _alone(case: Case, find: Callable[[Case], Found], base: Target, asked: Asked) -> Settled:
    """Groups at the peak narrowed by the recipe; or as the mode `ma` has it, where that holds more parameters.

    It takes most where few parameters are: at equal bytes no recipe is to hold fewer than that.
    """
    ours = _narrowed(case, find, base, base.ceiling)
    theirs = case.config.model_copy(update={"recipe": "complexity"})
    try:
        target = first_narrowing(asked(theirs), theirs)
    except BudgetError:  # its minimum widths are too wide for it
        return ours
    found = width_array(target.graph, by_complexity(target, Complexity(target, MODES["ma"])))
    wide = narrowing_at_peak(base, base.ceiling)
    if not wide.allowed.hold(found):
        return ours
    widths = grown(wide, found)
    if base.model.at(widths).params <= base.model.at(ours.widths).params:
        return ours
    on = case.on(ours.case.target if ours.case.target.allowed.hold(widths) else wide)
    why = {g.name: "by its share of the memory, as this keeps more parameters" for g in base.graph.groups}
    return Settled(on, ours.scores, widths, _told(on, why, widths - found))


def _narrowed(case: Case, find: Callable[[Case], Found], base: Target, widths: np.ndarray) -> Settled:
    """These widths with groups at the peak narrowed by the recipe, and grown as far as they may.

    It has one dial for all of them, and peaks differ: what it narrows too far comes back.
    """
    wide = narrowing_at_peak(base, widths)
    own = case.on(with_streams(wide, case.config))
    scores, found, why = find(own)
    first = width_array(own.graph, found)
    last = grown(wide, first)
    on = own if own.target.allowed.hold(last) else case.on(wide)
    return Settled(on, scores, last, _told(on, why, last - first))


def _shared(case: Case, find: Callable[[Case], Found], base: Target) -> Settled:
    """The other limits met by the recipe, then that on ram at the peak, in turn until both hold."""
    rest = base.asking(limit for limit in base.budget.limits if limit.figure != RAM)
    limit = next(str(limit) for limit in base.budget.limits if limit.figure == RAM)
    names, most, held, turn = [g.name for g in base.graph.groups], base.ceiling, dict[str, str](), 0
    while True:
        first, turn = _found(case.on(with_streams(rest.at_most(most, limit), case.config)), find), turn + 1
        widths, at_most = first.widths, np.flatnonzero((first.widths == most) & (most < base.ceiling))
        why = _told(first.case, first.why) | {names[i]: held[names[i]] for i in at_most}
        if base.met_by(widths):
            break
        narrowed, inside = _narrowed(case, find, base, widths), at_peak(base, widths)
        for i in np.flatnonzero(inside):
            less = narrowed.widths[i] < widths[i]
            held[names[i]] = f"{limit}: {narrowed.why[names[i]]}" if less else why[names[i]]
        most = np.where(inside, narrowed.widths, most)
        if turn == _ROUNDS:
            widths, why = narrowed.widths, why | held
            break
    wider = grown(base, widths)
    return Settled(case.on(base), first.scores, wider, _told(case.on(base), why, wider - widths))


def _told(case: Case, why: Mapping[str, str], more: np.ndarray | None = None) -> dict[str, str]:
    """What there is to say about each group: why it is whole, or what narrowed it and how much fitted again."""
    found: dict[str, str] = {}
    for i, group in enumerate(case.graph.groups):
        text = f"whole: {group.pinned}" if group.pinned else why.get(group.name, "")
        found[group.name] = f"{text}; {more[i]} put back, which fit" if more is not None and more[i] and text else text
    return found
