"""Share a budget among the groups: how many channels each keeps.

An allocator sees a graph, scores and a budget, never a model. To add one: a file with a function
`(target, scores) -> widths` and a line in `ALLOCATORS`; the contract suite tests it.
"""

from collections.abc import Mapping
from typing import Final, Protocol

from prunit.allocate.budget import KEYS, Budget, Limit, Target
from prunit.allocate.by_density import Densities, by_density
from prunit.allocate.global_threshold import global_threshold
from prunit.allocate.uniform import uniform
from prunit.plans import Scores, Widths

__all__ = [
    "ALLOCATORS",
    "KEYS",
    "Allocator",
    "Budget",
    "Densities",
    "Limit",
    "Target",
    "by_density",
    "global_threshold",
    "uniform",
]


class Allocator(Protocol):
    """Widths by group that meet the target, from scores of channels; raises `BudgetError` if none do."""

    def __call__(self, target: Target, scores: Scores, /) -> Widths: ...


ALLOCATORS: Final[Mapping[str, Allocator]] = {"uniform": uniform, "global": global_threshold}
