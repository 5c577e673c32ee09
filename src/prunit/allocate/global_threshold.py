"""Global threshold: channels of all groups are ranked together and the lowest go, whatever that does to a layer."""

from typing import NamedTuple

import numpy as np

from prunit.allocate.budget import Target
from prunit.costs import named_widths
from prunit.errors import PlanError
from prunit.plans import Scores, Widths


class _Cuts(NamedTuple):
    """Steps down, in the order in which they are taken: the group that each narrows, and by how many channels."""

    group: np.ndarray
    channels: np.ndarray

    def sums(self, target: Target, some: slice) -> np.ndarray:
        """What these steps take from each group."""
        taken = np.bincount(self.group[some], weights=self.channels[some], minlength=len(target.graph.groups))
        return taken.astype(np.int64)


def global_threshold(target: Target, scores: Scores) -> Widths:
    """The widths that are left when the fewest lowest-scored channels go that the budget demands.

    A group whose widths go in steps takes one when the last of the channels that it costs ranks too low. A group's best
    channels up to its minimum width never go. What went first for nothing (because a later step freed more than was
    needed) comes back while the budget holds. Ties go by group, then channel.
    """
    target.check_reachable()
    cuts = _cuts(target, scores)
    low, high = 0, len(cuts.group)  # taking `high` steps meets the budget, fewer than `low` do not
    while low < high:
        middle = (low + high) // 2
        if target.met_by(target.ceiling - cuts.sums(target, slice(middle))):
            high = middle
        else:
            low = middle + 1
    widths = target.ceiling - cuts.sums(target, slice(high))
    back = _Cuts(cuts.group[:high][::-1], cuts.channels[:high][::-1])
    return named_widths(target.graph, _refill(target, widths, back))


def _refill(target: Target, widths: np.ndarray, cuts: _Cuts) -> np.ndarray:
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
        cuts = _Cuts(cuts.group[rest], cuts.channels[rest])
    return widths


def _cuts(target: Target, scores: Scores) -> _Cuts:
    """All steps that may be taken, lowest score first: a step has that of the best channel which it costs."""
    values, groups, channels = [], [], []
    for i, group in enumerate(target.graph.groups):
        ladder = target.allowed.ladder(i)[::-1]
        if len(ladder) == 1:
            continue
        score = scores.get(group.name)
        if score is None or tuple(score.shape) != (group.size,):
            found = "none" if score is None else f"shape {tuple(score.shape)}"
            raise PlanError(f"group '{group.name}' needs a score of shape ({group.size},), found {found}")
        values.append(np.sort(score.detach().double().cpu().numpy())[group.size - ladder[1:] - 1])
        groups.append(np.full(len(ladder) - 1, i))
        channels.append(-np.diff(ladder))
    if not values:
        return _Cuts(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    order = np.argsort(np.concatenate(values), kind="stable")
    return _Cuts(np.concatenate(groups)[order], np.concatenate(channels)[order])
