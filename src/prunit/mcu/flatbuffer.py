"""The bytes of a network of integers: a TensorFlow Lite flatbuffer, schema version 3.

Constants stand inside the flatbuffer, however large: the schema allows them behind it too, where TensorFlow Lite Micro
does not look. The same network gives the same bytes.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from prunit.edge.session import engine
from prunit.errors import ModelError
from prunit.mcu.network import IntegerNetwork, Operator, Tensor

_SCHEMA: Final = "ai_edge_litert.schema_py_generated"
_IDENTIFIER: Final = b"TFL3"
_VERSION: Final = 3
PLACES: Final = "OfflineMemoryAllocation"
"""The metadata in which TensorFlow Lite Micro looks for where tensors lie in its arena."""
_PLAN: Final = 1
"""The version of such a plan."""
_UNPLACED: Final = -1
_OLD_CODES: Final = 127
"""The largest code that the field holds in which old readers look."""

_OPTIONS: Final[Mapping[str, str]] = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPLIT": "SplitOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
}
"""The schema's table of options; an operator that is not named here has none."""

_ENUMS: Final[Mapping[str, str]] = {"padding": "Padding", "fusedActivationFunction": "ActivationFunctionType"}


def flatbuffer_of(network: IntegerNetwork, *, offsets: Mapping[str, int] | None = None) -> bytes:
    """The file of a network, with `offsets` in bytes at which its tensors lie in an arena (`placing.offsets_of`).

    Tensors that are not named there TensorFlow Lite Micro places by itself. Raises `ModelError` for an operator or an
    option that the schema does not have, and `MissingExtraError` without the extra `mcu`.
    """
    schema: Any = engine(_SCHEMA, extra="mcu")
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description = _VERSION, "prunit"
    model.buffers = [schema.BufferT()]  # the first is that of tensors without values
    model.subgraphs, graph.name = [graph], network.name
    places = {"": -1}
    graph.tensors = []
    for tensor in network.tensors:
        places[tensor.name] = len(graph.tensors)
        graph.tensors.append(_tensor(schema, model, tensor))
    codes = list(dict.fromkeys((operator.code, operator.version) for operator in network.operators))
    model.operatorCodes = [_code(schema, *each) for each in codes]
    graph.operators = [_operator(schema, operator, codes, places) for operator in network.operators]
    graph.inputs = [places[name] for name in network.inputs]
    graph.outputs = [places[name] for name in network.outputs]
    if offsets:
        model.metadata = [_placed(schema, model, network, offsets)]
    return _packed(model)


def without_places(data: bytes) -> bytes:
    """A file without the plan of an arena that stands in it; the same bytes where there is none."""
    if PLACES.encode() not in data:  # taking a file apart takes longer than to look for a name
        return data
    schema: Any = engine(_SCHEMA, extra="mcu")
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    plans = [each for each in model.metadata or () if each.name == PLACES.encode()]
    if not plans:
        return data
    model.metadata = [each for each in model.metadata if each not in plans] or None
    for plan in plans:
        model.buffers[plan.buffer] = schema.BufferT()
    return _packed(model)


def _packed(model: Any) -> bytes:
    flatbuffers: Any = engine("flatbuffers", extra="mcu")
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _placed(schema: Any, model: Any, network: IntegerNetwork, offsets: Mapping[str, int]) -> Any:
    """The plan of an arena as TensorFlow Lite Micro reads it: version, graph, and an offset for each tensor, or -1."""
    each = [offsets.get(tensor.name, _UNPLACED) for tensor in network.tensors]
    made = schema.MetadataT()
    made.name, made.buffer = PLACES, len(model.buffers)
    model.buffers.append(_buffer(schema, np.array([_PLAN, 0, len(each), *each], np.int32)))
    return made


def _buffer(schema: Any, values: np.ndarray) -> Any:
    held = schema.BufferT()
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    held.data = np.frombuffer(little.tobytes(), np.uint8)
    return held


def _tensor(schema: Any, model: Any, tensor: Tensor) -> Any:
    made = schema.TensorT()
    made.name, made.shape = tensor.name, list(tensor.shape)
    made.type = getattr(schema.TensorType, tensor.kind.upper())
    if tensor.values is not None:
        made.buffer = len(model.buffers)
        model.buffers.append(_buffer(schema, tensor.values))
    if tensor.scales:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = np.array(tensor.scales, np.float32)
        made.quantization.zeroPoint = np.full(len(tensor.scales), tensor.zero_point, np.int64)
        made.quantization.quantizedDimension = tensor.axis
    return made


def _code(schema: Any, code: str, version: int) -> Any:
    made = schema.OperatorCodeT()
    number = getattr(schema.BuiltinOperator, code, None)
    if number is None:
        raise ModelError(f"TensorFlow Lite has no operator called '{code}'")
    made.builtinCode, made.deprecatedBuiltinCode, made.version = number, min(number, _OLD_CODES), version
    return made


def _operator(schema: Any, operator: Operator, codes: list[tuple[str, int]], places: Mapping[str, int]) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex = codes.index((operator.code, operator.version))
    made.inputs = [places[name] for name in operator.inputs]
    made.outputs = [places[name] for name in operator.outputs]
    table = _OPTIONS.get(operator.code)
    if table is None:
        if operator.options:
            raise ModelError(f"{operator.code} of '{operator.layer}' has no options; got {sorted(operator.options)}")
        return made
    options = getattr(schema, f"{table}T")()
    for name, value in operator.options.items():
        if not hasattr(options, name):
            raise ModelError(f"{operator.code} of '{operator.layer}' has no option '{name}'")
        setattr(options, name, getattr(getattr(schema, _ENUMS[name]), value) if name in _ENUMS else value)
    made.builtinOptionsType, made.builtinOptions = getattr(schema.BuiltinOptions, table), options
    return made
