"""What times by width say of an engine, and the models that are timed; no time is judged."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from bench import _common, _engines, engine_widths, tables
from bench.engine_widths import KINDS, Kind, liked, model_of
from prunit.edge.runtimes import runtime

MEASURED = KINDS[1].widths


def in_blocks(width: int, block: int = 16) -> float:
    return 1.0 + -(-width // block)


def test_times_in_blocks_with_a_cliff_between_multiples_of_four() -> None:
    """As ONNX Runtime's convolutions take their inputs."""
    found = liked({w: in_blocks(w) * (1.5 if w > 16 and w % 4 else 1) for w in MEASURED})
    assert (found["step"], found["narrow_step"], found["block"]) == (4, 1, 16)
    # Nothing wider was measured that takes less than 65 and 129 channels.
    assert found["cliffs"] == [w for w in MEASURED if w > 16 and w % 4 and w not in (65, 129)]
    assert found["worst"] == pytest.approx(1.5)


def test_smooth_times_ask_for_nothing() -> None:
    found = liked({w: float(w) for w in MEASURED})
    assert (found["step"], found["narrow_step"], found["block"], found["cliffs"]) == (1, 1, 1, [])


def test_every_narrow_width_that_costs_more_than_a_block_should_be_one() -> None:
    found = liked({w: in_blocks(w) + (1 if w < 16 else 0) for w in MEASURED})
    assert (found["step"], found["narrow_step"], found["block"]) == (1, 16, 16)


def test_no_multiple_helps_where_wider_is_always_faster() -> None:
    found = liked({w: 1000.0 - w * 5 for w in MEASURED})
    assert (found["step"], found["block"]) == (0, 0)


def test_what_is_within_the_tolerance_is_no_cliff() -> None:
    times = {w: in_blocks(w) * (1.04 if w % 4 else 1) for w in MEASURED}
    assert liked(times, tolerance=0.1)["step"] == 1
    assert liked(times, tolerance=0.03)["step"] == 4


def test_one_noisy_pair_does_not_hide_the_blocks() -> None:
    times = {w: in_blocks(w) for w in MEASURED}
    times[56] *= 0.95
    assert liked(times)["block"] == 16


def test_parts_of_grouped_convolutions_are_measured_to_a_block_more() -> None:
    assert max(Kind("grouped4", "in", 3, 4).widths) == 33
    assert Kind("grouped4", "in", 3, 4).channels(8) == (32, 64)
    assert Kind("grouped4", "out", 3, 4).channels(8) == (64, 32)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.name}-{kind.side}")
def test_a_model_holds_the_layer_once_in_each_branch(kind: Kind, tmp_path: Path) -> None:
    data, x = model_of(kind, 12, image=6, batch=2)
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    shapes = [tuple(w.dims) for w in model.graph.initializer]
    inputs, outputs = kind.channels(12)
    if kind.kernel:
        layer = (outputs, inputs // (kind.groups or inputs), kind.kernel, kind.kernel)
        assert shapes.count(layer) == engine_widths.BRANCHES
    operator = {"maxpool": "MaxPool", "average": "GlobalAveragePool", "add": "Add"}.get(kind.name)
    if operator:
        assert [n.op_type for n in model.graph.node].count(operator) == engine_widths.BRANCHES
    file = tmp_path / "model.onnx"
    file.write_bytes(data)
    assert np.isfinite(runtime("onnxruntime").open(file).run(x)).all()


def test_times_are_those_of_one_branch_by_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_widths, "WIDTHS", (8,))
    kind = Kind("conv1x1", "out", 1)
    # The clock is read before and after each turn, the widths in ascending order: 4 takes 1 ms, 6 takes 2, …
    ticks: Iterator[int] = iter(
        t for turn in range(4) for n in range(len(kind.widths)) for t in (0, (n + 1) * (turn + 1) * 1_000_000)
    )
    found = engine_widths.measure(kind, "onnxruntime", rounds=2, runs=2, image=4, clock_ns=lambda: next(ticks))
    # Of turns 3 and 4 (the first two warm up) the median, for two runs of four branches.
    assert found == {w: pytest.approx((n + 1) * 3.5 / 8) for n, w in enumerate(kind.widths)}


def test_installed_engines_are_asked_for_by_name() -> None:
    assert "onnxruntime" in _engines.installed()
    assert set(_engines.installed()) <= set(_engines.ENGINES)


def test_the_table_has_a_row_for_each_layer() -> None:
    times = {kind: {w: in_blocks(w) for w in kind.widths} for kind in (KINDS[1], Kind("grouped4", "in", 3, 4))}
    rows = [engine_widths.row_of(kind, "onnxruntime", ms) for kind, ms in times.items()]
    result = _common.record("engine_widths", rows, config={}, n=1, percentile="p50", threads=1)
    text = tables.TABLES["engine_widths"](json.loads(json.dumps(result)))
    assert "| onnxruntime | conv3x3, inputs | 1 | 1 | 16 | 1.00× | 1.00 | 1.00 | 1.00 | 1.20 |" in text
    assert "| onnxruntime | grouped4, inputs of a part † | 1 | 1 | 16 |" in text
    assert "channels of a part against 32" in text
