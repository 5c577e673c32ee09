"""The Open Inference Protocol, version 2 (also: KServe v2), over HTTP: from bytes to tensors and back.

Tensors stand in the JSON, or behind it as raw little-endian bytes (the binary tensor data extension: the length of the
JSON is in the header `Inference-Header-Content-Length`). Pure functions; what a client did wrong is a `Refusal`.
"""

import array
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, NoReturn, cast

import numpy as np
import orjson

from prunit.edge.portfolio import Artifact, Output, Portfolio, Preprocessing
from prunit.edge.serve.settings import Refusal
from prunit.edge.session import Array
from prunit.version import VERSION

HEADER: Final = "inference-header-content-length"
EXTENSIONS: Final = ("binary_tensor_data", "model_repository", "classification", "schedule_timeout")
_LONGEST_ID: Final = 256
_SIZES: Final = {"FP32": 4, "UINT8": 1}
_LARGEST_INT: Final = 2.0**63
_write: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_KINDS: Final = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}


@dataclass(frozen=True)
class Wanted:
    """One of the model's outputs, by its index, as a client wants it."""

    index: int
    binary: bool = False
    classes: int = 0
    """So many best classes as texts "score:index:label" instead of the scores; 0: the scores."""


class InferRequest(NamedTuple):
    """What a client wants: of x_BCHW (float32, normalised) these outputs, in this order."""

    x_BCHW: Array
    outputs: tuple[Wanted, ...]
    id: str = ""
    timeout_ms: float | None = None


class Form(NamedTuple):
    """What the JSON before binary FP32 says: the same again and again, for other numbers."""

    shape: tuple[int, ...]
    bytes: int
    outputs: tuple[Wanted, ...]
    id: str
    timeout_ms: float | None

    @classmethod
    def of(cls, asked: InferRequest, follow: int) -> "Form | None":
        """Of a request that was parsed, if `follow` bytes behind its JSON were its numbers as they are."""
        if asked.x_BCHW.nbytes != follow:
            return None
        return cls(asked.x_BCHW.shape, follow, asked.outputs, asked.id, asked.timeout_ms)

    def filled(self, raw: memoryview) -> InferRequest:
        """The request with these numbers, as many as the form has."""
        x_BCHW = _finite(np.frombuffer(raw, _KINDS["FP32"]).reshape(self.shape))
        return InferRequest(x_BCHW, self.outputs, self.id, self.timeout_ms)


def parse(
    body: bytes | bytearray | memoryview,
    json_length: int | None,
    artifact: Artifact,
    preprocessing: Preprocessing,
    most: int,
) -> InferRequest:
    """The request in a body whose JSON has `json_length` bytes (None: all of it); `most` images at most.

    The input is FP32 of shape (B, C, H, W), or UINT8: images from 0 to 255, which are normalised here.
    """
    view = memoryview(body)
    if json_length is not None and not 0 <= json_length <= len(view):
        raise Refusal(400, f"{HEADER} is {json_length}, and the body has {len(view)} bytes")
    head = _json(view if json_length is None else view[:json_length])
    raw = view[len(view) if json_length is None else json_length :]
    inputs = head.get("inputs")
    if not isinstance(inputs, list) or len(cast("list[Any]", inputs)) != 1:
        raise Refusal(400, f"'inputs' must hold one tensor, '{artifact.input_name}'")
    x_BCHW = _tensor(_object(inputs[0], "inputs[0]"), raw, artifact, preprocessing, most)
    parameters = _object(head.get("parameters", {}), "parameters")
    outputs = _wanted(head, parameters, artifact)
    name = head.get("id", "")
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)  # the protocol wants a text; many a client counts
    if not isinstance(name, str) or len(name) > _LONGEST_ID:
        raise Refusal(400, f"'id' must be a text of at most {_LONGEST_ID} characters, or a whole number")
    return InferRequest(x_BCHW, outputs, name, _timeout_ms(parameters))


def answer(
    request: InferRequest,
    outputs: Sequence[Array],
    artifact: Artifact,
    labels: Sequence[str],
    *,
    model: str,
    variant: str,
    figures: Mapping[str, float],
) -> tuple[bytes, int | None]:
    """The body of the answer, and the length of its JSON if binary data follow it: in the order of the outputs."""
    told: list[str] = []
    rest: list[bytes] = []
    for wanted in request.outputs:
        output = outputs[wanted.index]
        if wanted.classes or not wanted.binary:
            check_finite(output, variant)
        kind, shape, text, data = _as_wanted(wanted, output, labels)
        if wanted.binary:
            text = f'"parameters":{{"binary_data_size":{len(data)}}}'
            rest.append(data)
        sizes = ",".join(map(str, shape))
        name = _quoted(artifact.outputs[wanted.index].name)
        told.append(f'{{"name":{name},"datatype":"{kind}","shape":[{sizes}],{text}}}')
    # Put together by hand: the names are always the same, and a dictionary that is only written takes twice as long.
    who = f'"model_name":{_quoted(model)},"model_version":{_quoted(variant)}'
    own = ",".join([f"{_quoted(name)}:{number!r}" for name, number in figures.items()])
    asked_id = f',"id":{_write(request.id)}' if request.id else ""
    head = f'{{{who},"parameters":{{{own}}},"outputs":[{",".join(told)}]{asked_id}}}'.encode()
    return b"".join([head, *rest]), len(head) if rest else None


@lru_cache(1000)
def _quoted(name: str) -> str:
    """A name as JSON."""
    return _write(name)


def _as_wanted(wanted: Wanted, output: Array, labels: Sequence[str]) -> tuple[str, Sequence[int], str, bytes]:
    """Datatype and shape of an output as the protocol has it, its data as JSON, or those that stand behind the JSON."""
    if wanted.classes:
        texts = _best(output, wanted.classes, labels)
        shape = (len(output), len(texts) // max(len(output), 1))
        if wanted.binary:
            encoded = [text.encode() for text in texts]
            return "BYTES", shape, "", b"".join(len(each).to_bytes(4, "little") + each for each in encoded)
        return "BYTES", shape, f'"data":{_write(texts)}', b""
    if wanted.binary:
        return "FP32", output.shape, "", np.ascontiguousarray(output, dtype="<f4").tobytes()
    return "FP32", output.shape, f'"data":{_write(output.ravel().tolist())}', b""


def server_metadata() -> dict[str, Any]:
    """Of GET /v2."""
    return {"name": "prunit", "version": VERSION, "extensions": list(EXTENSIONS)}


def platform_of(engine: str) -> str:
    """An engine as the protocol names a platform, PROJECT_FORMAT: of `openvino-bf16` the project is OpenVINO."""
    return f"{engine.partition('-')[0]}_onnx"


def model_metadata(portfolio: Portfolio, artifact: Artifact, engine: str) -> dict[str, Any]:
    """Of GET /v2/models/NAME: one model, whose versions are the variants."""
    return {
        "name": portfolio.name,
        "versions": [variant.name for variant in portfolio.variants],
        "platform": platform_of(engine),
        "inputs": [{"name": artifact.input_name, "datatype": "FP32", "shape": [-1, *artifact.input_shape]}],
        "outputs": [
            {"name": output.name, "datatype": "FP32", "shape": [-1, *_dims(output, portfolio)]}
            for output in artifact.outputs
        ],
    }


def model_config(portfolio: Portfolio, artifact: Artifact, max_batch: int, engine: str) -> dict[str, Any]:
    """Of GET /v2/models/NAME/config (model configuration extension): what clients ask for before they batch."""
    return {
        "name": portfolio.name,
        "platform": platform_of(engine),
        "max_batch_size": max_batch,
        "input": [{"name": artifact.input_name, "data_type": "TYPE_FP32", "dims": list(artifact.input_shape)}],
        "output": [
            {"name": output.name, "data_type": "TYPE_FP32", "dims": _dims(output, portfolio)}
            for output in artifact.outputs
        ],
    }


def _dims(output: Output, portfolio: Portfolio) -> list[int]:
    """Of one image; older manifests, which do not tell it, are of classifiers."""
    return [len(portfolio.classes)] if output.shape is None else list(output.shape)


def check_finite(output: Array, variant: str) -> None:
    """Refuse an output that no JSON can say and no classes can be read from; binary data carry it as it is."""
    odd = output[~np.isfinite(output)]
    if len(odd):
        what = " and ".join(n for n, found in (("NaN", np.isnan(odd)), ("infinity", np.isinf(odd))) if found.any())
        raise Refusal(
            422,
            f"{len(odd)} of the {output.size} outputs of '{variant}' for this input are {what}: the model divides by"
            " zero or its numbers outgrow float32; ask for binary data to see them",
        )


def _json(text: memoryview) -> dict[str, Any]:
    try:
        # Eight times as fast as Python's own for a long list of numbers, with the same results.
        found = orjson.loads(text)
    except ValueError:
        found = _by_the_book(bytes(text))
    if isinstance(found, dict) and isinstance(cast("dict[str, Any]", found).get("id"), float):
        found = _by_the_book(bytes(text))  # orjson makes floats of whole numbers beyond 64 bits, as UUIDs are
    return _object(found, "the body")


def _by_the_book(data: bytes) -> Any:
    """As Python reads JSON, which takes some texts more, and says what is wrong with the others."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number in JSON")

    try:
        return json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is no JSON: {str(error)[:120]}") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    """What is set in an object: clients that write all fields of a record write null for the others."""
    if not isinstance(value, dict):
        raise Refusal(400, f"{where} must be a JSON object")
    return {key: each for key, each in cast("dict[str, Any]", value).items() if each is not None}


def _count(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Refusal(400, f"{where} must be a whole number from 0")
    return value


def _tensor(
    tensor: dict[str, Any], raw: memoryview, artifact: Artifact, preprocessing: Preprocessing, most: int
) -> Array:
    if tensor.get("name") != artifact.input_name:
        raise Refusal(400, f"the input is called '{artifact.input_name}'")
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    if datatype not in _KINDS:
        raise Refusal(400, "the input's datatype must be FP32, or UINT8 for images from 0 to 255")
    wanted = list(artifact.input_shape)
    sizes = [_count(size, "a size in 'shape'") for size in shape] if isinstance(shape, list) else []  # pyright: ignore[reportUnknownVariableType]
    if len(sizes) != 4 or sizes[1:] != wanted:
        raise Refusal(400, f"the input's shape must be (images, {', '.join(map(str, wanted))})")
    if not 1 <= sizes[0] <= most:
        raise Refusal(400, f"{sizes[0]} images in one request: 1 to {most} can be asked")
    parameters = _object(tensor.get("parameters", {}), "the input's parameters")
    size = parameters.get("binary_data_size")
    if size is not None:
        if "data" in tensor:
            raise Refusal(400, "the input has both data and a binary_data_size")
        count = math.prod(sizes) * _SIZES[datatype]
        if _count(size, "binary_data_size") != count or len(raw) != count:
            raise Refusal(400, f"the input's shape needs {count} bytes: {size} are announced, {len(raw)} follow")
        x_BCHW = np.frombuffer(raw, _KINDS[datatype]).reshape(sizes)
    else:
        x_BCHW = _from_json(tensor.get("data"), len(raw), sizes, datatype)
    if datatype == "UINT8":
        return preprocessing.normalise(x_BCHW.astype(np.uint8))
    return _finite(x_BCHW)


def _finite(x_BCHW: Any) -> Array:
    found: Array = x_BCHW.astype(np.float32, copy=False)
    if not np.isfinite(found).all():
        raise Refusal(400, "the input holds values that are not finite in float32")
    return found


def _from_json(data: Any, follow: int, sizes: list[int], datatype: str) -> Any:
    if follow:
        raise Refusal(400, f"{follow} bytes follow the JSON, and no input has a binary_data_size")
    if not isinstance(data, list):
        raise Refusal(400, "the input's 'data' must be a list of numbers")
    if datatype == "FP32" and (flat := _flat(cast("list[Any]", data), math.prod(sizes))) is not None:
        with np.errstate(over="ignore"):  # what is too large for float32 is refused as not finite
            return flat.reshape(sizes).astype(np.float32)
    try:
        found: Any = np.array(cast("list[Any]", data))
    except (ValueError, OverflowError):  # rows of different lengths
        raise Refusal(400, "the input's 'data' is no tensor: its rows differ in length") from None
    if found.dtype.kind not in "iuf" or found.size != math.prod(sizes):
        raise Refusal(400, f"the input's 'data' must be {math.prod(sizes)} numbers")
    if found.ndim != 1 and list(found.shape) != sizes:
        raise Refusal(400, f"the input's 'data' has shape {found.shape}, and 'shape' says {tuple(sizes)}")
    if datatype == "UINT8" and (found.dtype.kind == "f" or found.min() < 0 or found.max() > 255):
        raise Refusal(400, "UINT8 values must be whole numbers from 0 to 255")
    with np.errstate(over="ignore"):  # what is too large for float32 is refused as not finite
        return found.astype(np.float64).reshape(sizes).astype(np.float32)


def _flat(data: list[Any], count: int) -> Any:
    """A plain list of so many numbers as float64, in a third of the time that numpy takes to find out what it holds.

    None for anything else, and for whole numbers that numpy would not take, or not as a number.
    """
    if not data or len(data) != count or isinstance(data[0], bool):
        return None
    try:
        found = np.frombuffer(array.array("d", data))
    except (TypeError, OverflowError):  # texts, null, rows; a whole number beyond float64
        return None
    return found if np.abs(found).max() < _LARGEST_INT else None


def _wanted(head: dict[str, Any], parameters: dict[str, Any], artifact: Artifact) -> tuple[Wanted, ...]:
    """The outputs that are asked for, in the client's order; without any, all."""
    binary = parameters.get("binary_data_output", False) is True
    names = [output.name for output in artifact.outputs]
    outputs = head.get("outputs")
    if outputs is None or outputs == []:
        return tuple(Wanted(index, binary) for index in range(len(names)))
    known = ", ".join(f"'{name}'" for name in names)
    if not isinstance(outputs, list) or len(cast("list[Any]", outputs)) > len(names):
        raise Refusal(400, f"'outputs' may name each tensor once: {known}")
    found: list[Wanted] = []
    for place, each in enumerate(cast("list[Any]", outputs)):
        output = _object(each, f"outputs[{place}]")
        name = output.get("name")
        if name not in names:
            raise Refusal(
                400, f"the output is called {known}" if len(names) == 1 else f"the outputs are called {known}"
            )
        index = names.index(name)
        if any(wanted.index == index for wanted in found):
            raise Refusal(400, f"'outputs' names '{name}' twice")
        own = _object(output.get("parameters", {}), "the output's parameters")
        if "shared_memory_region" in own:
            raise Refusal(400, "shared memory is not supported")
        classes = _count(own.get("classification", 0), "classification")
        found.append(Wanted(index, own.get("binary_data", binary) is True, classes))
    return tuple(found)


def _timeout_ms(parameters: dict[str, Any]) -> float | None:
    """Of a request's parameter `timeout`, in microseconds; 0 means none."""
    timeout_us = _count(parameters.get("timeout", 0), "timeout (microseconds)")
    return timeout_us / 1000 if timeout_us else None


def _best(output: Array, count: int, labels: Sequence[str]) -> list[str]:
    rows = output.reshape(len(output), -1)
    order = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    return [
        f"{rows[i, j]:f}:{j}" + (f":{labels[j]}" if j < len(labels) else "")
        for i, row in enumerate(order)
        for j in row.tolist()
    ]
