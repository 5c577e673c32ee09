"""Layer collapse: when thinning out the weights cuts the output off from the input."""

import math

from prunit.cut.plans import Scores
from prunit.graph import ChannelGraph


def collapse(graph: ChannelGraph, scores: Scores) -> tuple[str, float]:
    """The lowest threshold that disconnects the network if all channels with at most that score go, and the group
    whose last channel goes then; ('', inf) if none does.

    A residual branch may be empty, its shortcut still connects. Pinned groups are never emptied themselves; the network
    is disconnected when one of them, the output's among them, is reached from the input no more.
    """
    nets = _Wires(graph)
    last = sorted((float(scores[g.name].max()), g.name) for g in graph.groups if not g.pinned)
    # One more empty group never connects anything, so the first that disconnects is found by bisection.
    low, high = 0, len(last)
    while low < high:
        middle = (low + high) // 2
        if nets.connected({name for _, name in last[: middle + 1]}):
            low = middle + 1
        else:
            high = middle
    return (last[low][1], last[low][0]) if low < len(last) else ("", math.inf)


class _Wires:
    """Which groups each weight reads and which weights make each group."""

    def __init__(self, graph: ChannelGraph) -> None:
        self._pinned = {g.name for g in graph.groups if g.pinned}
        self._makers: dict[str, set[str]] = {}
        self._reads: dict[str, set[str]] = {}
        for group in graph.groups:
            self._makers[group.name] = {axis.tensor for axis in graph.axes_of(group.name, "out")}
            for axis in graph.axes_of(group.name, "in"):
                self._reads.setdefault(axis.tensor, set()).add(group.name)
        # Positions of no group come from the image or from something that never goes.
        self._sources = {axis.tensor for axis in graph.axes if axis.reads and (axis.where < 0).any()}

    def connected(self, empty: set[str]) -> bool:
        """Every pinned group is reached from the input without passing through the groups in `empty`."""
        reached: set[str] = set()
        waiting = self._makers.keys() - empty
        while True:
            new = {name for name in waiting if any(self._carries(t, reached) for t in self._makers[name])}
            if not new:
                return not self._pinned & waiting
            reached |= new
            waiting -= new

    def _carries(self, weight: str, reached: set[str]) -> bool:
        read = self._reads.get(weight)
        return read is None or weight in self._sources or bool(read & reached)
