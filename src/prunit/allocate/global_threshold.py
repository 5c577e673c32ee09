"""Global threshold: channels of all groups are ranked together and the lowest go, whatever that does to a layer."""

import numpy as np

from prunit.allocate.budget import Target
from prunit.costs import named_widths
from prunit.errors import PlanError
from prunit.plans import Scores, Widths


def global_threshold(target: Target, scores: Scores) -> Widths:
    """The widths that are left when the fewest lowest-scored channels go that the budget demands.

    A group's best channels up to its minimum width never go. Channels that went first for nothing (because a later one
    freed more than was needed) come back while the budget holds. Ties go by group, then channel.
    """
    target.check_reachable()
    order = _removal_order(target, scores)
    low, high = 0, len(order)  # removing `high` channels meets the budget, fewer than `low` do not
    while low < high:
        middle = (low + high) // 2
        if target.met_by(_widths(target, order[:middle])):
            high = middle
        else:
            low = middle + 1
    removed = order[:high]
    return named_widths(target.graph, _refill(target, _widths(target, removed), removed[::-1]))


def _refill(target: Target, widths: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The widths with a channel of each group in `order` added in turn, where the budget still holds.

    A group that cannot grow once cannot grow later. So all goes by longest runs that fit, each found by bisection,
    instead of by channels, of which there may be tens of thousands.
    """
    while len(order):
        fit, too_many = 0, len(order) + 1
        while too_many - fit > 1:
            middle = (fit + too_many) // 2
            if target.met_by(widths + _counts(target, order[:middle])):
                fit = middle
            else:
                too_many = middle
        widths = widths + _counts(target, order[:fit])
        rest = order[fit + 1 :]
        order = rest[rest != order[fit]] if fit < len(order) else rest
    return widths


def _removal_order(target: Target, scores: Scores) -> np.ndarray:
    """The group of each channel that may go, lowest score first."""
    graph = target.graph
    values, groups = [], []
    for i, group in enumerate(graph.groups):
        spare = int(graph.sizes[i] - target.floor[i])
        if spare > 0:
            score = scores.get(group.name)
            if score is None or tuple(score.shape) != (group.size,):
                found = "none" if score is None else f"shape {tuple(score.shape)}"
                raise PlanError(f"group '{group.name}' needs a score of shape ({group.size},), found {found}")
            values.append(np.sort(score.detach().double().cpu().numpy())[:spare])
            groups.append(np.full(spare, i))
    if not values:
        return np.empty(0, dtype=np.int64)
    return np.concatenate(groups)[np.argsort(np.concatenate(values), kind="stable")]


def _widths(target: Target, removed: np.ndarray) -> np.ndarray:
    return target.graph.sizes - _counts(target, removed)


def _counts(target: Target, groups: np.ndarray) -> np.ndarray:
    return np.bincount(groups, minlength=len(target.graph.groups))
