"""Global threshold: channels of all groups are ranked together and the lowest go, whatever that does to a layer."""

import numpy as np

from prunit.allocate.cuts import fewest, ordered
from prunit.allocate.target import Target
from prunit.cut.plans import Scores, Widths
from prunit.errors import PlanError
from prunit.prices.costs import named_widths


def global_threshold(target: Target, scores: Scores) -> Widths:
    """The widths that are left when the fewest lowest-scored channels go that the budget demands.

    A group whose widths go in steps takes one when the last of the channels that it costs ranks too low. A group's best
    channels up to its minimum width never go. What went first for nothing (because a later step freed more than was
    needed) comes back while the budget holds. Ties go by group, then channel.
    """
    target.check_reachable()

    def rank_of(group: int, lost: np.ndarray) -> np.ndarray:
        return _ascending(target, scores, group)[lost - 1]

    return named_widths(target.graph, fewest(target, ordered(target, rank_of)))


def _ascending(target: Target, scores: Scores, group: int) -> np.ndarray:
    """The scores of a group's channels, lowest first."""
    name, size = target.graph.groups[group].name, target.graph.groups[group].size
    score = scores.get(name)
    if score is None or tuple(score.shape) != (size,):
        found = "none" if score is None else f"shape {tuple(score.shape)}"
        raise PlanError(f"group '{name}' needs a score of shape ({size},), found {found}")
    return np.sort(score.detach().double().cpu().numpy())
