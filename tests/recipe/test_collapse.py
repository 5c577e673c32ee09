"""When thinning out cuts a network in two, on small networks whose channels get scores by hand."""

import math

import pytest
import torch
from torch import Tensor

from prunit.graph import ChannelGraph, trace
from prunit.recipe.collapse import collapse
from tests.nets import NETS
from tests.recipe.nets import STYLES, batch, seeded


def scored(graph: ChannelGraph, best: dict[str, float]) -> dict[str, Tensor]:
    """Scores from 0 up to the best of each group, 9 where none is given."""
    return {g.name: torch.linspace(0, best.get(g.name, 9.0), g.size) for g in graph.groups}


def test_row_of_layers_is_cut_where_the_first_of_them_is_empty() -> None:
    graph = trace(seeded(STYLES["plain"]), batch()[0][:1])
    assert collapse(graph, scored(graph, {"first.0": 5, "second.0": 3, "third.0": 4})) == ("second.0", 3.0)


def test_residual_branch_may_be_empty_but_the_stream_may_not() -> None:
    graph = trace(seeded(STYLES["residual"]), batch()[0][:1])
    stream, *_ = [g.name for g in graph.groups if g.coupled]
    branches = {g.name: 1.0 for g in graph.groups if not g.coupled and not g.pinned}
    assert len(branches) == 4
    assert collapse(graph, scored(graph, {**branches, stream: 2.0})) == (stream, 2.0)


def test_pinned_streams_connect_whatever_the_branches_lose() -> None:
    graph = trace(seeded(STYLES["residual"]), batch()[0][:1])
    kept = graph.pin([g.name for g in graph.groups if g.coupled], "residual stream")
    assert collapse(kept, scored(kept, {})) == ("", math.inf)


def test_depthwise_block_that_changes_the_width_is_the_only_way() -> None:
    graph = trace(seeded(STYLES["inverted"]), batch()[0][:1])
    kept = graph.pin([g.name for g in graph.groups if g.coupled], "residual stream")
    # The third block has a shortcut, the second has none.
    scores = scored(kept, {"blocks.2.residual.0.0": 1.0, "blocks.1.residual.0.0": 2.0, "head.0.0": 3.0})
    assert collapse(kept, scores) == ("blocks.1.residual.0.0", 2.0)


def test_concatenation_goes_on_with_what_is_left() -> None:
    build, example = NETS["concatenated"]
    graph = trace(build().double(), example)
    by_layer = {g.name.split(".")[0]: g.name for g in graph.groups}
    # `a` and `b` stand beside the image itself, which never goes; `c` is the only way to the head.
    found = collapse(graph, scored(graph, {by_layer["a"]: 1.0, by_layer["b"]: 2.0, by_layer["c"]: 3.0}))
    assert found == (by_layer["c"], 3.0)


@pytest.mark.parametrize("name", NETS)
def test_every_network_is_connected_when_nothing_is_empty_and_cut_at_a_group_of_its_own(name: str) -> None:
    build, example = NETS[name]
    graph = trace(build().double(), example)
    group, at = collapse(graph, scored(graph, {}))
    assert at in (9.0, math.inf)
    assert (group == "") == (at == math.inf)
    assert group == "" or not graph.group(group).pinned
