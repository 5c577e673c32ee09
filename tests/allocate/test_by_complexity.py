"""Complexity-driven widths: shares as published, units of coupled layers, both forms of the draw, what never breaks."""

from functools import cache
from typing import get_args

import numpy as np
import pytest
import torch

from prunit import zoo
from prunit.allocate import Budget, Constraints, Target, by_complexity
from prunit.allocate.by_complexity import MODES, Complexity, Setting
from prunit.errors import BudgetError, ConfigError
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_model, cost_of
from prunit.recipe.config import PruneConfig
from tests.allocate.graphs import Wire, chain, wired


@cache
def graph_of(name: str) -> ChannelGraph:
    return trace(zoo.load(name), torch.zeros(1, 3, 32, 32))


class Rough:
    """A device on which a layer takes something for itself, and the more the wider its outputs are."""

    def __init__(self, graph: ChannelGraph) -> None:
        self.model = cost_model(graph)

    def by_layer(self, widths: np.ndarray) -> np.ndarray:
        return 1 + np.ceil(self.model.layers_at(widths).outputs / 1000)

    def __call__(self, widths: np.ndarray) -> float:
        return float(self.by_layer(widths).sum())


def target_of(graph: ChannelGraph, budget: str, **asked: object) -> Target:
    return Target(graph, Budget.parse(budget), Constraints(**asked))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "setting", "published"),
    [
        ("pa", Setting(), [0.0, 0.3, 0.5, 1.0, 2.0, 4.0, 4.0, 8.0, 16.0, 16.0, 16.0, 16.0, 16.0]),
        ("fa", Setting(), [0.6, 12.1, 6.0, 12.1, 6.0, 12.0, 12.0, 6.0, 12.0, 12.0, 3.0, 3.0, 3.0]),
        ("ma", Setting(), [23.7, 23.7, 11.9, 11.9, 5.9, 5.9, 5.9, 3.0, 3.0, 3.0, 0.7, 0.7, 0.7]),
        ("ma", Setting("all"), [0.4, 0.7, 0.7, 1.2, 2.1, 4.0, 4.0, 7.9, *[15.8] * 5]),
        ("ma", Setting("training", 2), [0.6, 0.8, 0.8, 1.3, 2.1, 4.1, 4.1, 7.9, *[15.7] * 5]),
    ],
)
def test_shares_of_vgg16(mode: str, setting: Setting, published: list[float]) -> None:
    """The shares that the published counting rules give for the 13 convolutions on CIFAR images, within 0.15 points.

    The classifier's 5,120 weights, which count for the last convolution here, are 0.03 % of all.
    """
    target = target_of(graph_of("vgg16"), "params=1/2")
    shares = 100 * Complexity(target, MODES[mode], setting).shares(target.ceiling)[:13]
    assert np.abs(shares - published).max() < 0.15


@pytest.mark.parametrize(
    ("mode", "removed", "params", "macs"),
    [("pa", 0.2, 39, 24), ("pa", 0.4, 68, 43), ("fa", 0.2, 30, 60), ("fa", 0.4, 57, 83)],
)
def test_reductions_of_vgg16_by_filters_removed(mode: str, removed: float, params: float, macs: float) -> None:
    """What removing 20 and 40 % of all filters at random takes, as computed elsewhere with the same minimum widths."""
    graph = graph_of("vgg16")
    filters = int(graph.sizes[:13].sum())

    def left(budget: float) -> tuple[int, dict[str, int]]:
        target = target_of(graph, f"params={budget}", min_share=0.1, min_width=4)
        widths = by_complexity(target, Complexity(target, MODES[mode]), draw="sampled", seed=0)
        return sum(widths.values()) - 10, widths

    low, high = 0.02, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle)[0] < (1 - removed) * filters else (low, middle)
    cost, dense = cost_of(graph, left(high)[1]), cost_of(graph)
    assert 100 * (1 - cost.params / dense.params) == pytest.approx(params, abs=2.5)
    assert 100 * (1 - cost.macs / dense.macs) == pytest.approx(macs, abs=2.5)


def test_an_inverted_residual_is_one_unit() -> None:
    graph = graph_of("mobilenetv2")
    streams = [g.name for g in graph.groups if g.coupled or g.name in ("blocks.0.residual.2.0",)]
    target = target_of(graph, "macs=1/2").keeping(streams, "residual stream")
    costs = target.model.layers_at(target.ceiling)
    found = Complexity(target, MODES["fa"]).at(target.ceiling)
    layers = {layer.module: i for i, layer in enumerate(graph.layers)}
    unit = [layers[f"blocks.2.residual.{i}.0"] for i in (0, 2, 4)]  # expand, depthwise, project
    assert found[graph.index["blocks.2.residual.0.0"]] == pytest.approx(costs.macs[unit].sum())
    assert found.sum() == pytest.approx(costs.macs.sum())
    assert not found[[graph.index[name] for name in streams]].any()


def test_a_layer_that_reads_two_groups_counts_for_both_by_channels() -> None:
    graph = wired([6, 2, 5], [Wire(0, (-1,)), Wire(1, (-1,)), Wire(2, (0, 1))], pinned={2})
    target = target_of(graph, "macs=1/2")
    macs = target.model.layers_at(target.ceiling).macs
    assert Complexity(target, MODES["fa"]).at(target.ceiling) == pytest.approx(
        [macs[0] + macs[2] * 3 / 4, macs[1] + macs[2] / 4, 0]
    )


def test_layers_cost_what_the_network_does() -> None:
    for name in ("resnet20", "mobilenetv2"):
        graph = graph_of(name)
        target = target_of(graph, "macs=1")
        for share in (1.0, 0.5):
            widths = target.allowed.down(share * graph.sizes)
            costs, whole = target.model.layers_at(widths), target.model.at(widths)
            assert costs.macs.sum() == pytest.approx(whole.macs)
            rest = sum(t.shape[0] for n, t in graph.tensors.items() if t.is_parameter and len(t.shape) == 1)
            assert 0 < whole.params - costs.params.sum() <= rest
    first = target_of(graph_of("vgg16"), "macs=1").model.layers_at(graph_of("vgg16").sizes)
    assert first.outputs[0] == 64 * 32 * 32
    assert first.output_bytes[0] == 4 * first.outputs[0]


@pytest.mark.parametrize("recomputed", [False, True])
def test_draws_are_on_average_what_is_expected(recomputed: bool) -> None:
    graph = chain(60, 40, 80, 4)
    target = target_of(graph, "macs=1/3", min_share=0.1)
    complexity = Complexity(target, MODES["pa"])
    expected = by_complexity(target, complexity, recomputed=recomputed)
    drawn = [by_complexity(target, complexity, draw="sampled", recomputed=recomputed, seed=s) for s in range(40)]
    for name, width in expected.items():
        assert np.mean([widths[name] for widths in drawn]) == pytest.approx(width, abs=3)
    assert len({tuple(widths.values()) for widths in drawn}) > 10
    again = by_complexity(target, complexity, draw="sampled", recomputed=recomputed, seed=7)
    assert again == drawn[7]


def test_static_shares_by_hand() -> None:
    """Two groups of which one has three times the complexity lose channels as 1 to 3."""
    graph = wired([100, 100, 2], [Wire(0, (-1,), 1), Wire(1, (-1,), 3), Wire(2, (0, 1), 1, 1)], pinned={2})
    target = target_of(graph, "macs=70%")
    widths = by_complexity(target, Complexity(target, MODES["fa"]))
    assert (100 - widths["g1"]) / (100 - widths["g0"]) == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("draw", ["expected", "sampled"])
@pytest.mark.parametrize("recomputed", [False, True])
def test_budgets_and_bounds_hold(mode: str, draw: str, recomputed: bool) -> None:
    for name, asked in (("resnet20", {}), ("vgg11", {"round_to": 8, "keep_first": True}), ("mobilenetv2", {})):
        graph = graph_of(name)
        for budget in ("params=1/4", "macs=1/2,params=1/3", "weights=60%"):
            target = target_of(graph, budget, **asked)
            widths = by_complexity(
                target,
                Complexity(target, MODES[mode], Setting(meter=Rough(graph))),
                draw=draw,  # type: ignore[arg-type]
                recomputed=recomputed,
            )
            found = np.array([widths[g.name] for g in graph.groups])
            assert target.met_by(found)
            assert target.allowed.hold(found)


def test_a_looser_budget_never_costs_less() -> None:
    graph = graph_of("resnet20")
    before = 0
    for share in range(5, 100, 5):
        target = target_of(graph, f"macs={share}%")
        cost = cost_of(graph, by_complexity(target, Complexity(target, MODES["fa"]))).macs
        assert before <= cost
        before = cost


def test_an_impossible_budget_names_the_closest_point() -> None:
    target = target_of(chain(60, 40, 4), "macs=1/1000")
    for draw in ("expected", "sampled"):
        with pytest.raises(BudgetError, match="budget cannot be met"):
            by_complexity(target, Complexity(target, MODES["fa"]), draw=draw)  # type: ignore[arg-type]


def test_shares_of_a_device_are_its_meter_s() -> None:
    graph = graph_of("vgg11")
    target, rough = target_of(graph, "params=1/2"), Rough(graph)
    for mode in ("la", "ea"):
        shares = Complexity(target, MODES[mode], Setting(meter=rough)).shares(target.ceiling)
        layers = rough.by_layer(target.ceiling)
        # The classifier makes no channels that may go: what it takes counts for the layer that it reads.
        layers[-2] += layers[-1]
        assert shares[:-1] == pytest.approx(layers[:-1] / layers[:-1].sum())
        with pytest.raises(ConfigError, match="this mode needs the profile of a device"):
            Complexity(target, MODES[mode]).shares(target.ceiling)


def test_every_mode_is_told_of() -> None:
    assert get_args(PruneConfig.model_fields["mode"].annotation) == tuple(MODES)
    assert all(mode.line and mode.what for mode in MODES.values())
