"""What must hold for every network and every plan."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunit.cut.plans import Plan, choose, from_zeros, keep_all
from prunit.cut.surgery import check_runs, compact, cut_tensors, mask, mask_
from prunit.graph import Axis, ChannelGraph, trace
from prunit.prices.costs import cost_of
from tests.nets import furthest, images, lived_in, random_plan, run, without
from tests.properties.networks import BLOCKS, ORDERED, TABLES, Builder, Network, named, networks

EXAMPLE = images(batch=3, size=4)
SEEDS = st.integers(0, 2**16)
few = settings(max_examples=15, deadline=None)


@settings(max_examples=25, deadline=None)
@given(networks(), SEEDS)
def test_compact_and_mask_compute_the_same(network: Network, seed: int) -> None:
    model = lived_in(network, seed=seed)
    graph = trace(model, EXAMPLE)
    plan = random_plan(graph, seed=seed)
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    check_runs(model, small, EXAMPLE)
    for training in (False, True):
        assert furthest(twin.train(training), small.train(training), EXAMPLE) < 1e-12
    zeros = from_zeros(twin, graph)
    assert all(zeros.keep[g.name] == plan.keep[g.name] for g in graph.groups if not g.mixed)


SILENT = tuple(build for build in BLOCKS + ORDERED if named(build) != "PixelsMixed")
"""Blocks through which a channel of zeros stays one; that one adds a bias for each pixel to all channels."""


@few
@given(networks(SILENT), SEEDS)
def test_compact_is_the_uncut_network_whose_pruned_channels_emit_zeros(network: Network, seed: int) -> None:
    """Without `mask`: it zeroes what reads a channel, this what makes it. Both cannot be wrong in the same way."""
    model = lived_in(network, seed=seed)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Sigmoid | nn.Softplus):
                setattr(module, name, nn.ReLU())
    graph = trace(model, EXAMPLE)
    assume(not any(g.mixed for g in graph.groups))
    plan = random_plan(graph, seed=seed)
    small, zeroed = compact(model, graph, plan), without(model, graph, plan)
    for training in (False, True):
        assert furthest(zeroed.train(training), small.train(training), EXAMPLE) < 1e-12


@few
@given(networks(), SEEDS)
def test_they_train_alike(network: Network, seed: int) -> None:
    """Gradients of the masked model, cut, are those of the compact one; so are outputs after each of three steps."""
    model = lived_in(network, seed=seed).train()
    graph = trace(model, EXAMPLE)
    plan = random_plan(graph, seed=seed)
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    keep = graph.flat_keep(plan.keep)
    optimisers = [torch.optim.SGD(m.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-2) for m in (small, twin)]
    for _ in range(3):
        found, masked = gradients(small), gradients(twin)
        size = sum(float(g.norm()) for g in found.values())
        cut = cut_tensors(graph, keep, masked)
        assert all(float((g - cut[n]).abs().max()) <= 1e-9 * size for n, g in found.items())
        for optimiser in optimisers:
            optimiser.step()
        mask_(twin, graph, plan)
        assert furthest(twin, small, EXAMPLE) < 1e-9
    assert furthest(twin.eval(), small.eval(), EXAMPLE) < 1e-9


@few
@given(networks(), SEEDS)
def test_costs_are_those_of_the_compact_model(network: Network, seed: int) -> None:
    model = lived_in(network, seed=seed)
    graph = trace(model, EXAMPLE)
    plan = random_plan(graph, seed=seed, least=2)
    small = compact(model, graph, plan)
    cost = cost_of(graph, plan)
    assert cost == cost_of(graph, plan.widths)
    assert cost == cost_of(trace(small, EXAMPLE))
    assert cost.params == sum(p.numel() for p in small.parameters())
    dense = cost_of(graph)
    assert all(now <= before for now, before in zip(cost.as_dict().values(), dense.as_dict().values(), strict=True))


@pytest.mark.parametrize("build", TABLES, ids=named)
def test_bytes_of_activations_that_are_labelled_twice(build: Builder) -> None:
    model = lived_in(Network([(build, 4)], False, "classes"))
    graph = trace(model, EXAMPLE)
    assert cost_of(graph) == cost_of(trace(model, images(batch=5, size=4)))
    for seed in range(5):
        plan = random_plan(graph, seed=seed, least=2)
        assert cost_of(graph, plan) == cost_of(trace(compact(model, graph, plan), EXAMPLE))


@few
@given(networks(), SEEDS)
def test_cutting_twice_is_cutting_by_the_joined_plan(network: Network, seed: int) -> None:
    cut_twice(network, seed)


def cut_twice(network: Network, seed: int) -> bool:
    """Cut, trace and cut again; whether the compact model has the groups that the dense one had.

    It need not: parts that have become equally long are read as parts that shrink together, two heads stay whole.
    """
    model = lived_in(network, seed=seed)
    graph = trace(model, EXAMPLE)
    first = random_plan(graph, seed=seed, least=2)
    once = compact(model, graph, first)
    again = trace(once, EXAMPLE)
    second = random_plan(again, seed=seed + 1, least=2)
    small = compact(once, again, second)
    if {g.name: g.size for g in again.groups} == first.widths:
        equal_states(small, compact(model, graph, first.then(second)))
        return True
    assert furthest(small.eval(), mask(once, again, second).eval(), EXAMPLE) < 1e-12
    return False


@few
@given(networks(), SEEDS)
def test_keeping_all_changes_nothing(network: Network, seed: int) -> None:
    model = lived_in(network, seed=seed).eval()
    graph = trace(model, EXAMPLE)
    plan = keep_all(graph)
    for same in (compact(model, graph, plan), mask(model, graph, plan)):
        equal_states(same, model)
        assert all(torch.equal(a, b) for a, b in zip(run(model, EXAMPLE), run(same, EXAMPLE), strict=True))
    assert cost_of(graph, plan) == cost_of(graph)


@few
@given(networks(BLOCKS), SEEDS)
def test_channels_have_no_order(network: Network, seed: int) -> None:
    """Relabelling the channels of all groups leaves the function, and relabels what scores choose."""
    model = lived_in(network, seed=seed).eval()
    graph = trace(model, EXAMPLE)
    moved, order = relabelled(model, graph, seed)
    assert furthest(moved, model, EXAMPLE) < 1e-12
    generator = torch.Generator().manual_seed(seed)
    scores = {g.name: torch.randn(g.size, generator=generator) for g in graph.groups}
    widths = random_plan(graph, seed=seed).widths
    plan = choose(graph, scores, widths)
    moved_plan = choose(graph, {n: s[order[n]] for n, s in scores.items()}, widths)
    assert {n: sorted(order[n][list(c)].tolist()) for n, c in moved_plan.keep.items()} == {
        n: list(c) for n, c in plan.keep.items()
    }
    assert furthest(compact(moved, graph, moved_plan), compact(model, graph, plan), EXAMPLE) < 1e-12


@few
@given(networks(), st.integers(1, 5))
def test_the_batch_of_the_example_does_not_matter(network: Network, batch: int) -> None:
    model = network.double()
    one, other = trace(model, images(batch=1, size=4)), trace(model, images(batch=batch, size=4))
    assert one.groups == other.groups
    assert cost_of(one) == cost_of(other)
    assert all(np.array_equal(a.where, b.where) for a, b in zip(one.axes, other.axes, strict=True))


PINNED = {"halved": {"stem.0"}, "PixelsMixed": {"blocks.0.tokens"}}
"""What stays whole in networks of a single block: sizes that are written out, pixels that are added to others."""


@pytest.mark.parametrize("build", BLOCKS + ORDERED, ids=named)
def test_every_block_alone(build: Builder) -> None:
    """So that each is met in every run, and that nothing is pinned unnoticed."""
    network = Network([(build, 6)], True, "dict")
    model = lived_in(copy.deepcopy(network))
    graph = trace(model, EXAMPLE)
    assert {g.name for g in graph.groups if g.pinned} - {"fc", "map"} == PINNED.get(named(build), set())
    assert graph.notes == ()
    plan = random_plan(graph)
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    assert all(plan.widths[g.name] < g.size for g in graph.groups if not g.pinned)
    for training in (False, True, False):
        assert furthest(twin.train(training), small.train(training), EXAMPLE) < 1e-12
    assert furthest(twin, model.eval(), EXAMPLE) > 1e-3  # the cut was felt
    assert any(cut_twice(network, seed) for seed in range(4))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    dense = draw(st.dictionaries(st.text(max_size=8), st.integers(1, 40), max_size=5))
    keep = {
        name: tuple(sorted(draw(st.sets(st.integers(0, size - 1), min_size=1))))
        for name, size in dense.items()
        if draw(st.booleans())
    }
    return Plan(keep, dense, {"note": draw(st.text(max_size=5)), "seed": draw(st.integers())})


@settings(max_examples=60, deadline=None)
@given(plans())
def test_a_plan_reads_back_as_it_was_written(plan: Plan) -> None:
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert dict(again.origin) == dict(plan.origin)
    assert again.hash == plan.hash
    assert again.to_json() == plan.to_json()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """The gradient of every parameter, which all take part, under a loss that is steep nowhere."""
    model.zero_grad()
    torch.stack([y.square().mean().log1p() for y in run(model, EXAMPLE)]).sum().backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert len(found) == len(list(model.parameters()))
    assert all(g.isfinite().all() for g in found.values())
    assert any(g.any() for g in found.values())
    return found


def equal_states(a: nn.Module, b: nn.Module) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert list(left) == list(right)
    assert all(torch.equal(left[n], right[n]) for n in left)


def relabelled(model: nn.Module, graph: ChannelGraph, seed: int) -> tuple[nn.Module, dict[str, np.ndarray]]:
    """The model with the channels of its free groups in another order: new channel c of a group is old `order[c]`."""
    rng = np.random.default_rng(seed)
    order = {g.name: np.arange(g.size) if g.pinned else rng.permutation(g.size) for g in graph.groups}
    flat = np.concatenate([start + order[g.name] for g, start in zip(graph.groups, graph.offsets, strict=False)])
    flat = np.append(flat, -1)  # position -1 stays
    moved = compact(model, graph, keep_all(graph))
    tensors = dict(moved.named_parameters()) | dict(moved.named_buffers())
    with torch.no_grad():
        for axis in graph.axes:
            source = torch.from_numpy(sources(axis, flat))
            tensors[axis.tensor].copy_(tensors[axis.tensor].index_select(axis.dim, source))
    return moved, order


def sources(axis: Axis, flat: np.ndarray) -> np.ndarray:
    """For each position the old one to take: the k-th that holds channel c gets the k-th of channel flat[c]."""
    places: dict[int, list[int]] = {}
    for i, c in enumerate(axis.where.tolist()):
        places.setdefault(c, []).append(i)
    source = np.empty(len(axis.where), dtype=np.int64)
    for c, mine in places.items():
        source[mine] = places[int(flat[c])]
    return source
