"""From weights to channels: any score of weights becomes one of whole channels here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from prunit.cut.plans import Scores
from prunit.graph import Axis, ChannelGraph
from prunit.shown import Shown, Table, count

Gather = Literal["sum", "mean", "last"]
"""How weights speak for a channel: all together ('sum', 'mean'), or the one that would be pruned last ('last')."""

_PART_BYTES: Final = 1 << 19


class Scored(Shown, dict[str, Tensor]):
    """Scores by name: a dict that shows itself in a few lines."""

    def _table(self) -> Table:
        rows = [
            (name, "×".join(map(str, score.shape)), *(f"{float(x):.4g}" for x in _spread(score)))
            for name, score in self.items()
        ]
        return Table(f"Scores: {count(len(self), 'name')}", ("name", "shape", "least", "mean", "most"), rows)


def _spread(score: Tensor) -> tuple[Tensor, ...]:
    return (score.min(), score.double().mean(), score.max()) if score.numel() else (score.new_zeros(()),) * 3


def per_channel(graph: ChannelGraph, weights: Mapping[str, Tensor], how: Gather) -> Scores:
    """Score of every channel of every group, from scores of weights by parameter name (float64, on the CPU).

    sum   the scores of all weights that make the channel (its filters, in every layer that is added to it)
    mean  their mean: for scores of whole channels, which each of their weights has
    last  when the channel is empty if weights go in the order of their score: once the last weight that makes it or
          the last one that reads it is gone, or the last one of a depthwise filter on its way. Removing the channels
          with at most t then removes exactly those that the mask `score > t` leaves without input or without output
          (DNNShifter's rule, and the first step of its closure).
    """
    if how == "sum":
        return summed(graph, weights, lambda name, score: score)
    if how == "mean":
        total, number = (
            summed(graph, weights, f) for f in (lambda name, score: score, lambda name, score: _ones(score))
        )
        return {name: total[name] / number[name].clamp(min=1) for name in total}
    size = int(graph.offsets[-1])
    made, read, along = np.full(size, -np.inf), np.full(size, -np.inf), np.full(size, np.inf)
    for axis in graph.axes:
        # A maker or reader that has no score never goes; a batch norm's gain, say, has none and says nothing.
        best = _reduce(weights, axis, "max") if axis.tensor in weights else np.inf
        if axis.role == "along":
            several = np.full(size, -np.inf)  # a depthwise layer may hold several filters for a channel
            np.maximum.at(several, axis.where[axis.where >= 0], best)
            np.minimum(along, several, out=along, where=~np.isneginf(several))
        for does, found in ((axis.makes, made), (axis.reads, read)):
            if does:
                np.maximum.at(found, axis.where[axis.where >= 0], best)
    # A depthwise filter stands in the channel's only path, but not where several layers feed the channel.
    along[np.repeat([g.coupled for g in graph.groups], graph.sizes)] = np.inf
    read[np.isneginf(read)] = np.inf  # read by no weight at all: only its makers count
    return _by_group(graph, np.minimum(np.minimum(made, read), along))


def summed(graph: ChannelGraph, weights: Mapping[str, Tensor], score: Callable[[str, Tensor], Tensor]) -> Scores:
    """`per_channel(…, "sum")` of the scores that `score` gives of some rows of a weight, given its name and those.

    So many rows at a time that they and their scores stay in the processor's cache.
    """
    makes: dict[str, set[int]] = {}
    for axis in graph.axes:
        if axis.role != "in":
            makes.setdefault(axis.tensor, set()).add(axis.dim)
    sums: dict[tuple[str, int], np.ndarray] = {}
    for name, weight in weights.items():
        found: dict[int, list[np.ndarray]] = {dim: [] for dim in makes.get(name, ())}
        for rows in _rows(weight) if list(found) == [0] else (weight,):
            part = score(name, rows).detach()
            for dim, those in found.items():
                those.append(_all_on(part, dim, "sum"))
        for dim, those in found.items():
            sums[name, dim] = those[0] if len(those) == 1 else np.concatenate(those)
    total = np.zeros(int(graph.offsets[-1]))
    for axis in graph.axes:
        mine = sums.get((axis.tensor, axis.dim))
        if mine is not None and axis.role != "in":
            held = axis.where >= 0
            np.add.at(total, axis.where[held], mine[held])
    return _by_group(graph, total)


def _ones(like: Tensor) -> Tensor:
    return torch.ones((), device=like.device).expand(like.shape)


def _rows(weight: Tensor) -> Sequence[Tensor]:
    """Runs of at least two rows: torch adds the elements of one alone in another order, with several threads."""
    parts = min(len(weight) // 2, weight.nbytes // _PART_BYTES) if weight.is_cpu else 1
    return weight.tensor_split(parts) if parts > 1 else (weight,)


def _reduce(weights: Mapping[str, Tensor], axis: Axis, how: Literal["sum", "max"]) -> np.ndarray:
    """The scores on an axis of a weight, one for each of its positions that belong to a channel."""
    return _all_on(weights[axis.tensor].detach(), axis.dim, how)[axis.where >= 0]


def _all_on(tensor: Tensor, dim: int, how: Literal["sum", "max"]) -> np.ndarray:
    others = [d for d in range(tensor.ndim) if d != dim]
    if not others:
        return tensor.double().cpu().numpy()
    if how == "sum":
        # Not in float64, which takes ten times as long: torch adds pairwise, so that float32 is off by 1e-7 or so.
        reduced = tensor.sum(others, dtype=torch.promote_types(tensor.dtype, torch.float32))
    else:
        reduced = tensor.amax(others)
    return reduced.double().cpu().numpy()


def _by_group(graph: ChannelGraph, flat: np.ndarray) -> Scores:
    return {
        g.name: torch.from_numpy(flat[start : start + g.size].copy())
        for g, start in zip(graph.groups, graph.offsets, strict=False)
    }
