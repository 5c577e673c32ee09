"""Of plans within one budget the fastest that costs no accuracy: what competes, which one wins, and when none does."""

from dataclasses import replace
from types import MappingProxyType

import pytest
import torch

from prunit import zoo
from prunit.allocate import Budget
from prunit.graph import ChannelGraph, trace
from prunit.recipe import decide
from prunit.recipe.choosing import Candidate, fastest, why_not
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import Decision
from prunit.recipe.stopwatch import Timing

Net = tuple[torch.nn.Module, ChannelGraph]
IMAGES = [(torch.zeros(1, 3, 32, 32), torch.empty(0))]


@pytest.fixture(scope="module")
def vgg() -> Net:
    model = zoo.load("vgg11", image_size=32)
    return model, trace(model, torch.zeros(1, 3, 32, 32))


@pytest.fixture(scope="module")
def half(vgg: Net) -> Decision:
    """Half the multiply-adds of VGG-11, every width the same share."""
    return decide(*vgg, IMAGES, Budget.parse("macs=1/2"), PruneConfig(recipe="uniform", round_to=8))


# ── what may compete ──


def like(decision: Decision, **shares: float) -> Decision:
    """The decision with this share of its parameters or multiply-adds."""
    cost = replace(decision.cost, **{n: round(getattr(decision.cost, n) * share) for n, share in shares.items()})
    return replace(decision, cost=cost)


def test_a_plan_competes_that_gives_up_nothing(half: Decision) -> None:
    assert why_not(half, half) == ""
    assert why_not(like(half, params=0.96, macs=1.2), half) == ""


def test_a_plan_with_fewer_weights_or_multiply_adds_does_not(half: Decision) -> None:
    assert why_not(like(half, params=0.9), half) == "has 90.0% of the params"
    assert why_not(like(half, macs=0.94), half) == "has 94.0% of the macs"


def test_a_plan_that_leaves_much_of_the_budget_does_not(half: Decision) -> None:
    less = replace(half, used=MappingProxyType({"macs=1/2": 0.5}))
    assert why_not(less, half) == "uses 50.0% of macs=1/2"


def test_a_plan_that_starves_a_layer_does_not(half: Decision) -> None:
    name, kept = next((n, c) for n, c in half.plan.keep.items() if len(c) > 20)
    for share, out in ((0.5, False), (0.4, True)):
        few = kept[: round(share * len(kept))]
        starved = replace(half, plan=replace(half.plan, keep={**half.plan.keep, name: few}))
        said = f"keeps {len(few)} channels of '{name}' instead of {len(kept)}"
        assert why_not(starved, half) == (said if out else "")


def timed(name: str, *times_faster: float, out: str = "", decision: Decision) -> Candidate:
    timings = tuple(Timing(b, 1, 9, 1 / x, 1.0, 1.0, x) for b, x in zip((1, 32), times_faster, strict=False))
    return Candidate(name, decision, timings, out)


@pytest.mark.parametrize(
    ("times", "won"),
    [
        ([(2.0, 2.0), (2.5, 2.0), (2.2, 9.0)], "1"),
        ([(2.0, 2.0), (2.05, 2.05), (2.0, 2.0)], "0"),
        ([(2.0, 2.0), (2.01, 2.5), (2.0, 2.0)], "1"),
        ([(2.0, 2.0), (2.0, 2.0), (1.5, 9.0)], "0"),
        ([(0.5, 0.5), (0.9, 0.9), (0.8, 1.5)], "1"),
        ([(2.0,), (2.1,), (2.2,)], "2"),
    ],
)
def test_batch_1_decides_and_among_equals_the_larger_batch(
    half: Decision, times: list[tuple[float, ...]], won: str
) -> None:
    candidates = [timed(str(i), *each, decision=half) for i, each in enumerate(times)]
    assert fastest(candidates).name == won


def test_what_is_out_or_was_not_timed_does_not_win(half: Decision) -> None:
    candidates = [
        timed("default", 2.0, 2.0, decision=half),
        timed("out", 9.0, 9.0, out="has 50% of the params", decision=half),
        timed("untimed", decision=half),
    ]
    assert fastest(candidates).name == "default"
