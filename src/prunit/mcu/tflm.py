"""What TensorFlow Lite Micro takes and answers: the arena that a network needs on a microcontroller.

It runs in a process of its own that stays open between questions, a few milliseconds each: it says what it allocates
only on standard error, which belongs to the caller here, and an arena that is much too small ends it by a segmentation
fault.
"""

import atexit
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from prunit.edge.session import engine
from prunit.errors import DataError, MissingExtraError, ModelError, harmless

_LARGE: Final = 64 * 2**20
"""The arena in which a network is asked how much of it it takes: no microcontroller has as much."""

_UNIT: Final = 16
"""Arenas are aligned to so many bytes."""

_PLANNING: Final = 2**20
"""More than planning takes: some hundred bytes for each operator."""

_LINE: Final = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_NO_OPERATOR: Final = re.compile(r"Didn't find op for builtin opcode '(\w+)'")
_SCHEMA: Final = "ai_edge_litert.schema_py_generated"


@dataclass(frozen=True)
class Arena:
    """Bytes of TensorFlow Lite Micro's arena: `head` holds activations, `tail` what lives as long as the network does.

    `total_bytes` is the smallest arena in which the network runs on this machine, a multiple of 16: with 16 less it
    fails. It is head and tail, or more in a network of few and small activations: planning where they lie takes memory
    too, which is free again afterwards and which TensorFlow Lite Micro does not count.

    The tail holds pointers and records with pointers, which take more room on a 64-bit machine than on a 32-bit
    Cortex-M: as far as TensorFlow Lite Micro's own kernels go, the total is an upper bound there. Kernels of CMSIS-NN
    ask for scratch buffers of their own, which are not in here.
    """

    total_bytes: int
    head_bytes: int
    tail_bytes: int


def arena(data: bytes) -> Arena:
    """What the flatbuffer takes, about 10 ms.

    Raises `ModelError` for a network with an operator that TensorFlow Lite Micro does not have, which is named, or one
    that it refuses, and `MissingExtraError` without the extra `mcu`.
    """
    said = _asked({"do": "allocate", "arena": _LARGE}, data)[2]
    found = {name: int(size) for name, size in _LINE.findall(said)}
    if set(found) != {"total", "head", "tail"}:
        raise ModelError(f"TensorFlow Lite Micro does not say what it allocates: {_last(said)}")
    return Arena(_smallest(data, found["total"]), found["head"], found["tail"])


def _smallest(data: bytes, recorded: int) -> int:
    """The smallest multiple of 16 from `recorded` on that is enough."""
    low = high = -(-recorded // _UNIT) * _UNIT
    while not _allocates(data, high):
        if high > recorded + _PLANNING:
            raise ModelError(f"TensorFlow Lite Micro says that it takes {recorded} B, but {high} B are not enough")
        low, high = high + _UNIT, high + (high - recorded + _UNIT) * 2
    while low < high:
        middle = (low + high) // 2 // _UNIT * _UNIT
        low, high = (low, middle) if _allocates(data, middle) else (middle + _UNIT, high)
    return high


def _allocates(data: bytes, arena_bytes: int) -> bool:
    try:
        _asked({"do": "allocate", "arena": arena_bytes}, data)
    except ModelError:
        return False
    return True


def fits(data: bytes, arena_bytes: int) -> bool:
    """Does the network run in an arena of so many bytes? The way to check `arena`."""
    try:
        _asked({"do": "run", "arena": arena_bytes}, data)
    except ModelError:
        return False
    return True


def tflm_answers(data: bytes, x_int8_N: npt.NDArray[np.int8]) -> tuple[npt.NDArray[Any], ...]:
    """The outputs for N inputs, one after the other, each network output as an array of N.

    `x_int8_N` is (N, …) with what the network takes behind N. Raises what `arena` raises, and `DataError` for inputs of
    another shape.
    """
    if x_int8_N.dtype != np.int8 or len(x_int8_N) == 0:
        raise DataError(f"the network takes int8 images; got {x_int8_N.dtype} {x_int8_N.shape}")
    schema: Any = engine(_SCHEMA, extra="mcu")
    outputs = len(schema.ModelT.InitFromPackedBuf(data, 0).subgraphs[0].outputs)
    request = {"do": "answer", "arena": _LARGE, "shape": list(x_int8_N.shape), "outputs": outputs}
    answer, arrays, _ = _asked(request, data, np.ascontiguousarray(x_int8_N).tobytes())
    return tuple(
        np.frombuffer(raw, kind).reshape(shape) for raw, (kind, shape) in zip(arrays, answer["outputs"], strict=True)
    )


def _asked(request: dict[str, Any], data: bytes, inputs: bytes = b"") -> tuple[dict[str, Any], list[bytes], str]:
    """The answer, the outputs' bytes, and what was printed meanwhile; `ModelError` for what was refused."""
    answer, arrays, said = _PROCESS.ask({**request, "model": len(data), "inputs": len(inputs)}, [data, inputs])
    if answer is None:
        raise ModelError(f"TensorFlow Lite Micro crashed on the network (arena {request['arena']} B): {_last(said)}")
    if "error" in answer:
        absent = _NO_OPERATOR.search(said)
        if absent:
            raise ModelError(
                f"TensorFlow Lite Micro has no operator {absent[1]}: replace it, or leave it out of the network"
            )
        if answer["error"].startswith("the network takes"):
            raise DataError(answer["error"])
        raise ModelError(f"TensorFlow Lite Micro refuses the network: {_last(said) or answer['error']}")
    return answer, arrays, said


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return harmless(lines[-1])[:300] if lines else "it says nothing"


class _Process:
    """The process, started when it is first asked and again after a crash; one question at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._printed: IO[bytes] | None = None

    def ask(self, request: dict[str, Any], parts: Sequence[bytes]) -> tuple[dict[str, Any] | None, list[bytes], str]:
        """As `_asked`; None where the process died."""
        with self._lock:
            process, printed = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n" + b"".join(parts))
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = b""
            answer: dict[str, Any] | None = json.loads(line) if line else None
            shapes = answer.get("outputs", []) if answer else []
            arrays = [process.stdout.read(int(np.prod(shape)) * np.dtype(kind).itemsize) for kind, shape in shapes]
            printed.seek(0)
            said = printed.read().decode(errors="replace")
            printed.seek(0)
            printed.truncate()
            if answer is None:
                self._end()
            return answer, arrays, said

    def close(self) -> None:
        """Ends it; the next question starts another."""
        with self._lock:
            self._end()

    def _running(self) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        if self._process is not None and self._printed is not None and self._process.poll() is None:
            return self._process, self._printed
        self._end()
        if find_spec("tflite_micro") is None:
            raise MissingExtraError("TensorFlow Lite Micro", "tflite-micro", "mcu")
        # appended to, so that the child too writes from the start after the file was emptied
        self._printed = tempfile.TemporaryFile("a+b")
        child = Path(__file__).with_name("tflm_child.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(child)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._printed
        )
        return self._process, self._printed

    def _end(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        pass
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._printed is not None:
            self._printed.close()
        self._process = self._printed = None


_PROCESS: Final = _Process()
atexit.register(_PROCESS.close)
