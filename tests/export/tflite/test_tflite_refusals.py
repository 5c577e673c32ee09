"""What has no counterpart among integers is refused in one line that names operator, layer and shape."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from prunit.errors import ModelError
from prunit.export.quantising.network import Network
from prunit.export.tflite import integer_network, stand_in_spans
from tests.export.int8nets import Node, written
from tests.export.tflite.test_tflite_operators import Of, conv, then
from tests.export.tflite.tflite_engines import exported

REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "operator": (
        lambda: then(nn.Softplus()),
        r"Softplus of '\w+' on \(1, 5, 8, 8\) .*it has no counterpart there; use",
    ),
    "transpose": (lambda: Of(lambda x, a: a(x).transpose(1, 2), conv()), r"Transpose of '\w+' on \(1, 5, 8, 8\)"),
    "transposed, odd": (
        lambda: nn.ConvTranspose2d(3, 4, 3, 2, padding=1, output_padding=1),
        r"ConvTranspose of '[\w.]+' on \(1, 3, 8, 8\) .*cannot place a kernel \(3, 3\) at strides \(2, 2\)",
    ),
    "transposed, groups": (lambda: nn.ConvTranspose2d(3, 3, 2, 2, groups=3), "knows no groups and no dilation"),
    "pool, dilated": (lambda: then(nn.MaxPool2d(2, dilation=2)), "MaxPool of .* has no dilation"),
    "pool, uncounted": (
        lambda: then(nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
        "count_include_pad=True",
    ),
    "pool, ceil": (lambda: then(nn.AvgPool2d(3, 2, ceil_mode=True)), "use ceil_mode=False"),
    "mean": (lambda: Of(lambda x, a: a(x).mean(1, keepdim=True), conv()), "only means over height and width"),
    "division": (lambda: Of(lambda x, a: a(x) / (2 + x.mean((1, 2, 3), keepdim=True)), conv()), "cannot lower"),
    "padding": (lambda: then(nn.ReflectionPad2d(1)), "Pad of .* with zeros"),
    "clip": (lambda: Of(lambda x, a: a(x).clamp(0.5, 1.0), conv()), "cuts off at 0.5 and 1, beyond 0"),
    "softmax": (lambda: then(nn.Softmax(3)), "only a softmax over channels"),
    "resize": (lambda: then(nn.Upsample(scale_factor=2, mode="bicubic")), "mode cubic with .* takes other pixels"),
    "flat answer": (lambda: then(nn.Flatten()), "output 'logits' .* an image \\(5, 8, 8\\) laid flat"),
    "reshape": (lambda: Of(lambda x, a: a(x).view(-1, 10, 4, 8), conv()), r"Reshape of .* becomes \(1, 10, 4, 8\)"),
    "rows": (lambda: Of(lambda x, a: a(x).flatten(2) * 2, conv()), r"Reshape of .* becomes \(1, 5, 64\)"),
}


def refused(source: Path, message: str) -> None:
    network = Network(source)
    with pytest.raises(ModelError, match=message) as found:
        integer_network(network, stand_in_spans(network), name="net")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", REFUSED)
def test_it_names_operator_layer_and_shape(tmp_path: Path, name: str) -> None:
    make, message = REFUSED[name]
    refused(exported(make(), (3, 8, 8), tmp_path), message)


def test_a_weight_that_is_computed(tmp_path: Path) -> None:
    class Computed(nn.Module):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            return F.conv2d(x_BCHW, x_BCHW.mean((0, 2, 3)).view(1, 3, 1, 1).expand(2, 3, 1, 1))

    refused(exported(Computed(), (3, 8, 8), tmp_path), "cannot lower")


def test_a_constant_that_is_nan_and_a_range_that_is_missing_or_infinite(tmp_path: Path) -> None:
    nodes: list[Node] = [("Conv", ["input", "stem.weight"], "answer", {})]
    constants = {"stem.weight": np.ones((2, 3, 1, 1), np.float32)}
    artifact = written(tmp_path, nodes, constants, (3, 4, 4), {"answer": [2, 4, 4]})
    network = Network(tmp_path / artifact.path)
    spans = stand_in_spans(network)
    for span in ((float("nan"), 1.0), (0.0, float("inf")), (2.0, 1.0)):
        with pytest.raises(ModelError, match="the range of 'answer', the answer of Conv in 'stem', is"):
            integer_network(network, spans | {"answer": span}, name="net")
    with pytest.raises(ModelError, match="no range is given for 'input'; observe all float tensors"):
        integer_network(network, {"answer": (0.0, 1.0)}, name="net")

    network.proto.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.full((2, 3, 1, 1), np.nan, np.float32), "stem.weight")
    )
    with pytest.raises(
        ModelError,
        match=r"Conv of 'stem': its constant 'stem.weight' \(2, 3, 1, 1\) holds NaN or infinite values; train",
    ):
        integer_network(network, spans, name="net")


def test_inputs_that_are_no_images_and_a_network_that_computes_nothing(tmp_path: Path) -> None:
    def saved(shape: list[int | str], operator: str) -> Path:
        graph = helper.make_graph(
            [helper.make_node(operator, ["input"], ["answer"])],
            "net",
            [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("answer", onnx.TensorProto.FLOAT, shape)],
        )
        path = tmp_path / f"{operator}{len(shape)}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
        return path

    refused(saved(["batch", 7], "Relu"), re.escape("inputs 'input' (1, 7): microcontrollers get one image"))
    refused(saved(["batch", 3, 4, 4], "Identity"), "it computes nothing")
    refused(saved(["batch", 3, "height", "width"], "Relu"), "of unknown shape")


def test_ranges_can_be_made_up_without_any_image(tmp_path: Path) -> None:
    source = exported(then(nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Sigmoid()), (3, 8, 8), tmp_path)
    spans = stand_in_spans(Network(source))
    assert sorted(spans.values()) == [(-1.0, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0)]
    with torch.no_grad():
        network = integer_network(Network(source), spans, name="net")
    assert [operator.code for operator in network.operators] == ["CONV_2D", "PAD", "MAX_POOL_2D", "LOGISTIC"]


def test_what_needs_an_image_or_a_row_in_order(tmp_path: Path) -> None:
    rows = (nn.Hardsigmoid(), "HardSigmoid of '\\w+' on \\(1, 320\\) .*only images"), (nn.Softmax(1), "laid flat")
    for number, (layer, message) in enumerate(rows):
        refused(exported(then(nn.Flatten(), layer, nn.Linear(320, 3)), (3, 8, 8), tmp_path / str(number)), message)


def test_weights_that_are_infinite_and_two_inputs(tmp_path: Path) -> None:
    nodes: list[Node] = [("Conv", ["input", "stem.weight"], "answer", {})]
    constants = {"stem.weight": np.ones((2, 3, 1, 1), np.float32)}
    artifact = written(tmp_path, nodes, constants, (3, 4, 4), {"answer": [2, 4, 4]})
    network = Network(tmp_path / artifact.path)
    spans = stand_in_spans(network)
    network.proto.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.full((2, 3, 1, 1), np.inf, np.float32), "stem.weight")
    )
    with pytest.raises(ModelError, match="NaN or infinite"):
        integer_network(network, spans, name="net")
    network = Network(tmp_path / artifact.path)
    network.proto.graph.input.append(helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1, 3, 4, 4]))
    with pytest.raises(
        ModelError, match=r"inputs 'input' \(1, 3, 4, 4\), 'other' \(1, 3, 4, 4\): microcontrollers get one"
    ):
        integer_network(network, spans, name="net")


def test_a_window_that_begins_behind_the_image(tmp_path: Path) -> None:
    about = {"kernel_shape": [1, 1], "strides": [3, 3], "ceil_mode": 1}
    nodes: list[Node] = [("MaxPool", ["input"], "answer", about)]
    artifact = written(tmp_path, nodes, {}, (3, 6, 6), {"answer": [3, "height", "width"]})
    refused(tmp_path / artifact.path, "MaxPool of 'node_answer' .* its last window begins behind the image")
