"""What a limit on the bytes alive at once is about: the groups that are alive at the peak, and no others."""

from typing import Final

import numpy as np

from prunit.allocate.target import Target

RAM: Final = "activation_bytes"
"""The figure of such a limit."""

_PARTS: Final = 8
"""In how many parts a group takes its way up at least, so that none takes all room before others have had a turn."""


def at_peak(target: Target, widths: np.ndarray) -> np.ndarray:
    """Which groups are alive while more bytes are than the target allows at these widths: booleans, shape (groups,).

    Narrowing any other group brings no such step of the forward pass below the limit; and the steps that are below it
    stay there as widths fall.
    """
    over = target.model.live_at(widths) > target.most[RAM]
    return np.asarray(target.model.alive[over].any(axis=0))


def narrowing_at_peak(target: Target, widths: np.ndarray) -> Target:
    """The target for groups at the peak alone: these may be no wider than `widths`, all others are that wide.

    What is whole there says why.
    """
    inside = at_peak(target, widths)
    others = [g.name for g, yes in zip(target.graph.groups, inside, strict=True) if not yes and not g.pinned]
    return target.at_most(widths, "as the other limits leave it").keeping(others, "not alive at the peak")


def grown(target: Target, widths: np.ndarray) -> np.ndarray:
    """The widths with groups made wider while every limit holds, until none can take a step more.

    Next is always the group that wins the most parameters for the part that it takes of what is left, at the step of
    the forward pass where that part is largest: the peaks of a network lie in different layers, and what narrowing
    them by one share took in vain comes back. Ties go to the first group. `widths` meet the target.
    """
    widths = widths.copy()
    ladders = [target.allowed.ladder(i) for i in range(len(widths))]
    place = np.array([np.searchsorted(ladder, w) for ladder, w in zip(ladders, widths, strict=True)], dtype=np.int64)
    strides = np.array([max(1, (len(x) - p) // _PARTS) for x, p in zip(ladders, place, strict=True)], dtype=np.int64)
    growing = [i for i, ladder in enumerate(ladders) if place[i] < len(ladder) - 1]
    while growing:
        now, live = target.model.at(widths).params, target.model.live_at(widths)
        left = np.maximum(target.most[RAM] - live, 1) if RAM in target.most else np.full(len(live), np.inf)
        best, found = -1.0, None
        for i in tuple(growing):
            wider, cost = widths.copy(), None
            while cost is None and strides[i]:
                wider[i] = ladders[i][min(place[i] + strides[i], len(ladders[i]) - 1)]
                cost = target.cost_within(wider)
                # What does not fit now never will: widths only grow.
                strides[i] = strides[i] if cost else strides[i] // 2
            if cost is None:
                growing.remove(i)
                continue
            taken = float(((target.model.live_at(wider) - live) / left).max(initial=0))
            won = (cost.params - now) / max(taken, 1e-9)
            if won > best:
                best, found = won, (i, wider)
        if found is None:
            break
        i, widths = found
        place[i] = np.searchsorted(ladders[i], widths[i])
        if place[i] == len(ladders[i]) - 1:
            growing.remove(i)
    return widths
