"""OpenVINO on the CPU: in float32, or in bfloat16 where the CPU multiplies in it."""

import functools
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

import numpy as np

from prunit.edge.precision import Precision
from prunit.edge.runtimes.peaks import Peak
from prunit.edge.session import Array, as_input, check_opening, engine
from prunit.errors import DeviceError, FileError

_EXTRA: Final = "openvino"
_BLOB: Final = "model.blob"
_HINTS: Final = {"f32": "FP32", "bf16": "BF16"}
"""The engine's hint of precision, and what the CPU must be capable of for it."""
_NO_REASON: Final = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't fully", "Summary:")
"""How lines of the engine's errors begin that say where in its source they come from, and no more."""


def package() -> ModuleType:
    """The engine's package, which must be imported by nothing but this; `MissingExtraError` if it is not installed.

    `import openvino` sends an event with a client's id, which it leaves in the home folder, to a web service, if the
    package `openvino_telemetry`, on which it depends, can be imported. It does without: so for this process that one
    does not exist, unless somebody has imported it before.
    """
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    return engine("openvino", extra=_EXTRA)


class OpenVino:
    """Opens .onnx files with the CPU plugin, which computes in the precision of `hint`, whatever it would prefer."""

    def __init__(self, name: str, hint: str, precisions: tuple[Precision, ...]) -> None:
        self.name, self.precisions, self._hint = name, precisions, hint

    def version(self) -> str:
        """That of the plugin, which is loaded by this: "2026.4.1", without the commit that follows.

        Raises `DeviceError` if this CPU cannot compute in the runtime's precision.
        """
        package()
        self._check_device()
        return str(_core().get_versions("CPU")["CPU"].build_number).partition("-")[0]

    def open(self, path: Path, *, threads: int = 1) -> "OpenVinoSession":
        check_opening(path, threads)
        return OpenVinoSession(self._compiled(path, threads, "open"), path)

    def install(self, path: Path, into: Path) -> Path:
        """As the engine exports it: the graph optimised for this CPU, and the weights, which `open_installed` maps."""
        check_opening(path, 1)
        blob = into / _BLOB
        try:
            content: Any = self._compiled(path, 1, "install").export_model()
            blob.write_bytes(content.getbuffer())
        except Exception as error:  # the engine's exceptions share no base class
            raise FileError(f"cannot install '{path}' with {self.name}: {_reason(error)}") from error
        return blob

    def open_installed(self, path: Path, *, threads: int = 1) -> "OpenVinoSession":
        """Of a file that `install` wrote with this very engine on this CPU, and no other: the engine trusts it."""
        check_opening(path, threads)
        openvino, settings = package(), self._settings(threads)
        try:
            # Copied on write, as the engine takes no memory that is read-only; it writes nothing into it.
            weights = np.memmap(path, dtype=np.uint8, mode="c")
            # All settings again: the file keeps neither the precision that it was made for nor the threads.
            compiled = _core().import_model(openvino.Tensor(weights, shared_memory=True), "CPU", settings)
        except Exception as error:
            raise FileError(f"cannot open '{path}' with {self.name}: {_reason(error)}") from error
        return OpenVinoSession(compiled, path, weights)

    def _compiled(self, path: Path, threads: int, what: str) -> Any:
        openvino, settings = package(), self._settings(threads)
        try:
            # Not `read_model`: it hands what is no ONNX to the readers of every other format, which print it.
            onnx = openvino.frontend.FrontEndManager().load_by_framework("onnx")
            compiled = _core().compile_model(onnx.convert(onnx.load(str(path))), "CPU", settings)
        except Exception as error:  # the engine's exceptions share no base class
            raise FileError(f"cannot {what} '{path}' with {self.name}: {_reason(error)}") from error
        if not compiled.inputs or not compiled.outputs:  # an empty file is a model of nothing
            raise FileError(f"cannot {what} '{path}' with {self.name}: there is no model in it")
        return compiled

    def _check_device(self) -> None:
        capabilities: list[str] = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if _HINTS[self._hint] not in capabilities:
            raise DeviceError(
                f"the runtime '{self.name}' computes in {_HINTS[self._hint]}, which this CPU cannot (it has"
                f" {', '.join(capabilities)}); use the runtime 'openvino'"
            )

    def _settings(self, threads: int) -> dict[str, Any]:
        self._check_device()
        return {
            "INFERENCE_PRECISION_HINT": self._hint,  # else bfloat16 wherever the CPU has it
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            # Else the threads of every session are pinned to the same first cores, while the others idle.
            "ENABLE_CPU_PINNING": False,
        }


class OpenVinoSession:
    """A model of one input, held by OpenVINO; threads that call it at once are answered one after the other."""

    def __init__(self, compiled: Any, path: Path, weights: Any = None) -> None:
        self._compiled: Any = compiled
        self._weights = weights  # mapped, and in use as long as the model is: the engine holds no reference
        self._path = path
        # One request, as one stream computes one answer at a time: more would only take more memory.
        self._request: Any = compiled.create_infer_request()
        self._lock, self._peak = threading.Lock(), Peak()
        dims: list[Any] = list(compiled.inputs[0].get_partial_shape())
        self._shape: list[int | str | None] = [
            dim.get_length() if dim.is_static else ("any" if i else "batch") for i, dim in enumerate(dims)
        ]
        self._count = len(compiled.outputs)

    def run(self, x_BCHW: Array, /) -> Array:
        return self._run(1, x_BCHW)[0]

    def run_all(self, x_BCHW: Array, /) -> tuple[Array, ...]:
        return self._run(self._count, x_BCHW)

    def _run(self, count: int, x_BCHW: Array) -> tuple[Array, ...]:
        x_BCHW = as_input(x_BCHW, self._shape, self._path)
        with self._lock:
            if self._request is None:
                raise ValueError(f"the session of '{self._path}' is closed")
            # Shared both ways, and the outputs that are asked for copied: the next run writes into the same memory.
            self._request.infer(x_BCHW, share_inputs=True, share_outputs=True)
            outputs = tuple(self._request.get_output_tensor(i).data.copy() for i in range(count))
            if self._peak.over(len(x_BCHW)):
                self._compiled.release_memory()
        return outputs

    def close(self) -> None:
        with self._lock:
            self._request = None
            self._compiled = None
            self._weights = None


@functools.cache
def _core() -> Any:
    """One for the process: it loads the plugin."""
    return package().Core()


def _reason(error: Exception) -> str:
    """What the engine says went wrong, in one line."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(_NO_REASON)]
    reason = " ".join(said or lines[:1]) or type(error).__name__
    if reason.startswith("No conversion rule"):
        reason = f"it lacks an operator of the model ({reason}); use another engine"
    return reason
