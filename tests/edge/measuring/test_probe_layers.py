"""Layers measured on this machine: what is run is the layer that was meant; no time is judged."""

import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from prunit.edge.measuring.energy import LITERATURE, Rapl, energy_prices
from prunit.edge.measuring.probe_layers import LayerProbe, Point, layer_model, points_of, probe_layers
from prunit.edge.measuring.profile import LayerShape, Window
from prunit.errors import ConfigError

WINDOWS = {
    "plain": Window(size=(9, 7), kernel=(3, 3), padding=(1, 1)),
    "strided": Window(size=(9, 7), kernel=(5, 3), stride=(2, 1), padding=(2, 0)),
    "dilated": Window(size=(9, 9), kernel=(3, 3), dilation=(2, 2)),
    "depthwise": Window(size=(8, 8), kernel=(3, 3), groups="depthwise"),
    "grouped": Window(size=(8, 8), kernel=(3, 3), groups=2),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_what_is_run_is_the_convolution_that_was_meant(name: str) -> None:
    window = WINDOWS[name]
    outputs = 6 if name == "depthwise" else 10
    model, x = layer_model(Point(LayerShape(inputs=12, outputs=20, window=window), 6, outputs))
    read = onnx.load(io.BytesIO(model))
    onnx.checker.check_model(read, full_check=True)
    weights = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in read.graph.initializer}
    before = torch.relu(torch.conv2d(torch.from_numpy(x), weights["before.w"], weights["before.b"]))
    groups = 6 if name == "depthwise" else window.groups
    assert isinstance(groups, int)
    y = torch.conv2d(
        before,
        weights["layer.w"],
        weights["layer.b"],
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
        groups=groups,
    )
    (found,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(found, torch.relu(y).numpy(), atol=1e-5)


def test_what_is_run_is_the_linear_map_that_was_meant() -> None:
    model, x = layer_model(Point(LayerShape(inputs=12, outputs=20, rows=3), 5, 300))
    read = onnx.load(io.BytesIO(model))
    onnx.checker.check_model(read, full_check=True)
    w, b = (numpy_helper.to_array(w) for w in read.graph.initializer)
    (found,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert found.shape == (3, 300)
    np.testing.assert_allclose(found, x @ w + b, atol=1e-5)


def test_images_are_read_as_they_come() -> None:
    stem = LayerShape(inputs=3, outputs=8, inputs_fixed=True, window=WINDOWS["plain"])
    model, x = layer_model(Point(stem, 3, 8))
    assert x.shape == (1, 3, 9, 7)
    assert len(onnx.load(io.BytesIO(model)).graph.node) == 2


def test_a_probe_measures_every_point_and_says_how_far_it_is() -> None:
    shapes = [
        LayerShape(inputs=8, outputs=8, window=WINDOWS["plain"]),
        LayerShape(inputs=8, outputs=8, window=WINDOWS["depthwise"]),
        LayerShape(inputs=8, outputs=8, window=WINDOWS["grouped"]),
        LayerShape(inputs=8, outputs=5, outputs_fixed=True),
    ]
    told: list[tuple[int, int]] = []
    settings = LayerProbe(passes=1, least_runs=2, most_runs=2)
    found = probe_layers([*shapes, shapes[0]], settings, on_point=lambda *at: told.append(at))
    assert [layer.shape for layer in found.layers] == shapes
    for layer in found.layers:
        assert [(i, o) for i, o, _ in layer.points] == [(p.inputs, p.outputs) for p in points_of(layer.shape)]
        assert all(ms > 0 for _, _, ms in layer.points)
    count = sum(len(layer.points) for layer in found.layers)
    assert told == [(n + 1, count) for n in range(count)]
    assert found.device.engine == "onnxruntime"
    assert (np.diff([ms for _, ms in found.rest.fetching]) >= 0).all()
    with pytest.raises(ConfigError, match="cannot measure with 0 threads"):
        probe_layers(shapes, LayerProbe(threads=0))


def counter(root: Path, uj: int, *, most: int = 10**12) -> Path:
    package = root / "intel-rapl:0"
    package.mkdir(parents=True, exist_ok=True)
    (package / "energy_uj").write_text(f"{uj}\n")
    (package / "max_energy_range_uj").write_text(f"{most}\n")
    return package


def test_prices_are_measured_where_the_processor_counts_its_energy(tmp_path: Path) -> None:
    now = [0.0]
    package = counter(tmp_path, 0)

    def spend(uj: int) -> None:
        now[0] += 0.1
        counter(tmp_path, int((package / "energy_uj").read_text()) + uj)

    # 2 pJ for each of 10^9 multiply-adds, 50 pJ for each of 10^7 bytes; and then 10^8 and 10^8.
    found = energy_prices(
        (lambda: spend(2_500), 1e9, 1e7),
        (lambda: spend(5_200), 1e8, 1e8),
        counter=Rapl(tmp_path),
        clock=lambda: now[0],
    )
    assert (found.pj_per_mac, found.pj_per_byte) == (pytest.approx(2), pytest.approx(50))
    assert found.source.startswith("measured with RAPL")


def test_a_counter_starts_anew_at_its_range(tmp_path: Path) -> None:
    counter(tmp_path, 900, most=1000)
    rapl = Rapl(tmp_path)
    before = rapl.read_uj()
    counter(tmp_path, 150, most=1000)
    assert rapl.since_uj(before) == 250


def test_no_counter_or_an_unreadable_one_leaves_the_prices_of_the_literature(tmp_path: Path) -> None:
    assert not Rapl(tmp_path).readable
    idle = (lambda: None, 1e9, 1e7)
    assert energy_prices(idle, idle, counter=Rapl(tmp_path), seconds=0.01) == LITERATURE
    (counter(tmp_path, 0) / "energy_uj").write_text("")
    assert not Rapl(tmp_path).readable
    counter(tmp_path, 7)
    assert energy_prices(idle, idle, counter=Rapl(tmp_path), seconds=0.01) == LITERATURE, "it stood still"
