"""Scores that are computed again and again while the network thins out, turned into one ranking.

The result ranks every weight by *when* it was pruned: a weight that goes in round k (of 1 … T) gets k - 1 plus a
fraction below 1 by its saliency then; one that survives all rounds gets T or more. So a single global threshold on the
ranking gives the mask at every density on the way, as it does for a one-shot score.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from prunit.cut.plans import unread
from prunit.cut.surgery import compact, cut_tensors
from prunit.graph import ChannelGraph
from prunit.scores.network import Network

Rescore = Callable[[Network, Mapping[str, Tensor]], dict[str, Tensor]]
"""Saliencies of all weights of a network whose pruned weights are zero."""

OnRound = Callable[[int, int], None]
"""Called with the round that is done and the number of rounds."""

_SHRINK_BELOW = 0.75
"""Cut the network that is scored when it would have at most this share of the weights it has."""

_SAMPLE, _SAMPLE_EVERY = 1 << 16, (1, 11, 23, 47, 97, 199, 401, 809, 1601, 3203)
"""About how many weights are looked at to guess a threshold, and how far apart: no multiples of a kernel's size."""


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
    """The weights that are left: their values, where they stand, and the ranking so far.

    All of it is flat, one tensor behind the other, so that a round takes a few operations however many layers there
    are: `_order` and `_alive` as in the dense tensors, `_values` and `_living` as in those that are scored now.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, start: Mapping[str, Tensor]) -> None:
        self.model, self.graph, self.net = model, graph, Network(model, graph)
        self.start = {n: start[n] for n in self.net.weights}
        self.total = self.left = sum(w.numel() for w in start.values())
        self._order = torch.zeros(self.total, device=self.net.device)
        self._alive = torch.ones(self.total, dtype=torch.bool, device=self.net.device)
        self._values, self._living = _flat(self.start), self._alive
        self._low = torch.empty_like(self._living)  # scratch: new memory costs more than what is done with it
        self.weights = _apart(self._values, self.start)
        # Where each weight that is scored now stands among the dense ones; None: they are the dense ones.
        self._position: Tensor | None = None
        self._lost = 0

    @property
    def order(self) -> dict[str, Tensor]:
        """The ranking by name, in the shapes of the dense tensors."""
        return _apart(self._order, self.start)

    def prune(self, scores: Mapping[str, Tensor], *, keep: int, rank: int) -> None:
        """Leave the `keep` highest-scored living weights; those that go rank from `rank` to below `rank + 1`."""
        flat, n = [scores[name].reshape(-1) for name in self.weights], self.left - keep
        # Those that the last shrinking took out go now too, with a saliency of 0.
        lost, self._lost = flat[0].new_zeros(self._lost), 0
        for most in (self._probably_above(flat, n), np.inf):
            low = self._living_at_most(flat, most)
            if len(low) + len(lost) >= n:
                break
        score = _at(flat, low)
        threshold = kth_smallest([score, lost], n)
        gone = _where(score <= threshold)
        going = low.index_select(0, gone)
        dense = self._note(going, fraction(score.index_select(0, gone), threshold).add_(rank))
        self._alive.index_fill_(0, dense, False)
        self._living.index_fill_(0, going, False)
        self._values.index_fill_(0, going, 0)
        self.left -= len(going) + len(lost)

    def close(self, scores: Mapping[str, Tensor], *, rank: int) -> None:
        """Rank what is left by its last saliency."""
        living = _where(self._living)
        score = _at([scores[name].reshape(-1) for name in self.weights], living)
        self._note(living, rank + fraction(score, median([score])))

    def shrink(self, *, rank: int) -> None:
        """Score a smaller network from now on, if enough channels are read by no living weight."""
        alive = _apart(self._alive, self.start)
        plan = unread(self.graph, alive)
        keep = self.graph.flat_keep(plan.keep)
        if self._size(keep) > _SHRINK_BELOW * len(self._values):
            return
        self.net = Network(compact(self.model, self.graph, plan), self.graph, keep)
        small = cut_tensors(self.graph, keep, self.start)
        self._living = _flat(cut_tensors(self.graph, keep, alive))
        self._values = _flat(small).mul_(self._living)
        self._low = torch.empty_like(self._living)
        self.weights = _apart(self._values, small)
        self._position = _flat(cut_tensors(self.graph, keep, _positions(self.start)))
        # Weights into channels that nobody reads have saliency 0 from now on: they go in the next round, and rank as
        # `fraction` ranks that.
        before = self._alive.clone()
        for axis in self.graph.axes:
            if axis.tensor in alive:
                unread_here = torch.from_numpy(np.flatnonzero(~keep[axis.where])).to(self._alive.device)
                alive[axis.tensor].index_fill_(axis.dim, unread_here, False)
        lost = _where(before.logical_xor_(self._alive))
        self._order[lost] = rank + 0.5
        self._lost += len(lost)

    def _probably_above(self, flat: Sequence[Tensor], n: int) -> float:
        """A saliency a little above the n-th smallest living one in all likelihood, by a sample."""
        every = next((p for p in _SAMPLE_EVERY if len(self._living) <= p * _SAMPLE), _SAMPLE_EVERY[-1])
        parts = zip(flat, self._living.split([len(s) for s in flat]), strict=True)
        sample = torch.cat([s[::every][living[::every]] for s, living in parts])
        below = int(1.2 * len(sample) * n / max(1, self.left)) + 20
        return kth_smallest([sample], below) if below < len(sample) else np.inf

    def _living_at_most(self, flat: Sequence[Tensor], most: float) -> Tensor:
        """Positions of the living weights with at most that saliency, ascending."""
        for s, low in zip(flat, self._low.split([len(s) for s in flat]), strict=True):
            if s.is_cpu:
                np.less_equal(s.numpy(), most, out=low.numpy())  # several times faster than torch's
            else:
                torch.le(s, most, out=low)
        return _where(self._low.logical_and_(self._living))

    def _size(self, keep: np.ndarray) -> float:
        """Weights that are left when the channels in `keep` stay."""
        size = {n: float(w.numel()) for n, w in self.start.items()}
        for axis in self.graph.axes:
            if axis.tensor in size:
                size[axis.tensor] *= keep[axis.where].mean()
        return sum(size.values())

    def _note(self, index: Tensor, ranks: Tensor) -> Tensor:
        """Rank weights that are scored now, by position; their positions among the dense ones."""
        dense = index if self._position is None else self._position.index_select(0, index).long()
        self._order.index_copy_(0, dense, ranks.to(torch.float32))
        return dense


def _flat(tensors: Mapping[str, Tensor]) -> Tensor:
    """New memory with all tensors one behind the other."""
    return torch.cat([t.reshape(-1) for t in tensors.values()])


def _apart(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Views of the parts of a flat tensor by name, in the shapes of `like`."""
    parts = flat.split([t.numel() for t in like.values()])
    return {name: part.view(t.shape) for (name, t), part in zip(like.items(), parts, strict=True)}


def _at(flat: Sequence[Tensor], where: Tensor) -> Tensor:
    """The elements at ascending positions among those of all tensors."""
    ends = np.cumsum([len(t) for t in flat])
    parts = where.tensor_split(np.searchsorted(where.cpu().numpy(), ends[:-1]).tolist())
    return torch.cat([t.index_select(0, i - int(e) + len(t)) for t, i, e in zip(flat, parts, ends, strict=True)])


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
    relative = score.to(torch.float64, copy=True).div_(abs(scale) or 1.0)
    twice = relative.abs().add_(1).mul_(2)
    return relative.div_(twice).add_(0.5).clamp_(max=1 - 1e-4)


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
    return torch.from_numpy(np.flatnonzero(mask.numpy())) if mask.is_cpu else mask.nonzero().squeeze(1)


def _positions(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For each element its position among those of all tensors."""
    ends = np.cumsum([t.numel() for t in tensors.values()])
    kind = torch.int32 if ends[-1] < 2**31 else torch.int64
    return {
        name: torch.arange(end - t.numel(), end, dtype=kind, device=t.device).view(t.shape)
        for (name, t), end in zip(tensors.items(), ends.tolist(), strict=True)
    }
