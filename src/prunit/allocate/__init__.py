"""Share a budget among the groups: how many channels each keeps.

An allocator sees a graph, scores, a budget and constraints, never a model. To add one: a file with a function
`(target, scores) -> widths` and a line in `ALLOCATORS`; the contract suite tests it. It may give a group any width that
`target.allowed` has; `target.allowed.down` rounds to those.
"""

from collections.abc import Mapping
from typing import Final, Protocol

from prunit.allocate.balanced import balance, balanced
from prunit.allocate.budget import KEYS, MEASURED, ON_PARTS, Budget, Limit
from prunit.allocate.by_complexity import Complexity, by_complexity
from prunit.allocate.by_density import Densities, by_density
from prunit.allocate.closer import closer
from prunit.allocate.constraints import Constraints
from prunit.allocate.global_threshold import global_threshold
from prunit.allocate.target import Meter, Target
from prunit.allocate.uniform import uniform
from prunit.cut.plans import Scores, Widths

__all__ = [
    "ALLOCATORS",
    "KEYS",
    "MEASURED",
    "ON_PARTS",
    "Allocator",
    "Budget",
    "Complexity",
    "Constraints",
    "Densities",
    "Limit",
    "Meter",
    "Target",
    "balance",
    "balanced",
    "by_complexity",
    "by_density",
    "closer",
    "global_threshold",
    "uniform",
]


class Allocator(Protocol):
    """Allowed widths by group that meet the target, from scores of channels; raises `BudgetError` if none do."""

    def __call__(self, target: Target, scores: Scores, /) -> Widths: ...


ALLOCATORS: Final[Mapping[str, Allocator]] = {
    "uniform": uniform,
    "global": global_threshold,
    "balanced": balanced,
}
