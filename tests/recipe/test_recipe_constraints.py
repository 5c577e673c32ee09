"""Constraints on widths through every recipe and evaluator, the plan's words about them, and the settings."""

import json
from typing import Any

import pytest
import torch
from torch import nn

import prunit
from prunit.allocate import Budget
from prunit.errors import BudgetError, ConfigError, UnknownNameError
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_of
from prunit.recipe import BuildConfig, Decision, check_request, decide
from prunit.recipe.config import PruneConfig, validated
from prunit.recipe.folder import open_folder
from prunit.recipe.recipes import RECIPES
from prunit.recipe.reconvene import EVALUATORS
from tests.recipe.nets import STYLES, Plain, batch, seeded

CASES = [("reconvene", evaluator) for evaluator in EVALUATORS] + [(r, "emptied") for r in RECIPES if r != "reconvene"]
LIMITS = {
    "plain": {"second.*": [0.5, 0.75], "third.*": [8, 1.0]},
    "residual": {"stages.1.*": [0.5, 1.0], "stages.0.*": [4, 0.5]},
    "inverted": {"blocks.2.*": [0.25, 0.75], "head.*": [12, 24]},
}


def decided(style: str, budget: str, **settings: Any) -> tuple[nn.Module, ChannelGraph, Decision]:
    model = seeded(STYLES[style])
    graph = trace(model, batch()[0][:1])
    config = PruneConfig.model_validate({"rounds": 4, **settings})
    return model, graph, decide(model, graph, [batch()], Budget.parse(budget), config)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("recipe", "evaluator"), CASES)
@pytest.mark.parametrize("residual", ["auto", "prune"])
def test_every_recipe_keeps_to_the_constraints(style: str, recipe: str, evaluator: str, residual: str) -> None:
    settings = {"recipe": recipe, "evaluator": evaluator, "residual": residual, "round_to": 4}
    model, graph, decision = decided(style, "params=1/2", limits=LIMITS[style], **settings)
    assert decision.cost.params <= decision.dense.params // 2
    widths = decision.plan.widths
    for group in graph.groups:
        width, why = widths[group.name], decision.why[group.name]
        assert why.startswith("whole: ") == (width == group.size), why
        assert width % 4 == 0 or width == group.size
        for pattern, (least, most) in LIMITS[style].items():
            if group.pinned or not any(p.startswith(pattern[:-1]) for p in group.producers):
                continue
            assert width >= (least * group.size if least <= 1 else least)
            assert width <= (most * group.size if most <= 1 else most)
            if width == most * group.size < group.size:
                assert f"limit '{pattern}'" in why
    small = prunit.compact(model, graph, decision.plan)
    assert sum(p.numel() for p in small.parameters()) == cost_of(graph, decision.plan).params


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("round_to", [4, 8])
def test_a_looser_budget_never_costs_less(recipe: str, round_to: int) -> None:
    budgets = [f"params=1/{n}" for n in (5, 4, 3, 2, 1)]
    costs = [decided("plain", b, recipe=recipe, round_to=round_to)[2].cost.params for b in budgets]
    assert costs == sorted(costs)


@pytest.mark.parametrize(("recipe", "evaluator"), CASES)
def test_the_first_and_the_last_hidden_layer_stay_whole(recipe: str, evaluator: str) -> None:
    settings = {"recipe": recipe, "evaluator": evaluator, "keep_first": True, "keep_last": True}
    _, _, decision = decided("plain", "params=3/4", **settings)
    assert decision.why["first.0"] == "whole: made by the first layer (keep_first)"
    assert decision.why["third.0"] == "whole: made by the last hidden layer (keep_last)"
    assert decision.plan.widths["second.0"] < 24


def test_a_limit_goes_before_residual_streams_that_stay_whole() -> None:
    _, graph, decision = decided("residual", "params=1", residual="keep", limits={"stages.0.*": [0.0, 0.5]})
    for group in graph.groups:
        if any(p.startswith("stages.0.") for p in group.producers):
            assert decision.plan.widths[group.name] == group.size // 2
            assert decision.why[group.name] == "maximum width, limit 'stages.0.*'"
        elif group.coupled:
            assert decision.why[group.name] == "whole: residual stream"


def test_the_table_says_what_rounding_did() -> None:
    # At three quarters of all channels: 12, 18 and 24.
    _, _, decision = decided("plain", "params=1/2", recipe="uniform", round_to=8)
    assert decision.plan.widths == {"first.0": 8, "second.0": 16, "third.0": 24, "head": 10}
    assert decision.why == {
        "first.0": "minimum width, rounded to 8",
        "second.0": "the same share as everywhere, rounded to 8",
        "third.0": "the same share as everywhere, rounded to 8",
        "head": "whole: the model's output",
    }
    # What is left of a smaller budget goes to layers that were rounded down, one step each.
    _, _, decision = decided("plain", "params=1/3", recipe="uniform", round_to=8)
    assert decision.plan.widths == {"first.0": 16, "second.0": 8, "third.0": 24, "head": 10}
    assert decision.why["first.0"] == "whole: the same share as everywhere, rounded to 8"


def test_emptied_cuts_no_channel_that_the_mask_leaves_only_to_round() -> None:
    _, _, exact = decided("plain", "params=1/3", evaluator="emptied")
    _, _, rounded = decided("plain", "params=1/3", evaluator="emptied", round_to=8)
    for name in ("first.0", "second.0", "third.0"):
        assert rounded.plan.widths[name] % 8 == 0
    said = [why for why in rounded.why.values() if "the mask empties" in why]
    assert said
    assert all(why.split("; ")[0].endswith(", rounded to 8") for why in said)
    assert rounded.cost.params <= exact.dense.params // 3


def test_a_mask_that_would_disconnect_the_network_is_left_in_steps_too() -> None:
    model = seeded(Plain)
    with torch.no_grad():
        model.get_submodule("second.0").get_parameter("weight").mul_(1e-3)
    graph = trace(model, batch()[0][:1])
    config = PruneConfig(evaluator="emptied", score="magnitude", round_to=8)
    decision = decide(model, graph, [batch()], Budget.parse("params=1/4"), config)
    assert decision.cost.params <= decision.dense.params // 4
    assert all(width % 8 == 0 for name, width in decision.plan.widths.items() if name != "head")
    assert decision.why["third.0"].endswith("then by equal shares, rounded to 8")


def test_a_plan_says_under_which_constraints_it_was_made() -> None:
    model, example = seeded(Plain), batch()[0][:1]
    settings = {"recipe": "uniform", "round_to": 8, "limits": {"first.*": [0.5, 1]}}
    plan = prunit.plan(model, example, budget={"params": 1 / 2}, config=settings)
    assert plan.origin["constraints"] == "round_to=8, limits={first.*: [0.5, 1]}"
    assert all(width % 8 == 0 for name, width in plan.widths.items() if name != "head")
    assert prunit.Plan.from_json(plan.to_json()).origin == json.loads(json.dumps(dict(plan.origin)))
    plain = prunit.plan(model, example, budget={"params": 1 / 2}, config={"recipe": "uniform", "round_to": 1})
    assert "constraints" not in plain.origin


def test_mistakes_are_found_before_anything_is_scored() -> None:
    model = seeded(Plain)
    graph = trace(model, batch()[0][:1])
    budget, told = Budget.parse("params=1/2"), list[tuple[int, int]]()
    for settings, error, message in (
        ({"limits": {"frist.*": [0.5, 1]}}, UnknownNameError, r"limit 'frist\.\*' fits no module .* are first\.0"),
        ({"round_to": 8, "limits": {"first.*": [0.1, 0.4]}}, ConfigError, "group 'first.0' of 16 .* no width left"),
        ({"round_to": 8, "keep_first": True, "keep_last": True, "min_share": 1}, BudgetError, "round_to=8, min_share"),
    ):
        config = PruneConfig.model_validate(settings)
        with pytest.raises(error, match=message):
            decide(model, graph, [batch()], budget, config, on_round=lambda *step: told.append(step))
    assert told == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"round_to": 0},
            "setting prune.round_to=0: input should be a whole number of channels, at least 1, or 'auto'",
        ),
        ({"round_to": 8.5}, "setting prune.round_to=8.5: input should be a whole number of channels"),
        ({"round_to": True}, "setting prune.round_to=True: input should be a whole number of channels"),
        ({"round_to": "best"}, "setting prune.round_to='best': input should be a whole number of channels"),
        ({"limits": [0.5, 1]}, r"setting prune.limits=\[0.5, 1\]: input should be a valid dictionary"),
        ({"limits": {"a.*": 0.5}}, r"setting prune.limits.a.\*=0.5: input should be a valid tuple"),
        ({"limits": {"a.*": ["few", 1]}}, r"setting prune.limits.a.\*.0='few': input should be a valid number"),
        ({"keep_first": 3}, "setting prune.keep_first=3: input should be a valid boolean"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validated({"prune": settings})


def test_limits_that_can_never_hold_are_refused_without_a_model() -> None:
    for limit, message in (([0.5], "is not a pair"), ([0.6, 0.5], "asks for more at least than at most")):
        with pytest.raises(ConfigError, match=rf"limit 'a' = .* {message}: write \[least, most\]"):
            check_request(validated({"prune": {"limits": {"a": limit}}}))


def test_a_build_that_an_older_prunit_began_is_resumed_with_defaults_only(tmp_path: Any) -> None:
    now = BuildConfig().model_dump(mode="json")
    added = ("round_to", "limits", "keep_first", "keep_last")
    open_folder(tmp_path, {**now, "prune": {n: v for n, v in now["prune"].items() if n not in added}}, resume=False)
    defaults = BuildConfig().model_dump(mode="json")
    open_folder(tmp_path, now, resume=True, defaults=defaults)
    for setting, said in (
        ({"round_to": 8}, "prune.round_to=auto, now it is 8"),
        ({"limits": {"a.*": [0.5, 1.0]}}, r"prune.limits.a.\*=None, now it is \[0.5, 1.0\]"),
        ({"keep_last": True}, "prune.keep_last=False, now it is True"),
    ):
        other = validated({"prune": setting}).model_dump(mode="json")
        with pytest.raises(ConfigError, match=f"was started with {said}"):
            open_folder(tmp_path, other, resume=True, defaults=defaults)
