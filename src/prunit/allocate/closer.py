"""Widths brought closer to what a budget allows, where multiples of `round_to` are too coarse for an allocator."""

from collections.abc import Iterator

import numpy as np

from prunit.allocate.target import Target

WITHIN = 0.01
"""How much of every limit may stay unused before widths are brought closer."""

_MOST_TRIED = 4000
"""How many exchanges are priced before the search gives up; a price takes some 20 microseconds."""


def closer(target: Target, widths: np.ndarray, *, within: float = WITHIN) -> np.ndarray:
    """Widths that use all but `within` of some limit, if few steps lead there; the same widths if they do already.

    Of all steps that the budget allows the one is taken that brings it closest: one group wider, or where none fits
    one wider and another narrower. Each step uses more of the budget than the last, so it ends. Only groups whose
    widths go in steps are touched, and none that is whole: single channels come close by themselves, and which of them
    stay is what a method is about. Widths that are within no step of the budget stay as they are: the peak of
    activations may hang on one layer, whose channels are few.

    Where a device is limited, groups first get the channels that cost it nothing.
    """
    if target.meters:
        widths = _freely_wider(target, widths)
    tried, in_steps = 0, (target.allowed.step > 1) & (widths < target.ceiling)
    while in_steps.any() and (best := target.used(widths)) < 1 - within:
        found = None
        for moves in (_wider(target, widths, in_steps), _exchanged(target, widths, in_steps)):
            for candidate in moves:
                tried += 1
                used = target.used(candidate)
                if best < used <= 1:
                    found, best = candidate, used
                if tried > _MOST_TRIED:
                    break
            if found is not None:
                break
        if found is None:
            break
        widths = found
    return widths


def _freely_wider(target: Target, widths: np.ndarray) -> np.ndarray:
    """The widths with groups that are cut brought up to the next multiples of 8 or 16, where that takes no longer."""
    while True:
        before, figures = widths, target.figures(widths)
        for i in np.flatnonzero(widths < target.ceiling):
            for block in (16, 8):
                candidate = widths.copy()
                candidate[i] = -(-(widths[i] + 1) // block) * block
                if candidate[i] > target.ceiling[i] or not target.allowed.hold(candidate):
                    continue
                found = target.figures(candidate)
                within = all(found[name] <= most for name, most in target.most.items())
                if within and all(found[name] <= figures[name] for name in target.meters):
                    widths, figures = candidate, found
                    break
        if widths is before:
            return widths


def _wider(target: Target, widths: np.ndarray, groups: np.ndarray) -> Iterator[np.ndarray]:
    """The widths with one group a step wider, for each of these groups that may be."""
    up = target.allowed.up(widths + 1)
    for i in np.flatnonzero(groups & (up > widths)):
        candidate = widths.copy()
        candidate[i] = up[i]
        yield candidate


def _exchanged(target: Target, widths: np.ndarray, groups: np.ndarray) -> Iterator[np.ndarray]:
    """The widths with one group a step wider and another one a step narrower; the widest narrowed first."""
    down = target.allowed.down(widths - 1)
    narrower = np.flatnonzero(groups & (down < widths))
    narrower = narrower[np.argsort(-(widths / target.graph.sizes)[narrower], kind="stable")]
    for wider in _wider(target, widths, groups):
        for i in narrower:
            if wider[i] == widths[i]:
                candidate = wider.copy()
                candidate[i] = down[i]
                yield candidate
