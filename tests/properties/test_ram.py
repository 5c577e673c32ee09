"""What holds for every graph when ram is limited: groups at the peak are narrowed, no others, and none in vain."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from prunit.allocate import (
    KEYS,
    Budget,
    Complexity,
    Constraints,
    Densities,
    Limit,
    Target,
    by_complexity,
    by_density,
    global_threshold,
    uniform,
)
from prunit.allocate.at_peak import RAM, grown
from prunit.allocate.by_complexity import MODES
from prunit.cut.plans import Scores, Widths
from prunit.graph import ChannelGraph
from prunit.recipe import within_ram
from prunit.recipe.case import Case, Found
from prunit.recipe.config import PruneConfig
from prunit.recipe.within_ram import Settled, first_narrowing, settled
from prunit.scores import find
from tests.allocate.graphs import Wire, wired
from tests.properties.test_allocation import QUICK, constraints, densities_of, graphs, ladders, scores_of, wider

WAYS: dict[str, Callable[[Case, Scores], Widths]] = {
    "uniform": lambda case, scores: uniform(case.target, scores),
    "global": lambda case, scores: global_threshold(case.target, scores),
    "density": lambda case, scores: by_density(case.target, case.densities()),
    "memory": lambda case, scores: by_complexity(case.target, Complexity(case.target, MODES["ma"])),
    "parameters": lambda case, scores: by_complexity(case.target, Complexity(case.target, MODES["pa"])),
    "drawn": lambda case, scores: by_complexity(case.target, Complexity(case.target, MODES["fa"]), draw="sampled"),
}


@st.composite
def limited(draw: st.DrawFn, graph: ChannelGraph, *keys: str) -> Target:
    """A reachable budget of these keys: between the narrowest and the dense cost."""
    asked: Constraints = draw(constraints(graph))
    free = Target(graph, Budget(()), asked)
    low, high = free.model.at(free.floor).as_dict(), free.dense.as_dict()
    amounts = {key: draw(st.integers(max(low[KEYS[key]], 1), high[KEYS[key]])) for key in keys}
    return Target(graph, Budget(tuple(Limit(key, "drawn", amount=amount) for key, amount in amounts.items())), asked)


def within(target: Target, way: str, scores: Scores, densities: Densities) -> Settled:
    def find_widths(case: Case) -> Found:
        return scores, WAYS[way](case, scores), {g.name: way for g in case.graph.groups}

    config, first = PruneConfig(), first_narrowing(target, PruneConfig())
    case = Case(
        *(nn.Identity(), first.graph, first, find("random"), "random", {}, [], config),
        meters={},
        densities=lambda: densities,
    )
    return settled(case, find_widths, lambda _: target)


def stuck(target: Target, widths: np.ndarray) -> bool:
    """No single group can take a step more."""
    steps = (wider(ladders(target), widths, i) for i in np.flatnonzero(widths < target.ceiling))
    return not any(target.met_by(candidate) for candidate in steps)


@pytest.mark.parametrize("way", sorted(WAYS))
@QUICK
@given(data=st.data())
def test_only_groups_at_the_peak_are_narrowed_and_none_further_than_it_takes(way: str, data: st.DataObject) -> None:
    graph = data.draw(graphs())
    target = data.draw(limited(graph, "ram"))
    found = within(target, way, data.draw(scores_of(graph)), densities_of(graph, 0))
    assert target.met_by(found.widths)
    assert target.allowed.hold(found.widths)
    assert stuck(target, found.widths)
    over = target.model.live_at(target.ceiling) > target.most[RAM]
    alive = [
        any(over[a.born : a.dies + 1].any() for a in graph.activations if holds(graph, a.where, i))
        for i in range(len(graph.groups))
    ]
    for i, name in enumerate(g.name for g in graph.groups):
        if not alive[i]:
            assert found.widths[i] == target.ceiling[i]
        if not alive[i] and over.any() and not target.graph.groups[i].pinned and target.ceiling[i] == graph.sizes[i]:
            assert found.case.graph.group(name).pinned == "not alive at the peak"


def holds(graph: ChannelGraph, where: np.ndarray, group: int) -> bool:
    return bool(((where >= graph.offsets[group]) & (where < graph.offsets[group + 1])).any())


@pytest.mark.parametrize("way", sorted(WAYS))
@QUICK
@given(data=st.data())
def test_no_way_keeps_fewer_parameters_than_narrowing_by_shares_of_the_memory(way: str, data: st.DataObject) -> None:
    graph = data.draw(graphs())
    target = data.draw(limited(graph, "ram"))
    scores, densities = data.draw(scores_of(graph)), densities_of(graph, 0)
    ours, theirs = (within(target, name, scores, densities).widths for name in (way, "memory"))
    assert target.model.at(ours).params >= target.model.at(theirs).params


@pytest.mark.parametrize("way", sorted(WAYS))
@QUICK
@given(data=st.data())
def test_several_limits_hold_at_once_and_no_step_fits(way: str, data: st.DataObject) -> None:
    graph = data.draw(graphs())
    keys = data.draw(st.lists(st.sampled_from(["params", "macs", "weights"]), min_size=1, max_size=2, unique=True))
    target = data.draw(limited(graph, "ram", *keys))
    found = within(target, way, data.draw(scores_of(graph)), densities_of(graph, 0))
    assert target.met_by(found.widths)
    assert target.allowed.hold(found.widths)
    assert stuck(target, found.widths)
    assert found.why.keys() == {g.name for g in graph.groups}


class Blocks:
    """A device that works on blocks of four channels, and takes longer for a half-empty one."""

    def __call__(self, widths: np.ndarray) -> float:
        return float((np.ceil(widths / 4) + 0.75 * (widths % 4 != 0)).sum())

    def by_layer(self, widths: np.ndarray) -> np.ndarray:
        raise NotImplementedError


@pytest.mark.parametrize("way", sorted(WAYS))
@QUICK
@given(data=st.data())
def test_a_limit_on_a_device_where_narrower_may_be_slower_holds_beside_that_on_ram(
    way: str, data: st.DataObject
) -> None:
    graph = data.draw(graphs())
    ram, blocks = data.draw(limited(graph, "ram")), Blocks()
    least, most = blocks(ram.floor), blocks(graph.sizes)
    latency = Limit("latency", "drawn", amount=data.draw(st.floats(least, max(least, most))), profile="drawn")
    target = Target(graph, Budget((*ram.budget.limits, latency)), ram.constraints, {"latency_ms": blocks})
    found = within(target, way, data.draw(scores_of(graph)), densities_of(graph, 0))
    assert target.met_by(found.widths)
    assert target.allowed.hold(found.widths)


class Uneven:
    """A device that takes as long as the widths of the first and the third group differ."""

    def __call__(self, widths: np.ndarray) -> float:
        return float(abs(widths[0] - widths[2]))

    def by_layer(self, widths: np.ndarray) -> np.ndarray:
        raise NotImplementedError


@pytest.mark.parametrize("way", ["uniform", "memory"])
def test_limits_that_hold_together_but_not_in_turn_are_met_together(way: str) -> None:
    # The first group has to go down to 4 for ram, away from the peak the third has to follow for the device.
    wires = [Wire(0, (-1,), 9, 64), Wire(1, (0,), 9, 16), Wire(2, (1,), 9, 4), Wire(3, (2,), 1, 4)]
    graph = wired((8, 4, 8, 10), wires, pinned={3})
    limits = (Limit("ram", "drawn", amount=1280), Limit("latency", "drawn", amount=1.0, profile="drawn"))
    target = Target(graph, Budget(limits), meters={"latency_ms": Uneven()})
    found = within(target, way, {g.name: torch.arange(g.size) for g in graph.groups}, densities_of(graph, 0))
    assert target.met_by(found.widths)
    assert found.widths[2] < 8


@pytest.mark.parametrize("way", ["uniform", "global"])
@given(data=st.data())
@settings(QUICK, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_where_limits_are_met_in_turn_for_too_long_the_last_turn_counts(
    way: str, data: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(within_ram, "_ROUNDS", 1)
    graph = data.draw(graphs())
    target = data.draw(limited(graph, "ram", "params"))
    found = within(target, way, data.draw(scores_of(graph)), densities_of(graph, 0))
    assert target.met_by(found.widths)
    assert target.allowed.hold(found.widths)
    assert stuck(target, found.widths)


@QUICK
@given(data=st.data())
def test_a_limit_that_the_other_ones_keep_by_themselves_changes_nothing_but_what_still_fits(
    data: st.DataObject,
) -> None:
    graph = data.draw(graphs())
    alone = data.draw(limited(graph, "params"))
    assume(not alone.met_by(alone.ceiling))
    scores = data.draw(scores_of(graph))
    widths = within(alone, "uniform", scores, densities_of(graph, 0)).widths
    ram = data.draw(st.integers(alone.model.at(widths).activation_bytes, alone.dense.activation_bytes))
    both = Target(graph, Budget((*alone.budget.limits, Limit("ram", "drawn", amount=ram))), alone.constraints)
    found = within(both, "uniform", scores, densities_of(graph, 0)).widths
    assert (found == grown(both, widths)).all()


@QUICK
@given(data=st.data())
def test_growing_keeps_to_the_target_and_never_narrows(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    target = data.draw(limited(graph, "ram", *data.draw(st.sampled_from([(), ("params",), ("macs", "weights")]))))
    dial = data.draw(st.floats(0, 1))
    start = target.allowed.down(target.floor + dial * (target.ceiling - target.floor))
    assume(target.met_by(start))
    found = grown(target, start)
    assert (found >= start).all()
    assert target.met_by(found)
    assert target.allowed.hold(found)
    assert stuck(target, found)
