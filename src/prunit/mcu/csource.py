"""A network as C: the flatbuffer as an array, and what a program needs to run it by TensorFlow Lite Micro.

A header and a source, in C11 as in C++11: the model, the size of its arena, scales and zero points of input and output,
the operators to register, and an input with the answer that is expected, for a test on the device itself.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from prunit.errors import ConfigError, DataError, ModelError
from prunit.mcu.reading import Content, End, content_of

_COMPILED: Final = "ethos-u"
"""The operator into which Vela compiles a network."""
_NUMBERS_A_LINE: Final = 20
_SPECIAL: Final[Mapping[str, str]] = {
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "BATCH_MATMUL": "AddBatchMatMul",
    "CONV_2D": "AddConv2D",
    "CUMSUM": "AddCumSum",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "L2_POOL_2D": "AddL2Pool2D",
    "MAX_POOL_2D": "AddMaxPool2D",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}
"""Methods of `MicroMutableOpResolver` that do not follow from the operator's name, as `AddResizeBilinear` does."""

ARENA_NOTE: Final = "of a 64-bit machine: an upper bound for a 32-bit one without CMSIS-NN; add its scratch buffers"


@dataclass(frozen=True)
class CSource:
    """Texts of NAME.h and NAME.c; the latter also compiles as C++."""

    name: str
    header: str
    source: str


def method_of(code: str) -> str:
    """The method of `MicroMutableOpResolver` that registers an operator: `CONV_2D` gives `AddConv2D`."""
    return _SPECIAL.get(code) or "Add" + "".join(word.capitalize() for word in code.split("_"))


def c_source(
    data: bytes,
    name: str,
    *,
    arena_bytes: int,
    x_int8_1: npt.NDArray[np.int8],
    y_int8_1: npt.NDArray[np.int8],
    arena_note: str = ARENA_NOTE,
    notes: Sequence[str] = (),
) -> CSource:
    """The flatbuffer as C, called `name` (an identifier of C), with one input and its expected first output.

    `arena_bytes` is what `prunit.mcu.tflm.arena` says, an upper bound for a 32-bit microcontroller, or another figure
    of which `arena_note` tells; `notes` are lines for the head of the header, as where the network comes from.
    `x_int8_1` and `y_int8_1` are (1, …) as the network takes and gives them. A network compiled for an Ethos-U
    registers `AddEthosU`. Raises `ConfigError` for a name that C does not take, `DataError` for a test vector of
    another size than the network's.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ConfigError(f"'{name}' is no identifier of C: letters, digits and _, a letter first")
    content = content_of(data, name)
    taken, given = _integers(content.inputs[0]), _integers(content.outputs[0])
    for what, array, side in (("input", x_int8_1, taken), ("output", y_int8_1, given)):
        if array.dtype != np.int8 or array.size != int(np.prod(side.shape)):
            raise DataError(f"the {what} of '{name}' is int8 {side.shape}, got {array.dtype} {array.shape}")
    methods = _methods(content)
    return CSource(
        name,
        _header(name, len(data), arena_bytes, arena_note, taken, given, methods, notes),
        _source(name, data, x_int8_1, y_int8_1),
    )


def _integers(end: End) -> End:
    if end.kind != "int8" or end.scale is None or end.zero_point is None:
        raise ModelError(f"tensor '{end.name}' is not int8 with one scale: C source is made of integers")
    return end


def _methods(content: Content) -> list[str]:
    unknown = sorted(content.custom - {_COMPILED})
    if unknown:
        raise ModelError(f"TensorFlow Lite Micro has no method for the operator '{unknown[0]}'")
    return sorted({"AddEthosU" if code == _COMPILED else method_of(code) for code in content.operators})


def _header(
    name: str,
    size: int,
    arena: int,
    arena_note: str,
    taken: End,
    given: End,
    methods: Sequence[str],
    notes: Sequence[str],
) -> str:
    upper = name.upper()
    resolver = " ".join(f"(resolver).{method}();" for method in methods)
    lines = [
        *(f"// {_one_line(note)}" for note in notes),
        f"#ifndef {upper}_H_",
        f"#define {upper}_H_",
        "",
        "#include <stdint.h>",
        "",
        f"#define {upper}_MODEL_BYTES {size}u",
        f"// {_one_line(arena_note)}",
        f"#define {upper}_ARENA_BYTES {arena}u",
        "",
        "// real = (q - ZERO_POINT) * SCALE; images are batch 1, channels last",
        *_side_lines(f"{upper}_INPUT", taken),
        *_side_lines(f"{upper}_OUTPUT", given),
        "",
        f"// static tflite::MicroMutableOpResolver<{upper}_OPERATORS> resolver; {upper}_REGISTER(resolver)",
        f"#define {upper}_OPERATORS {len(methods)}",
        f"#define {upper}_REGISTER(resolver) {resolver}",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"extern const unsigned char {name}_model[{upper}_MODEL_BYTES];",
        "// an input, and what the network answers: by the reference kernels, to the bit",
        f"extern const int8_t {name}_test_input[{upper}_INPUT_BYTES];",
        f"extern const int8_t {name}_test_output[{upper}_OUTPUT_BYTES];",
        "",
        "#ifdef __cplusplus",
        '}  // extern "C"',
        "#endif",
        "",
        f"#endif  // {upper}_H_",
    ]
    return "\n".join(lines) + "\n"


def _side_lines(prefix: str, side: End) -> list[str]:
    return [
        f"#define {prefix}_SCALE {np.float32(side.scale)!s}f",
        f"#define {prefix}_ZERO_POINT ({side.zero_point})",
        f"#define {prefix}_BYTES {int(np.prod(side.shape))}u",
        f"#define {prefix}_SHAPE {{{', '.join(map(str, side.shape))}}}",
        f"#define {prefix}_DIMENSIONS {len(side.shape)}",
    ]


def _source(name: str, data: bytes, x: npt.NDArray[np.int8], y: npt.NDArray[np.int8]) -> str:
    arrays = (
        (f"alignas(16) const unsigned char {name}_model", np.frombuffer(data, np.uint8)),
        (f"alignas(16) const int8_t {name}_test_input", x),
        (f"alignas(16) const int8_t {name}_test_output", y),
    )
    parts = [f'#include "{name}.h"\n', "#ifndef __cplusplus\n#include <stdalign.h>\n#endif\n"]
    for declared, values in arrays:
        flat = values.ravel()
        rows = [
            "  " + ", ".join(map(str, flat[at : at + _NUMBERS_A_LINE].tolist())) + ","
            for at in range(0, len(flat), _NUMBERS_A_LINE)
        ]
        parts.append("\n".join([f"{declared}[{len(flat)}] = {{", *rows, "};", ""]))
    return "\n".join(parts)


def _one_line(note: str) -> str:
    """A note that ends no comment and begins no line of code; a backslash at its end would swallow the next line."""
    return "".join(c if c.isprintable() else " " for c in note).rstrip("\\ ").replace("??/", "? ?/")
