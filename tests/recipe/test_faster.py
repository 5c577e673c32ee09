"""Budgets of time: met by the widest plan that a stopwatch lets through, or refused with the closest one."""

import pytest
import torch

from prunit import zoo
from prunit.allocate import Budget, Constraints, Target
from prunit.errors import BudgetError, ConfigError
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_of
from prunit.recipe import decide
from prunit.recipe.choosing import Chosen
from prunit.recipe.config import PruneConfig
from prunit.recipe.deciding import Clock, decide_here
from tests.recipe.nets import STYLES, batch, seeded
from tests.recipe.watches import Fake, Takes, Watches, by_macs, in_blocks, odd_cost

Net = tuple[torch.nn.Module, ChannelGraph]
IMAGES = [(torch.zeros(1, 3, 32, 32), torch.empty(0))]


@pytest.fixture(scope="module")
def resnet() -> Net:
    model = zoo.load("resnet20", image_size=32)
    return model, trace(model, torch.zeros(1, 3, 32, 32))


def found(net: Net, budget: str, watches: Watches, **settings: object) -> tuple[Chosen, Fake]:
    """What is decided for a budget, and the stopwatch that was asked."""
    config = PruneConfig.model_validate({"recipe": "uniform"} | settings)
    chosen = decide_here(
        *(net[0], net[1], IMAGES[0][0], IMAGES, Budget.parse(budget), config),
        measure=True,
        clock=Clock(watches=watches),
    )
    (watch,) = watches.made
    return chosen, watch


@pytest.mark.parametrize("takes", [by_macs, in_blocks(4), odd_cost], ids=["macs", "blocks", "odd"])
@pytest.mark.parametrize("times", [1.3, 2, 4])
def test_the_time_is_used_but_for_a_twentieth(resnet: Net, takes: Takes, times: float) -> None:
    # By single channels a plan is there for nearly every time; in steps a narrow network has fewer.
    for round_to, least in ((1, 0.95), ("auto", 0.94)):
        chosen, watch = found(resnet, f"faster={times}x", Watches(takes), round_to=round_to)
        took = watch.ms(chosen.decision.plan) / watch.scale_ms
        assert least / times < took <= 1 / times
        assert len(watch.timed) <= 14


@pytest.mark.parametrize("seed", range(8))
def test_noise_does_not_let_a_plan_through_that_is_too_slow(resnet: Net, seed: int) -> None:
    chosen, watch = found(resnet, "faster=2x", Watches(in_blocks(4), noise=0.03, seed=seed))
    took = watch.ms(chosen.decision.plan) / watch.scale_ms
    assert 0.85 / 2 < took <= 1.05 / 2


def test_every_style_is_met_by_the_default_recipe() -> None:
    for build in STYLES.values():
        model = seeded(build)
        graph = trace(model, batch()[0][:1])
        watches = Watches(in_blocks(2), noise=0.01)
        chosen = decide_here(
            *(model, graph, batch()[0][:1], [batch()], Budget.parse("faster=1.5x")),
            PruneConfig(rounds=4, round_to=1),  # of so few channels not many plans are there in steps
            measure=True,
            clock=Clock(watches=watches),
        )
        watch = watches.made[0]
        assert 0.85 / 1.5 < watch.ms(chosen.decision.plan) / watch.scale_ms <= 1.02 / 1.5


def test_a_latency_is_met_without_a_profile(resnet: Net) -> None:
    chosen, watch = found(resnet, "latency=500us", Watches(in_blocks(4), noise=0.01))
    assert 0.9 * 0.5 < watch.ms(chosen.decision.plan) <= 1.02 * 0.5
    by_share, watch = found(resnet, "latency=25%", Watches(in_blocks(4), noise=0.01))
    assert 0.9 * 0.5 < watch.ms(by_share.decision.plan) <= 1.02 * 0.5


@pytest.mark.parametrize("budget", ["latency=5ms", "latency=100%"])
def test_a_model_that_is_fast_enough_stays_dense(resnet: Net, budget: str) -> None:
    chosen, watch = found(resnet, budget, Watches(by_macs, noise=0.001))
    assert chosen.decision.cost == chosen.decision.dense
    assert 0 < chosen.decision.used[budget] <= 1
    assert len(watch.timed) <= 3


@pytest.mark.parametrize("also", ["params=1/8", "macs=1/3", "macs=1/20", "weights=200KB"])
def test_other_limits_hold_at_once(resnet: Net, also: str) -> None:
    chosen, watch = found(resnet, f"{also},faster=2x", Watches(by_macs))
    decision = chosen.decision
    assert list(decision.used) == [also, "faster=2x"]
    assert all(share <= 1 for share in decision.used.values())
    # One of the two is used, whichever binds.
    assert max(decision.used.values()) > 0.95
    assert decision.binding == max(decision.used, key=lambda limit: decision.used[limit])
    assert watch.ms(decision.plan) <= watch.scale_ms / 2
    target = Target(resnet[1], Budget.parse(also), Constraints())
    assert target.met_by(torch.tensor([decision.plan.widths[g.name] for g in resnet[1].groups]).numpy())


def test_what_was_timed_is_told(resnet: Net) -> None:
    chosen, watch = found(resnet, "faster=2x", Watches(by_macs))
    decision, origin = chosen.decision, chosen.decision.plan.origin
    assert origin["budget"] == "faster=2x"
    (timing,) = decision.measured
    assert timing.times_faster == pytest.approx(watch.scale_ms / watch.ms(decision.plan))
    assert origin["measured"].startswith(f"{timing.times_faster:.2f}x faster than dense at batch 1 (")
    assert f"found by timing {len(chosen.candidates)} plans" in origin["measured"]
    assert [c for c in chosen.candidates if chosen.chosen(c)]
    assert all(c.timings for c in chosen.candidates)
    assert decision.used["faster=2x"] == pytest.approx(2 / timing.times_faster)


def test_weights_are_scored_once(resnet: Net) -> None:
    rounds: list[tuple[int, int]] = []
    decide_here(
        *(*resnet, IMAGES[0][0], IMAGES, Budget.parse("faster=2x"), PruneConfig(rounds=3)),
        measure=True,
        clock=Clock(watches=Watches(by_macs)),
        on_round=lambda done, total: rounds.append((done, total)),
    )
    assert rounds == sorted(set(rounds))


@pytest.mark.parametrize("budget", ["faster=100x", "latency=20us", "faster=100x,params=1/2"])
def test_out_of_reach_is_said_with_the_closest_point(resnet: Net, budget: str) -> None:
    with pytest.raises(BudgetError) as error:
        found(resnet, budget, Watches(by_macs, noise=0.01))
    text = str(error.value)
    assert "asks for at most 0.02 ms of 2 ms; the closest reachable, timed here at batch 1, is 0.2" in text
    assert "x faster), with every free group at its minimum width" in text
    assert "\n" not in text
    assert error.value.closest["latency_ms"] == pytest.approx(0.2, rel=0.1)
    assert error.value.closest["macs"] < 0.01 * cost_of(resnet[1]).macs


def test_out_of_reach_where_another_limit_is_says_which(resnet: Net) -> None:
    with pytest.raises(BudgetError, match=r"params=10 asks for at most 10 of 272,474 params"):
        found(resnet, "params=10,faster=2x", Watches(by_macs))


def test_a_plan_in_between_is_found_where_the_narrowest_is_slow(resnet: Net) -> None:
    def slow_when_narrow(graph: ChannelGraph, widths: dict[str, int]) -> float:
        return 2.0 if min(widths.values()) < 2 else by_macs(graph, widths)

    chosen, watch = found(resnet, "faster=3x", Watches(slow_when_narrow))  # type: ignore[arg-type]
    assert 0.9 / 3 < watch.ms(chosen.decision.plan) / watch.scale_ms <= 1 / 3


def test_a_plan_that_was_lucky_once_is_not_what_comes_out(resnet: Net) -> None:
    chosen, watch = found(resnet, "faster=2x", Watches(in_blocks(4), luck=0.9))
    assert 0.9 / 2 < watch.ms(chosen.decision.plan) / watch.scale_ms <= 1 / 2


@pytest.mark.parametrize("used", [0.985, 0.999])
def test_a_plan_within_the_limit_is_taken_where_none_leaves_room(resnet: Net, used: float) -> None:
    with pytest.raises(BudgetError) as error:
        found(resnet, "faster=100x", Watches(by_macs))
    least_ms = error.value.closest["latency_ms"]
    chosen, _ = found(resnet, f"latency={least_ms / used}ms", Watches(by_macs))
    assert list(chosen.decision.used.values()) == [pytest.approx(used)]


def test_decide_alone_says_that_time_takes_an_engine(resnet: Net) -> None:
    for budget in ("faster=2x", "latency=1ms"):
        with pytest.raises(ConfigError, match=f"budget {budget} is met by timing plans, as prunit.plan and build do"):
            decide(*resnet, IMAGES, Budget.parse(budget), PruneConfig())
