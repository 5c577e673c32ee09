"""Plans timed until the figures can be trusted: again, where the machine was busy with something else meanwhile."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from prunit.cut.plans import Plan
from prunit.edge.comparing.compare import is_noisy
from prunit.recipe.stopwatch import Timing

Watch = Callable[[Mapping[str, Plan]], Mapping[str, Sequence[Timing]]]
"""Times plans by name, all of them and the dense model in turns: `Stopwatch`. The first timing is of batch 1."""

_TIMES: Final = 3
"""How often a plan is timed then, so that one figure that is off does not count."""


def steadily(watch: Watch, plans: Mapping[str, Plan]) -> dict[str, list[Sequence[Timing]]]:
    """The timings of each plan by name: one of each batch size, and more of all of those that were disturbed."""
    found: dict[str, list[Sequence[Timing]]] = {name: [] for name in plans}
    left = dict(plans)
    for _ in range(_TIMES):
        if not left:
            break
        for name, timings in watch(left).items():
            found[name].append(timings)
        # A verdict of the report would not trust such a timing alone either.
        left = {name: plan for name, plan in left.items() if any(map(is_noisy, found[name][0]))}
    return found


def middle(timings: Sequence[Timing]) -> Timing:
    """The one with the middle number of times faster."""
    return sorted(timings, key=lambda timing: timing.times_faster)[len(timings) // 2]
