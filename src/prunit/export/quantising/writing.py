"""One int8 network: a float one with ranges for its tensors, written as an ONNX file that holds integers."""

import contextlib
import logging
from collections.abc import Collection, Generator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prunit.edge.session import engine
from prunit.export.quantising.network import Layer, Network, by_channel, scale_axis
from prunit.export.quantising.ranges import Span

Figures = npt.NDArray[np.float64]

LARGEST_BIAS: Final = 2.0**28
"""In steps. A bias is an int32 to which products are added: it must leave them room, or the sum turns its sign."""
_LEAST_STEP: Final = 1e-30
"""Of a bias: below about 1e-38 float32 loses it."""
_LEAST_SPAN: Final = 1e-12
"""A tensor that is always 0 gets steps too: of size 0 they would make NaN."""


def int8_bytes(
    network: Network, layers: Collection[Layer], spans: Mapping[str, Span], *, reduced: bool = False
) -> bytes:
    """The file in which these layers compute on integers: weights int8 by channel, what flows between them uint8.

    With `reduced` weights are of 7 bits, for processors that add two products in 16 bits (see `quantised`).
    The bytes are the same for the same arguments. A layer whose answer is the model's own answers in float.
    """
    quantization: Any = engine("onnxruntime.quantization", extra="train")
    qdq: Any = engine("onnxruntime.quantization.qdq_quantizer", extra="train")
    calibrate: Any = engine("onnxruntime.quantization.calibrate", extra="train")
    utils: Any = engine("onnxruntime.quantization.quant_utils", extra="train")
    onnx: Any = engine("onnx", extra="train")
    proto = onnx.ModelProto()
    proto.CopyFrom(network.proto)
    utils.add_infer_metadata(proto)  # else the library infers shapes once more, through files
    nodes = network.integer_nodes(layers)
    spans = {name: widened(ends) for name, ends in spans.items()}
    ranges = {
        name: calibrate.TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in spans.items()
    }
    with silent():
        quantizer = qdq.QDQQuantizer(
            proto,
            True,  # by channel
            reduced,
            quantization.QuantType.QInt8,
            quantization.QuantType.QUInt8,
            calibrate.TensorsData(quantization.CalibrationMethod.MinMax, ranges),
            sorted(nodes),
            [],
            sorted({node.op_type for node in proto.graph.node if node.name in nodes}),
            {"TensorQuantOverrides": _overrides(network, layers, spans, reduced=reduced), "WeightSymmetric": True},
        )
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    made = quantizer.model.model
    _answer_in_float(made, {layer.node for layer in layers if layer.operator in ("Gemm", "MatMul")})
    _strip(made)
    _raise_opset(made)
    onnx.checker.check_model(made)  # as the library leaves them, the operators stand in no order
    return made.SerializeToString(deterministic=True)


def widened(ends: Span) -> Span:
    """The span with 0 in it and more than nothing between its ends."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    return (low, high) if high - low > _LEAST_SPAN else (0.0, max(1.0, high))


def _overrides(
    network: Network, layers: Collection[Layer], spans: Mapping[str, Span], *, reduced: bool
) -> dict[str, list[dict[str, Any]]]:
    """For weights with a channel so small beside its bias that this would not fit into its integer: larger steps."""
    found: dict[str, tuple[int, Figures]] = {}
    chosen, steps = {layer.node for layer in layers}, 63 if reduced else 127
    for node in network.proto.graph.node:
        if node.name not in chosen:
            continue
        low, high = spans[node.input[0]]
        axis = scale_axis(node)
        rows = by_channel(network.constants[node.input[1]], axis)
        bias = network.constants.get(node.input[2]) if len(node.input) > 2 else None
        least = np.full(len(rows), _LEAST_STEP)
        if bias is not None and bias.size == len(rows):
            least = np.maximum(least, np.abs(bias.reshape(-1)) / LARGEST_BIAS)
        least *= steps / ((high - low) / 255)
        largest = np.abs(rows).max(axis=1).astype(np.float64)
        if (largest < least).any():
            _, ends = found.get(node.input[1], (axis, largest))  # two layers may share a weight
            found[node.input[1]] = axis, np.maximum(ends, least)
    return {
        name: [{"axis": axis, "rmin": np.float32(-end), "rmax": np.float32(end)} for end in ends]
        for name, (axis, ends) in found.items()
    }


def _answer_in_float(proto: Any, nodes: Collection[str]) -> None:
    """Takes the rounding away from what the network answers, where an engine's layer can answer in float."""
    graph = proto.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for output in graph.output:
        back = makers.get(output.name)
        forth = makers.get(back.input[0]) if back is not None and back.op_type == "DequantizeLinear" else None
        layer = makers.get(forth.input[0]) if forth is not None and forth.op_type == "QuantizeLinear" else None
        if back is None or forth is None or layer is None or layer.name not in nodes or readers.get(output.name):
            continue
        if len(readers[forth.input[0]]) == len(readers[forth.output[0]]) == 1:
            layer.output[0] = output.name
            for node in (forth, back):
                graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _raise_opset(proto: Any) -> None:
    """To 19, which only allows more than 18: onnx's own evaluator knows integers from there on."""
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = max(opset.version, 19)


def _strip(proto: Any) -> None:
    del proto.metadata_props[:]
    del proto.graph.value_info[:]
    ordered = sorted(proto.graph.initializer, key=lambda tensor: tensor.name)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(ordered)


@contextlib.contextmanager
def silent() -> Generator[None, None, None]:
    """Keeps the library's notes off the screen, which it writes with the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
