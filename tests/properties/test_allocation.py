"""What holds for every graph, score and budget: bounds, monotony, and that nothing which fits is left out."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunit.allocate import ALLOCATORS, KEYS, Budget, Densities, Limit, Target, by_density
from prunit.errors import BudgetError
from prunit.graph import ChannelGraph
from prunit.plans import Scores
from tests.allocate.graphs import Wire, wired

QUICK = settings(max_examples=60, deadline=None)


@st.composite
def graphs(draw: st.DrawFn, *, groups: int = 5, size: int = 24) -> ChannelGraph:
    """Networks of up to `groups` groups: rows, branches that are added or put side by side, some of them pinned."""
    n = draw(st.integers(1, groups))
    sizes = draw(st.lists(st.integers(1, size), min_size=n, max_size=n))
    wires = []
    for out in range(n):
        for _ in range(draw(st.integers(1, 2))):  # two makers: their outputs are added
            ins = draw(st.lists(st.integers(-1, out - 1), min_size=1, max_size=3, unique=True))
            wires.append(Wire(out, tuple(ins), draw(st.sampled_from([1, 9, 49])), draw(st.sampled_from([1, 4, 64]))))
    return wired(sizes, wires, pinned={n - 1, *draw(st.sets(st.integers(0, n - 1), max_size=1))})


@st.composite
def scores_of(draw: st.DrawFn, graph: ChannelGraph) -> Scores:
    """Random scores of channels; drawn from few values, so that there are ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.sampled_from([1, 3, 1000]))
    return {g.name: torch.from_numpy(rng.integers(-levels, levels, g.size) / 7) for g in graph.groups}


@st.composite
def targets(draw: st.DrawFn, graph: ChannelGraph, *, limits: int = 2, reachable: bool = True) -> Target:
    """Budgets between the narrowest and the dense cost; some below that if `reachable` is False."""
    share, width = draw(st.sampled_from([0.0, 0.02, 0.3])), draw(st.integers(1, 3))
    free = Target(graph, Budget(()), min_share=share, min_width=width)
    low, high = free.model.at(free.floor).as_dict(), free.dense.as_dict()
    found = []
    for key in draw(st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=limits, unique=True)):
        least = low[KEYS[key]] if reachable else low[KEYS[key]] // 2
        found.append(Limit(key, "drawn", amount=draw(st.integers(max(least, 1), high[KEYS[key]]))))
    return Target(graph, Budget(tuple(found)), min_share=share, min_width=width)


def as_array(graph: ChannelGraph, widths: dict[str, int]) -> np.ndarray:
    return np.array([widths[g.name] for g in graph.groups])


def densities_of(graph: ChannelGraph, seed: int) -> Densities:
    """As random weights have them whose layers differ in scale."""
    rng = np.random.default_rng(seed)
    makers = [n for n in graph.tensors if n.endswith("weight")]
    return Densities(graph, {n: torch.from_numpy(rng.random(graph.tensors[n].shape) * rng.random()) for n in makers})


@pytest.mark.parametrize("name", [*sorted(ALLOCATORS), "by density"])
@QUICK
@given(data=st.data())
def test_bounds_and_budget(name: str, data: st.DataObject) -> None:
    graph = data.draw(graphs())
    scores = data.draw(scores_of(graph))
    target = data.draw(targets(graph, limits=3, reachable=False))
    densities = densities_of(graph, data.draw(st.integers(0, 99)))

    def allocate() -> np.ndarray:
        found = by_density(target, densities) if name == "by density" else ALLOCATORS[name](target, scores)
        return as_array(graph, dict(found))

    if not target.met_by(target.floor):
        with pytest.raises(BudgetError, match="budget cannot be met") as e:
            allocate()
        assert e.value.closest == target.model.at(target.floor).as_dict()
        return
    widths = allocate()
    assert target.met_by(widths)
    assert ((target.floor <= widths) & (widths <= graph.sizes)).all()
    assert (widths >= 1).all()
    assert (widths == graph.sizes)[~graph.free].all()


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_an_error_means_that_no_widths_meet_the_budget(data: st.DataObject) -> None:
    graph = data.draw(graphs(groups=3, size=5))
    target = data.draw(targets(graph, reachable=False))
    ranges = [range(int(low), g.size + 1) for low, g in zip(target.floor, graph.groups, strict=True)]
    costs = [(np.array(w), target.model.at(np.array(w)).as_dict()) for w in itertools.product(*ranges)]
    for name in ALLOCATORS:
        if any(target.met_by(widths) for widths, _ in costs):
            ALLOCATORS[name](target, data.draw(scores_of(graph)))
            continue
        with pytest.raises(BudgetError, match="budget cannot be met") as e:
            ALLOCATORS[name](target, data.draw(scores_of(graph)))
        assert e.value.closest == {key: min(cost[key] for _, cost in costs) for key in costs[0][1]}


@pytest.mark.parametrize("name", [*sorted(ALLOCATORS), "by density"])
@QUICK
@given(data=st.data())
def test_a_looser_budget_never_leaves_less_of_what_it_limits(name: str, data: st.DataObject) -> None:
    graph = data.draw(graphs())
    scores, densities = data.draw(scores_of(graph)), densities_of(graph, data.draw(st.integers(0, 99)))
    key = data.draw(st.sampled_from(sorted(KEYS)))
    floor = Target(graph, Budget(())).floor
    low, high = (Target(graph, Budget(())).model.at(w).as_dict()[KEYS[key]] for w in (floor, graph.sizes))
    before = 0
    for amount in sorted(data.draw(st.lists(st.integers(max(low, 1), high), min_size=3, max_size=8))):
        target = Target(graph, Budget((Limit(key, "drawn", amount=amount),)))
        widths = by_density(target, densities) if name == "by density" else ALLOCATORS[name](target, scores)
        cost = target.model.at(as_array(graph, dict(widths))).as_dict()[KEYS[key]]
        assert cost >= before
        before = cost


@QUICK
@given(data=st.data())
def test_global_is_the_plain_greedy_rule(data: st.DataObject) -> None:
    """Channels go from the lowest score on until the budget holds; then those come back that fit, best first."""
    graph = data.draw(graphs())
    scores = data.draw(scores_of(graph))
    target = data.draw(targets(graph))
    channels = []
    for i, group in enumerate(graph.groups):
        ranked = sorted(scores[group.name].tolist())
        channels += [(score, i) for score in ranked[: group.size - int(target.floor[i])]]
    channels.sort()
    widths, removed = graph.sizes.copy(), []
    while not target.met_by(widths):
        removed.append(channels.pop(0)[1])
        widths[removed[-1]] -= 1
    for i in reversed(removed):
        widths[i] += 1
        if not target.met_by(widths):
            widths[i] -= 1
    assert as_array(graph, dict(ALLOCATORS["global"](target, scores))).tolist() == widths.tolist()


@QUICK
@given(data=st.data())
def test_global_leaves_no_channel_out_that_fits(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    target = data.draw(targets(graph))
    widths = as_array(graph, dict(ALLOCATORS["global"](target, data.draw(scores_of(graph)))))
    for i in np.flatnonzero(widths < graph.sizes):
        widths[i] += 1
        assert not target.met_by(widths)
        widths[i] -= 1


@QUICK
@given(data=st.data())
def test_uniform_is_the_largest_share_and_then_single_channels(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    target = data.draw(targets(graph))
    widths = as_array(graph, dict(ALLOCATORS["uniform"](target, {})))
    # Uniform widths change only at the shares k / size: try them all, in exact arithmetic.
    shares = sorted({Fraction(k, int(n)) for n in graph.sizes for k in range(n + 1)})

    def at(share: Fraction) -> np.ndarray:
        whole = np.array([int(share * int(n)) for n in graph.sizes])
        return np.where(graph.free, np.maximum(whole, target.floor), graph.sizes)

    met = [share for share in shares if target.met_by(at(share))]
    base = at(max(met))
    if max(met) == 1:
        assert widths.tolist() == graph.sizes.tolist()
        return
    step = min(share for share in shares if share > max(met) and (at(share) != base).any())
    assert ((base <= widths) & (widths <= base + 1)).all()
    assert target.met_by(widths)
    for i in np.flatnonzero((widths == base) & graph.free & (base < graph.sizes)):
        if step * int(graph.sizes[i]) > int(base[i]):  # a group below its minimum width has its share already
            widths[i] += 1
            assert not target.met_by(widths)
            widths[i] -= 1


@QUICK
@given(data=st.data())
def test_densities_are_those_of_a_global_mask(data: st.DataObject) -> None:
    graph = data.draw(graphs(size=8))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    weights = {n: torch.from_numpy(rng.random(t.shape)) for n, t in graph.tensors.items() if n.endswith("weight")}
    densities = Densities(graph, weights, least=0.05)
    scores = torch.cat([w.flatten() for w in weights.values()])
    for dial in (0.0, 0.25, 0.7, 1.0):
        i = round(dial * 159)
        found, overall = densities.at(i / 159)
        kept = max(1, len(scores) - round((1 - overall) * len(scores)))
        threshold = scores.sort(descending=True).values[kept - 1]
        for j, group in enumerate(graph.groups):
            alive = [weights[a.tensor] >= threshold for a in graph.axes_of(group.name, "out")]
            assert found[j] == pytest.approx(sum(int(a.sum()) for a in alive) / sum(a.numel() for a in alive))


@QUICK
@given(data=st.data())
def test_by_density_keeps_the_root_of_the_density(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    densities = densities_of(graph, data.draw(st.integers(0, 99)))
    target = data.draw(targets(graph))
    widths = as_array(graph, dict(by_density(target, densities)))

    def at(dial: float) -> np.ndarray:
        whole = np.floor(np.sqrt(densities.at(dial)[0]) * graph.sizes + 1e-9)
        return np.where(graph.free, np.maximum(whole, target.floor), graph.sizes).astype(int)

    if not target.met_by(at(0)):
        assert (widths <= at(0) + 1).all()
        return
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if target.met_by(at(middle)) else (low, middle)
    base = graph.sizes if target.met_by(at(1)) else at(low)
    assert ((base <= widths) & (widths <= base + 1)).all()
