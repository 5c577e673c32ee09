"""The widest widths on a path that a budget allows."""

from collections.abc import Callable

import numpy as np

from prunit.allocate.target import Target

WidthsAt = Callable[[float], np.ndarray]
"""Widths of all groups, real numbers, as a dial goes from 0 (narrow) to 1 (dense)."""


def widest(target: Target, widths_at: WidthsAt, *, steps: int = 40) -> np.ndarray:
    """Allowed widths of the largest dial that meets the budget, then one step more in each group where it still does.

    No width may fall as the dial grows. Where even dial 0 costs too much, the path goes on from there to minimum
    widths, by equal shares. Raises `BudgetError` if those cost too much too.
    """
    target.check_reachable()
    low, high = 0.0, 1.0
    if target.met_by(target.down(widths_at(high))):
        return _filled(target, target.down(widths_at(high)), widths_at(high))
    narrowest = widths_at(low)
    if not target.met_by(target.down(narrowest)):
        return widest(target, lambda share: share * narrowest, steps=steps)
    for _ in range(steps):
        middle = (low + high) / 2
        if target.met_by(target.down(widths_at(middle))):
            low = middle
        else:
            high = middle
    return _filled(target, target.down(widths_at(low)), widths_at(high))


def _filled(target: Target, widths: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The widths with one step added in turn to each group that rounding took from its real width, while there is room.

    Those that it took most from come first.
    """
    widths, wider = widths.copy(), target.allowed.up(widths + 1)
    missing = np.where(wider > widths, real - widths, -np.inf)
    for i in np.argsort(-missing, kind="stable"):
        if missing[i] > 0:
            before, widths[i] = widths[i], wider[i]
            if not target.met_by(widths):
                widths[i] = before
    return widths
