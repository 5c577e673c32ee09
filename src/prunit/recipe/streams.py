"""Residual streams: whether they stay whole within a budget, or shrink like any other layer."""

from typing import Final

from prunit.allocate import Target
from prunit.allocate.search import widest
from prunit.errors import BudgetError
from prunit.recipe.config import PruneConfig

_PATIENCE: Final = 3.0
"""How much narrower the other layers may get before a residual stream shrinks too; a judgement, not a result."""


def reachable(free: Target, config: PruneConfig) -> Target:
    """The target with streams kept whole if the configuration keeps them; `BudgetError` if it cannot be met."""
    if config.residual != "keep":
        free.check_reachable()
        return free
    whole = _whole(free)
    if whole.met_by(whole.floor):
        return whole
    try:
        whole.check_reachable()
    except BudgetError as error:
        if not free.met_by(free.floor):
            raise
        raise BudgetError(f"{error}; it can be met with prune.residual=auto", error.closest) from error
    return whole


def with_streams(target: Target, config: PruneConfig) -> Target:
    """A reachable target with residual streams whole or free to shrink.

    With `residual="auto"` streams stay whole while the other layers need not get more than `_PATIENCE` times narrower
    for it than if every layer kept the same share. A stream that a limit narrows is as wide as that allows.
    """
    if config.residual != "auto":
        return target
    target.check_reachable()
    return _whole(target) if stay_whole(target) else target


def stay_whole(target: Target) -> bool:
    """Streams stay whole in this reachable target if that is left open."""
    whole, sizes, free = _whole(target), target.graph.sizes, target.graph.free
    # The share that all layers would keep if the streams shrank along, and what that leaves if they do not.
    share = widest(target, lambda share: share * sizes)[free].sum() / max(sizes[free].sum(), 1)
    return whole.met_by(whole.allowed.down(share / _PATIENCE * sizes))


def _whole(target: Target) -> Target:
    return target.keeping([g.name for g in target.graph.groups if g.coupled and not g.pinned], "residual stream")
