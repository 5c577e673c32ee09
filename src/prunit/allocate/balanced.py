"""Balanced widths: of all within a budget those that leave the largest product, over all layers, of shares of weights.

A layer that keeps the share a of its inputs and b of its outputs keeps a times b of its weights. The product over all
layers is the synaptic flow that is left where weights are alike (Tanaka et al. 2020), and one thin layer spoils it as
it spoils a network. A group of channels counts once for each side of a layer that it forms, so a residual stream, which
many layers read and write, is dear to narrow, and what only lies between two layers is cheap.

Steps are priced by whatever the budget limits, an engine's milliseconds or a compiler's cycles as well as counts. Among
random widths of a ResNet-8 this product told accuracies better than multiply-adds, parameters or cycles did
(`bench/mcu_frontier.py`).
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from prunit.allocate.search import widest
from prunit.allocate.target import Target
from prunit.cut.plans import Scores, Widths
from prunit.graph import ChannelGraph
from prunit.prices.costs import named_widths

_AHEAD: Final = (1, 2, 4)
"""Steps that are tried at once: on blocks of channels a single one may save nothing."""
_FINEST: Final = 32
"""A step takes at least one in so many of a group's channels."""
_FRESH: Final = 4
"""Groups that are priced anew for each step, the cheapest by what they were priced at before."""


def balanced(target: Target, scores: Scores) -> Widths:
    """The widths; `scores` play no part in how many channels a group keeps.

    From dense, one step after the other that loses least of the product's logarithm for what it saves of the tightest
    limit, then back wherever there is room. Raises `BudgetError` where the budget is out of reach.
    """
    target.check_reachable()
    widths = _Narrowing(target).widths()
    if not target.met_by(widths):  # no single group saves anything, all together do
        widths = widest(target, lambda share: share * widths)
    return named_widths(target.graph, _refilled(target, widths))


def balance(graph: ChannelGraph, widths: Mapping[str, int]) -> float:
    """The logarithm of the product of all layers' shares of weights: 0 for the dense network, less for any other."""
    kept = np.array([widths[group.name] for group in graph.groups], np.float64)
    return float(sides(graph) @ np.log(kept / graph.sizes))


def sides(graph: ChannelGraph) -> np.ndarray:
    """Of each group the inputs and outputs of layers that it forms."""
    return np.array(
        [sum(1 for side in ("in", "out") for _ in graph.axes_of(g.name, side)) for g in graph.groups], np.float64
    )


class _Narrowing:
    """Widths on their way down from the widest."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._sides = np.maximum(sides(target.graph), 1)
        self._ladders = [target.allowed.ladder(i) for i in range(len(target.graph.groups))]
        self._widths = target.ceiling.copy()
        self._used = target.used(self._widths)

    def widths(self) -> np.ndarray:
        """Those that first meet the budget, or those from which no step saves anything."""
        free = [i for i, ladder in enumerate(self._ladders) if len(ladder) > 1]
        rates = {i: self._rate(i) for i in free}
        while not self._target.met_by(self._widths) and rates:
            likely = sorted(rates, key=lambda i: rates[i][0])[:_FRESH]
            rates |= {i: self._rate(i) for i in likely}
            if not any(np.isfinite(rates[i][0]) for i in likely):
                rates |= {i: self._rate(i) for i in free}
            best = min(rates, key=lambda i: rates[i][0])
            if not np.isfinite(rates[best][0]):
                break
            self._widths[best] = rates[best][1]
            self._used = self._target.used(self._widths)
            rates[best] = self._rate(best)
        return self._widths

    def _rate(self, group: int) -> tuple[float, int]:
        """What the best step of a group loses for what it saves, and the width after it; infinite if none saves."""
        width, ladder = self._widths[group], self._ladders[group]
        best, narrower = np.inf, int(width)
        below = ladder[(ladder < width) & (ladder <= width * (1 - 1 / _FINEST))]
        for each in (int(below[-steps]) for steps in _AHEAD if steps <= len(below)):
            tried = self._widths.copy()
            tried[group] = each
            saved = self._used - self._target.used(tried)
            rate = float(self._sides[group] * np.log(width / each)) / saved if saved > 0 else np.inf
            if rate < best:
                best, narrower = rate, each
        return best, narrower


def _refilled(target: Target, widths: np.ndarray) -> np.ndarray:
    """The widths with steps added while any holds: first where it adds most to the product."""
    weight, widths = np.maximum(sides(target.graph), 1), widths.copy()
    while True:
        wider = target.allowed.up(widths + 1)
        gains = weight * np.log(wider / widths)
        for i in np.argsort(-gains, kind="stable"):
            if gains[i] > 0:
                before, widths[i] = widths[i], wider[i]
                if target.met_by(widths):
                    break
                widths[i] = before
        else:
            return widths
