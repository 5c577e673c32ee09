"""Every score, also a user's: finite, repeatable, blind to the order of channels, and the model is left as it was."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from prunit.batches import Batch
from prunit.errors import ScoreError, UnknownNameError
from prunit.graph import trace
from prunit.scores import SCORES, Score, WeightScores, find, per_channel, score_channels, score_weights
from prunit.scores.network import Network
from tests.nets import furthest
from tests.scores.toy import CLASSIFIERS, batches, built, graph_of, images, left_alone, permuted, random_order


def squared_change(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """A user's saliency: the square of what the loss changes by, to first order, without the weight."""
    live = {n: w.clone().requires_grad_() for n, w in weights.items()}
    loss = torch.stack([cross_entropy(net.forward(live, x_BCHW), y_B) for x_BCHW, y_B in batches]).sum()
    gradients = torch.autograd.grad(loss, list(live.values()), materialize_grads=True)
    return {n: (weights[n] * g).square() for n, g in zip(live, gradients, strict=True)}


FEW_ROUNDS = 5
EVERY: dict[str, Score] = {
    **{name: replace(score, rounds=min(score.rounds, FEW_ROUNDS)) for name, score in SCORES.items()},
    "custom": find(squared_change),
    "custom, iterative": replace(find(squared_change), rounds=FEW_ROUNDS),
    "custom, reviving": replace(find(squared_change), rounds=FEW_ROUNDS, revive=True),
    "grasp, iterative": replace(SCORES["grasp"], rounds=FEW_ROUNDS),
}
BLIND = {"magnitude", "random", "random-erk", "bn-scale"}
"""Methods that never run the model."""


@pytest.fixture(params=sorted(EVERY))
def score(request: pytest.FixtureRequest) -> Score:
    return EVERY[request.param]


@pytest.fixture(params=sorted(EVERY.keys() - BLIND))
def running(request: pytest.FixtureRequest) -> Score:
    return EVERY[request.param]


def score_of(model: nn.Module, score: Score, data: Sequence[Batch] | None = None, *, seed: int = 0) -> WeightScores:
    """Scores with a mask that leaves each filter a few weights: of one weight each, batch norm makes them all equal."""
    data = batches() if data is None else data
    known = type(model) in CLASSIFIERS.values()
    graph = graph_of(type(model)) if known else trace(model, data[0][0])
    return score_weights(model, graph, score, data, density=0.3, seed=seed)


def assert_close(a: Mapping[str, Tensor], b: Mapping[str, Tensor], *, rtol: float = 1e-6) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name].double(), b[name].double(), rtol=rtol, atol=1e-9, msg=name)


@pytest.mark.parametrize("net", sorted(CLASSIFIERS))
def test_one_finite_score_for_each_weight_and_the_same_again(net: str, score: Score) -> None:
    model = built(net)
    graph = graph_of(type(model))
    weights = score_of(model, score)
    named = dict(model.named_parameters())
    assert set(weights) == {u.weight for u in graph.layers if u.weight in named}
    for name, s in weights.items():
        assert s.shape == named[name].shape
        assert s.is_floating_point()
        assert torch.isfinite(s).all()
        assert not s.requires_grad
    again = score_of(model, score)
    assert all(torch.equal(weights[n], again[n]) for n in weights)
    for how in ("sum", "mean", "last"):
        channels = per_channel(graph, weights, how)
        assert {n: len(s) for n, s in channels.items()} == {g.name: g.size for g in graph.groups}
        assert all(torch.isfinite(s).all() for s in channels.values())


@pytest.mark.parametrize("net", ["residual", "recurrent", "caching", "noisy"])
def test_the_model_is_left_as_it_was(net: str, score: Score) -> None:
    model = built(net)
    parameters = list(model.parameters())
    for p in parameters:
        p.grad = torch.ones_like(p)
    parameters[0].requires_grad_(False)
    parameters[-1].grad = None
    model.train()
    next(model.children()).eval()
    graph = graph_of(type(model))
    with left_alone(model):
        score_weights(model, graph, score, batches(), density=0.1)


class Broken(nn.Module):
    """Fails when it is called for the n-th time."""

    def __init__(self, body: nn.Module, calls: int) -> None:
        super().__init__()
        # An iterator, which nobody can put back: lists and numbers are as they were after every call of ours.
        self.body, self.numbers, self.calls = body, itertools.count(1), calls

    def forward(self, x: Tensor) -> Tensor:
        if next(self.numbers) == self.calls:
            raise RuntimeError("out of luck")
        return self.body(x)


@pytest.mark.parametrize("calls", [1, 2])
def test_also_if_the_model_raises(running: Score, calls: int) -> None:
    model = Broken(built("residual"), calls + 1)
    graph = trace(model, images())
    model.train()
    torch.manual_seed(3)
    with (
        left_alone(model),
        pytest.raises(ScoreError, match=r"failed on Broken with images .*RuntimeError: out of luck"),
    ):
        score_weights(model, graph, running, batches(), density=0.1)


@pytest.mark.parametrize("wrong", ["class", "channels"])
def test_also_if_a_batch_is_wrong(running: Score, wrong: str) -> None:
    good, (x_BCHW, y_B) = batches()
    bad = (x_BCHW, y_B + 100) if wrong == "class" and running.needs_data else (x_BCHW[:, :2], y_B)
    model = built("residual").train()
    data = [good, bad] if running.needs_data else [bad]
    with left_alone(model), pytest.raises(ScoreError, match=r"failed on Residual with images \(6, "):
        score_weights(model, graph_of(type(model)), running, data, density=0.1)


@pytest.mark.parametrize("score", [EVERY[n] for n in sorted(EVERY.keys() - {"grasp, iterative"})])
@pytest.mark.parametrize("net", ["plain", "residual", "concatenated", "inverted", "multiplier", "grouped", "flattened"])
def test_the_order_of_channels_is_all_the_same(net: str, score: Score) -> None:
    """Not for iterated GraSP, whose threshold lands among the weights of saliency 0, plus or minus rounding."""
    model, other = built(net), built(net)
    graph = graph_of(type(model))
    order = random_order(graph)
    permuted(other, graph, order)
    assert furthest(model.eval(), other.eval(), images()) < 1e-12  # the same network
    before, after = score_of(model, score), score_of(other, score)
    if score.line.startswith(("random", "uniform")):
        assert all(torch.equal(before[n], after[n]) for n in before)  # weights play no part
        return
    for how in ("sum", "mean", "last"):
        flat = torch.cat([per_channel(graph, before, how)[g.name] for g in graph.groups])
        moved = torch.cat([per_channel(graph, after, how)[g.name] for g in graph.groups])
        torch.testing.assert_close(moved, flat[torch.from_numpy(order)], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("data", [[], [(batches()[0][0], None)], [(batches()[0][0], torch.empty(0))]])
def test_missing_data_is_refused_where_it_is_needed(score: Score, data: list[Batch]) -> None:
    model = built("plain")
    graph = graph_of(type(model))
    if score.needs_data:
        with pytest.raises(ScoreError, match=r"needs images with their classes; pass batches=\[\(x_BCHW, y_B\)\]"):
            score_weights(model, graph, score, data)
    elif score.saliency is SCORES["synflow"].saliency and not data:
        with pytest.raises(ScoreError, match="SynFlow needs the shape of an image"):
            score_weights(model, graph, score, data)
    else:
        assert_close(score_weights(model, graph, score, data, density=0.3), score_of(model, score))


def test_the_mode_the_model_is_in_plays_no_part(score: Score) -> None:
    model = built("dropped")
    assert_close(score_of(model.eval(), score), score_of(model.train(), score), rtol=0)


def test_the_random_state_of_the_caller_plays_no_part(score: Score) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(score_of(built("noisy"), score))
    assert_close(*found, rtol=0)


def test_frozen_parameters_and_no_grad_play_no_part(score: Score) -> None:
    model = built("residual")
    wanted = score_of(model, score)
    model.requires_grad_(False)
    with torch.no_grad():
        assert_close(score_of(model, score), wanted, rtol=0)


def test_a_shared_weight_is_scored_once(score: Score) -> None:
    weights = score_of(built("recurrent"), score)
    assert "left.weight" in weights
    assert "right.weight" not in weights


def test_a_model_without_batch_norm(score: Score) -> None:
    conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    weights = score_of(conv.double(), score)
    assert {n: tuple(s.shape) for n, s in weights.items()} == {"0.weight": (8, 3, 3, 3), "3.weight": (5, 288)}


def test_a_weight_that_the_first_output_does_not_use_scores_nothing(running: Score) -> None:
    weights = score_of(built("two heads"), replace(running, rounds=1))
    assert not weights["aux.fc.weight"].any()
    assert weights["head.fc.weight"].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("data", [torch.float32, torch.float64])
def test_both_precisions(score: Score, dtype: torch.dtype, data: torch.dtype) -> None:
    model = built("plain", dtype=dtype)
    found = score_of(model, score, batches(dtype=data))
    wanted = score_of(model.double(), score, batches(dtype=torch.float32))
    if score.rounds > 1:  # an order: the few weights at a threshold may go a round earlier
        pairs = [(torch.floor(found[n]), torch.floor(wanted[n])) for n in found]
        assert np.mean([float((a != b).double().mean()) for a, b in pairs]) < 0.02
        return
    for name, s in found.items():
        assert float((s - wanted[name]).abs().max() / wanted[name].abs().max()) < 1e-3


def test_another_seed_changes_random_scores_only(score: Score) -> None:
    first, second = (score_of(built("plain"), score, seed=s) for s in (0, 1))
    assert all(torch.equal(first[n], second[n]) for n in first) != score.line.startswith(("random", "uniform"))


def test_rounds_are_reported(score: Score) -> None:
    model, seen = built("plain"), []
    graph = graph_of(type(model))
    score_weights(model, graph, score, batches(), rounds=3, on_round=lambda k, n: seen.append((k, n)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_channels_are_gathered_as_the_method_says() -> None:
    model = built("plain")
    graph = graph_of(type(model))
    for name in ("magnitude", "snip", "taylor", "bn-scale", "activation"):
        found = score_channels(model, graph, name, batches())
        wanted = per_channel(graph, score_weights(model, graph, name, batches()), SCORES[name].gather)
        assert all(torch.equal(found[n], wanted[n]) for n in wanted)


# ── a user's function that is not as it should be ──


def own(change: str) -> Score:
    def saliency(
        net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
    ) -> dict[str, Tensor]:
        found = dict(weights)
        first = next(iter(found))
        match change:
            case "in place":
                return {n: w.mul_(2).abs_() for n, w in weights.items()}
            case "live":
                return {n: w.requires_grad_() * 1 for n, w in weights.items()}
            case "fewer":
                del found[first]
            case "more":
                found["fc.bias"] = torch.zeros(3)
            case "shape":
                found[first] = found[first].sum(0)
            case "nan":
                found[first] = found[first] / 0 * 0
        return found

    return Score(saliency, "a user's")


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_function_may_treat_what_it_gets_as_its_own(rounds: int) -> None:
    for change in ("in place", "nothing", "live"):
        model = built("plain")
        graph = graph_of(type(model))
        with left_alone(model):
            found = score_weights(model, graph, replace(own(change), rounds=rounds), [])
            for s in found.values():
                s.zero_()
    model = built("plain")
    wanted = score_weights(model, graph_of(type(model)), replace(SCORES["magnitude"], rounds=rounds), [])
    found = score_weights(model, graph_of(type(model)), replace(own("in place"), rounds=rounds), [])
    scale = 1 if rounds > 1 else 2  # of ranks or of magnitudes
    assert all(torch.allclose(found[n].double(), scale * wanted[n].double()) for n in wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("fewer", r"one tensor for each of the 3 weights; check first\.0\.weight"),
        ("more", r"one tensor for each of the 3 weights; check fc\.bias"),
        ("shape", r"score of 'first\.0\.weight' has shape \(3, 3, 3\), the weight \(6, 3, 3, 3\)"),
        ("nan", r"score of 'first\.0\.weight' \(6, 3, 3, 3\) is not finite"),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_wrong_result_is_refused(change: str, message: str, absolute: bool) -> None:
    model = built("plain")
    with pytest.raises(ScoreError, match=message):
        score_weights(model, graph_of(type(model)), replace(own(change), absolute=absolute), [])


def test_an_unknown_score_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown score 'sinp'; did you mean 'snip'"):
        find("sinp")


@pytest.mark.parametrize(("density", "rounds"), [(0, 3), (-1, 3), (1.1, 3), (0.5, 0)])
def test_density_and_rounds_are_checked(density: float, rounds: int) -> None:
    model = built("plain")
    with pytest.raises(ScoreError, match=r"at least one round and a density in \(0, 1\], got"):
        score_weights(model, graph_of(type(model)), "magnitude", [], density=density, rounds=rounds)


def test_a_model_without_weights_to_score_is_refused() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    with pytest.raises(ScoreError, match="Sequential has no convolution or linear weight to score"):
        score_weights(model, trace(model, images().float()), "magnitude", [])
