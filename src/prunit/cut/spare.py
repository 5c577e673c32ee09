"""Channels that do nothing and stay all the same, since an engine is faster with them.

Two kinds can stay with the outputs as they are. One that nobody reads may have any value. One that is the same whatever
the input is read as before, so nothing of it is folded or merged: what makes it must not read a channel that went,
unless that one was zero there, or has another value now.
"""

from collections.abc import Mapping

import numpy as np

from prunit.cut.idle import Reading, Settled


def with_spare(reading: Reading, least: Settled, at_least: Mapping[str, int]) -> Settled:
    """As `least`, with so many channels in the groups named there, where that many can stay.

    Unread channels first, then constants, each in their order. A group that cannot keep so many keeps what it must: a
    width in between is worth nothing. `UnknownNameError` for a group that the model lacks.
    """
    graph = reading.graph
    for name in at_least:
        graph.group(name)
    keep, right, into = least.keep.copy(), least.right.copy(), dict(least.into)
    read = reading.read_by(right)
    for group, start in zip(graph.groups, graph.offsets, strict=False):
        span = slice(start, start + group.size)
        missing = min(at_least.get(group.name, 0), group.size) - int(keep[span].sum())
        if missing <= 0:
            continue
        gone = start + np.flatnonzero(~keep[span])
        unread = gone[~read[gone]][:missing]
        constants = _exact(reading, gone[read[gone] & reading.constant[gone]], keep, right)[: missing - len(unread)]
        if len(unread) + len(constants) < missing:
            continue
        keep[unread] = keep[constants] = right[constants] = True
        read |= reading.read_by(_only(constants, right))
        for channel in constants.tolist():
            into.pop(channel, None)
    return Settled(keep, right, into)


def _exact(reading: Reading, channels: np.ndarray, keep: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Those of these constant channels whose value nothing that went has a part in."""
    wrong = np.zeros_like(keep)
    for reader in reading.readers:
        rows = np.flatnonzero(np.isin(reader.outputs, channels))
        if len(rows):
            where = reader.axis.where
            zero = (reader.constants == 0).all(0) & ~keep[where]
            lost = ~(right[where] | zero)
            wrong[reader.outputs[rows[reader.used[rows][:, lost].any(1)]]] = True
    return channels[~wrong[channels]]


def _only(channels: np.ndarray, like: np.ndarray) -> np.ndarray:
    found = np.zeros_like(like)
    found[channels] = True
    return found
