"""Importance of every weight, and from it of every channel, before training or after it: higher = keep.

A method is a saliency function and how often it is asked. To add one: write the function in a file of its own and add
a line to `SCORES` and one to `known.SCORES`; the contract suite in `tests/contracts/test_scores.py` then tests it. From
outside pass the function, or a `Score`, wherever a name is accepted.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from prunit.batches import Batch, task_of
from prunit.cut.plans import Scores
from prunit.errors import PrunitError, ScoreError
from prunit.graph import ChannelGraph
from prunit.graph.finite import check_finite
from prunit.known import SCORES as TOLD
from prunit.known import check_score
from prunit.scores.activation import activation
from prunit.scores.bn_scale import bn_scale
from prunit.scores.channels import Gather, Scored, per_channel, summed
from prunit.scores.grasp import grasp
from prunit.scores.iterate import OnRound, Rescore, exponential, iterate, iterate_reviving
from prunit.scores.magnitude import magnitude
from prunit.scores.network import Network, untouched
from prunit.scores.random import erk, uniform
from prunit.scores.snip import force, snip
from prunit.scores.synflow import synflow
from prunit.scores.taylor import taylor

__all__ = [
    "SCORES",
    "Saliency",
    "Score",
    "WeightScores",
    "find",
    "name_of",
    "per_channel",
    "score_channels",
    "score_weights",
]

WeightScores = Mapping[str, Tensor]
"""Score of every convolution and linear weight by parameter name, in the parameter's shape, float, higher = keep.

Thresholding all of them together gives the method's mask at any density.
"""


class Saliency(Protocol):
    """Importance of every weight of a network at the weights given (pruned ones are zero), by name, in their shapes."""

    def __call__(
        self, net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator, /
    ) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Score:
    """A method: its saliency, how many rounds of pruning and rescoring it takes, and what it needs.

    `absolute`: the saliency is asked at |weights|, again in float64 if float32 overflows. `gather`: how a channel's
    score comes from its weights' where single channels are ranked. `each`: the saliency of a weight follows from its
    own value, so that it can be asked for some weights at a time.
    """

    saliency: Saliency
    line: str
    rounds: int = 1
    needs_data: bool = False
    revive: bool = False
    absolute: bool = False
    batch_statistics: bool = True
    gather: Gather = "sum"
    each: bool = False


SCORES: Final[Mapping[str, Score]] = {
    "magnitude": Score(magnitude, TOLD["magnitude"].line, batch_statistics=False, each=True),
    "random": Score(uniform, TOLD["random"].line),
    "random-erk": Score(erk, TOLD["random-erk"].line),
    "snip": Score(snip, TOLD["snip"].line, needs_data=True),
    "grasp": Score(grasp, TOLD["grasp"].line, needs_data=True),
    "synflow": Score(synflow, TOLD["synflow"].line, rounds=100, absolute=True, batch_statistics=False, gather="last"),
    "iterative-snip": Score(snip, TOLD["iterative-snip"].line, rounds=60, needs_data=True, gather="last"),
    "force": Score(force, TOLD["force"].line, rounds=60, needs_data=True, revive=True, gather="last"),
    "taylor": Score(taylor, TOLD["taylor"].line, needs_data=True),
    "bn-scale": Score(bn_scale, TOLD["bn-scale"].line, batch_statistics=False, gather="mean"),
    "activation": Score(activation, TOLD["activation"].line, needs_data=True, gather="mean"),
}

_OWN: Final = tuple(method.saliency for method in SCORES.values())
_LEAST_IN_FLOAT32 = 1e-25
"""Below this sum of all scores, single ones get lost: float32 ends at 1e-38, and there are up to 1e9 of them."""


def find(score: str | Score | Saliency) -> Score:
    """The method of that name; a `Score` as it is; a bare saliency function as a one-shot method that gets data."""
    if isinstance(score, Score):
        return score
    if callable(score):
        return Score(score, getattr(score, "__name__", "custom"), needs_data=True)
    check_score(score)
    return SCORES[score]


def score_weights(
    model: nn.Module,
    graph: ChannelGraph,
    score: str | Score | Saliency,
    batches: Sequence[Batch],
    *,
    density: float = 1 / 64,
    rounds: int | None = None,
    seed: int = 0,
    on_round: OnRound | None = None,
) -> WeightScores:
    """Scores of all convolution and linear weights; the model, its modes and the random state are left as they were.

    With more than one round (`rounds`, else the method's own number) weights go in exponential steps down to `density`,
    the share that is left, and the result is the order in which they went (see `iterate`). `on_round` is called after
    each with its number and their number; from 1 again where float32 overflowed. `batches` are normalised images and
    classes; of those, SynFlow looks only at the shape of an image and magnitude and random at nothing. Raises
    `ScoreError` where data is missing, the scores are not finite, or the model fails on a batch, and `ModelError` where
    the model's weights are not finite.
    """
    method = find(score)
    rounds = method.rounds if rounds is None else rounds
    _check(score, batches, rounds, density)
    ask = _Ask(model, graph, method, batches, density, rounds, seed)
    with _network(model, graph, score, batches, seed) as net:
        try:
            return Scored(ask.run(net, on_round))
        except _OutOfRange:
            # Sums of absolute weights grow as fan-in to the power of the depth: deep networks leave float32.
            return Scored(ask.run(net, on_round, torch.float64))


def _check(score: str | Score | Saliency, batches: Sequence[Batch], rounds: int, density: float) -> None:
    if rounds < 1 or not 0 < density <= 1:
        raise ScoreError(f"a score needs at least one round and a density in (0, 1], got {rounds} and {density}")
    complete = batches and all(y_B is not None and len(y_B) == len(x_BCHW) for x_BCHW, y_B in batches)
    if find(score).needs_data and not complete:
        raise ScoreError(f"score '{name_of(score)}' needs images with their classes; pass batches=[(x_BCHW, y_B)]")


@contextmanager
def _network(
    model: nn.Module, graph: ChannelGraph, score: str | Score | Saliency, batches: Sequence[Batch], seed: int
) -> Iterator[Network]:
    """The network while it is scored; what goes wrong meanwhile becomes a `ScoreError`."""
    check_finite(model)
    method = find(score)
    # What a detector, say, returns for its loss it returns in training mode only; scores without data need no loss.
    for_loss = method.needs_data and task_of(batches).name != "classification"
    with untouched(model, batch_statistics=method.batch_statistics, training_outputs=for_loss, seed=seed):
        net = Network(model, graph)
        if not net.weights:
            raise ScoreError(f"{type(model).__name__} has no convolution or linear weight to score")
        try:
            yield net
        except PrunitError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise ScoreError(
                f"score '{name_of(score)}' failed on {type(model).__name__} with {_shapes(batches)}: "
                f"{type(error).__name__}: {text}"
            ) from error


class _OutOfRange(ScoreError):
    """A score left the range of float32 that may be within that of float64."""


@dataclass(frozen=True)
class _Ask:
    model: nn.Module
    graph: ChannelGraph
    method: Score
    batches: Sequence[Batch]
    density: float
    rounds: int
    seed: int

    def run(self, net: Network, on_round: OnRound | None, dtype: torch.dtype | None = None) -> WeightScores:
        start = {n: w.abs() if self.method.absolute else w for n, w in net.weights.items()}
        if dtype is not None:
            start = {n: w.to(dtype) for n, w in start.items()}
        rescore = self.rescore()
        if self.rounds == 1:
            return rescore(net, start)
        schedule = exponential(self.density, self.rounds)
        if self.method.revive:
            return iterate_reviving(net, rescore, start, schedule=schedule, on_round=on_round)
        return iterate(self.model, self.graph, rescore, start, schedule=schedule, on_round=on_round)

    def rescore(self) -> Rescore:
        """The saliency, its answer checked."""
        generator = torch.Generator().manual_seed(self.seed)

        def rescore(net: Network, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
            if self.method.saliency not in _OWN:
                # Somebody else's function may work in place or return what it was given.
                weights = {n: w.clone() for n, w in weights.items()}
            return self._checked(self.method.saliency(net, weights, self.batches, generator), weights, net)

        return rescore

    def _checked(self, found: Mapping[str, Tensor], weights: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
        """The saliencies if there is a finite one for every weight; `_OutOfRange` if float64 may help."""
        if found.keys() != weights.keys():
            odd = ", ".join(sorted(found.keys() ^ weights.keys())[:3])
            raise ScoreError(f"a score must give one tensor for each of the {len(weights)} weights; check {odd}")
        found = {n: s.detach() for n, s in found.items()}
        total, single = 0.0, True
        for name, s in found.items():
            shape = tuple(weights[name].shape)
            if tuple(s.shape) != shape:
                raise ScoreError(f"score of '{name}' has shape {tuple(s.shape)}, the weight {shape}")
            total += float(s.sum())
            if not math.isfinite(total):
                error = _OutOfRange if self.method.absolute else ScoreError
                raise error(f"score of '{name}' {shape} is not finite; is the model initialised sensibly?")
            single = single and s.dtype == torch.float32
        if self.method.absolute and single and not net.levelled and total < _LEAST_IN_FLOAT32:
            raise _OutOfRange(f"the scores sum up to {total:.3g}, too little for float32")
        return found


def score_channels(
    model: nn.Module,
    graph: ChannelGraph,
    score: str | Score | Saliency,
    batches: Sequence[Batch],
    *,
    density: float = 1 / 64,
    seed: int = 0,
    on_round: Callable[[int, int], None] | None = None,
) -> Scores:
    """Scores of all channels by group, gathered from the weights' as the method says; see `score_weights`."""
    method = find(score)
    if method.each and method.rounds == 1 and method.gather == "sum" and not method.absolute:
        # Little by little: memory for the scores of all weights would take longer to get than they take to make.
        _check(score, batches, 1, density)
        rescore = _Ask(model, graph, method, batches, density, 1, seed).rescore()
        with _network(model, graph, score, batches, seed) as net:
            return Scored(summed(graph, net.weights, lambda name, rows: rescore(net, {name: rows})[name]))
    weights = score_weights(model, graph, score, batches, density=density, seed=seed, on_round=on_round)
    return Scored(per_channel(graph, weights, method.gather))


def name_of(score: str | Score | Saliency) -> str:
    """The score's name in messages and records: that of its function where it is not in `SCORES`."""
    return score if isinstance(score, str) else getattr(find(score).saliency, "__name__", "custom")


def _shapes(batches: Sequence[Batch]) -> str:
    return f"images {', '.join(str(tuple(x_BCHW.shape)) for x_BCHW, _ in batches[:3])}" if batches else "no images"
