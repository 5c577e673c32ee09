"""Whole networks as integers: kernels agree, answers are near, at odd widths and with dead channels too."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import prunit
from prunit.cut.plans import Plan
from prunit.export import export_onnx
from prunit.export.quantising.network import Network
from prunit.export.quantising.writing import LARGEST_BIAS
from prunit.export.tflite import integer_network, stand_in_spans
from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.network import IntegerNetwork
from tests.export import toynets
from tests.export.int8nets import Node, noise, one_conv, written
from tests.export.test_int8_zoo import stirred
from tests.export.tflite.tflite_engines import Shape, any_int8, exported, litert, lowered, micro, off
from tests.nets import random_plan, without

SMALL: Shape = (3, 32, 32)


def agree(network: IntegerNetwork, *, count: int = 3) -> None:
    """LiteRT's and TensorFlow Lite Micro's kernels, to the bit."""
    x_BHWC = any_int8(network, count)
    for one, other in zip(litert(network, x_BHWC), micro(network, x_BHWC), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not {"TRANSPOSE", "SHAPE"} & set(network.codes)


def narrowed(name: str, width: int) -> nn.Module:
    """A zoo network with layers of one width, as far as its structure lets them be cut."""
    dense, example = prunit.zoo.load(name), torch.zeros(1, *SMALL)
    graph = prunit.trace(dense, example)
    keep = {g.name: tuple(range(min(width, g.size))) for g in graph.groups if not g.pinned}
    return stirred(prunit.compact(dense, graph, Plan(keep, {g.name: g.size for g in graph.groups})))


@pytest.mark.parametrize("name", toynets.NETS)
def test_small_networks_of_every_kind(tmp_path: Path, name: str) -> None:
    source = exported(toynets.build(name), toynets.SHAPE_CHW, tmp_path)
    network = lowered(source, toynets.SHAPE_CHW)
    agree(network)
    assert max(off(network, source, noise(16, toynets.SHAPE_CHW))) < 5


@pytest.mark.parametrize("width", [1, 17, 33])
@pytest.mark.parametrize("name", ["resnet20", "unet-tiny", "vgg11", "mobilenetv2"])
def test_networks_of_the_zoo_at_odd_widths(tmp_path: Path, name: str, width: int) -> None:
    source = exported(narrowed(name, width), SMALL, tmp_path)
    network = lowered(source, SMALL, images=4)
    agree(network)
    flatbuffer_of(integer_network(Network(source), stand_in_spans(Network(source)), name="net"))


@pytest.mark.parametrize(("name", "most"), [("resnet20", 8), ("mobilenetv2", 24), ("unet-tiny", 16)])
def test_pruned_networks_of_the_zoo_are_near(tmp_path: Path, name: str, most: float) -> None:
    """Untrained, so that errors add up over the layers with nothing that holds them down."""
    dense, example = stirred(prunit.zoo.load(name)), torch.zeros(1, *SMALL)
    graph = prunit.trace(dense, example)
    source = exported(prunit.compact(dense, graph, random_plan(graph, least=4)), SMALL, tmp_path)
    network = lowered(source, SMALL, images=8)
    agree(network)
    assert max(off(network, source, noise(8, SMALL))) < most


def test_channels_of_zeros_answer_as_if_they_were_cut_away(tmp_path: Path) -> None:
    """Zeros neither move a scale nor add to a sum: but for the last bits of floats that ranges are made of."""
    dense = prunit.zoo.load("resnet20").eval()
    graph = prunit.trace(dense, torch.zeros(1, *SMALL))
    plan = random_plan(graph)
    zeros = without(prunit.mask(dense, graph, plan), graph, plan)
    padded = lowered(exported(zeros, SMALL, tmp_path / "padded"), SMALL, images=4)
    small = lowered(exported(prunit.compact(dense, graph, plan), SMALL, tmp_path / "small"), SMALL, images=4)
    x_BHWC = any_int8(padded, 3)
    assert padded.constant_bytes > 1.5 * small.constant_bytes
    np.testing.assert_allclose(litert(padded, x_BHWC)[0], litert(small, x_BHWC)[0].astype(int), rtol=0, atol=1)
    agree(padded)


@pytest.mark.parametrize("small", [0.0, 1e-30, 1e-12, 1e-6])
@pytest.mark.parametrize("bias", [1.0, 1000.0])
def test_a_channel_of_next_to_no_weights_keeps_its_bias(tmp_path: Path, small: float, bias: float) -> None:
    """512 products of steps that were made so that the bias just fits into an int32 would turn its sign."""
    weight = np.stack([np.full(512, small), np.full(512, 0.01), np.zeros(512)])
    artifact = one_conv(tmp_path, weight, np.array([bias, 0.013, 0.0], np.float32), side=1)
    network = lowered(tmp_path / artifact.path, (512, 1, 1), images=8)
    agree(network)
    assert max(off(network, tmp_path / artifact.path, noise(8, (512, 1, 1)))) < 1.01
    (biases,) = (tensor.values for tensor in network.tensors if tensor.kind == "int32")
    assert biases is not None
    assert np.abs(biases.astype(np.int64)).max() <= LARGEST_BIAS


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_what_is_always_zero_stays_so(tmp_path: Path, method: str) -> None:
    nodes: list[Node] = [
        ("Conv", ["input", "a.weight", "a.bias"], "a", {}),
        ("Relu", ["a"], "zero", {}),
        ("Conv", ["zero", "b.weight", "b.bias"], "answer", {}),
    ]
    weight = np.zeros((2, 2, 1, 1), np.float32)
    bias = np.array([-1, 0], np.float32)
    constants = {"a.weight": weight, "a.bias": bias, "b.weight": weight + 1, "b.bias": 3 * bias}
    artifact = written(tmp_path, nodes, constants, (2, 4, 4), {"answer": [2, 4, 4]})
    network = lowered(tmp_path / artifact.path, (2, 4, 4), method=method)
    agree(network)
    assert max(off(network, tmp_path / artifact.path, noise(4, (2, 4, 4)))) < 0.51


def test_a_pool_shares_the_steps_of_what_it_reads_and_a_mean_has_its_own(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
    network = lowered(exported(net, (3, 8, 8), tmp_path), (3, 8, 8))
    by_code = {operator.code: operator for operator in network.operators}
    before, pooled, mean = (network.by_name[by_code[code].outputs[0]] for code in ("CONV_2D", "MAX_POOL_2D", "MEAN"))
    assert before.scales == pooled.scales != mean.scales
    assert before.zero_point == pooled.zero_point == -128
    assert by_code["CONV_2D"].options["fusedActivationFunction"] == "NONE"
    assert by_code["CONV_2D"].layer == "0"


def test_constants_of_more_than_256_kib_and_the_same_bytes_twice(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Flatten(), nn.Linear(16 * 64, 300))
    source = exported(net, (3, 8, 8), tmp_path)
    network = lowered(source, (3, 8, 8))
    assert max(tensor.bytes for tensor in network.tensors if tensor.values is not None) == 16 * 64 * 300
    agree(network)
    assert flatbuffer_of(network) == flatbuffer_of(lowered(source, (3, 8, 8)))


def test_several_outputs_and_one_layer_used_twice(tmp_path: Path) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.shared = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

        def forward(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y_BCHW = self.shared(self.stem(x_BCHW))
            return y_BCHW, self.shared(y_BCHW).relu().mean((2, 3))

    artifact = export_onnx(Both().eval(), torch.zeros(1, 3, 8, 8), tmp_path, name="float")
    network = lowered(tmp_path / artifact.path, (3, 8, 8))
    assert network.outputs == tuple(output.name for output in artifact.outputs)
    assert [network.by_name[name].shape for name in network.outputs] == [(1, 8, 8, 3), (1, 3)]
    agree(network)
    assert max(off(network, tmp_path / artifact.path, noise(8, (3, 8, 8)))) < 3
