"""Memory on a part used up: groups that are not alive at its peak stay whole, the others grow until none may.

Bytes alive at once are no sum over layers, and a part's own allocator has steps that no estimate tells: a layout of
whole bricks from eight channels on, room for weights that are fetched. So its tools are asked for each step, and the
steps are few: in an arena some 10 ms each, of an NPU's compiler 0.3 s.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from prunit.allocate.search import WidthsAt
from prunit.allocate.target import Target, told

PEAKS: Final = frozenset(("arena_bytes", "sram_bytes"))
"""Figures that hang on the layers at the peak alone, but for some bytes."""
MEMORY: Final = PEAKS | {"flash_bytes"}
SLOW: Final = "sram_bytes"
"""What only an NPU's compiler tells."""
_FULL: Final = 0.99
"""Of flash, which every group takes alike: what is that full stays as it is."""
_ENOUGH: Final = 0.98
"""Of a limit: a plan that uses less is tried with channels of one group traded for those of others."""
_TRADES: Final = (1, 2, 4)
"""Steps that a group is narrower then."""
_RECORDS: Final = 0.05
"""Of a limit on a peak, what a group away from it takes at the most: there are records of its channels in an arena."""
_HALVINGS: Final = 5


def fills(figures: Iterable[str]) -> bool:
    """These figures are limited and no others: widths are grown by what tools say, and there is nothing to correct."""
    names = set(figures)
    return bool(names) and names <= MEMORY


def filled(target: Target, widths: np.ndarray) -> np.ndarray:
    """The widths grown while all limits hold by the word of the parts' tools; the same where other things are limited.

    Where only peaks are limited, groups away from them are whole first, and if need be the others narrower for it. Then
    all others grow together, by equal shares of what they lack, and at last each alone.
    """
    if not fills(target.most) or not _held(target, widths):
        return widths
    if set(target.most) <= PEAKS:
        widths = _away_whole(target, widths)
    elif _used(target, widths) >= _FULL:
        return widths
    widths = _alone(target, _together(target, widths))
    return widths if SLOW in target.most else _traded(target, widths)


def _away_whole(target: Target, widths: np.ndarray) -> np.ndarray:
    """The widths with all groups whole that take little by it; all others by one share narrower, where it is needed."""
    before = _used(target, widths)
    wide = widths.copy()
    for i in _growing(target, widths):
        if _used(target, _with(widths, i, int(target.ceiling[i]))) - before <= _RECORDS:
            wide[i] = target.ceiling[i]
    if _held(target, wide):
        return wide
    others = wide == widths
    return _largest(
        target,
        lambda share: np.where(others, target.allowed.down(target.floor + share * (widths - target.floor)), wide),
        otherwise=widths,
    )


def _together(target: Target, widths: np.ndarray) -> np.ndarray:
    """All groups wider by the largest share of what they lack."""
    return _largest(
        target,
        lambda share: np.maximum(target.allowed.down(widths + share * (target.ceiling - widths)), widths),
        otherwise=widths,
    )


def _largest(target: Target, widths_at: WidthsAt, *, otherwise: np.ndarray) -> np.ndarray:
    """The widths of the largest share that holds, as far as halving finds it; `otherwise` where none does."""
    low, high, found = 0.0, 1.0, otherwise
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        candidate = widths_at(share)
        if _held(target, candidate):
            low, found = share, candidate
        else:
            high = share
    return found


def _alone(target: Target, widths: np.ndarray) -> np.ndarray:
    """Each group in turn as wide as it may be beside the others."""
    for i in _growing(target, widths):
        ladder = target.allowed.ladder(i)
        low, high = int(np.searchsorted(ladder, widths[i])), len(ladder)
        step = 1
        while low + 1 < high:  # most find no room for a single step, few for many
            at = min(low + step, high - 1)
            if _held(target, _with(widths, i, int(ladder[at]))):
                low, step = at, step * 2
            else:
                high, step = at, max((at - low) // 2, 1)
        widths = _with(widths, i, int(ladder[low]))
    return widths


def _traded(target: Target, widths: np.ndarray) -> np.ndarray:
    """The widths with one group narrower, where the others can use up more of the limits for it.

    Of groups that are alive together the first to grow may have left the others no room for a whole channel.
    """
    best = widths
    for i in np.argsort(-widths / target.graph.sizes, kind="stable"):
        ladder = target.allowed.ladder(int(i))
        at = int(np.searchsorted(ladder, widths[i]))
        for step in (steps for steps in _TRADES if steps <= at):
            if _used(target, best) >= _ENOUGH:
                return best
            found = _alone(target, _with(widths, int(i), int(ladder[at - step])))
            best = max(best, found, key=lambda each: _used(target, each))
    return best


def _growing(target: Target, widths: np.ndarray) -> list[int]:
    """Groups that may be wider, those first that kept the smallest share of their channels."""
    order = np.argsort(widths / target.graph.sizes, kind="stable")
    return [int(i) for i in order if widths[i] < target.ceiling[i]]


def _with(widths: np.ndarray, group: int, width: int) -> np.ndarray:
    changed = widths.copy()
    changed[group] = width
    return changed


def _held(target: Target, widths: np.ndarray) -> bool:
    return all(told(meter, widths) <= target.most[name] for name, meter in target.meters.items())


def _used(target: Target, widths: np.ndarray) -> float:
    return max(told(meter, widths) / target.most[name] for name, meter in target.meters.items())
