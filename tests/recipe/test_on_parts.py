"""Budgets of microcontrollers and NPUs: met by their own tools' word, or refused with the nearest figure."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from prunit.allocate import Budget
from prunit.errors import BudgetError, ConfigError, ModelError
from prunit.graph import ChannelGraph, trace
from prunit.mcu.parts import part
from prunit.mcu.tflm import arena
from prunit.mcu.vela import compiled
from prunit.prices.costs import width_array
from prunit.recipe import RECIPES, decide_here
from prunit.recipe.blueprint import Blueprint
from prunit.recipe.config import PruneConfig
from prunit.recipe.correcting import met_by_tools
from prunit.recipe.devices import meters_of
from prunit.recipe.on_parts import PartMeter, meters_on_parts
from prunit.recipe.recipes import Decision, scored_for
from prunit.recipe.spending import cycles_by_operator, free_widths, spent_on
from tests.recipe.nets import batch, residual, seeded

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tflite_micro")
pytest.importorskip("ethosu.vela")
X_1CHW = torch.zeros(1, 1, 8, 8)
NPU = "ethos-u55-128"

Net = tuple[torch.nn.Module, ChannelGraph, Blueprint]


@pytest.fixture(autouse=True, scope="module")
def _own_tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNIT_CACHE", str(tmp_path_factory.mktemp("tables")))
        yield


@pytest.fixture(scope="module")
def net() -> Net:
    """Two stages of 16 and 32 channels on 8x8."""
    model = seeded(lambda: residual(((16, 1), (32, 1))))
    graph = trace(model, X_1CHW)
    return model, graph, Blueprint(model, graph, X_1CHW)


def decided(net: Net, budget: str, **settings: object) -> Decision:
    model, graph, blueprint = net
    config = PruneConfig.model_validate({"rounds": 6, "measure": False, **settings})
    found = decide_here(
        *(model, graph, X_1CHW, [batch()], Budget.parse(budget), config), measure=False, blueprint=blueprint
    )
    return found.decision


def told(net: Net, decision: Decision) -> dict[str, float]:
    """What the tools say of a plan's network, asked here anew."""
    _, graph, blueprint = net
    widths = width_array(graph, decision.plan.widths)
    data = blueprint.file(widths, part("tflm"))
    found = compiled(blueprint.file(widths, part(NPU)), part(NPU)).check()
    return {
        "arena": arena(data).total_bytes,
        "flash": len(data),
        "cycles": found.cycles,
        "sram": found.sram_bytes,
        "latency": found.latency_ms,
    }


@pytest.mark.parametrize(
    ("budget", "limits"),
    [
        ("arena=6.5KB@tflm", {"arena": 6500}),
        ("flash=12KB@tflm", {"flash": 12_000}),
        (f"cycles=15k@{NPU}", {"cycles": 15_000}),
        (f"latency=20us@{NPU}", {"latency": 0.02}),
        (f"sram=2.5KB@{NPU}", {"sram": 2500}),
        (f"cycles=15k@{NPU},arena=7KB@tflm", {"cycles": 15_000, "arena": 7000}),
        (f"cycles=15k@{NPU},params=1/4", {"cycles": 15_000}),
    ],
)
def test_budgets_hold_by_the_tools_word(net: Net, budget: str, limits: dict[str, float]) -> None:
    decision = decided(net, budget)
    found = told(net, decision)
    for name, most in limits.items():
        assert found[name] <= most, (name, found)
        share = next(share for limit, share in decision.used.items() if limit.startswith(f"{name}="))
        assert share == pytest.approx(found[name] / most)
    if "sram" not in budget:  # which goes in large steps here
        assert max(decision.used.values()) > 0.7
    assert decision.cost.params < decision.dense.params
    if "params" in budget:
        assert decision.cost.params <= decision.dense.params / 4


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_meets_them(net: Net, recipe: str) -> None:
    assert told(net, decided(net, f"cycles=60%@{NPU}", recipe=recipe))["cycles"] <= 0.6 * dense_cycles(net)


def dense_cycles(net: Net) -> float:
    _, graph, blueprint = net
    return compiled(blueprint.file(graph.sizes, part(NPU)), part(NPU)).check().cycles


def test_a_mode_of_times_shares_the_parts_own(net: Net) -> None:
    """No profile of another device is asked for, nor takes the place of the part that the budget names."""
    decision = decided(net, f"latency=40us@{NPU}", recipe="complexity", mode="la")
    assert told(net, decision)["latency"] <= 0.04
    assert decision.predicted["latency_ms"][1] == told(net, decision)["latency"]


def test_widths_go_in_blocks_of_the_accelerator_or_half_ones(net: Net) -> None:
    _, graph, _ = net
    widths = width_array(graph, decided(net, f"cycles=60%@{NPU}").plan.widths)
    assert any(
        all(w % block == 0 or w == size for w, size in zip(widths, graph.sizes, strict=True)) for block in (4, 8)
    )
    asked = width_array(graph, decided(net, f"cycles=80%@{NPU}", round_to=16).plan.widths)
    assert all(w % 16 == 0 or w == size for w, size in zip(asked, graph.sizes, strict=True))


def test_a_budget_out_of_reach_names_the_nearest_figure(net: Net) -> None:
    with pytest.raises(BudgetError, match=r"arena=2KB@tflm asks for at most 2 KB .* closest reachable is 5\.312 KB"):
        decided(net, "arena=2KB@tflm")
    with pytest.raises(
        BudgetError, match=rf"cycles=3k@{NPU} asks for at most 3,000 .* closest reachable is "
    ) as raised:
        decided(net, f"cycles=3k@{NPU}")
    _, graph, blueprint = net
    least = compiled(blueprint.file(np.where(graph.free, 1, graph.sizes), part(NPU)), part(NPU)).check().cycles
    assert raised.value.closest["cycles"] == least  # the compiler's own word


def test_estimates_are_close_and_corrections_exact(net: Net) -> None:
    _, graph, blueprint = net
    limits = Budget.parse(f"cycles=1k@{NPU}").limits
    meter = meters_on_parts(limits, blueprint)["cycles"]
    widths = np.where(graph.free, np.maximum(graph.sizes // 2, 1), graph.sizes)
    predicted = meter(widths)
    assert predicted == pytest.approx(float(meter.by_layer(widths).sum()), rel=0.35)  # what is no layer is left out
    exact = meter.exact(widths)
    assert predicted == pytest.approx(exact, rel=0.12)
    assert meter(widths) == exact  # it was asked, and is remembered
    right = meters_on_parts(limits, blueprint)["cycles"].corrected(widths)
    assert right.factor * float(right._estimate(widths).sum()) == pytest.approx(exact)


def test_a_wrong_table_is_corrected_until_the_plan_holds(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    model, graph, blueprint = net
    budget, config = Budget.parse(f"cycles=15k@{NPU}"), PruneConfig.model_validate({"rounds": 6})
    scored, _ = scored_for(model, graph, [batch()], budget, config, blueprint=blueprint)
    right = PartMeter._estimate
    monkeypatch.setattr(PartMeter, "_estimate", lambda self, widths: 0.5 * right(self, widths))
    decision = met_by_tools(scored, budget, config)
    assert told(net, decision)["cycles"] <= 15_000
    assert decision.predicted["cycles"][1] == told(net, decision)["cycles"]


def test_where_cycles_go_and_what_is_free(net: Net) -> None:
    _, graph, blueprint = net
    decision = decided(net, f"cycles=15k@{NPU}", round_to=1)
    spent = spent_on(part(NPU), blueprint, decision.plan)
    assert sum(layer.cycles for layer in spent.layers) == spent.figures["cycles"] == told(net, decision)["cycles"]
    assert sum(layer.dense_cycles for layer in spent.layers) == spent.dense["cycles"]
    widths = width_array(graph, decision.plan.widths)
    meter = meters_on_parts(Budget.parse(f"cycles=1k@{NPU}").limits, blueprint)["cycles"]
    for name, wider in (spent.free or {}).items():
        other = widths.copy()
        other[graph.index[name]] = wider
        assert wider > widths[graph.index[name]]
        assert meter(other) <= 1.005 * meter(widths)
    on_cortex = spent_on(part("tflm"), blueprint, decision.plan)
    assert (on_cortex.layers, on_cortex.figures["arena_bytes"]) == ((), told(net, decision)["arena"])


def test_channels_up_to_a_whole_block_are_free(net: Net) -> None:
    model, x_1CHW = net[0], torch.zeros(1, 1, 32, 32)  # larger, so that loading weights takes no time
    graph = trace(model, x_1CHW)
    odd = np.where(graph.free, np.minimum(graph.sizes, 9), graph.sizes)
    found = free_widths(part(NPU), Blueprint(model, graph, x_1CHW), odd)
    assert set(found.values()) == {16}


def test_all_cycles_are_some_operators(net: Net) -> None:
    _, graph, blueprint = net
    network = blueprint.at(graph.sizes)
    found = compiled(blueprint.file(graph.sizes, part(NPU)), part(NPU))
    assert sum(cycles_by_operator(network, found).values()) == found.cycles


def test_a_graph_alone_cannot_be_asked(net: Net) -> None:
    with pytest.raises(ConfigError, match=r"budget arena=6KB@tflm asks a part about the model itself"):
        meters_of(net[1], Budget.parse("arena=6KB@tflm"), PruneConfig())


def test_operators_of_the_cpu_are_named() -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.Conv2d(8, 4, 1)
            self.up = torch.nn.Upsample(size=(13, 17), mode="nearest")

        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            return self.b(self.up(self.a(x_BCHW).relu()))

    model = Odd()
    graph = trace(model, X_1CHW)
    with pytest.raises(ModelError, match=rf"{NPU} does not run RESIZE_NEAREST_NEIGHBOR of .*the CPU would"):
        decided((model, graph, Blueprint(model, graph, X_1CHW)), f"cycles=1k@{NPU}")


def test_tables_are_kept(net: Net) -> None:
    import os

    decided(net, f"cycles=60%@{NPU}")
    assert list(Path(os.environ["PRUNIT_CACHE"]).rglob(f"{NPU}-*.json"))
