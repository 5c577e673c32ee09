"""Groups at the peak, worked out by hand on rows of layers: which they are, and how far they grow."""

import numpy as np
import pytest

from prunit.allocate import Budget, Constraints, Limit, Target
from prunit.allocate.at_peak import RAM, at_peak, grown, narrowing_at_peak
from prunit.graph import ChannelGraph
from tests.allocate.graphs import Wire, wired


@pytest.fixture
def row() -> ChannelGraph:
    """Bytes alive at each step: 256 a; 256 a + 64 b; 64 b + 16 c; 16 c + 16 d, with at most 8, 4, 6 and 10 channels."""
    wires = [Wire(0, (-1,), 9, 64), Wire(1, (0,), 9, 16), Wire(2, (1,), 9, 4), Wire(3, (2,), 1, 4)]
    return wired((8, 4, 6, 10), wires, pinned={3})


def asked(graph: ChannelGraph, ram: int, constraints: Constraints | None = None) -> Target:
    return Target(graph, Budget((Limit("ram", str(ram), amount=ram),)), constraints)


def test_bytes_alive_at_each_step(row: ChannelGraph) -> None:
    target = asked(row, 2304)
    assert target.model.live_at(row.sizes).tolist() == [2048, 2304, 352, 256]
    assert target.model.live_at(np.array([4, 3, 2, 10])).tolist() == [1024, 1216, 224, 192]
    assert target.model.alive.tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, True, True, False],
        [False, False, True, True],
    ]


@pytest.mark.parametrize(
    ("ram", "expected"),
    [(2304, []), (2303, ["g0", "g1"]), (352, ["g0", "g1"]), (351, ["g0", "g1", "g2"])],
)
def test_groups_at_the_peak_are_those_alive_while_it_is_too_high(
    row: ChannelGraph, ram: int, expected: list[str]
) -> None:
    inside = at_peak(asked(row, ram), row.sizes)
    assert [g.name for g, yes in zip(row.groups, inside, strict=True) if yes] == expected


def test_only_they_may_be_narrowed(row: ChannelGraph) -> None:
    target = narrowing_at_peak(asked(row, 1280), row.sizes)
    assert [g.pinned for g in target.graph.groups] == ["", "", "not alive at the peak", "pin"]
    assert target.floor.tolist() == [1, 1, 6, 10]
    assert target.ceiling.tolist() == row.sizes.tolist()


def test_they_may_be_no_wider_than_the_widths_they_are_narrowed_from(row: ChannelGraph) -> None:
    target = narrowing_at_peak(asked(row, 1280), np.array([6, 4, 3, 10]))
    assert target.ceiling.tolist() == [6, 4, 3, 10]
    assert target.floor.tolist() == [1, 1, 3, 10]
    assert target.graph.group("g2").pinned == "", "it is not whole"


@pytest.mark.parametrize(
    ("ram", "start", "expected"),
    [
        # 256 a + 64 b <= 1280: a = 4 leaves room for all of b; a = 5 would leave none.
        (1280, (4, 2, 6, 10), (4, 4, 6, 10)),
        (1280, (1, 1, 6, 10), (4, 4, 6, 10)),
        (1279, (4, 3, 6, 10), (4, 3, 6, 10)),
        # Nothing is too high: all grow.
        (2304, (1, 1, 1, 10), (8, 4, 6, 10)),
        # 256 a + 64 b <= 400: b = 2 beside the one channel of a; 64 b + 16 c <= 400 holds at any c.
        (400, (1, 1, 1, 10), (1, 2, 6, 10)),
    ],
)
def test_widths_grow_until_no_step_fits(
    row: ChannelGraph, ram: int, start: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    target = asked(row, ram)
    assert grown(target, np.array(start)).tolist() == list(expected)


def test_widths_grow_by_the_steps_that_are_allowed(row: ChannelGraph) -> None:
    target = asked(row, 2000, Constraints(round_to=4))
    # 256 a + 64 b: a is 4 or 8, b 4 or nothing narrower than its 4; c goes from 4 to its dense 6.
    assert grown(target, np.array([4, 4, 4, 10])).tolist() == [4, 4, 6, 10]


def test_other_limits_hold_while_widths_grow(row: ChannelGraph) -> None:
    target = Target(row, Budget.parse("ram=1280,params=200"))
    widths = grown(target, np.array([1, 1, 1, 10]))
    assert target.met_by(widths)
    assert not target.met_by(row.sizes)
    for i in range(3):
        wider = widths.copy()
        wider[i] += 1
        assert widths[i] == row.sizes[i] or not target.met_by(wider)


def test_what_wins_the_most_parameters_for_its_bytes_grows_first() -> None:
    # Both are alive at step 1 and take 64 bytes a channel; b has 16 readers for each of its channels, a has none more.
    wires = [Wire(0, (-1,), 1, 16), Wire(1, (0,), 1, 16), Wire(2, (1,), 9, 1)]
    graph = wired((8, 8, 16), wires, pinned={2})
    target = asked(graph, 64 * 9)
    assert grown(target, np.array([1, 1, 16])).tolist() == [1, 8, 16]


def test_a_limit_on_other_figures_alone_has_no_peak(row: ChannelGraph) -> None:
    target = Target(row, Budget.parse("params=1/2"))
    assert RAM not in target.most
    widths = grown(target, np.array([1, 1, 1, 10]))
    assert target.met_by(widths)
    assert target.model.at(widths).params > target.model.at(np.array([1, 1, 1, 10])).params


def test_the_same_target_with_some_of_its_limits(row: ChannelGraph) -> None:
    target = Target(row, Budget.parse("ram=1280,params=200"))
    rest = target.asking(limit for limit in target.budget.limits if limit.figure != RAM)
    assert str(rest.budget) == "params=200"
    assert rest.most == {"params": 200}
    assert target.most == {"params": 200, RAM: 1280}
