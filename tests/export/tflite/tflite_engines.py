"""What reference kernels answer to a network of integers: LiteRT's, and those of TensorFlow Lite Micro."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunit.edge.runtimes import runtime
from prunit.edge.session import Array, outputs_of
from prunit.export import export_onnx
from prunit.export.quantising.network import Network
from prunit.export.quantising.ranges import observed, span
from prunit.export.tflite import integer_network
from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.network import IntegerNetwork
from prunit.mcu.numbers import Int8, quantised, real
from tests.export.int8nets import noise

Shape = tuple[int, int, int]
ARENA = 8_000_000


def exported(model: nn.Module, shape_CHW: Shape, folder: Path) -> Path:
    """The float file of a model."""
    artifact = export_onnx(model.eval(), torch.zeros(1, *shape_CHW), folder, name="float")
    return folder / artifact.path


def lowered(source: Path, shape_CHW: Shape, *, method: str = "minmax", images: int = 32) -> IntegerNetwork:
    """The network of integers of a float file, its ranges found on noise."""
    network = Network(source)
    tensors = network.float_tensors({node.name for node in network.proto.graph.node})
    seen = observed(network, tensors, noise(images, shape_CHW))
    return integer_network(network, {name: span(one, method) for name, one in seen.items()}, name="net")


def litert(network: IntegerNetwork, x_BHWC: Int8) -> list[Int8]:
    """All answers of LiteRT's reference kernels, (B, …) each."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    opened = interpreter.Interpreter(
        model_content=flatbuffer_of(network), experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_REF
    )
    opened.allocate_tensors()
    places = {detail["name"]: detail["index"] for detail in opened.get_output_details()}
    found: list[list[Int8]] = []
    for x_HWC in x_BHWC:
        opened.set_tensor(opened.get_input_details()[0]["index"], x_HWC[None])
        opened.invoke()
        found.append([opened.get_tensor(places[name]).copy() for name in network.outputs])
    return [np.concatenate(one) for one in zip(*found, strict=True)]


def micro(network: IntegerNetwork, x_BHWC: Int8) -> list[Int8]:
    """All answers of TensorFlow Lite Micro's."""
    tflm = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    opened = tflm.Interpreter.from_bytes(flatbuffer_of(network), arena_size=ARENA)
    found: list[list[Int8]] = []
    for x_HWC in x_BHWC:
        opened.set_input(x_HWC[None], 0)
        opened.invoke()
        found.append([opened.get_output(i).copy() for i in range(len(network.outputs))])
    return [np.concatenate(one) for one in zip(*found, strict=True)]


def any_int8(network: IntegerNetwork, count: int, *, seed: int = 0) -> Int8:
    """Images of any numbers that the input can hold."""
    shape = network.by_name[network.inputs[0]].shape
    return np.random.default_rng(seed).integers(-128, 128, (count, *shape[1:]), dtype=np.int8)


def off(network: IntegerNetwork, source: Path, x_BCHW: Array) -> list[float]:
    """How far each answer is from the float file's at most, in steps of the answer, cut off where int8 ends."""
    expected = outputs_of(runtime("onnxruntime").open(source), x_BCHW)
    found = litert(network, quantised(x_BCHW, network.by_name[network.inputs[0]], layout="NCHW"))
    steps: list[float] = []
    for name, q, wanted in zip(network.outputs, found, expected, strict=True):
        tensor = network.by_name[name]
        least, most = (real(np.full_like(q, end), tensor, layout="NCHW") for end in (-128, 127))
        answer = real(q, tensor, layout="NCHW")
        steps.append(float(np.abs(answer - np.clip(wanted, least, most)).max() / tensor.scales[0]))
    return steps
