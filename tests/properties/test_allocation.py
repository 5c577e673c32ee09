"""What holds for every graph, score and budget: bounds, monotony, and that nothing which fits is left out."""

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import SupportsIndex

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunit.allocate import ALLOCATORS, KEYS, Budget, Constraints, Densities, Limit, Target, by_density
from prunit.cut.plans import Scores
from prunit.errors import BudgetError
from prunit.graph import ChannelGraph
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
def constraints(draw: st.DrawFn, graph: ChannelGraph) -> Constraints:
    """What may be asked of widths, with limits on some of the groups that leave each of them a width at least."""
    share, width = draw(st.sampled_from([0.0, 0.02, 0.3])), draw(st.integers(1, 3))
    round_to = draw(st.sampled_from([1, 1, 4, 8]))
    limits: dict[str, tuple[float, float]] = {}
    for group in graph.groups:
        wide = sorted(w for w in range(width, group.size + 1) if w % round_to == 0 and w >= share * group.size)
        if not group.pinned and draw(st.booleans()):
            most = draw(st.sampled_from([*wide, group.size]))
            limits[group.name] = (draw(st.sampled_from([0.0, most / group.size])), most / group.size)
    first, last = draw(st.booleans()), draw(st.booleans())
    asked = Constraints(round_to, width, share, limits, first, last)
    kept = asked.pinned(graph)
    left = {name: limit for name, limit in limits.items() if not kept.group(name).pinned}
    return Constraints(round_to, width, share, left, first, last)


@st.composite
def targets(draw: st.DrawFn, graph: ChannelGraph, *, limits: int = 2, reachable: bool = True) -> Target:
    """Budgets between the narrowest and the dense cost; some below that if `reachable` is False."""
    asked = draw(constraints(graph))
    free = Target(graph, Budget(()), asked)
    low, high = free.model.at(free.floor).as_dict(), free.dense.as_dict()
    found = []
    for key in draw(st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=limits, unique=True)):
        least = low[KEYS[key]] if reachable else low[KEYS[key]] // 2
        found.append(Limit(key, "drawn", amount=draw(st.integers(max(least, 1), high[KEYS[key]]))))
    return Target(graph, Budget(tuple(found)), asked)


def ladders(target: Target) -> list[list[int]]:
    """All widths that each group may have, by the words of `Constraints`; every channel occurs once on these axes."""
    asked, graph, found = target.constraints, target.graph, []
    for group in graph.groups:
        least, most = asked.limits.get(group.name, (0, 1))
        low = max(asked.min_width, asked.min_share * group.size, least * group.size) - 1e-9
        multiples = [w for w in range(1, group.size) if w % asked.round_to == 0 and w >= low]
        widths = [w for w in (*multiples, group.size) if w <= most * group.size + 1e-9]
        found.append([group.size] if group.pinned else widths)
    return found


def down(ladder: list[list[int]], widths: Sequence[float | Fraction]) -> np.ndarray:
    """The widest of each ladder that is no wider than asked, else the narrowest."""
    return np.array(
        [max((w for w in steps if w <= x), default=steps[0]) for steps, x in zip(ladder, widths, strict=True)]
    )


def wider(ladder: list[list[int]], widths: np.ndarray, group: SupportsIndex) -> np.ndarray:
    """The widths with one group a step wider, as far as there is one."""
    after = widths.copy()
    after[group] = min((w for w in ladder[group] if w > widths[group]), default=widths[group])
    return after


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
    assert all(width in steps for width, steps in zip(widths, ladders(target), strict=True))
    assert target.allowed.hold(widths)
    assert (widths == graph.sizes)[~target.graph.free].all()


@QUICK
@given(data=st.data())
def test_allowed_widths_are_the_ladder_that_the_constraints_describe(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    target = Target(graph, Budget(()), data.draw(constraints(graph)))
    ladder, allowed = ladders(target), target.allowed
    assert [allowed.ladder(i).tolist() for i in range(len(graph.groups))] == ladder
    asked = np.array([data.draw(st.floats(0, 1.2 * group.size)) for group in graph.groups])
    assert allowed.down(asked).tolist() == down(ladder, (asked + 1e-9).tolist()).tolist()
    up = [min((w for w in steps if w >= x - 1e-9), default=steps[-1]) for steps, x in zip(ladder, asked, strict=True)]
    assert allowed.up(asked).tolist() == up
    assert allowed.hold(asked) == all(x in steps for x, steps in zip(asked, ladder, strict=True))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_an_error_means_that_no_widths_meet_the_budget(data: st.DataObject) -> None:
    graph = data.draw(graphs(groups=3, size=5))
    target = data.draw(targets(graph, reachable=False))
    costs = [(np.array(w), target.model.at(np.array(w)).as_dict()) for w in itertools.product(*ladders(target))]
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
    asked = data.draw(constraints(graph))
    free = Target(graph, Budget(()), asked)
    low, high = (free.model.at(widths).as_dict()[KEYS[key]] for widths in (free.floor, graph.sizes))
    before = 0
    for amount in sorted(data.draw(st.lists(st.integers(max(low, 1), high), min_size=3, max_size=8))):
        target = Target(graph, Budget((Limit(key, "drawn", amount=amount),)), asked)
        widths = by_density(target, densities) if name == "by density" else ALLOCATORS[name](target, scores)
        cost = target.model.at(as_array(graph, dict(widths))).as_dict()[KEYS[key]]
        assert cost >= before
        before = cost


@QUICK
@given(data=st.data())
def test_global_is_the_plain_greedy_rule(data: st.DataObject) -> None:
    """Steps down are taken from the lowest score on until the budget holds; then those come back that fit, best first.

    A step has the score of the best channel that it costs.
    """
    graph = data.draw(graphs())
    scores = data.draw(scores_of(graph))
    target = data.draw(targets(graph))
    steps = []
    for i, (group, ladder) in enumerate(zip(graph.groups, ladders(target), strict=True)):
        ranked = sorted(scores[group.name].tolist())
        steps += [(ranked[group.size - low - 1], i, high - low) for low, high in itertools.pairwise(ladder)][::-1]
    steps.sort(key=lambda step: step[:2])
    widths, taken = target.ceiling.copy(), []
    while not target.met_by(widths):
        _, i, channels = steps.pop(0)
        taken.append((i, channels))
        widths[i] -= channels
    stuck = set()
    for i, channels in reversed(taken):
        widths[i] += channels
        if i in stuck or not target.met_by(widths):
            widths[i] -= channels
            stuck.add(i)
    assert as_array(graph, dict(ALLOCATORS["global"](target, scores))).tolist() == widths.tolist()


@QUICK
@given(data=st.data())
def test_global_leaves_no_step_out_that_fits(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    target = data.draw(targets(graph))
    widths = as_array(graph, dict(ALLOCATORS["global"](target, data.draw(scores_of(graph)))))
    for i in np.flatnonzero(widths < target.ceiling):
        assert not target.met_by(wider(ladders(target), widths, i))


@QUICK
@given(data=st.data())
def test_uniform_is_the_largest_share_and_then_single_steps(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    target = data.draw(targets(graph))
    widths = as_array(graph, dict(ALLOCATORS["uniform"](target, {})))
    # Uniform widths change only at the shares k / size: try them all, in exact arithmetic.
    shares = sorted({Fraction(k, int(n)) for n in graph.sizes for k in range(n + 1)})
    ladder = ladders(target)

    def at(share: Fraction) -> np.ndarray:
        return down(ladder, [share * int(n) for n in graph.sizes])

    met = [share for share in shares if target.met_by(at(share))]
    base = at(max(met))
    if max(met) == 1:
        assert widths.tolist() == target.ceiling.tolist()
        return
    step = min(share for share in shares if share > max(met) and (at(share) != base).any())
    assert all(w in (b, wider(ladder, base, i)[i]) for i, (w, b) in enumerate(zip(widths, base, strict=True)))
    assert target.met_by(widths)
    for i in np.flatnonzero((widths == base) & (base < target.ceiling)):
        if step * int(graph.sizes[i]) > int(base[i]):  # a group below its minimum width has its share already
            assert not target.met_by(wider(ladder, widths, i))


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

    ladder = ladders(target)

    def at(dial: float) -> np.ndarray:
        return down(ladder, (np.sqrt(densities.at(dial)[0]) * graph.sizes + 1e-9).tolist())

    def at_most_a_step_above(base: np.ndarray) -> bool:
        return all(w <= wider(ladder, base, i)[i] for i, w in enumerate(widths))

    if not target.met_by(at(0)):
        assert at_most_a_step_above(at(0))
        return
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if target.met_by(at(middle)) else (low, middle)
    base = at(1) if target.met_by(at(1)) else at(low)
    assert (base <= widths).all()
    assert at_most_a_step_above(base)
