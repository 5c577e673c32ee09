"""What engines like: the shipped table is what was measured, and steps leave a layer widths to be cut to."""

import json
from pathlib import Path

import pytest

from prunit.edge.runtimes.widths import ENGINES, Liking, liking, step_of
from prunit.errors import UnknownNameError

MEASURED = Path(__file__).parents[2] / "bench" / "results" / "engine_widths.json"
ROWS = {"conv": "conv3x3", "pointwise": "conv1x1", "depthwise": "depthwise", "grouped": "grouped4", "linear": "linear"}
"""By our word the layer that was measured."""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ROWS)
def test_the_table_is_what_was_measured(engine: str, kind: str) -> None:
    rows = [row for row in json.loads(MEASURED.read_text("utf-8"))["rows"] if row["engine"] == engine]
    found = [row for row in rows if row["kind"] == ROWS[kind]]
    assert found
    like = liking(engine)[kind]  # type: ignore[index]
    assert like.step == max(row["step"] for row in found)
    if kind == "pointwise":
        assert like.least == max(row["narrow_step"] for row in found if row["side"] == "in")


@pytest.mark.parametrize(
    ("channels", "step"), [(512, 16), (64, 16), (63, 8), (40, 8), (16, 8), (15, 4), (8, 4), (7, 1), (1, 1)]
)
def test_a_layer_goes_in_steps_that_leave_it_widths_to_choose_from(channels: int, step: int) -> None:
    assert step_of(Liking(4, 16), channels) == step


@pytest.mark.parametrize(("channels", "step"), [(64, 16), (32, 16), (16, 16), (15, 1), (4, 1)])
def test_where_only_whole_blocks_count_a_smaller_part_goes_by_single_channels(channels: int, step: int) -> None:
    assert step_of(Liking(16, 16), channels) == step


def test_where_an_engine_does_not_mind_there_are_no_steps() -> None:
    assert {step_of(Liking(1, 1), channels) for channels in (1, 3, 64, 1000)} == {1}


def test_an_engine_that_was_not_measured_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown engine 'onnx'; did you mean 'onnxruntime'\?"):
        liking("onnx")
