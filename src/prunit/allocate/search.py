"""The widest widths on a path that a budget allows."""

from collections.abc import Callable

import numpy as np

from prunit.allocate.budget import Target

WidthsAt = Callable[[float], np.ndarray]
"""Widths of all groups, real numbers, as a dial goes from 0 (narrow) to 1 (dense)."""


def widest(target: Target, widths_at: WidthsAt, *, steps: int = 40) -> np.ndarray:
    """Whole widths of the largest dial that meets the budget, then one channel more in each group where it still does.

    No width may fall as the dial grows. Where even dial 0 costs too much, the path goes on from there to minimum
    widths, by equal shares. Raises `BudgetError` if those cost too much too.
    """
    target.check_reachable()
    low, high = 0.0, 1.0
    if target.met_by(clip(target, widths_at(high))):
        return clip(target, widths_at(high))
    narrowest = widths_at(low)
    if not target.met_by(clip(target, narrowest)):
        return widest(target, lambda share: share * narrowest, steps=steps)
    for _ in range(steps):
        middle = (low + high) / 2
        if target.met_by(clip(target, widths_at(middle))):
            low = middle
        else:
            high = middle
    real = widths_at(high)
    base = clip(target, widths_at(low))
    # The groups that rounding has taken most from come first.
    missing = np.where(target.graph.free, real - base, -np.inf)
    return fill(target, base, [int(i) for i in np.argsort(-missing, kind="stable") if missing[i] > 0])


def fill(target: Target, widths: np.ndarray, groups: list[int]) -> np.ndarray:
    """The widths with one channel added to each of these groups in turn, where the budget still holds."""
    widths = widths.copy()
    for i in groups:
        if widths[i] < target.graph.sizes[i]:
            widths[i] += 1
            if not target.met_by(widths):
                widths[i] -= 1
    return widths


def clip(target: Target, widths: np.ndarray) -> np.ndarray:
    """Real widths rounded down to whole ones between the minimum and the dense width; pinned groups whole."""
    # A hair is added so that 0.1 * 30 counts as 3.
    whole = np.clip(np.floor(widths + 1e-9).astype(np.int64), target.floor, target.graph.sizes)
    return np.where(target.graph.free, whole, target.graph.sizes)
