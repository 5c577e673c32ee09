"""A limit on ram through every recipe and evaluator: what is narrowed, what a plan says of it, and how much is left."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import prunit
from prunit import zoo
from prunit.allocate import Budget, Complexity, Target, by_complexity
from prunit.allocate.at_peak import at_peak
from prunit.allocate.by_complexity import MODES
from prunit.errors import BudgetError
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_of, width_array
from prunit.recipe import Decision, decide
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import RECIPES, constraints_of, example_batch, first_reachable
from prunit.recipe.reconvene import EVALUATORS
from prunit.recipe.streams import with_streams
from tests.recipe.nets import STYLES, batch, seeded

CASES = [("reconvene", evaluator) for evaluator in EVALUATORS] + [(r, "emptied") for r in RECIPES if r != "reconvene"]
NETS = ("vgg11", "resnet20", "mobilenetv2")


def decided(style: str, budget: str, **settings: Any) -> tuple[nn.Module, ChannelGraph, Decision]:
    model = seeded(STYLES[style])
    graph = trace(model, batch()[0][:1])
    config = PruneConfig.model_validate({"rounds": 4, "round_to": 1, **settings})
    return model, graph, decide(model, graph, [batch()], Budget.parse(budget), config)


@pytest.fixture(scope="module", params=NETS)
def net(request: pytest.FixtureRequest) -> tuple[nn.Module, ChannelGraph]:
    model = seeded(lambda: zoo.load(request.param))
    return model, trace(model, torch.zeros(1, 3, 32, 32))


def planned(net: tuple[nn.Module, ChannelGraph], budget: str, **settings: Any) -> Decision:
    config = PruneConfig.model_validate({"score": "magnitude", "round_to": 1, **settings})
    return decide(*net, [example_batch(torch.zeros(1, 3, 32, 32))], Budget.parse(budget), config)


def stuck(graph: ChannelGraph, decision: Decision, budget: str, config: PruneConfig) -> bool:
    """No single group can take a step more."""
    target = Target(graph, Budget.parse(budget), constraints_of(config))
    widths = width_array(graph, decision.plan.widths)
    up = target.allowed.up(widths + 1)
    candidates = [np.where(np.arange(len(widths)) == i, up, widths) for i in np.flatnonzero(up > widths)]
    return not any(target.met_by(candidate) for candidate in candidates)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("recipe", "evaluator"), CASES)
@pytest.mark.parametrize("round_to", [1, 4])
def test_every_recipe_narrows_groups_at_the_peak_alone(style: str, recipe: str, evaluator: str, round_to: int) -> None:
    settings = {"recipe": recipe, "evaluator": evaluator, "round_to": round_to, "residual": "prune"}
    model, graph, decision = decided(style, "ram=2/3", **settings)
    assert decision.cost.activation_bytes <= decision.dense.activation_bytes * 2 // 3
    inside = at_peak(Target(graph, Budget.parse("ram=2/3")), graph.sizes)
    assert not inside.all()
    narrowed = [g.name for g in graph.groups if decision.plan.widths[g.name] < g.size]
    assert narrowed
    for group, yes in zip(graph.groups, inside, strict=True):
        if not yes:
            assert group.name not in narrowed
            assert decision.why[group.name] == f"whole: {group.pinned or 'not alive at the peak'}"
    assert stuck(graph, decision, "ram=2/3", PruneConfig.model_validate(settings))
    small = prunit.compact(model, graph, decision.plan)
    assert sum(p.numel() for p in small.parameters()) == decision.cost.params == cost_of(graph, decision.plan).params


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("recipe", "evaluator"), CASES)
@pytest.mark.parametrize("budget", ["params=1/2,ram=2/3", "macs=1/2,ram=1/2", "ram=3/4,params=1/3,macs=1/3"])
def test_every_recipe_meets_several_limits_at_once(style: str, recipe: str, evaluator: str, budget: str) -> None:
    settings = {"recipe": recipe, "evaluator": evaluator, "round_to": 1}
    _, graph, decision = decided(style, budget, **settings)
    assert max(decision.used.values()) <= 1
    assert decision.plan.origin["budget"] == budget
    assert stuck(graph, decision, budget, PruneConfig.model_validate(settings))
    assert all(decision.why.values())


@pytest.mark.parametrize("share", ["3/4", "1/2", "1/3"])
@pytest.mark.parametrize("settings", [{}, {"recipe": "uniform"}, {"recipe": "global"}, {"mode": "fa"}], ids=str)
def test_no_recipe_keeps_fewer_parameters_than_shares_of_the_memory(
    net: tuple[nn.Module, ChannelGraph], share: str, settings: dict[str, Any]
) -> None:
    graph, budget = net[1], f"ram={share}"
    settings = {"recipe": "complexity", **settings} if "mode" in settings else settings
    decision = planned(net, budget, **settings)
    assert decision.cost.activation_bytes <= Fraction(share) * decision.dense.activation_bytes
    memory = PruneConfig(recipe="complexity", mode="ma", round_to=1)
    assert decision.cost.params >= planned(net, budget, **memory.model_dump(include={"recipe", "mode"})).cost.params
    # Nor fewer than the method alone, which narrows groups elsewhere too.
    alone = with_streams(Target(graph, Budget.parse(budget), constraints_of(memory)), memory)
    widths = by_complexity(alone, Complexity(alone, MODES["ma"]))
    assert decision.cost.params > cost_of(graph, widths).params


def test_a_row_of_layers_keeps_what_a_common_share_takes_in_vain() -> None:
    # The peak is at the first layer, of 64 channels at 32x32 pixels: a third of these fits.
    net = seeded(lambda: zoo.load("vgg11"))
    graph = trace(net, torch.zeros(1, 3, 32, 32))
    decision = planned((net, graph), "ram=1/3", recipe="uniform")
    assert list(decision.plan.widths.values())[:5] == [21, 85, 170, 256, 512]
    assert decision.why["features.0"] == "the same share as everywhere"
    assert decision.why["features.4"] == "the same share as everywhere; 41 put back, which fit"
    assert decision.why["features.15"] == "whole: not alive at the peak"


def test_widths_by_shares_of_the_memory_say_so() -> None:
    net = seeded(lambda: zoo.load("resnet20"))
    graph = trace(net, torch.zeros(1, 3, 32, 32))
    # The widest groups have the lowest scores: the ones with most parameters go first.
    ours = planned((net, graph), "ram=1/3", recipe="global", score="synflow", rounds=1)
    memory = planned((net, graph), "ram=1/3", recipe="complexity", mode="ma")
    assert ours.plan.widths == memory.plan.widths
    narrowed = [why for name, why in ours.why.items() if ours.plan.widths[name] < ours.plan.dense[name]]
    assert any(why.startswith("by its share of the memory, as this keeps more parameters") for why in narrowed)
    both = planned((net, graph), "ram=1/3,params=99%", recipe="global", score="synflow", rounds=1)
    assert not any("as this keeps more parameters" in why for why in both.why.values()), "parameters are limited, too"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_looser_limit_never_uses_less(net: tuple[nn.Module, ChannelGraph], recipe: str) -> None:
    costs = [planned(net, f"ram={n}%", recipe=recipe).cost.activation_bytes for n in (35, 50, 65, 80, 100)]
    assert costs == sorted(costs)


def test_streams_stay_whole_where_they_may() -> None:
    keep, auto, prune = (decided("residual", "ram=7/8", residual=r)[2] for r in ("keep", "auto", "prune"))
    assert keep.plan.widths == auto.plan.widths
    streams = [name for name, why in keep.why.items() if why == "whole: residual stream"]
    assert streams
    assert any(prune.plan.widths[name] < prune.plan.dense[name] for name in streams)


def test_a_stream_at_the_peak_shrinks_where_nothing_else_is_left() -> None:
    _, _, decision = decided("residual", "ram=1/3")
    assert decision.plan.widths["stem.0.0"] < decision.plan.dense["stem.0.0"]
    with pytest.raises(BudgetError, match=r"ram=1/3 asks .*; it can be met with prune\.residual=auto"):
        decided("residual", "ram=1/3", residual="keep")


@pytest.mark.parametrize("budget", ["ram=1", "params=1,ram=1"])
@pytest.mark.parametrize(("recipe", "evaluator"), CASES)
def test_a_limit_that_the_dense_model_keeps_changes_nothing(recipe: str, evaluator: str, budget: str) -> None:
    _, _, decision = decided("plain", budget, recipe=recipe, evaluator=evaluator)
    assert decision.plan.widths == dict(decision.plan.dense)
    assert all(why.startswith("whole: ") and "peak" not in why for why in decision.why.values())


def test_limits_met_by_the_others_leave_the_plan_as_it_is() -> None:
    *_, alone = decided("plain", "params=1/4", recipe="uniform")
    *_, both = decided("plain", "params=1/4,ram=99%", recipe="uniform")
    assert both.plan.widths == alone.plan.widths
    assert set(both.used) == {"params=1/4", "ram=99%"}


def test_a_budget_of_ram_that_no_widths_meet_names_the_closest() -> None:
    model = seeded(STYLES["plain"])
    graph = trace(model, batch()[0][:1])
    with pytest.raises(BudgetError, match=r"budget cannot be met: ram=1/500 asks for at most") as e:
        first_reachable(graph, Budget.parse("ram=1/500"), PruneConfig())
    assert "not alive" not in str(e.value)


def test_what_is_freed_of_the_other_limit_is_shared_out_again(net: tuple[nn.Module, ChannelGraph]) -> None:
    decision = planned(net, "params=1/2,ram=1/3", recipe="uniform")
    assert min(decision.used.values()) > 0.97
    at_limit = [why for why in decision.why.values() if why.startswith("ram=1/3: ")]
    assert 0 < len(at_limit) < len(decision.why)
