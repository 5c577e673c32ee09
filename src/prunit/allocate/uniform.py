"""Uniform width: every free group keeps the same share of its channels. The baseline that any method must beat."""

from prunit.allocate.search import widest
from prunit.allocate.target import Target
from prunit.cut.plans import Scores, Widths
from prunit.prices.costs import named_widths


def uniform(target: Target, scores: Scores) -> Widths:
    """The widest uniform widths within the budget; `scores` play no part in how many channels a group keeps."""
    return named_widths(target.graph, widest(target, lambda share: share * target.graph.sizes))
