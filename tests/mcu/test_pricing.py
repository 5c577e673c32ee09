"""Whole networks by a table of layers: what each operator costs as much as, what is alive, answers in real numbers."""

from pathlib import Path

import numpy as np
import pytest

from prunit.errors import ModelError
from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.layers import LayerShape
from prunit.mcu.litert import answers
from prunit.mcu.memory import live_bytes
from prunit.mcu.network import IntegerNetwork, Operator, Tensor
from prunit.mcu.parts import part
from prunit.mcu.pricing import grid, layers_priced, priced
from prunit.mcu.resizing import resized
from prunit.mcu.session import IntegerSession
from prunit.mcu.tables import CycleTable
from prunit.mcu.vela import compiled
from tests.mcu.drawn import residual


def gated() -> IntegerNetwork:
    """An image times itself, and a piece of memory work."""
    tensors = [Tensor(name, (1, 4, 6, 8), scales=(0.1,)) for name in ("x", "made")]
    tensors.append(Tensor("both", (1, 4, 6, 16), scales=(0.1,)))
    operators = [
        Operator("MUL", "gate", ("x", "x"), ("made",), 2, {"fusedActivationFunction": "NONE"}),
        Operator("CONCATENATION", "cat", ("x", "made"), ("both",), 2, {"axis": 3, "fusedActivationFunction": "NONE"}),
    ]
    return IntegerNetwork("gated", tensors, operators, ("x",), ("both",))


def test_operators_cost_as_the_likest_layers() -> None:
    assert layers_priced(gated()) == [LayerShape("add", 4, 6, 8, 8), None]
    kinds = [shape.kind for shape in layers_priced(residual()) if shape]
    assert kinds == ["conv", "depthwise", "conv", "add", "conv"]


def test_the_sum_is_near_what_the_compiler_says(tmp_path: Path) -> None:
    pytest.importorskip("ethosu.vela")
    network, on = residual(16, 24), part("ethos-u55-128")
    cycles = priced(network, CycleTable(on, tmp_path))
    assert len(cycles) == len(network.operators)
    whole = compiled(flatbuffer_of(network), on).check().cycles
    assert float(cycles.sum()) == pytest.approx(whole, rel=0.1)


def test_a_grid_has_every_multiple_up_to_the_width_itself() -> None:
    found = grid(residual(20, 12), 8)
    pointwise = {(s.inputs, s.outputs) for s in found if s.kind == "conv" and s.kernel == (1, 1)}
    assert pointwise == {(i, o) for i in (8, 16, 20) for o in (8, 16, 20)}
    assert {s.inputs for s in found if s.kind == "add"} == {8, 16, 20}
    assert len(found) == len(set(found))


def test_what_is_alive_at_once() -> None:
    network = residual(9, 12)
    # The sum's two inputs and its output, of 9 channels each.
    assert live_bytes(network) == 3 * 12 * 12 * 9
    assert live_bytes(network, brick=16) == 3 * 12 * 12 * 16
    assert live_bytes(gated()) == 4 * 6 * (8 + 8 + 16)


def test_other_widths_keep_operators_and_order() -> None:
    network = residual(9, 12)
    wide = resized(network, {"stem": (3, 12), "deep": (12, 12), "point": (12, 12), "end": (12, 5)})
    assert wide.codes == network.codes
    assert wide.by_name["both"].shape == (1, 12, 12, 12)
    assert wide.by_name["end"].shape == (1, 6, 6, 5)
    assert wide.by_name["deep.weight"].shape == (1, 3, 3, 12)
    assert len(wide.by_name["deep.weight"].scales) == 12


def test_other_widths_make_a_file_that_runs() -> None:
    pytest.importorskip("ai_edge_litert")
    wide = resized(residual(9, 12), {"stem": (3, 12), "deep": (12, 12), "point": (12, 12), "end": (12, 5)})
    (found,) = answers(flatbuffer_of(wide), np.zeros((1, 12, 12, 3), np.int8))
    assert found.shape == (1, 6, 6, 5)


def test_widths_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ModelError, match=r"ADD of 'both' would get \(1, 12, 12, 8\) and \(1, 12, 12, 12\)"):
        resized(residual(9, 12), {"stem": (3, 12), "deep": (12, 12), "point": (12, 8), "end": (12, 6)})
    with pytest.raises(ModelError, match="would read 9 channels, but gets 12"):
        resized(residual(9, 12), {"stem": (3, 12), "point": (9, 12)})
    odd = IntegerNetwork(
        "odd",
        [Tensor("x", (1, 4), scales=(0.1,)), Tensor("y", (1, 4), scales=(0.1,))],
        [Operator("ARG_MAX", "head", ("x",), ("y",))],
        ("x",),
        ("y",),
    )
    with pytest.raises(ModelError, match="ARG_MAX of 'head' is not known to follow"):
        resized(odd, {})


def test_a_session_answers_in_real_numbers_channels_first() -> None:
    pytest.importorskip("ai_edge_litert")
    network = residual()
    x_BCHW = np.random.default_rng(0).normal(0, 2, (2, 3, 12, 12)).astype(np.float32)
    session = IntegerSession(network)
    found = session.run(x_BCHW)
    (out,) = (network.by_name[name] for name in network.outputs)
    assert found.shape == (2, 6, 6, 6)
    scale = np.float32(network.by_name["x0"].scales[0])
    steps = np.clip(np.round(x_BCHW.transpose(0, 2, 3, 1) / scale), -128, 127).astype(np.int8)
    (expected,) = answers(flatbuffer_of(network), steps)
    real = (expected.astype(np.float32) - out.zero_point) * np.float32(out.scales[0])
    np.testing.assert_allclose(found, real.transpose(0, 3, 1, 2), atol=out.scales[0] * 1.01)
    assert (np.abs(found - real.transpose(0, 3, 1, 2)) < 1e-6).mean() > 0.99
    session.close()
