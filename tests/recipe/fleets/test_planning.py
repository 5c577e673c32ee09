"""A plan for each device of a fleet, the fewest of them that serve all, by profiles of devices that do not exist."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from torch import nn

from prunit.allocate import Budget
from prunit.edge.measuring.profile import DeviceProfile
from prunit.edge.served import Fleet
from prunit.errors import BudgetError, ModelError
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import width_array
from prunit.prices.meters import LatencyMeter, layers_of
from prunit.recipe.config import PruneConfig
from prunit.recipe.fleets.planning import Planned, planned_for
from prunit.recipe.recipes import Decision, decide
from tests.edge.profiles import Formula, blocks, products, profile
from tests.recipe.nets import Plain, batch, seeded

Net = tuple[nn.Module, ChannelGraph]
CONFIG = PruneConfig(rounds=4)


@pytest.fixture(scope="module")
def net() -> Net:
    model = seeded(lambda: Plain((32, 48, 64)))
    return model, trace(model, batch()[0][:1])


def times(formula: Formula, factor: float) -> Formula:
    return lambda shape, inputs, outputs: factor * formula(shape, inputs, outputs)


def files(graph: ChannelGraph, folder: Path, formulas: Mapping[str, Formula]) -> dict[str, Path]:
    """A profile of each device."""
    found = {name: folder / f"{name}.json" for name in formulas}
    for name, file in found.items():
        profile(layers_of(graph), formulas[name]).write(file)
    return found


def dense_ms(graph: ChannelGraph, file: Path) -> float:
    return LatencyMeter(graph, DeviceProfile.read(file))(graph.sizes)


def planned(
    net: Net,
    goals: Mapping[str, str],
    *,
    slack: float = 0.1,
    told: Callable[[str, str], None] = lambda name, text: None,
) -> Planned:
    model, graph = net
    budgets = {name: Budget.parse(goal) for name, goal in goals.items()}
    return planned_for(model, graph, [batch()], budgets, CONFIG, slack=slack, on_device=told)


def own(net: Net, goal: str) -> Decision:
    model, graph = net
    return decide(model, graph, [batch()], Budget.parse(goal), CONFIG)


def served(fleet: Fleet) -> dict[str, str]:
    return {each.device: each.variant for each in fleet.devices}


def assert_holds(net: Net, found: Planned, goals: Mapping[str, str], slack: float) -> None:
    """Every device is within its limits as its profile says, and has what the slack leaves of its own plan."""
    _, graph = net
    for each in found.fleet.devices:
        widths = graph.sizes
        if each.variant != "dense":
            decision, alone = found.decisions[each.variant], own(net, goals[each.device])
            widths = width_array(graph, decision.plan.widths)
            kept = min(decision.cost.macs / alone.cost.macs, decision.cost.params / alone.cost.params)
            assert each.kept == pytest.approx(kept)
            assert kept >= 1 - slack
        for limit in Budget.parse(goals[each.device]).limits:
            if limit.profile:
                meter = LatencyMeter(graph, DeviceProfile.read(Path(limit.profile)))
                assert each.figures["latency_ms"] == pytest.approx(meter(widths))
                assert meter(widths) <= limit.of({"latency_ms": meter(graph.sizes)}) * (1 + 1e-9)
        assert each.used is not None
        assert each.used <= 1 + 1e-9


def test_devices_that_ask_for_as_much_share_a_variant(net: Net, tmp_path: Path) -> None:
    scaled = {"fast": times(blocks, 1), "mid": times(blocks, 2.5), "slow": times(blocks, 6)}
    at = files(net[1], tmp_path, scaled)
    dense = {name: dense_ms(net[1], file) for name, file in at.items()}
    # The same share of each device's own time: one plan. A third of it on the slowest: another.
    goals = {name: f"latency={0.5 * dense[name]:.9f}ms@{at[name]}" for name in scaled}
    found = planned(net, goals)
    assert served(found.fleet) == {"fast": "fast", "mid": "fast", "slow": "fast"}
    assert_holds(net, found, goals, 0.1)
    goals["slow"] = f"latency={0.25 * dense['slow']:.9f}ms@{at['slow']}"
    found = planned(net, goals)
    assert served(found.fleet) == {"fast": "fast", "mid": "fast", "slow": "slow"}
    assert list(found.decisions) == ["fast", "slow"]
    assert found.decisions["slow"].plan.hash == own(net, goals["slow"]).plan.hash
    assert_holds(net, found, goals, 0.1)
    # Whoever gives up nearly everything is served by the smallest.
    found = planned(net, goals, slack=0.99)
    assert set(served(found.fleet).values()) == {"slow"}


def test_a_device_that_bears_the_model_as_it_is_gets_it(net: Net, tmp_path: Path) -> None:
    at = files(net[1], tmp_path, {"large": blocks})
    found = planned(net, {"large": f"latency=1s@{at['large']}", "small": "params=1/4"})
    assert served(found.fleet) == {"large": "dense", "small": "small"}
    assert list(found.decisions) == ["small"]
    assert found.fleet.device("large").kept == 1
    assert planned(net, {"large": f"latency=1s@{at['large']}"}).decisions == {}


def test_a_device_that_nothing_serves_is_told_and_holds_up_no_other(net: Net, tmp_path: Path) -> None:
    at = files(net[1], tmp_path, {"pi": blocks})
    said: list[tuple[str, str]] = []
    goals = {"pi": f"latency=50%@{at['pi']}", "watch": f"latency=0.1us@{at['pi']}"}
    found = planned(net, goals, told=lambda name, text: said.append((name, text)))
    assert served(found.fleet) == {"pi": "pi", "watch": ""}
    (unserved,) = found.fleet.unserved
    assert "the closest reachable is" in unserved.problem
    assert said == [("pi", ""), ("watch", ""), ("watch", f"no variant for device 'watch': {unserved.problem}")]
    with pytest.raises(BudgetError, match=r"no device of the fleet can be served: watch: budget cannot be met"):
        planned(net, {"watch": goals["watch"]})


def test_a_profile_of_other_layers_is_refused(net: Net, tmp_path: Path) -> None:
    other = trace(seeded(lambda: Plain((8, 8, 8))), batch()[0][:1])
    at = files(other, tmp_path, {"pi": blocks})
    with pytest.raises(ModelError, match=r"pi\.json' has no times of"):
        planned(net, {"pi": f"latency=50%@{at['pi']}"})


def test_limits_that_ask_for_the_same_are_planned_once(net: Net, tmp_path: Path) -> None:
    at = files(net[1], tmp_path, {"pi": blocks})
    goals = {"one": f"latency=50%@{at['pi']}", "two": f"latency=1/2@{at['pi']}"}
    found = planned(net, goals)
    assert served(found.fleet) == {"one": "one", "two": "one"}
    assert [each.kept for each in found.fleet.devices] == [1, 1]


def test_one_plan_is_found_within_limits_that_neither_devices_own_plan_meets(net: Net, tmp_path: Path) -> None:
    at = files(net[1], tmp_path, {"in-blocks": blocks, "even": products})
    goals = {"in-blocks": f"latency=50%@{at['in-blocks']}", "even": f"latency=45%@{at['even']}"}
    found = planned(net, goals, slack=0.15)
    assert len(found.decisions) == 1, served(found.fleet)
    assert_holds(net, found, goals, 0.15)
    (joint,) = found.decisions.values()
    assert joint.plan.hash not in {own(net, goal).plan.hash for goal in goals.values()}
    # What it takes from them is more than this: then each has its own.
    assert served(planned(net, goals, slack=0.01).fleet) == {"in-blocks": "in-blocks", "even": "even"}
