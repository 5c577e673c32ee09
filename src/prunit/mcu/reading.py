"""What a TensorFlow Lite file holds: ends, operators, constants, and whether a microcontroller will find these."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from prunit.edge.session import engine
from prunit.errors import FileError
from prunit.mcu.flatbuffer import PLACES

_SCHEMA: Final = "ai_edge_litert.schema_py_generated"
_IDENTIFIER: Final = b"TFL3"
_PLAN_HEAD: Final = 3
"""Numbers before the offsets in a plan of an arena."""
_AT: Final = slice(4, 8)
"""Where a flatbuffer says what it is."""


@dataclass(frozen=True)
class End:
    """An input or an output: its shape, type, and what its integers mean."""

    name: str
    shape: tuple[int, ...]
    kind: str
    scale: float | None
    zero_point: int | None

    @property
    def told(self) -> str:
        """In a few words: `int8 1×32×32×3, real = 0.02 · (q + 3)`."""
        text = f"{self.kind} {'×'.join(map(str, self.shape))}"
        if self.scale is None or self.zero_point is None:
            return text
        sign = "+" if self.zero_point < 0 else "−"
        return f"{text}, real = {self.scale:.6g} · (q {sign} {abs(self.zero_point)})"


@dataclass(frozen=True)
class Content:
    """What a file holds. `operators` counts them by name; those in `custom` are none of TensorFlow Lite's.

    `placed`: a plan says where tensors lie in an arena; `misplaced`: of another number of tensors than there are, as in
    files that Vela made of one with a plan. `outside`: some constants stand behind the flatbuffer, where TensorFlow
    Lite Micro does not look.
    """

    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    operators: Mapping[str, int]
    custom: frozenset[str]
    constant_bytes: int
    placed: bool
    misplaced: bool
    outside: bool


def content_of(data: bytes, what: str = "the file") -> Content:
    """What the flatbuffer holds; `FileError` where it is none, `MissingExtraError` without the extra `mcu`."""
    schema: Any = engine(_SCHEMA, extra="mcu")
    if data[_AT] != _IDENTIFIER:
        raise FileError(f"'{what}' is not a TensorFlow Lite file: it does not say {_IDENTIFIER.decode()}")
    try:
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        graph = model.subgraphs[0]
        names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        kinds = {value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
        codes = [_code(names, code) for code in model.operatorCodes]
        told = {each.buffer: bytes(each.name) for each in model.metadata or ()}
        plans = [model.buffers[place].data for place, name in told.items() if name == PLACES.encode()]
        held_as_constants = [held for place, held in enumerate(model.buffers) if place not in told]
        return Content(
            inputs=tuple(_end(kinds, graph.tensors[place]) for place in graph.inputs),
            outputs=tuple(_end(kinds, graph.tensors[place]) for place in graph.outputs),
            operators=dict(Counter(codes[operator.opcodeIndex] for operator in graph.operators).most_common()),
            custom=frozenset(bytes(c.customCode).decode(errors="replace") for c in model.operatorCodes if c.customCode),
            constant_bytes=sum(len(held.data) if held.data is not None else held.size for held in held_as_constants),
            placed=bool(plans),
            misplaced=any(len(plan) != 4 * (_PLAN_HEAD + len(graph.tensors)) for plan in plans),
            outside=any(held.offset > 1 for held in model.buffers),
        )
    except Exception as error:  # what flatbuffers raises for bytes that are cut short shares no base class
        raise FileError(f"'{what}' is a broken TensorFlow Lite file: it is cut short or damaged") from error


def _code(names: Mapping[int, str], code: Any) -> str:
    if code.customCode:
        return bytes(code.customCode).decode(errors="replace")
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return names.get(number, f"operator {number}")


def _end(kinds: Mapping[int, str], tensor: Any) -> End:
    found: Any = tensor.quantization
    scales = [] if found is None or found.scale is None else [float(scale) for scale in found.scale]
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    return End(
        bytes(tensor.name).decode(errors="replace"),
        shape,
        kinds.get(tensor.type, "unknown"),
        scales[0] if len(scales) == 1 else None,
        int(found.zeroPoint[0]) if found is not None and len(scales) == 1 else None,
    )
