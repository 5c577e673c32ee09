"""Scores that are computed again and again while the network thins out, turned into one ranking.

The result ranks every weight by *when* it was pruned: a weight that goes in round k (of 1 … T) gets k - 1 plus a
fraction below 1 by its saliency then; one that survives all rounds gets T or more. So a single global threshold on the
ranking gives the mask at every density on the way, as it does for a one-shot score.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from prunit.graph import ChannelGraph
from prunit.plans import unread
from prunit.scores.network import Network
from prunit.surgery import compact, cut_tensors

Rescore = Callable[[Network, Mapping[str, Tensor]], dict[str, Tensor]]
"""Saliencies of all weights of a network whose pruned weights are zero."""

OnRound = Callable[[int, int], None]
"""Called with the round that is done and the number of rounds."""

_SHRINK_BELOW = 0.75
"""Cut the network that is scored when it would have at most this share of the weights it has."""


def iterate(
    model: nn.Module,
    graph: ChannelGraph,
    rescore: Rescore,
    start: Mapping[str, Tensor],
    *,
    schedule: Sequence[float],
    on_round: OnRound | None = None,
) -> dict[str, Tensor]:
    """Ranking of all weights by the round that prunes them; after round k the share `schedule[k - 1]` is left.

    `start` holds the weights before round 1. A pruned weight stays pruned. As channels empty, what is scored shrinks:
    a channel that no weight reads adds nothing to any gradient, so the saliencies are the same and the last rounds
    cost a fraction of the first. (It goes by saliencies that are not negative: those of weights into such a channel
    are 0, the lowest.)
    """
    state = _Alive(model, graph, start)
    for k, share in enumerate(schedule, start=1):
        scores = rescore(state.net, state.weights)
        state.prune(scores, keep=round(state.total * share), rank=k - 1)
        if on_round:
            on_round(k, len(schedule))
        if k % 4 == 0 and k < len(schedule):
            state.shrink(rank=k)
    state.close(rescore(state.net, state.weights), rank=len(schedule))
    return state.order


class _Alive:
    """The weights that are left: their values, where they stand, and the ranking so far."""

    def __init__(self, model: nn.Module, graph: ChannelGraph, start: Mapping[str, Tensor]) -> None:
        self.model, self.graph, self.net = model, graph, Network(model, graph)
        self.weights = {n: w.clone() for n, w in start.items()}
        self.order = {n: torch.zeros(w.shape, device=w.device) for n, w in start.items()}
        self.alive = {n: torch.ones(w.shape, dtype=torch.bool, device=w.device) for n, w in start.items()}
        self.total = sum(w.numel() for w in start.values())
        # Flat positions of the living weights in the tensors scored now, and of those tensors in the dense ones.
        self._index = {n: torch.arange(w.numel(), dtype=torch.int32, device=w.device) for n, w in start.items()}
        self._dense_position: dict[str, Tensor] = {}
        self._lost = 0

    def prune(self, scores: Mapping[str, Tensor], *, keep: int, rank: int) -> None:
        """Leave the `keep` highest-scored living weights; those that go rank from `rank` to below `rank + 1`."""
        living = {n: scores[n].reshape(-1).index_select(0, i) for n, i in self._index.items()}
        # Those that the last shrinking took out go now too, with a saliency of 0.
        competing = [*living.values(), next(iter(living.values())).new_zeros(self._lost)]
        threshold = kth_smallest(competing, sum(map(len, competing)) - keep)
        self._lost = 0
        for n, score in living.items():
            stays = score > threshold
            gone = _where(~stays)
            going = self._index[n].index_select(0, gone)
            self._note(n, going, rank + fraction(score.index_select(0, gone), threshold), alive=False)
            self.weights[n].view(-1)[going.long()] = 0
            self._index[n] = self._index[n].index_select(0, _where(stays))

    def close(self, scores: Mapping[str, Tensor], *, rank: int) -> None:
        """Rank what is left by its last saliency."""
        living = {n: scores[n].reshape(-1).index_select(0, i) for n, i in self._index.items()}
        middle = median(list(living.values()))
        for n, score in living.items():
            self._note(n, self._index[n], rank + fraction(score, middle), alive=True)

    def shrink(self, *, rank: int) -> None:
        """Score a smaller network from now on, if enough channels are read by no living weight."""
        plan = unread(self.graph, self.alive)
        keep = self.graph.flat_keep(plan.keep)
        if self._size(keep) > _SHRINK_BELOW * sum(w.numel() for w in self.weights.values()):
            return
        positions = cut_tensors(self.graph, keep, {n: _positions(a) for n, a in self.alive.items()})
        self.net = Network(compact(self.model, self.graph, plan), self.graph)
        dense_weights = self._dense_weights()
        self.weights = cut_tensors(self.graph, keep, dense_weights)
        small_alive = cut_tensors(self.graph, keep, self.alive)
        for n, alive in self.alive.items():
            # Weights into channels that nobody reads have saliency 0 from now on: they go in the next round, and
            # rank as `fraction` ranks that.
            lost = alive.clone()
            lost.view(-1)[positions[n].view(-1).long()] = False
            self.order[n][lost] = rank + 0.5
            alive &= ~lost
            self._lost += int(lost.sum())
            self._index[n] = small_alive[n].reshape(-1).nonzero().squeeze(1).int()
        self._dense_position = {n: p.reshape(-1) for n, p in positions.items()}

    def _size(self, keep: np.ndarray) -> float:
        """Weights that are left when the channels in `keep` stay."""
        size = {n: float(a.numel()) for n, a in self.alive.items()}
        for axis in self.graph.axes:
            if axis.tensor in size:
                size[axis.tensor] *= keep[axis.where].mean()
        return sum(size.values())

    def _dense_weights(self) -> dict[str, Tensor]:
        dense = {n: torch.zeros(o.shape, dtype=self.weights[n].dtype, device=o.device) for n, o in self.order.items()}
        for n, w in self.weights.items():
            position = self._dense_position.get(n)
            if position is None:
                dense[n].copy_(w)
            else:
                dense[n].view(-1)[position.long()] = w.reshape(-1)
        return dense

    def _note(self, name: str, index: Tensor, values: Tensor, *, alive: bool) -> None:
        position = self._dense_position.get(name)
        where = (index if position is None else position.index_select(0, index)).long()
        self.order[name].view(-1)[where] = values.to(torch.float32)
        if not alive:
            self.alive[name].view(-1)[where] = False


def iterate_reviving(
    net: Network, rescore: Rescore, start: Mapping[str, Tensor], *, schedule: Sequence[float], on_round: OnRound | None
) -> dict[str, Tensor]:
    """As `iterate`, but all weights compete in each round, so that a pruned one may return (FORCE).

    A weight's rank is set by the last round that prunes it, so a threshold on the ranking gives the method's mask at
    the last density, and between densities on the way only about the masks that it went through.
    """
    total = sum(w.numel() for w in start.values())
    weights = {n: w.clone() for n, w in start.items()}
    alive = {n: torch.ones_like(w, dtype=torch.bool) for n, w in start.items()}
    order = {n: torch.zeros(w.shape, device=w.device) for n, w in start.items()}
    scores: dict[str, Tensor] = {}
    for k, share in enumerate(schedule, start=1):
        scores = rescore(net, weights)
        threshold = kth_smallest([s.reshape(-1) for s in scores.values()], total - round(total * share))
        for n, score in scores.items():
            stays = score > threshold
            going = alive[n] & ~stays
            order[n][going] = (k - 1 + fraction(score[going], threshold)).float()
            alive[n] = stays
            torch.mul(start[n], stays, out=weights[n])
        if on_round:
            on_round(k, len(schedule))
    left = {n: score[alive[n]] for n, score in scores.items()}
    middle = median(list(left.values()))
    for n, score in left.items():
        order[n][alive[n]] = (len(schedule) + fraction(score, middle)).float()
    return order


def exponential(density: float, rounds: int) -> list[float]:
    """Shares left after each round: density^(k / rounds), so that every round prunes the same share of what is left."""
    return [density ** (k / rounds) for k in range(1, rounds + 1)]


def fraction(score: Tensor, scale: float) -> Tensor:
    """Saliencies as numbers from 0 to below 1 in the same order; 0 becomes 1/2, `scale` 3/4 (or 1/4 if negative)."""
    relative = score.double() / (abs(scale) or 1.0)
    return (0.5 + 0.5 * relative / (1 + relative.abs())).clamp_(max=1 - 1e-4)


def median(scores: Sequence[Tensor]) -> float:
    """The median of all scores, 0 of none."""
    n = sum(s.numel() for s in scores)
    return kth_smallest(scores, (n + 1) // 2) if n else 0.0


def kth_smallest(scores: Sequence[Tensor], n: int) -> float:
    """The n-th smallest of all scores: pruning n of them keeps what is above it. For n < 1, -inf."""
    if n < 1:
        return -np.inf
    flat = torch.cat([s.reshape(-1) for s in scores]).cpu().numpy()
    n = min(n, len(flat))
    flat.partition(n - 1)  # several times faster than torch.kthvalue
    return float(flat[n - 1])


def _where(mask: Tensor) -> Tensor:
    """Positions of True in a flat mask; on the CPU by NumPy, which is several times faster at it."""
    return mask.nonzero().squeeze(1) if mask.is_cuda else torch.from_numpy(np.flatnonzero(mask.numpy()))


def _positions(like: Tensor) -> Tensor:
    return torch.arange(like.numel(), dtype=torch.int32, device=like.device).view(like.shape)
