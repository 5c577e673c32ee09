"""An exported float network as the quantiser sees it: its layers with weights, and what lies between them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prunit.edge.session import Array, engine
from prunit.errors import FileError, ModelError

WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose second input is a constant weight, which becomes int8."""
_FOLDED: Final = ("Relu", "Clip")
"""What an integer layer before them does by itself: its numbers end where these cut off."""
_BETWEEN: Final = (
    *("Add", "Mul", "Concat", "Resize", "MaxPool", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid"),
    *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Pad"),
)
"""Operators that engines compute on integers, or that only move them."""


@dataclass(frozen=True)
class Layer:
    """An operator with weights: `node` is the graph's name for it, `name` the module's, as far as the file says."""

    name: str
    node: str
    operator: str
    inputs: int
    outputs: int


class Network:
    """A float ONNX file in memory, every operator with a name and every tensor with a type."""

    def __init__(self, path: Path) -> None:
        onnx: Any = engine("onnx", extra="train")
        try:
            proto = onnx.load(path)
            self.proto: Any = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        except Exception as error:  # protobuf's and onnx's share no base class
            raise FileError(f"cannot quantise '{path}': it is no ONNX file that can be read: {error}") from error
        taken = {node.name for node in self.proto.graph.node}
        for number, node in enumerate(self.proto.graph.node):
            if not node.name:
                node.name = next(name for name in _names(f"node_{node.op_type}_{number}") if name not in taken)
        if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in self.proto.graph.node):
            raise ModelError(f"cannot quantise '{path}': it holds integers already; start from the float file")

    @cached_property
    def constants(self) -> Mapping[str, Array]:
        """The float32 constants by name."""
        onnx: Any = engine("onnx", extra="train")
        graph, float32 = self.proto.graph, onnx.TensorProto.FLOAT
        return {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer if t.data_type == float32}

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The operators with weights, in the file's order."""
        return tuple(_layer(node, self.constants) for node in self.proto.graph.node if self._is_layer(node))

    def integer_nodes(self, layers: Collection[Layer]) -> set[str]:
        """The operators that compute on integers if these layers do: themselves, and what lies between two of them.

        An activation that a layer does by itself belongs to it. What only follows the last ones, such as the boxes that
        are computed of what a detector's heads say, stays float: nothing there is worth a rounding.
        """
        chosen = {layer.node for layer in layers}
        before, after = self._nearest(), self._nearest(backwards=True)
        found = set(chosen)
        for node in self.proto.graph.node:
            maker = self._makers.get(node.input[0]) if node.input else None
            folded = node.op_type in _FOLDED and maker is not None and maker.name in found
            between = node.op_type in _BETWEEN and before[node.name] & chosen and after[node.name] & chosen
            if folded or (between and not self._is_layer(node)):
                found.add(node.name)
        return found

    def float_tensors(self, nodes: Collection[str]) -> list[str]:
        """The float32 tensors, other than constants, that these operators read and write, in the file's order."""
        onnx: Any = engine("onnx", extra="train")
        graph = self.proto.graph
        types = {
            value.name: value.type.tensor_type.elem_type
            for values in (graph.value_info, graph.input, graph.output)
            for value in values
        }
        found: dict[str, None] = {}
        for node in graph.node:
            if node.name in nodes:
                found.update(
                    (name, None)
                    for name in (*node.input, *node.output)
                    if types.get(name) == onnx.TensorProto.FLOAT and name not in self.constants
                )
        return list(found)

    def _is_layer(self, node: Any) -> bool:
        return node.op_type in WEIGHTED and node.input[1] in self.constants

    @cached_property
    def _makers(self) -> Mapping[str, Any]:
        return {name: node for node in self.proto.graph.node for name in node.output}

    def _nearest(self, *, backwards: bool = False) -> Mapping[str, set[str]]:
        """For each operator the layers that come before it with no other between, or those after it."""
        nodes = list(self.proto.graph.node)
        reached: dict[str, set[str]] = {}  # by tensor
        found: dict[str, set[str]] = {}
        for node in reversed(nodes) if backwards else nodes:
            sources, targets = (node.output, node.input) if backwards else (node.input, node.output)
            found[node.name] = set().union(*(reached.get(name, set()) for name in sources))
            passed = {node.name} if self._is_layer(node) else found[node.name]
            for name in targets:
                reached[name] = reached.get(name, set()) | passed
        return found


def scale_axis(node: Any) -> int:
    """The dimension of a layer's weight that counts its outputs."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return 1


def by_channel(weight: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """The weight as a matrix with a row for each output channel."""
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def _layer(node: Any, constants: Mapping[str, Array]) -> Layer:
    weight = constants[node.input[1]]
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if node.op_type in ("Conv", "ConvTranspose"):
        first, second = weight.shape[:2]
        inputs, outputs = (second * groups, first) if node.op_type == "Conv" else (first, second * groups)
    else:
        axis = scale_axis(node) % weight.ndim
        outputs, inputs = weight.shape[axis], weight.size // weight.shape[axis]
    name = node.input[1].removesuffix(".weight") if node.input[1].endswith(".weight") else node.name
    return Layer(name, node.name, node.op_type, int(inputs), int(outputs))


def _names(first: str) -> Iterable[str]:
    name = first
    while True:
        yield name
        name += "_"
