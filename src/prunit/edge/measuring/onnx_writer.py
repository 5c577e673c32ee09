"""ONNX files of single layers, written by hand: a device that is to be measured needs no package for it.

The format is protocol buffers: each field is a key (number and wire type) and a value. Field numbers and codes are
those of onnx.proto (ONNX 1.16); tests read the files back with the onnx package.
"""

from collections.abc import Mapping, Sequence

import numpy as np

_IR_VERSION, _OPSET = 8, 17
_FLOAT, _INT_ATTRIBUTE, _INTS_ATTRIBUTE = 1, 2, 7


def node(
    op: str, inputs: Sequence[str], output: str, attributes: Mapping[str, int | Sequence[int]] | None = None
) -> bytes:
    """An operator with one output, which also names it."""
    return b"".join(
        (
            *(_bytes(1, name.encode()) for name in inputs),
            _bytes(2, output.encode()),
            _bytes(3, output.encode()),
            _bytes(4, op.encode()),
            *(_bytes(5, _attribute(name, value)) for name, value in (attributes or {}).items()),
        )
    )


def weight(name: str, values: np.ndarray) -> bytes:
    """A float32 tensor that the model holds."""
    data = np.ascontiguousarray(values, dtype="<f4").tobytes()
    return b"".join(_number(1, size) for size in values.shape) + b"".join(
        (_number(2, _FLOAT), _bytes(8, name.encode()), _bytes(9, data))
    )


def model(nodes: Sequence[bytes], weights: Sequence[bytes], x: tuple[str, Sequence[int]], y: str) -> bytes:
    """The file of a model with the float32 input `x` (name, shape) and the output `y`, of as many dimensions."""
    graph = b"".join(
        (
            *(_bytes(1, part) for part in nodes),
            _bytes(2, b"layer"),
            *(_bytes(5, part) for part in weights),
            _bytes(11, _value(*x)),
            _bytes(12, _value(y, [0] * len(x[1]))),
        )
    )
    opset = _bytes(1, b"") + _number(2, _OPSET)
    return _number(1, _IR_VERSION) + _bytes(2, b"prunit") + _bytes(7, graph) + _bytes(8, opset)


def _value(name: str, shape: Sequence[int]) -> bytes:
    """A float32 tensor that goes in or out; a size of 0 is for the engine to find."""
    dims = b"".join(_bytes(1, _number(1, size) if size else b"") for size in shape)
    tensor = _number(1, _FLOAT) + _bytes(2, dims)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return _bytes(1, name.encode()) + _number(3, value) + _number(20, _INT_ATTRIBUTE)
    return _bytes(1, name.encode()) + b"".join(_number(8, v) for v in value) + _number(20, _INTS_ATTRIBUTE)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; the top bit says that more follow."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
