"""ONNX Runtime on the CPU: the default engine."""

import json
import tempfile
from pathlib import Path
from typing import Any, Final

from prunit.edge.runtimes.peaks import Peak
from prunit.edge.session import Array, as_input, check_opening, engine
from prunit.errors import FileError

_FATAL_ONLY: Final = 4
_WEIGHTS: Final = "weights.bin"


class OnnxRuntime:
    """Opens .onnx files with the CPU provider."""

    name: str = "onnxruntime"

    def version(self) -> str:
        return str(engine("onnxruntime", extra="edge").__version__)

    def open(self, path: Path, *, threads: int = 1) -> "OnnxRuntimeSession":
        check_opening(path, threads)
        onnxruntime = engine("onnxruntime", extra="edge")
        try:
            session = onnxruntime.InferenceSession(str(path), _options(threads), providers=["CPUExecutionProvider"])
        except Exception as error:  # the engine's exceptions share no base class of their own
            raise FileError(f"cannot open '{path}' with onnxruntime: {_first_line(error)}") from error
        return OnnxRuntimeSession(session, path)

    def install(self, path: Path, into: Path) -> Path:
        """Optimised for this CPU, with the weights in a file of their own, which `open_installed` maps."""
        check_opening(path, 1)
        onnxruntime = engine("onnxruntime", extra="edge")
        model, options = into / "model.onnx", _options(1)
        options.optimized_model_filepath = str(model)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        try:
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise FileError(f"cannot install '{path}' with onnxruntime: {_first_line(error)}") from error
        return model

    def open_installed(self, path: Path, *, threads: int = 1) -> "OnnxRuntimeSession":
        """Without a second optimisation, which would copy the weights."""
        check_opening(path, threads)
        onnxruntime = engine("onnxruntime", extra="edge")
        options = _options(threads)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise FileError(f"cannot open '{path}' with onnxruntime: {_first_line(error)}") from error
        return OnnxRuntimeSession(session, path)

    def kernel_ms(self, model: bytes, x: Array, *, runs: int, threads: int = 1) -> dict[str, list[float]]:
        """The milliseconds that each operator of a model took in each run, by the name that the engine gave it.

        The engine's own profiler measures them, to the microsecond, inside the model: with the layout of memory that
        the operators before have left.
        """
        onnxruntime = engine("onnxruntime", extra="edge")
        options = _options(threads)
        options.enable_profiling = True
        with tempfile.TemporaryDirectory() as folder:
            options.profile_file_prefix = str(Path(folder) / "kernels")
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            for _ in range(runs):
                session.run(None, {name: x})
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        found: dict[str, list[float]] = {}
        for event in events:
            operator = event["name"].removesuffix("_kernel_time")
            if event.get("cat") == "Node" and operator != event["name"]:
                found.setdefault(operator, []).append(event["dur"] / 1000)
        return found


class OnnxRuntimeSession:
    """A model of one input, held by ONNX Runtime."""

    def __init__(self, session: Any, path: Path) -> None:
        self._session: Any = session
        self._path = path
        self._input: str = session.get_inputs()[0].name
        self._shape: list[int | str | None] = session.get_inputs()[0].shape
        self._outputs: list[str] = [output.name for output in session.get_outputs()]
        self._peak = Peak()

    def run(self, x_BCHW: Array, /) -> Array:
        return self._run(self._outputs[:1], x_BCHW)[0]

    def run_all(self, x_BCHW: Array, /) -> tuple[Array, ...]:
        return tuple(self._run(self._outputs, x_BCHW))

    def _run(self, outputs: list[str], x_BCHW: Array) -> list[Array]:
        if self._session is None:
            raise ValueError(f"the session of '{self._path}' is closed")
        x_BCHW = as_input(x_BCHW, self._shape, self._path)
        if self._peak.over(len(x_BCHW)):
            return self._session.run(outputs, {self._input: x_BCHW}, _shrinking())
        return self._session.run(outputs, {self._input: x_BCHW})

    def close(self) -> None:
        self._session = None


def _options(threads: int) -> Any:
    options: Any = engine("onnxruntime", extra="edge").SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY  # what goes wrong arrives as an exception
    # Worker threads may spin for work within an answer, where it pays, but not after it: a portfolio holds many
    # sessions, and the idle ones would take the cores of the one that answers.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _shrinking() -> Any:
    """Options of a run at whose end the session gives the memory that it does not use back to the system."""
    options: Any = engine("onnxruntime", extra="edge").RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
