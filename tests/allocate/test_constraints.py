"""What is asked of widths: which of them are left to each group, and what is said where none is."""

import re
from typing import Any

import pytest

from prunit.allocate import Budget, Constraints, Target
from prunit.allocate.allowed import Allowed
from prunit.errors import BudgetError, ConfigError, UnknownNameError
from prunit.graph import ChannelGraph, trace
from tests.allocate.graphs import Wire, chain, wired
from tests.nets import NETS


def ladder(graph: ChannelGraph, constraints: Constraints, group: str) -> list[int]:
    """All widths that the group may have."""
    kept = constraints.pinned(graph)
    return constraints.resolve(kept).ladder(kept.index[group]).tolist()


def traced(net: str) -> ChannelGraph:
    build, example = NETS[net]
    return trace(build(), example.float())


# ── rounding ──


@pytest.mark.parametrize(
    ("size", "round_to", "widths"),
    [
        (32, 1, [*range(1, 33)]),
        (32, 8, [8, 16, 24, 32]),
        (20, 8, [8, 16, 20]),  # no multiple: whole, or the multiples below
        (9, 8, [8, 9]),
        (8, 8, [8]),
        (5, 8, [5]),  # narrower than one multiple
    ],
)
def test_rounded_widths(size: int, round_to: int, widths: list[int]) -> None:
    assert ladder(chain(size, 4), Constraints(round_to=round_to), "g0") == widths


@pytest.mark.parametrize(
    ("minimum", "widths"),
    [
        (Constraints(8, min_width=9), [16, 20]),
        (Constraints(8, min_width=17), [20]),
        (Constraints(8, min_width=99), [20]),
        (Constraints(8, min_share=0.5), [16, 20]),
        (Constraints(8, min_share=0), [8, 16, 20]),
    ],
)
def test_the_minimum_width_is_rounded_up(minimum: Constraints, widths: list[int]) -> None:
    assert ladder(chain(20, 4), minimum, "g0") == widths


def test_pinned_groups_are_not_rounded() -> None:
    assert ladder(chain(32, 10), Constraints(round_to=8), "g1") == [10]


def test_a_channel_counts_as_often_as_the_layer_that_makes_it_has_it() -> None:
    grouped = traced("grouped")
    # 8 channels for a convolution of 4 groups: two channels that occur four times each.
    assert grouped.group("a.0").size == 2
    assert ladder(grouped, Constraints(round_to=4), "a.0") == [1, 2]  # 4 or 8 channels
    assert ladder(grouped, Constraints(round_to=8), "a.0") == [2]
    # 12 channels in 4 groups: three channels, four times each.
    assert ladder(grouped, Constraints(round_to=8), "b.0") == [2, 3]  # 8 channels, or whole


def test_every_layer_that_makes_a_group_gets_a_multiple() -> None:
    multiplier = traced("multiplier")
    # A depthwise convolution makes three channels from each of the four before it.
    assert ladder(multiplier, Constraints(round_to=6), "stem.0") == [4]
    assert ladder(multiplier, Constraints(round_to=2), "stem.0") == [2, 4]
    assert ladder(multiplier, Constraints(round_to=3), "stem.0") == [3, 4]  # stem makes 3, the depthwise one 9


def test_parts_of_a_concatenation_are_each_rounded() -> None:
    both = wired([12, 12, 4], [Wire(0, (-1,)), Wire(1, (-1,)), Wire(2, (0, 1))], pinned={2})
    assert ladder(both, Constraints(round_to=8), "g0") == [8, 12]


# ── limits ──


@pytest.mark.parametrize(
    ("limit", "round_to", "widths"),
    [
        ((0.5, 1), 1, [*range(10, 21)]),
        ((0, 0.25), 1, [1, 2, 3, 4, 5]),
        ((0.1, 0.3), 1, [2, 3, 4, 5, 6]),  # not 0.30000000000000004 * 20
        ((0.33, 0.49), 1, [7, 8, 9]),
        ((16, 18), 1, [16, 17, 18]),
        ((16, 1.0), 1, [16, 17, 18, 19, 20]),
        ((0.5, 12), 1, [10, 11, 12]),
        ((1, 1), 1, [20]),
        ((16, 99), 1, [16, 17, 18, 19, 20]),
        ((99, 100), 1, [20]),
        ((0, 0.9), 8, [8, 16]),
        ((9, 19), 8, [16]),
        ((0.9, 1), 8, [20]),
        ((0.5, 1), 8, [16, 20]),
    ],
)
def test_limits_are_shares_up_to_1_and_channels_above(
    limit: tuple[float, float], round_to: int, widths: list[int]
) -> None:
    assert ladder(chain(20, 4), Constraints(round_to, limits={"layer0": limit}), "g0") == widths


def test_all_patterns_that_fit_hold() -> None:
    graph = chain(20, 20, 4)
    asked = Constraints(limits={"layer*": (0.2, 0.8), "layer1": (10, 1.0), "g1": (0, 12)})
    assert ladder(graph, asked, "g0") == [*range(4, 17)]
    assert ladder(graph, asked, "g1") == [10, 11, 12]


def test_a_limit_on_any_producer_holds_for_the_whole_stream() -> None:
    graph = traced("residual")
    assert graph.group("stem.0").producers == ("stem.0", "a2.0")
    assert ladder(graph, Constraints(limits={"a2.*": (0.5, 1)}), "stem.0") == [3, 4, 5, 6]


def test_limits_may_pass_by_groups_that_stay_whole_anyway() -> None:
    assert ladder(chain(20, 4), Constraints(limits={"*": (0, 0.5)}), "g1") == [4]


def test_what_set_a_bound_is_remembered() -> None:
    graph = chain(20, 20, 20, 6, 4)
    asked = Constraints(8, min_width=4, limits={"layer0": (0.7, 0.9), "layer1": (4, 16)})
    allowed = asked.resolve(graph)
    assert allowed.least_by == ("limit 'layer0', rounded to 8", "rounded to 8", "rounded to 8", "rounded to 8", "")
    assert allowed.most_by == ("limit 'layer0'", "limit 'layer1'", "", "", "")
    assert (allowed.least.tolist(), allowed.most.tolist()) == ([16, 8, 8, 6, 4], [16, 16, 20, 6, 4])


# ── first and last layer ──


def test_the_first_and_the_last_hidden_layer_stay_whole() -> None:
    graph = chain(8, 9, 10, 5)
    assert Constraints().pinned(graph) is graph
    kept = Constraints(keep_first=True, keep_last=True).pinned(graph)
    assert [g.pinned for g in kept.groups] == [
        "made by the first layer (keep_first)",
        "",
        "made by the last hidden layer (keep_last)",
        "pin",
    ]


@pytest.mark.parametrize(
    ("net", "first", "last"),
    [
        ("plain", ["first.0"], ["second"]),
        ("residual", ["stem.0"], ["b2.0"]),  # the streams that these layers write to
        ("flattened", ["features.0.0"], ["classifier.0"]),
        ("unet", ["outer.0"], ["up"]),  # two outputs: the last layer that another one reads
        ("concatenated sum", ["a.0"], ["d.0"]),
        ("perceptron", ["up"], ["mix"]),
    ],
)
def test_first_and_last_in_the_order_of_execution(net: str, first: list[str], last: list[str]) -> None:
    graph = traced(net)
    for names, asked in ((first, Constraints(keep_first=True)), (last, Constraints(keep_last=True))):
        kept = asked.pinned(graph)
        new = [b.name for a, b in zip(graph.groups, kept.groups, strict=True) if b.pinned and not a.pinned]
        assert new == names


def test_a_network_of_one_layer_has_no_hidden_one() -> None:
    graph = chain(8)
    assert Constraints(keep_last=True).pinned(graph).groups == graph.groups


# ── targets ──


def test_a_target_keeps_groups_as_wide_as_they_may_be() -> None:
    graph = chain(20, 20, 20, 4)
    target = Target(graph, Budget.parse("params=1/2"), Constraints(limits={"layer1": (0, 0.5)}))
    kept = target.keeping(["g0", "g1"], "asked for")
    assert kept.floor.tolist() == [20, 10, 1, 4]
    assert [g.pinned for g in kept.graph.groups] == ["asked for", "", "", "pin"]
    assert kept.allowed.least_by == ("", "limit 'layer1'", "", "")
    assert target.floor.tolist() == [1, 1, 1, 4]
    assert [g.pinned for g in target.graph.groups] == ["", "", "", "pin"]


def test_constraints_say_what_differs_from_the_defaults() -> None:
    assert str(Constraints()) == ""
    asked = Constraints(8, min_share=0.1, limits={"a*": (0.5, 1)}, keep_last=True)
    assert str(asked) == "round_to=8, min_share=0.1, limits={a*: [0.5, 1]}, keep_last=True"


def test_constraints_are_values() -> None:
    assert Constraints(limits={"a": (0, 0.5)}) == Constraints(limits={"a": [0, 0.5]})
    assert hash(Constraints(limits={"a": (0, 0.5)})) == hash(Constraints(limits={"a": (0, 0.5)}))
    assert isinstance(Constraints().resolve(chain(3, 2)), Allowed)


# ── mistakes ──


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"round_to": 0}, "round_to must be a whole number of channels, at least 1, or 'auto', got 0"),
        ({"round_to": 8.0}, "round_to must be a whole number of channels, at least 1, or 'auto', got 8.0"),
        ({"round_to": "best"}, "round_to must be a whole number of channels, at least 1, or 'auto', got 'best'"),
        ({"round_to": True}, "round_to must be a whole number of channels, at least 1, or 'auto', got True"),
        ({"min_share": 2}, "min_share must be in [0, 1] and min_width at least 1, got 2 and 1"),
        ({"limits": {"a": 0.5}}, "limit 'a' = 0.5 is not a pair: write [least, most], each a share of the channels"),
        ({"limits": {"a": "01"}}, "limit 'a' = '01' is not a pair"),
        ({"limits": {"a": (0.5,)}}, "limit 'a' = (0.5,) is not a pair"),
        ({"limits": {"a": (16.0, 8.0)}}, "limit 'a' = [16, 8] asks for more at least than at most"),
        ({"limits": {"a": (-0.5, 1)}}, "limit 'a' = [-0.5, 1] holds -0.5: write [least, most]"),
        ({"limits": {"a": (0, float("nan"))}}, "limit 'a' = [0, nan] holds nan"),
        ({"limits": {"a": (0, True)}}, "limit 'a' = [0, True] holds True"),
        ({"limits": {"a": ("1/2", 1)}}, "limit 'a' = ['1/2', 1] holds '1/2'"),
        ({"limits": {"a": (0, 1.5)}}, "limit 'a' = [0, 1.5] holds 1.5, no whole number of channels"),
        ({"limits": {"a": (0, 0)}}, "limit 'a' = [0, 0] leaves no channel"),
        ({"limits": {"a": (0.6, 0.5)}}, "limit 'a' = [0.6, 0.5] asks for more at least than at most"),
        ({"limits": {"a": (16, 8)}}, "limit 'a' = [16, 8] asks for more at least than at most"),
    ],
)
def test_what_can_never_hold_is_refused_without_a_graph(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Constraints(**asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            Constraints(8, limits={"layer0": (0, 0.3)}),
            "group 'g0' of 20 channels has no width left: the minimum width asks for at least 1, limit 'layer0'"
            " for at most 6 and round_to=8 for multiples of 8; loosen one of them",
        ),
        (
            Constraints(8, limits={"layer0": (0.85, 0.95)}),
            "limit 'layer0' asks for at least 17, limit 'layer0' for at most 19 and round_to=8 for multiples of 8",
        ),
        (
            Constraints(min_width=8, limits={"layer0": (0, 4)}),
            "the minimum width asks for at least 8, limit 'layer0' for at most 4; loosen one of them",
        ),
        (
            Constraints(limits={"layer0": (0.5, 1), "lay*": (0, 9)}),
            "limit 'layer0' asks for at least 10, limit 'lay*' for at most 9; loosen one of them",
        ),
        (Constraints(limits={"layer0": (0.9, 10)}), "limit 'layer0' asks for at least 18, limit 'layer0' for at most"),
        (Constraints(limits={"layer0": (0, 0.04)}), "limit 'layer0' for at most 0; loosen one of them"),
        (
            Constraints(limits={"layer1": (0, 0.5)}),
            "limit 'layer1' lets group 'g1' keep at most 0.5 of its 4 channels, but all of them must stay: pin; drop",
        ),
        (
            Constraints(limits={"layer0": (0, 8)}, keep_first=True),
            "limit 'layer0' lets group 'g0' keep at most 8 of its 20 channels, but all of them must stay: made by the"
            " first layer (keep_first); drop the limit, or what keeps the group whole",
        ),
    ],
)
def test_what_cannot_hold_on_a_graph_is_refused(asked: Constraints, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Target(chain(20, 4), Budget.parse("params=1/2"), asked)


def test_a_pattern_that_fits_nothing_names_the_nearest_modules() -> None:
    graph = traced("flattened")
    with pytest.raises(
        UnknownNameError,
        match=r"limit 'clasifier\.\*' fits no module that makes channels; the nearest are classifier\.\d, classifier",
    ):
        Target(graph, Budget.parse("params=1/2"), Constraints(limits={"clasifier.*": (0.5, 1)}))


def test_a_budget_out_of_reach_names_the_constraints() -> None:
    target = Target(chain(16, 16, 4), Budget.parse("params=1/9"), Constraints(round_to=8))
    with pytest.raises(BudgetError, match=r"with every free group at its minimum width \(round_to=8\); whole groups"):
        target.check_reachable()
