"""Of plans within one budget the fastest that costs no accuracy: what competes, which one wins, and when none does."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch

from prunit import zoo
from prunit.allocate import Budget
from prunit.errors import ConfigError
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_of
from prunit.recipe import decide
from prunit.recipe.choosing import Candidate, Chosen, fastest, why_not
from prunit.recipe.config import PruneConfig
from prunit.recipe.deciding import Clock, decide_here
from prunit.recipe.recipes import Decision
from prunit.recipe.stopwatch import Timing
from tests.contracts.engines import engine_here
from tests.recipe.watches import Takes, Watches, by_macs

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


def chosen_of(
    net: Net, takes: Takes, budget: str = "macs=1/2", *, every: bool = False, measure: bool = True, **settings: object
) -> tuple[Chosen, Watches]:
    watches = Watches(takes, noise=0.002)
    config = PruneConfig.model_validate({"recipe": "uniform"} | settings)
    chosen = decide_here(
        *(net[0], net[1], IMAGES[0][0], IMAGES, Budget.parse(budget), config),
        measure=measure,
        every=every,
        clock=Clock(watches=watches),
    )
    return chosen, watches


def likes(block: int, other: int) -> Takes:
    """A fifth faster where all widths that were cut are multiples of `block`, and not all are of `other`."""

    def takes(graph: ChannelGraph, widths: Mapping[str, int]) -> float:
        cut = [width for name, width in widths.items() if width < graph.group(name).size]
        fits = all(width % block == 0 for width in cut) and any(width % other for width in cut)
        return by_macs(graph, widths) * (0.8 if fits else 1.0)

    return takes


def test_the_fastest_of_those_that_compete_is_taken(vgg: Net) -> None:
    chosen, watches = chosen_of(vgg, likes(8, 16))
    names = [c.name for c in chosen.candidates]
    assert names[0] == "round_to=auto"
    assert "round_to=8" in names
    won = next(c for c in chosen.candidates if chosen.chosen(c))
    assert won.name == "round_to=8"
    origin = chosen.decision.plan.origin
    assert "round_to=8" in origin["constraints"]
    assert origin["measured"].startswith(f"{won.timings[0].times_faster:.2f}x faster than dense at batch 1 (")
    assert "; chosen of round_to=auto " in origin["measured"]
    assert chosen.decision.measured == won.timings
    assert [t.batch for t in won.timings] == [1, 32]
    (watch,) = watches.made
    assert len(watch.timed) == len([c for c in chosen.candidates if not c.out])


def test_where_nothing_is_faster_the_default_stays(vgg: Net) -> None:
    chosen, _ = chosen_of(vgg, by_macs)
    default = decide(*vgg, IMAGES, Budget.parse("macs=1/2"), PruneConfig(recipe="uniform"))
    assert chosen.timed
    assert chosen.decision.plan == default.plan


def test_all_plans_are_of_the_same_budget_and_differ(vgg: Net) -> None:
    chosen, _ = chosen_of(vgg, by_macs, every=True)
    dense = cost_of(vgg[1]).macs
    assert all(c.decision.cost.macs <= dense / 2 for c in chosen.candidates)
    assert len({c.decision.plan.hash for c in chosen.candidates}) == len(chosen.candidates)
    assert all(c.timings for c in chosen.candidates)


@pytest.mark.parametrize(
    "how",
    [
        {"round_to": 8},
        {"round_to": 1},
        {"budget": "params=1"},
        {"measure": False},
        {"engine": "openvino", "round_to": 8},
    ],
)
def test_where_there_is_nothing_to_choose_nothing_is_timed(vgg: Net, how: dict[str, object]) -> None:
    chosen, watches = chosen_of(vgg, by_macs, **how)  # type: ignore[arg-type]
    assert (watches.made, chosen.timed) == ([], False)
    assert "measured" not in chosen.decision.plan.origin


def test_a_rounding_that_was_asked_for_is_kept_and_timed_alone(vgg: Net) -> None:
    chosen, _ = chosen_of(vgg, likes(16, 32), round_to=8, every=True)
    (only,) = chosen.candidates
    assert (only.name, chosen.chosen(only), only.timings != ()) == ("round_to=8", True, True)


def test_nothing_is_timed_where_the_engine_of_the_models_is_missing(vgg: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    for_another = {"engine": "openvino", "round_to": 8}
    said = r"timed in the engine that the models are for, openvino \(prune.engine\): .*pip install 'prunit\[openvino\]'"
    with pytest.raises(ConfigError, match=said + "; or name the profile .*faster=2x@FILE"):
        chosen_of(vgg, by_macs, "faster=2x", **for_another)
    with pytest.raises(ConfigError, match=said + "$"):
        chosen_of(vgg, by_macs, every=True, **for_another)
    chosen, watches = chosen_of(vgg, by_macs, engine="openvino")
    assert (watches.made, chosen.timed) == ([], False)


def test_plans_for_openvino_are_timed_in_it(vgg: Net) -> None:
    engine_here("openvino")
    model, graph = vgg
    config = PruneConfig(recipe="uniform", engine="openvino", round_to=8)
    budget, clock = Budget.parse("macs=1/8"), Clock(batch=1, seconds=0.01)
    chosen = decide_here(model, graph, IMAGES[0][0], IMAGES, budget, config, measure=True, every=True, clock=clock)
    assert chosen.timed
    assert ", openvino, 1 thread)" in chosen.decision.plan.origin["measured"]


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
        ([(2.0, 2.0), (2.5, 1.8), (2.2, 2.0)], "2"),  # none that is slower than the default at a batch size
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
