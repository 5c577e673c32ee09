"""Steps down from the widest widths in a given order: the fewest of them that a budget demands."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from prunit.allocate.target import Target

RankOf = Callable[[int, np.ndarray], np.ndarray]
"""When a group of this number has lost so many channels, for several such numbers: low goes first."""


class Cuts(NamedTuple):
    """Steps down, in the order in which they are taken: the group that each narrows, and by how many channels."""

    group: np.ndarray
    channels: np.ndarray

    def sums(self, target: Target, some: slice) -> np.ndarray:
        """What these steps take from each group."""
        taken = np.bincount(self.group[some], weights=self.channels[some], minlength=len(target.graph.groups))
        return taken.astype(np.int64)


def ordered(target: Target, rank_of: RankOf) -> Cuts:
    """All steps that may be taken, lowest rank first: a step has that of the last channel which it costs.

    Ties go by group, then by width. No rank may fall as a group loses channels.
    """
    ranks, groups, channels = [], [], []
    for i in range(len(target.graph.groups)):
        ladder = target.allowed.ladder(i)[::-1]
        if len(ladder) > 1:
            ranks.append(rank_of(i, target.graph.sizes[i] - ladder[1:]))
            groups.append(np.full(len(ladder) - 1, i))
            channels.append(-np.diff(ladder))
    if not ranks:
        return Cuts(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    order = np.argsort(np.concatenate(ranks), kind="stable")
    return Cuts(np.concatenate(groups)[order], np.concatenate(channels)[order])


def fewest(target: Target, cuts: Cuts) -> np.ndarray:
    """The widths after as many steps as the budget demands; those that went for nothing come back while it holds.

    For nothing: because a later step freed more than was needed.
    """
    if target.met_by(target.ceiling):
        return target.ceiling.copy()
    low, high = 0, len(cuts.group)  # taking `high` steps meets the budget, fewer than `low` do not
    while low < high:
        middle = (low + high) // 2
        if target.met_by(target.ceiling - cuts.sums(target, slice(middle))):
            high = middle
        else:
            low = middle + 1
    widths = target.ceiling - cuts.sums(target, slice(high))
    back = Cuts(cuts.group[:high][::-1], cuts.channels[:high][::-1])
    return _refilled(target, widths, back)


def _refilled(target: Target, widths: np.ndarray, cuts: Cuts) -> np.ndarray:
    """The widths with each of these cuts undone in turn, where the budget still holds.

    A group that cannot grow once cannot grow later. So all goes by longest runs that fit, each found by bisection,
    instead of by channels, of which there may be tens of thousands.
    """
    while len(cuts.group):
        fit, too_many = 0, len(cuts.group) + 1
        while too_many - fit > 1:
            middle = (fit + too_many) // 2
            if target.met_by(widths + cuts.sums(target, slice(middle))):
                fit = middle
            else:
                too_many = middle
        widths = widths + cuts.sums(target, slice(fit))
        rest = np.arange(fit + 1, len(cuts.group))
        rest = rest[cuts.group[rest] != cuts.group[fit]] if fit < len(cuts.group) else rest
        cuts = Cuts(cuts.group[rest], cuts.channels[rest])
    return widths
