"""ONNX Runtime on the CPU: the default engine."""

from pathlib import Path
from typing import Any, Final

from prunit.edge.session import Array, as_input, check_opening, engine
from prunit.errors import FileError

_FATAL_ONLY: Final = 4


class OnnxRuntime:
    """Opens .onnx files with the CPU provider."""

    name: str = "onnxruntime"

    def version(self) -> str:
        return str(engine("onnxruntime", extra="edge").__version__)

    def open(self, path: Path, *, threads: int = 1) -> "OnnxRuntimeSession":
        check_opening(path, threads)
        onnxruntime = engine("onnxruntime", extra="edge")
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL_ONLY  # what goes wrong arrives as an exception
        # Worker threads may spin for work within an answer, where it pays, but not after it: a portfolio holds many
        # sessions, and the idle ones would take the cores of the one that answers.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the engine's exceptions share no base class of their own
            raise FileError(f"cannot open '{path}' with onnxruntime: {_first_line(error)}") from error
        return OnnxRuntimeSession(session, path)


class OnnxRuntimeSession:
    """A model of one input and one output, held by ONNX Runtime."""

    def __init__(self, session: Any, path: Path) -> None:
        self._session: Any = session
        self._path = path
        self._input: str = session.get_inputs()[0].name
        self._shape: list[int | str | None] = session.get_inputs()[0].shape
        self._outputs: list[str] = [session.get_outputs()[0].name]

    def run(self, x_BCHW: Array, /) -> Array:
        if self._session is None:
            raise ValueError(f"the session of '{self._path}' is closed")
        x_BCHW = as_input(x_BCHW, self._shape, self._path)
        return self._session.run(self._outputs, {self._input: x_BCHW})[0]

    def close(self) -> None:
        self._session = None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
