"""int8 twins of networks that were pruned and exported, dead channels and several kinds of layers included."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import prunit
from prunit.edge.portfolio import Artifact
from prunit.edge.runtimes import runtime
from prunit.edge.session import Array, outputs_of, self_test
from prunit.errors import PortfolioError
from prunit.export import export_onnx
from prunit.export.quantising import QuantSettings, quantised
from tests.export import toynets
from tests.export.int8nets import noise
from tests.nets import random_plan

ALL = QuantSettings(timed=False, methods=("minmax",), float_layers=())


def stirred(model: nn.Module) -> nn.Module:
    """The model with batch norms that are not the identity, of which some channels are dead: gain and bias 0."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
            module.weight.data[:1] = 0
            module.bias.data[:1] = 0
            module.weight.data[1:2] = 0  # and one that always says the same
    return model.eval()


def relative(folder: Path, artifact: Artifact, made: Artifact, x_BCHW: Array) -> float:
    """The root mean square of the difference between two files' outputs, as a share of the first's spread."""
    wanted, found = (outputs_of(runtime("onnxruntime").open(folder / a.path), x_BCHW)[0] for a in (artifact, made))
    assert np.isfinite(found).all()
    return float(np.sqrt(np.mean((found - wanted) ** 2)) / wanted.std())


@pytest.mark.parametrize("name", [name for name in toynets.NETS if name != "batch_norm_only"])
@pytest.mark.parametrize("engine", ["onnxruntime", "reference"])
def test_small_networks_of_every_kind(tmp_path: Path, name: str, engine: str) -> None:
    shape = toynets.SHAPE_CHW
    artifact = export_onnx(toynets.build(name), torch.zeros(1, *shape), tmp_path, name="float")
    made, _ = quantised(artifact, tmp_path, [noise(32, shape)], name="int8", settings=ALL)
    assert relative(tmp_path, artifact, made, noise(16, shape, seed=1)) < 0.1
    self_test(runtime(engine).open(tmp_path / made.path), made, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("resnet20", 0.15), ("mobilenetv2", 0.5), ("unet-tiny", 0.15)])
def test_pruned_networks_of_the_zoo(tmp_path: Path, name: str, least: float) -> None:
    """Untrained, so that errors add up over the layers with nothing that holds them down."""
    dense = stirred(prunit.zoo.load(name))
    example = torch.zeros(1, 3, 32, 32)
    graph = prunit.trace(dense, example)
    small = prunit.compact(dense, graph, random_plan(graph, least=4))
    artifact = export_onnx(small, example, tmp_path, name="float")
    made, _ = quantised(artifact, tmp_path, [noise(16, (3, 32, 32))], name="int8", settings=ALL)
    assert made.bytes < 0.6 * artifact.bytes
    assert relative(tmp_path, artifact, made, noise(16, (3, 32, 32), seed=1)) < least
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().compile_model(str(tmp_path / made.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    class Elsewhere:
        def run(self, x_BCHW: Array, /) -> Array:
            return model(x_BCHW)[0]

        def close(self) -> None: ...

    self_test(Elsewhere(), made, tmp_path)


@pytest.mark.slow
def test_a_detector_keeps_its_boxes_in_place(tmp_path: Path) -> None:
    artifact = export_onnx(prunit.zoo.load("fcos-tiny"), torch.zeros(1, 3, 64, 64), tmp_path, name="float")
    made, _ = quantised(artifact, tmp_path, [noise(16, (3, 64, 64))], name="int8", settings=ALL)
    x = noise(4, (3, 64, 64), seed=1)
    wanted, found = (outputs_of(runtime("onnxruntime").open(tmp_path / a.path), x)[0] for a in (artifact, made))
    assert np.abs(found - wanted)[..., :4].max() < 0.1 * np.ptp(wanted[..., :4])


def test_the_file_of_another_variant_fails_the_self_test(tmp_path: Path) -> None:
    shape = toynets.SHAPE_CHW
    made = []
    for seed in range(2):
        net = toynets.build("plain")
        torch.manual_seed(seed)
        for parameter in net.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        artifact = export_onnx(net, torch.zeros(1, *shape), tmp_path, name=f"float{seed}")
        made.append(quantised(artifact, tmp_path, [noise(32, shape)], name=f"int8{seed}", settings=ALL)[0])
    with pytest.raises(PortfolioError, match="failed its self-test"):
        self_test(runtime("onnxruntime").open(tmp_path / made[1].path), made[0], tmp_path)
