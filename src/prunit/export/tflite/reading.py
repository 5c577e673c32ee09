"""The float graph as the lowering sees it: for one image, every shape a number, activations joined to their layers."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prunit.edge.session import engine
from prunit.errors import ModelError
from prunit.export.quantising.network import WEIGHTED, Network

Values = npt.NDArray[Any]
Shape = tuple[int, ...]
Cut = tuple[float, float]

FREE: Final[Cut] = (-math.inf, math.inf)
FLAGS: Final[Mapping[Cut, str]] = {
    FREE: "NONE",
    (0.0, math.inf): "RELU",
    (0.0, 6.0): "RELU6",
    (-1.0, 1.0): "RELU_N1_TO_1",
}
"""What kernels cut off by themselves, by its ends."""
_CUTTING: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "BatchNormalization")
"""Operators that can cut off what they answer, so that a ReLU after them costs nothing."""
_SAME: Final = ("Identity", "Dropout")


@dataclass(frozen=True, eq=False)
class Step:
    """An operator of the float graph; `layer` is the module whose weights it has, or else the node's name.

    `cut` are the ends that a ReLU or clip after it sets to its answer.
    """

    operator: str
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    cut: Cut = FREE

    @property
    def output(self) -> str:
        """Its first output, of most operators the only one."""
        return self.outputs[0]

    def input(self, index: int) -> str:
        """The name of an input, '' where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True, eq=False)
class FloatGraph:
    """Steps in the order in which they run; shapes of all tensors as ONNX has them, with batch 1."""

    steps: Sequence[Step]
    shapes: Mapping[str, Shape]
    constants: Mapping[str, Values]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def shape(self, name: str) -> Shape:
        """A tensor's shape; ModelError where it depends on what is computed."""
        if name not in self.shapes:
            raise ModelError(
                f"cannot lower the graph to integers: the shape of '{name}' is only known when it runs; "
                "write sizes in the model's forward as numbers"
            )
        return self.shapes[name]

    @cached_property
    def makers(self) -> Mapping[str, Step]:
        """The step that makes a tensor, by the tensor's name."""
        return {name: step for step in self.steps for name in step.outputs}

    def refused(self, step: Step, why: str, instead: str) -> ModelError:
        """The error for a step that has no counterpart: one line with its operator, layer and shapes."""
        known = [self.shapes.get(name) for name in step.inputs if name and name not in self.constants]
        shapes = " and ".join("unknown" if shape is None else str(shape) for shape in known) or "no tensor"
        return ModelError(
            f"cannot lower {step.operator} of '{step.layer}' on {shapes} to integers for microcontrollers: {why}; "
            f"{instead}"
        )


def float_graph(network: Network) -> FloatGraph:
    """The graph of a float file for a batch of one, with what follows from shapes computed.

    Raises `ModelError` for other inputs than one tensor of images, and for constants that are not finite.
    """
    proto = _for_one_image(network)
    onnx: Any = engine("onnx", extra="train")
    graph = proto.graph
    constants: dict[str, Values] = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    shapes: dict[str, Shape] = {name: values.shape for name, values in constants.items()}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim]
        if kind.HasField("shape") and min(sizes, default=0) >= 0:
            shapes[value.name] = tuple(sizes)
    inputs = tuple(value.name for value in graph.input if value.name not in constants)
    layers = {layer.node: layer.name for layer in network.layers}
    steps = [
        Step(
            node.op_type,
            layers.get(node.name, _module(node, constants)),
            tuple(node.input),
            tuple(node.output),
            {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
        )
        for node in graph.node
    ]
    outputs = tuple(value.name for value in graph.output)
    steps, outputs = _without_identities(steps, outputs)
    found = FloatGraph(steps, shapes, constants, inputs, outputs)
    _check(found)
    return replace(found, steps=_joined(found))


def float_constant(graph: FloatGraph, name: str) -> npt.NDArray[np.float64] | None:
    """The values of a constant, None for what is none (also for '')."""
    values = graph.constants.get(name)
    return None if values is None else values.astype(np.float64)


def cut_of(step: Step, constants: Mapping[str, Values]) -> Cut | None:
    """Where a ReLU or clip cuts off, None for another operator or ends that are computed."""
    if step.operator == "Relu":
        return 0.0, math.inf
    if step.operator != "Clip":
        return None
    ends = list(FREE)
    for i, name in enumerate((step.input(1), step.input(2))):
        if name and name not in constants:
            return None
        if name:
            ends[i] = float(constants[name].reshape(-1)[0])
    return ends[0], ends[1]


def _for_one_image(network: Network) -> Any:
    """A copy of the file for batch 1: shapes that were computed are constants in it."""
    onnx: Any = engine("onnx", extra="train")
    onnx_ir: Any = engine("onnx_ir", extra="train")
    optimizer: Any = engine("onnxscript.optimizer", extra="train")
    passes: Any = engine("onnx_ir.passes.common", extra="train")
    proto = onnx.ModelProto()
    proto.CopyFrom(network.proto)
    del proto.graph.value_info[:]
    for value in (*proto.graph.input, *proto.graph.output):
        sizes = value.type.tensor_type.shape.dim
        if sizes and not sizes[0].HasField("dim_value"):
            sizes[0].dim_value = 1
    model = onnx_ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    optimizer.fold_constants(model, onnx_shape_inference=True)
    passes.RemoveUnusedNodesPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    folded = onnx_ir.to_proto(model)
    return onnx.shape_inference.infer_shapes(folded, data_prop=True)


def _module(node: Any, constants: Mapping[str, Values]) -> str:
    """The module whose constant a node reads, or else the node's own name."""
    for name in node.input[1:]:
        module, _, ending = name.rpartition(".")
        if name in constants and module and ending in ("weight", "bias", "running_mean"):
            return module
    return str(node.name)


def _check(graph: FloatGraph) -> None:
    if len(graph.inputs) != 1 or len(graph.shapes.get(graph.inputs[0], ())) != 4:
        found = ", ".join(f"'{name}' {graph.shapes.get(name, 'of unknown shape')}" for name in graph.inputs)
        raise ModelError(
            f"cannot lower a network with inputs {found}: microcontrollers get one image (1, C, H, W); "
            "export the model with an example of that shape"
        )
    for step in graph.steps:
        for name in step.inputs:
            values = graph.constants.get(name)
            if values is None or values.dtype.kind != "f":
                continue
            if np.isnan(values).any() or (step.operator in WEIGHTED and not np.isfinite(values).all()):
                raise ModelError(
                    f"cannot lower {step.operator} of '{step.layer}': its constant '{name}' {values.shape} holds NaN "
                    "or infinite values; train or export the model anew"
                )


def _without_identities(steps: Sequence[Step], outputs: tuple[str, ...]) -> tuple[list[Step], tuple[str, ...]]:
    """The steps without those that answer what they got."""
    same: dict[str, str] = {}
    kept: list[Step] = []
    for step in steps:
        inputs = tuple(same.get(name, name) for name in step.inputs)
        if step.operator in _SAME:
            same[step.output] = inputs[0]
        else:
            kept.append(replace(step, inputs=inputs))
    return kept, tuple(same.get(name, name) for name in outputs)


def _joined(graph: FloatGraph) -> list[Step]:
    """The steps with every ReLU and clip joined to the layer before, where nothing else reads what that answers.

    One that stands alone is called Relu, whatever its ends.
    """
    readers = Counter(name for step in graph.steps for name in dict.fromkeys(step.inputs))
    found: dict[str, Step] = {}  # by output
    for step in graph.steps:
        cut, before = cut_of(step, graph.constants), found.get(step.input(0))
        if cut is None:
            found[step.output] = replace(step, cut=(0.0, 1.0)) if step.operator == "HardSigmoid" else step
            continue
        found[step.output] = replace(step, operator="Relu", inputs=step.inputs[:1], cut=cut)
        alone = before is not None and readers[before.output] == 1 and before.output not in graph.outputs
        if before is not None and alone and before.operator in (*_CUTTING, "Relu"):
            both = max(before.cut[0], cut[0]), min(before.cut[1], cut[1])
            if both[0] <= 0 <= both[1]:
                del found[before.output], found[step.output]
                found[step.output] = replace(before, outputs=step.outputs, cut=both)
    return list(found.values())
