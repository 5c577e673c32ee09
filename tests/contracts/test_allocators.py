"""Every allocator, also a user's, on traced networks: widths within budget and bounds, or an error that helps."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from prunit.allocate import (
    ALLOCATORS,
    Allocator,
    Budget,
    Complexity,
    Constraints,
    Densities,
    Target,
    by_complexity,
    by_density,
    global_threshold,
)
from prunit.allocate.by_complexity import MODES
from prunit.cut.plans import Scores, Widths, choose
from prunit.errors import BudgetError, ConfigError, PlanError
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_of
from tests.allocate.graphs import Wire, chain, wired
from tests.nets import NETS

BUDGETS = ("params=1/2", "params=1/3", "macs=60%", "activations=3/4", "weights=1/2", "params=60%,macs=1/2", "params=1")


def densest(target: Target, scores: Scores) -> Widths:
    """`by_density` in the form of an allocator: the scores of channels stand in for those of weights."""
    makers = {a.tensor: a for g in target.graph.groups for a in target.graph.axes_of(g.name, "out")}
    flat = torch.cat([scores[g.name] for g in target.graph.groups])
    shapes = {n: target.graph.tensors[n].shape for n in makers}
    weights = {n: flat[a.where].repeat_interleave(int(np.prod(shapes[n])) // len(a.where)) for n, a in makers.items()}
    return by_density(target, Densities(target.graph, weights))


def random_widths(target: Target, scores: Scores) -> Widths:
    """What somebody may bring along: narrow one group after the other until the budget holds."""
    target.check_reachable()
    widths = target.ceiling.copy()
    for i in np.random.default_rng(0).permutation(len(widths)):
        if not target.met_by(widths):
            widths[i] = target.floor[i]
    return {g.name: int(w) for g, w in zip(target.graph.groups, widths, strict=True)}


CONSTRAINTS = (
    Constraints(round_to=4),
    Constraints(round_to=8, min_width=3, keep_first=True),
    Constraints(min_share=0.1, limits={"*": (0.4, 0.9)}),
    Constraints(round_to=2, limits={"*": (0.4, 16)}, keep_last=True),
)


def by_macs(target: Target, scores: Scores) -> Widths:
    """`by_complexity` in the form of an allocator, as expected."""
    return by_complexity(target, Complexity(target, MODES["fa"]))


def drawn_by_params(target: Target, scores: Scores) -> Widths:
    """The same, drawn and with shares that follow."""
    return by_complexity(target, Complexity(target, MODES["pa"]), draw="sampled", recomputed=True)


EVERY: dict[str, Allocator] = {
    **ALLOCATORS,
    "by density": densest,
    "by macs": by_macs,
    "drawn by params": drawn_by_params,
    "custom": random_widths,
}


@cache
def graph_of(net: str) -> ChannelGraph:
    build, example = NETS[net]
    return trace(build(), example.float())


def noise(graph: ChannelGraph, seed: int = 0) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    return {g.name: torch.rand(g.size, generator=generator, dtype=torch.float64) for g in graph.groups}


@pytest.fixture(params=sorted(EVERY))
def allocator(request: pytest.FixtureRequest) -> Callable[[Target, Scores], Widths]:
    return EVERY[request.param]


@pytest.mark.parametrize("net", sorted(NETS))
def test_the_budget_is_met_within_bounds_or_the_closest_point_named(net: str, allocator: Allocator) -> None:
    graph = graph_of(net)
    for budget in BUDGETS:
        target = Target(graph, Budget.parse(budget))
        floor = cost_of(graph, {g.name: int(w) for g, w in zip(graph.groups, target.floor, strict=True)}).as_dict()
        if any(floor[name] > most for name, most in target.most.items()):
            with pytest.raises(BudgetError, match="budget cannot be met") as e:
                allocator(target, noise(graph))
            assert e.value.closest == floor
            continue
        widths = allocator(target, noise(graph))
        assert set(widths) == {g.name for g in graph.groups}
        cost = cost_of(graph, choose(graph, noise(graph), widths)).as_dict()
        assert all(cost[name] <= most for name, most in target.most.items()), budget
        for group in graph.groups:
            least = target.floor[graph.index[group.name]]
            assert 1 <= least <= widths[group.name] <= group.size
            assert isinstance(widths[group.name], int)
            assert not group.pinned or widths[group.name] == group.size


@pytest.mark.parametrize("net", sorted(NETS))
@pytest.mark.parametrize("asked", CONSTRAINTS, ids=str)
def test_constraints_hold_on_every_layer(net: str, asked: Constraints, allocator: Allocator) -> None:
    graph = graph_of(net)
    narrowest = Target(graph, Budget(()), asked)
    low, high = narrowest.model.at(narrowest.floor).params, narrowest.dense.params
    for params in (low, (2 * low + high) // 3, (low + 2 * high) // 3, high):
        target = Target(graph, Budget.parse(f"params={params}"), asked)
        widths = dict(allocator(target, noise(graph)))
        plan = choose(target.graph, noise(graph), widths)
        assert cost_of(graph, plan).params <= params
        assert target.allowed.hold(np.array([widths[g.name] for g in graph.groups]))
        kept = graph.flat_keep(plan.keep)
        for group, start in zip(graph.groups, graph.offsets, strict=False):
            width = widths[group.name]
            if group.pinned:
                continue
            if "*" in asked.limits:
                assert 0.4 * group.size <= width <= max(asked.limits["*"][1], 0.9 * group.size)
            assert width >= min(asked.min_width, group.size)
            if width < group.size:
                for axis in graph.axes_of(group.name, "out"):
                    mine = (axis.where >= start) & (axis.where < start + group.size)
                    assert kept[axis.where[mine]].sum() % asked.round_to == 0


def test_the_first_and_the_last_hidden_layer_are_not_narrowed(allocator: Allocator) -> None:
    graph = graph_of("flattened")
    asked = Constraints(keep_first=True, keep_last=True)
    widths = allocator(Target(graph, Budget.parse("params=95%"), asked), noise(graph))
    assert (widths["features.0.0"], widths["classifier.0"]) == (6, 7)
    assert widths["features.2"] < 5


def test_a_limit_from_above_narrows_even_within_the_budget(allocator: Allocator) -> None:
    graph = graph_of("plain")
    asked = Constraints(limits={"second": (0, 0.5)})
    assert allocator(Target(graph, Budget.parse("params=1"), asked), noise(graph)) == {
        "first.0": 6,
        "second": 4,
        "head.fc": 5,
    }


def test_a_budget_of_everything_keeps_everything(allocator: Allocator) -> None:
    graph = graph_of("residual")
    widths = allocator(Target(graph, Budget.parse("params=1,macs=1")), noise(graph))
    assert widths == {g.name: g.size for g in graph.groups}


def test_the_narrowest_widths_are_found(allocator: Allocator) -> None:
    graph = graph_of("residual")
    narrowest = Target(graph, Budget.parse("params=1"), Constraints(min_width=2))
    target = Target(
        graph, Budget.parse(f"params={narrowest.model.at(narrowest.floor).params}"), Constraints(min_width=2)
    )
    assert list(allocator(target, noise(graph)).values()) == target.floor.tolist()


def test_one_parameter_less_cannot_be_met(allocator: Allocator) -> None:
    graph = graph_of("residual")
    floor = Target(graph, Budget.parse("params=1"), Constraints(min_width=2))
    least = floor.model.at(floor.floor).params
    with pytest.raises(
        BudgetError, match=f"params={least - 1} asks for at most .*the closest reachable is {least}"
    ) as e:
        allocator(Target(graph, Budget.parse(f"params={least - 1}"), Constraints(min_width=2)), noise(graph))
    assert e.value.closest["params"] == least


def test_the_error_names_each_limit_that_fails_and_what_is_pinned(allocator: Allocator) -> None:
    graph = graph_of("plain")
    with pytest.raises(BudgetError) as e:
        allocator(Target(graph, Budget.parse("macs=1/1000,params=99%,weights=10B")), noise(graph))
    message = str(e.value)
    assert "macs=1/1000 asks for" in message
    assert "weights=10B asks for at most 10 B of" in message
    assert "params=99%" not in message
    assert "whole groups: 'head.fc' (the model's output)" in message


def test_pinned_groups_stay_whole(allocator: Allocator) -> None:
    graph = graph_of("plain").pin(["first.0"], "asked for")
    widths = allocator(Target(graph, Budget.parse("params=1/2")), noise(graph))
    assert widths["first.0"] == 6
    assert widths["second"] < 8


def test_minimum_widths_hold(allocator: Allocator) -> None:
    graph = graph_of("inverted")
    dense = {g.name: g.size for g in graph.groups}
    widths = allocator(
        Target(graph, Budget.parse("params=40%"), Constraints(min_share=0.25, min_width=2)), noise(graph)
    )
    assert widths["expand.0"] >= 3
    assert widths["stem.0"] >= 2
    assert widths != dense


def test_scores_are_not_changed(allocator: Allocator) -> None:
    graph = graph_of("plain")
    scores = noise(graph)
    allocator(Target(graph, Budget.parse("params=1/2")), scores)
    assert all(torch.equal(scores[n], s) for n, s in noise(graph).items())


@pytest.mark.parametrize(("share", "width"), [(-0.1, 1), (1.1, 1), (0.5, 0)])
def test_minimum_widths_are_checked(share: float, width: int) -> None:
    with pytest.raises(ConfigError, match=r"min_share must be in \[0, 1\] and min_width at least 1, got"):
        Constraints(min_share=share, min_width=width)


def test_minimum_widths_are_rounded_up_but_not_by_rounding_errors() -> None:
    target = Target(chain(100, 10, 3, 7), Budget.parse("params=1"), Constraints(min_share=0.07, min_width=2))
    assert target.floor.tolist() == [7, 2, 2, 7]  # the last one is pinned
    target = Target(chain(100, 10, 3, 7), Budget.parse("params=1"), Constraints(min_share=0.07, min_width=4))
    assert target.floor.tolist() == [7, 4, 3, 7]  # no wider than the group is


def test_a_channel_that_went_for_nothing_comes_back() -> None:
    graph = wired([4, 4, 2], [Wire(0, (-1,), 1), Wire(1, (-1,), 100), Wire(2, (0, 1), 1)], pinned={2})
    scores = {"g0": torch.tensor([0.0, 9, 9, 9]), "g1": torch.tensor([1.0, 9, 9, 9]), "g2": torch.zeros(2)}
    most = cost_of(graph).params - 1  # either one is enough, the cheap one of g0 goes first
    assert global_threshold(Target(graph, Budget.parse(f"params={most}")), scores) == {"g0": 3, "g1": 4, "g2": 2}
    most = cost_of(graph).params - 100  # now one of g1 must go, and that is enough
    assert global_threshold(Target(graph, Budget.parse(f"params={most}")), scores) == {"g0": 4, "g1": 3, "g2": 2}


def test_a_step_goes_when_the_best_channel_that_it_costs_ranks_too_low() -> None:
    graph = wired([8, 8, 2], [Wire(0, (-1,), 1), Wire(1, (-1,), 1), Wire(2, (0, 1), 1)], pinned={2})
    # The four lowest of g0 reach up to 6, those of g1 up to 5: g1's go first, though the lowest channel is in g0.
    scores = {
        "g0": torch.tensor([0.0, 1, 2, 6, 9, 9, 9, 9]),
        "g1": torch.tensor([3.0, 4, 5, 5, 9, 9, 9, 9]),
        "g2": torch.zeros(2),
    }
    target = Target(graph, Budget.parse(f"params={cost_of(graph).params - 1}"), Constraints(round_to=4))
    assert global_threshold(target, scores) == {"g0": 8, "g1": 4, "g2": 2}


def test_uniform_widths_in_steps() -> None:
    # Dense 32 + 24 + 16 channels of 3 + 1 parameters, the output adds 2 x 72 + 2.
    wires = [Wire(i, (-1,), 1) for i in range(3)] + [Wire(3, (0, 1, 2), 1)]
    graph = wired([32, 24, 16, 2], wires, pinned={3})
    assert cost_of(graph).params == 6 * 72 + 2

    def widths(channels: int) -> list[int]:
        target = Target(graph, Budget.parse(f"params={6 * channels + 2}"), Constraints(round_to=8))
        return list(ALLOCATORS["uniform"](target, {}).values())[:3]

    # 2/3 is the largest share at which 16 + 16 + 8 channels are left; at 3/4 there would be 24 + 16 + 8.
    assert widths(40) == [16, 16, 8]
    assert widths(47) == [16, 16, 8]
    assert widths(48) == [24, 16, 8]
    assert widths(55) == [24, 16, 8]
    assert sum(widths(63)) == 56  # at 1 all would grow at once; there is room for one
    assert widths(72) == [32, 24, 16]


def test_of_two_that_fit_the_better_comes_back() -> None:
    wires = [Wire(0, (-1,), 1), Wire(1, (-1,), 1), Wire(2, (-1,), 9), Wire(3, (0, 1, 2), 1)]
    graph = wired([4, 4, 4, 2], wires, pinned={3})
    scores = {f"g{i}": torch.tensor([float(i), 9, 9, 9]) for i in range(3)} | {"g3": torch.zeros(2)}
    # A channel costs 6 parameters in g0 and g1, 30 in g2: all three must go for 37, and then one of 6 may come back.
    assert cost_of(graph, {"g0": 3}).params == cost_of(graph).params - 6
    assert cost_of(graph, {"g2": 3}).params == cost_of(graph).params - 30
    target = Target(graph, Budget.parse(f"params={cost_of(graph).params - 36}"))
    assert global_threshold(target, scores) == {"g0": 3, "g1": 4, "g2": 3, "g3": 2}


def test_below_the_sparsest_mask_all_groups_shrink_alike() -> None:
    graph = chain(100, 200, 50, 10)
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"layer{i}.weight": torch.rand(graph.tensors[f"layer{i}.weight"].shape, generator=generator) for i in range(4)
    }
    densities = Densities(graph, weights, least=0.25)  # half of the channels at least
    target = Target(graph, Budget.parse("params=1%"))
    widths = by_density(target, densities)
    assert widths["g0"] == pytest.approx(100 * widths["g1"] / 200, abs=1)
    assert widths["g2"] == pytest.approx(50 * widths["g1"] / 200, abs=1)
    assert 0.8 < target.model.at(np.array(list(widths.values()))).params / target.most["params"] <= 1


def test_a_score_that_is_missing_or_of_another_model_is_refused() -> None:
    graph, scores = graph_of("plain"), noise(graph_of("plain"))
    target = Target(graph, Budget.parse("params=1/2"))
    with pytest.raises(PlanError, match=r"group 'first.0' needs a score of shape \(6,\), found none"):
        global_threshold(target, {"second": scores["second"]})
    with pytest.raises(PlanError, match=r"group 'second' needs a score of shape \(8,\), found shape \(5,\)"):
        global_threshold(target, {**scores, "second": torch.zeros(5)})
