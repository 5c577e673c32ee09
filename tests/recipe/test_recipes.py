"""Every recipe on every style of network: the budget is met, and what is said about each group is true."""

import json
import re

import pytest
import torch
from torch import Tensor, nn

import prunit
from prunit.allocate import Budget, Target
from prunit.batches import Batch
from prunit.cut.plans import Plan
from prunit.errors import BudgetError, ConfigError, ScoreError, UnknownNameError
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_of
from prunit.recipe import RECIPES, Decision, decide
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import constraints_of, sparsest
from prunit.recipe.reconvene import EVALUATORS
from prunit.scores import score_weights
from tests.recipe.nets import STYLES, Plain, batch, seeded

CASES = [("reconvene", evaluator) for evaluator in EVALUATORS] + [(r, "emptied") for r in RECIPES if r != "reconvene"]
NO_CLASSES = torch.empty(0, dtype=torch.int64)


def decided(
    style: str, budget: str, config: PruneConfig, *, batches: list[Batch] | None = None
) -> tuple[nn.Module, ChannelGraph, Decision]:
    """A decision by single channels: what a recipe says of a layer shows there. test_recipe_liked.py has the steps."""
    model = seeded(STYLES[style])
    graph = trace(model, batch()[0][:1])
    config = config.model_copy(update={"round_to": 1})
    return model, graph, decide(model, graph, batches or [batch()], Budget.parse(budget), config)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("recipe", "evaluator"), CASES)
@pytest.mark.parametrize("budget", ["params=1/4", "macs=1/3,params=0.9"])
def test_budget_is_met_and_each_group_is_explained(style: str, recipe: str, evaluator: str, budget: str) -> None:
    config = PruneConfig.model_validate({"recipe": recipe, "evaluator": evaluator, "rounds": 8, "round_to": 1})
    model, graph, decision = decided(style, budget, config)
    target = Target(graph, Budget.parse(budget), constraints_of(config))
    small = prunit.compact(model, graph, decision.plan)
    assert sum(p.numel() for p in small.parameters()) == decision.cost.params <= decision.dense.params
    for name, most in target.most.items():
        assert decision.cost.as_dict()[name] <= most
    assert decision.cost == cost_of(graph, decision.plan)
    assert decision.why.keys() == {g.name for g in graph.groups}
    for group in graph.groups:
        why, kept = decision.why[group.name], len(decision.plan.keep[group.name])
        assert why.startswith("whole: ") == (kept == group.size), why
        if why == "minimum width":
            assert kept == target.floor[graph.index[group.name]]
        if "residual stream" in why:
            assert group.coupled
    assert decision.why[graph.groups[-1].name] == "whole: the model's output"
    assert decision.used.keys() == set(budget.split(","))
    assert max(decision.used.values()) <= 1
    assert decision.used[decision.binding] == max(decision.used.values())


@pytest.mark.parametrize("style", STYLES)
def test_looser_budget_never_costs_less(style: str) -> None:
    costs = [decided(style, f"params=1/{n}", PruneConfig(rounds=8))[2].cost.params for n in (8, 5, 3, 2)]
    assert costs == sorted(costs)


def emptied_by_mask(weights: list[Tensor], kept_weights: int) -> list[Tensor]:
    """Which output channels of each but the last of a row of layers lack a living weight that makes or reads them."""
    threshold = torch.cat([w.flatten() for w in weights]).sort(descending=True).values[kept_weights - 1]
    alive = [(w >= threshold).float() for w in weights]
    made = [a.flatten(1).sum(1) > 0 for a in alive[:-1]]
    read = [a.transpose(0, 1).flatten(1).sum(1) > 0 for a in alive[1:]]
    return [~(m & r) for m, r in zip(made, read, strict=True)]


def params_of(widths: list[int]) -> int:
    a, b, c = (max(width, 1) for width in widths)
    return sum(p.numel() for p in Plain((a, b, c)).parameters())


@pytest.mark.parametrize("share", [2, 4, 8])
def test_emptied_keeps_what_the_densest_mask_within_the_budget_leaves(share: int) -> None:
    model = seeded(Plain)
    x_BCHW = batch()[0][:1]
    graph, budget = trace(model, x_BCHW), Budget.parse(f"params=1/{share}")
    dense = cost_of(graph)
    decision = decide(model, graph, [(x_BCHW, NO_CLASSES)], budget, PruneConfig(evaluator="emptied", round_to=1))

    found = score_weights(model, graph, "synflow", [(x_BCHW, NO_CLASSES)], density=sparsest(Target(graph, budget)))
    weights = [found[f"{name}.weight"] for name in ("first.0", "second.0", "third.0", "head")]
    most, total = dense.params // share, sum(w.numel() for w in weights)
    low, high = 1, total  # weights kept: `low` is within the budget, `high` is not
    while high - low > 1:
        middle = (low + high) // 2
        left = [int((~e).sum()) for e in emptied_by_mask(weights, middle)]
        low, high = (middle, high) if params_of(left) <= most else (low, middle)
    emptied = dict(zip(("first.0", "second.0", "third.0"), emptied_by_mask(weights, low), strict=True))

    for name, empty in emptied.items():
        gone = set(range(len(empty))) - set(decision.plan.keep[name])
        assert gone <= set(empty.nonzero().flatten().tolist())
        told = re.fullmatch(r"the mask empties (\d+) of \d+(?:; the budget spares (\d+))?", decision.why[name])
        if told:
            assert (int(told[1]), int(told[2] or 0)) == (int(empty.sum()), int(empty.sum()) - len(gone))
    # Nothing that the mask empties stays unless there is room for it, and there is no room for more.
    widths = decision.plan.widths
    for name, empty in emptied.items():
        if widths[name] < len(empty):
            assert cost_of(graph, {**widths, name: widths[name] + 1}).params > most


def test_a_mask_that_would_disconnect_the_network_is_not_followed_to_the_end() -> None:
    # The second layer's weights are so small that all of them go before any other: then nobody reads the first layer.
    model = seeded(Plain)
    with torch.no_grad():
        model.get_submodule("second.0").get_parameter("weight").mul_(1e-3)
    graph = trace(model, batch()[0][:1])
    budget = Budget.parse("params=1/16")
    decision = decide(model, graph, [batch()], budget, PruneConfig(evaluator="emptied", score="magnitude", round_to=1))
    assert decision.cost.params <= decision.dense.params // 16
    assert 1 < decision.plan.widths["third.0"] < 32
    end = "before it cuts the network at 'first.0'; then by equal shares"
    assert decision.why["third.0"] == f"the mask empties 0 of 32 {end}"


def test_density_reading_keeps_the_layers_whole_that_the_mask_leaves_dense() -> None:
    model, graph, decision = decided("plain", "params=1/2", PruneConfig(evaluator="density", rounds=1))
    scores = score_weights(model, graph, "synflow", [batch()], rounds=1)
    kept = round(sum(s.numel() for s in scores.values()) / 2)
    threshold = torch.cat([s.flatten() for s in scores.values()]).sort(descending=True).values[kept]
    dense = [n for n in ("first.0", "second.0", "third.0") if (scores[f"{n}.weight"] > threshold).float().mean() > 0.55]
    whole = [n for n, why in decision.why.items() if why.startswith("whole: sensitive, over 1 times as dense")]
    assert dense
    assert set(dense) <= set(whole)


@pytest.mark.parametrize("evaluator", ["density", "score"])
def test_tau_decides_which_layers_are_sensitive(evaluator: str) -> None:
    def whole(tau: float) -> int:
        config = PruneConfig.model_validate({"evaluator": evaluator, "tau": tau, "rounds": 2})
        _, _, decision = decided("plain", "params=1/2", config)
        return sum("sensitive" in why for why in decision.why.values())

    assert whole(100.0) == 0
    assert whole(0.3 if evaluator == "score" else 0.5) > 0


@pytest.mark.parametrize("style", ["residual", "inverted"])
def test_residual_streams_are_pruned_only_where_the_budget_is_tight(style: str) -> None:
    """Whole while the other layers need at most three times fewer channels than if all layers kept the same share."""
    outcomes = set()
    for budget in ("params=1/2", "params=1/3", "params=1/4", "params=1/6", "params=1/12"):
        _, graph, alike = decided(style, budget, PruneConfig(recipe="uniform", residual="prune"))
        free = [g for g in graph.groups if not g.pinned]
        share = sum(alike.plan.widths[g.name] for g in free) / sum(g.size for g in free)
        narrow = {g.name: max(1, int(share / 3 * g.size)) for g in free if not g.coupled}
        bearable = cost_of(graph, narrow).params <= Target(graph, Budget.parse(budget)).most["params"]
        _, _, decision = decided(style, budget, PruneConfig(rounds=4))
        streams = [g.name for g in free if g.coupled]
        assert streams
        assert all(decision.why[n] == "whole: residual stream" for n in streams) == bearable
        if bearable:
            assert all(decision.plan.widths[n] == decision.plan.dense[n] for n in streams)
        outcomes.add(bearable)
    assert outcomes == {True, False}


def test_residual_keep_refuses_what_auto_can_and_says_so() -> None:
    graph = trace(seeded(STYLES["residual"]), batch()[0][:1])
    streams = graph.pin([g.name for g in graph.groups if g.coupled], "residual stream")
    target = Target(streams, Budget.parse("params=1"))
    least = target.model.at(target.floor).params
    with pytest.raises(BudgetError, match=rf"closest reachable is {least:,}.*prune\.residual=auto") as caught:
        decided("residual", f"params={least - 1}", PruneConfig(residual="keep"))
    assert caught.value.closest["params"] == least
    _, _, decision = decided("residual", f"params={least}", PruneConfig(residual="keep", rounds=2))
    assert decision.cost.params == least


def test_residual_prune_narrows_streams_as_it_narrows_other_layers() -> None:
    config = PruneConfig(recipe="uniform", residual="prune")
    _, graph, decision = decided("residual", "params=1/2", config)
    streams = [g.name for g in graph.groups if g.coupled]
    assert all(decision.plan.widths[n] < decision.plan.dense[n] for n in streams)
    assert all(decision.why[n] == "the same share as everywhere" for n in streams)


@pytest.mark.parametrize("style", STYLES)
def test_unreachable_budget_names_the_closest_point_and_that_point_can_be_reached(style: str) -> None:
    with pytest.raises(BudgetError, match=r"params=1/5000 asks for at most .* the closest reachable is \d") as caught:
        decided(style, "params=1/5000", PruneConfig())
    assert "residual stream" not in str(caught.value)  # those may shrink too, so they are no reason
    closest = caught.value.closest
    _, _, decision = decided(style, f"params={closest['params']:.0f}", PruneConfig(rounds=2))
    assert decision.cost.as_dict() == closest


def test_seed_of_random_scores_is_reproducible() -> None:
    plans = [decided("plain", "params=1/2", PruneConfig(recipe="uniform", score="random", seed=s)) for s in (0, 0, 1)]
    first, again, other = (decision.plan.hash for _, _, decision in plans)
    assert first == again
    assert first != other


@pytest.mark.parametrize("score", ["snip", "grasp", "iterative-snip", "force"])
def test_score_that_needs_data_refuses_without_before_it_does_anything(score: str) -> None:
    with pytest.raises(ScoreError, match=rf"'{score}' needs images and their classes: .*--data"):
        decided("plain", "params=1/2", PruneConfig(score=score), batches=[(batch()[0][:1], NO_CLASSES)])


@pytest.mark.parametrize(("recipe", "evaluator"), CASES)
def test_origin_is_plain_data_and_survives_a_file(recipe: str, evaluator: str) -> None:
    config = PruneConfig.model_validate({"recipe": recipe, "evaluator": evaluator, "rounds": 2, "seed": 3})
    _, _, decision = decided("residual", "params=1/3", config)
    origin = dict(decision.plan.origin)
    assert Plan.from_json(decision.plan.to_json()).origin == json.loads(json.dumps(origin)) == origin
    assert (origin["recipe"], origin["seed"], origin["budget"]) == (recipe, 3, "params=1/3")
    assert ("evaluator" in origin) == (recipe == "reconvene")
    assert origin["why"] == decision.why


def test_budget_that_the_dense_model_meets_prunes_nothing() -> None:
    _, graph, decision = decided("residual", "params=1", PruneConfig(rounds=2))
    assert decision.plan.widths == {g.name: g.size for g in graph.groups}
    assert set(decision.why.values()) == {
        "whole: residual stream",
        "whole: the model's output",
        "whole: the budget asks for no less",
    }


def test_pins_hold_and_are_named() -> None:
    model = seeded(Plain)
    config = {"pin": ["second.0"], "rounds": 2}
    plan = prunit.plan(model, batch()[0][:1], budget={"params": 1 / 4}, config=config)
    assert len(plan.keep["second.0"]) == 24
    assert plan.origin["why"]["second.0"].startswith("whole: ")


def test_public_plan_leaves_the_model_and_the_random_state_alone() -> None:
    model = seeded(STYLES["residual"])
    before = {n: t.clone() for n, t in model.state_dict().items()}
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    plan = prunit.plan(model, batch()[0][:1], budget="params=1/4", config={"evaluator": "score", "rounds": 2})
    assert plan.origin["evaluator"] == "score"
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


def test_a_function_of_the_user_s_own_decides_the_channels() -> None:
    model, asked = seeded(Plain), []

    def first_channels_first(net, weights, batches, generator):
        asked.append(len(batches))
        return {n: torch.arange(len(w), 0, -1.0).view(-1, *[1] * (w.ndim - 1)).expand_as(w) for n, w in weights.items()}

    x_BCHW, _ = batch()
    data = [(x_BCHW, torch.zeros(len(x_BCHW), dtype=torch.int64))]
    plan = prunit.plan(
        model, x_BCHW[:1], budget="params=1/2", recipe="uniform", score=first_channels_first, batches=data
    )
    assert asked == [1]
    assert plan.origin["score"] == "first_channels_first"
    assert all(list(kept) == list(range(len(kept))) for kept in plan.keep.values())
    assert any(len(plan.keep[n]) < plan.dense[n] for n in plan.keep)


def test_unknown_names_and_settings_of_a_plan_name_the_nearest() -> None:
    model, example = seeded(Plain), batch()[0][:1]
    with pytest.raises(UnknownNameError, match="unknown recipe 'reconveen'; did you mean 'reconvene'"):
        prunit.plan(model, example, budget="params=1/2", recipe="reconveen")
    with pytest.raises(UnknownNameError, match="unknown score 'synfow'; did you mean 'synflow'"):
        prunit.plan(model, example, budget="params=1/2", score="synfow")
    with pytest.raises(UnknownNameError, match=r"unknown setting 'prune.evaluater'; did you mean 'prune.evaluator'"):
        prunit.plan(model, example, budget="params=1/2", config={"evaluater": "score"})
    with pytest.raises(ConfigError, match="tau=-1: input should be greater"):
        prunit.plan(model, example, budget="params=1/2", config={"tau": -1})
