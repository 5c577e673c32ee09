"""Widths that an engine likes: for each group by its layers, never out of reach, and less than what a user asks for."""

import pytest
import torch
from torch import Tensor, nn

import prunit
from prunit.allocate import Budget, Constraints, Target
from prunit.allocate.liked import liked
from prunit.errors import BudgetError
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_of
from prunit.recipe.config import PruneConfig, validated
from prunit.recipe.recipes import first_reachable
from tests.allocate.graphs import chain

AUTO = Constraints(round_to="auto")


def steps(graph: ChannelGraph, engine: str = "onnxruntime") -> dict[str, tuple[int, int]]:
    """Step and least width of each group."""
    found = liked(graph, engine)
    return {g.name: (int(s), int(w)) for g, s, w in zip(graph.groups, found.steps, found.least, strict=True)}


def ladder(graph: ChannelGraph, constraints: Constraints, group: str) -> list[int]:
    return constraints.resolve(graph).ladder(graph.index[group]).tolist()


def traced(*layers: nn.Module, size: int = 8) -> ChannelGraph:
    return trace(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.zeros(1, 3, size, size))


def test_the_step_of_a_group_is_the_largest_that_a_layer_of_it_likes() -> None:
    graph = traced(
        *(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 32, 3), nn.Conv2d(32, 32, 3, groups=32), nn.Conv2d(32, 12, 1)),
        nn.Conv2d(12, 4, 3, padding=1),
    )
    assert steps(graph) == {"0": (16, 1), "1": (8, 16), "3": (4, 1), "4": (1, 1)}
    # OpenVINO has no cliff, but blocks; depthwise layers want multiples of eight.
    assert steps(graph, "openvino") == {"0": (16, 1), "1": (8, 1), "3": (1, 1), "4": (1, 1)}


def test_what_works_on_one_position_goes_by_single_channels() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.squeeze, self.excite = nn.Conv2d(3, 64, 3), nn.Conv2d(64, 32, 1), nn.Conv2d(32, 64, 1)
            self.b = nn.Conv2d(64, 5, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(y * self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()).mean((2, 3))

    graph = trace(Gated(), torch.zeros(1, 3, 8, 8))
    assert steps(graph)["squeeze"] == (1, 1)
    assert steps(graph)["a"] == (16, 1)


def test_parts_of_a_grouped_convolution_count_by_themselves() -> None:
    graph = traced(nn.Conv2d(3, 128, 3), nn.Conv2d(128, 128, 3, groups=4), nn.Conv2d(128, 5, 3))
    grouped = next(g for g in graph.groups if "1" in g.producers)
    assert grouped.size == 32
    assert steps(graph)[grouped.name][0] == 16  # whole blocks in each of four parts
    small = traced(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, groups=4), nn.Conv2d(32, 5, 3))
    # Eight channels of a part fit no block; the layers around want 8 of 32, which are two of each part.
    assert steps(small)[next(g for g in small.groups if "1" in g.producers).name][0] == 2


def test_a_small_layer_beside_does_not_say_what_is_worth_it() -> None:
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.big, self.small = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 8, 3), nn.Conv2d(32, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            return self.big(y).mean((2, 3)) + self.small(y).mean((2, 3))

    assert steps(trace(Shortcut(), torch.zeros(1, 3, 12, 12)))["stem"] == (8, 1)


@pytest.mark.parametrize(
    ("narrow", "widths"), [(0, [16, 32, 48, 64]), (1, [16, 32, 48, 64]), (2, [2, 4, 8, 16, 32, 48, 64])]
)
def test_below_the_first_step_are_powers_of_two_where_a_budget_asks(narrow: int, widths: list[int]) -> None:
    graph = traced(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 5, 3))
    asked = Constraints(round_to="auto", narrow=narrow)  # type: ignore[arg-type]
    assert ladder(graph, asked, "0") == widths  # min_share keeps two of 64
    allowed = asked.resolve(graph)
    for width in range(1, 65):
        here = torch.arange(1).numpy() + width
        assert allowed.down(here)[0] == max([w for w in widths if w <= width], default=widths[0])
        assert allowed.up(here)[0] == min(w for w in widths if w >= width)


def test_pointwise_inputs_stay_where_fewer_save_no_time() -> None:
    graph = traced(nn.Conv2d(3, 24, 3), nn.Conv2d(24, 5, 1))
    assert ladder(graph, AUTO, "0") == [16, 24]
    assert ladder(graph, Constraints(round_to="auto", narrow=1), "0") == [8, 16, 24]


@pytest.mark.parametrize(
    ("limit", "widths"),
    [((0.1, 0.4), [2, 3, 4, 5, 6]), ((5, 7), [5, 6, 7]), ((0.5, 1), [8, 16]), ((9, 16), [16])],
)
def test_what_a_user_asks_for_comes_first(limit: tuple[float, float], widths: list[int]) -> None:
    graph = traced(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 5, 3))
    assert ladder(graph, Constraints(round_to="auto", limits={"0": limit}), "0") == widths


def test_no_budget_is_out_of_reach_for_what_the_engine_likes() -> None:
    graph = trace(prunit.zoo.load("resnet20"), torch.zeros(1, 3, 32, 32))
    exact, auto = PruneConfig(round_to=1), PruneConfig()
    for share in (4, 8, 16, 64, 256):
        budget = Budget.parse(f"params=1/{share}")
        for config in (exact, auto):
            target = first_reachable(graph, budget, config)
            assert target.met_by(target.floor)
    with pytest.raises(BudgetError):
        first_reachable(graph, Budget.parse("params=1/20000"), auto)


def test_a_looser_budget_never_costs_less() -> None:
    model, example = prunit.zoo.load("resnet20"), torch.zeros(1, 3, 32, 32)
    graph = trace(model, example)
    shares = (200, 100, 64, 40, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)
    plans = [
        prunit.plan(model, example, budget=f"params=1/{n}", recipe="uniform", config={"min_share": 0}) for n in shares
    ]
    costs = [cost_of(graph, plan).params for plan in plans]
    assert costs == sorted(costs)
    dense = cost_of(graph).params
    assert all(cost <= dense // n for cost, n in zip(costs, shares, strict=True))


def test_a_budget_is_used_in_steps() -> None:
    model, example = prunit.zoo.load("mobilenetv2", num_classes=10), torch.zeros(1, 3, 32, 32)
    graph = trace(model, example)
    plan = prunit.plan(model, example, budget="macs=1/4", recipe="uniform", score="magnitude")
    assert cost_of(graph, plan).macs > 0.98 * cost_of(graph).macs / 4
    likes = liked(graph, "onnxruntime")
    for group, step in zip(graph.groups, likes.steps, strict=True):
        assert plan.widths[group.name] in (group.size, *range(step, group.size, step))
    assert plan.origin["constraints"] == "round_to=auto"


def test_an_engine_that_was_not_measured_is_refused() -> None:
    with pytest.raises(prunit.PrunitError, match="unknown engine 'tvm'"):
        Target(chain(32, 4), Budget.parse("params=1/2"), Constraints(round_to="auto", engine="tvm"))
    assert validated({"prune": {"round_to": "8"}}).prune.round_to == 8
