"""Inference engines that a benchmark may measure: ONNX Runtime, and others where their package is installed."""

import importlib.util
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

import numpy as np

from prunit.edge.runtimes import runtime

Opened = Callable[[], object]
"""Runs the model once."""


def _onnxruntime(file: Path, x: np.ndarray) -> Opened:
    session = runtime("onnxruntime").open(file, threads=1)
    return lambda: session.run(x)


def _openvino(file: Path, x: np.ndarray) -> Opened:
    """In float32: left alone it takes bfloat16 where the processor has it."""
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(file), "CPU", config).create_infer_request()
    return lambda: request.infer([x], share_inputs=True)


ENGINES: Final[Mapping[str, Callable[[Path, np.ndarray], Opened]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def installed() -> list[str]:
    """Names of the engines whose package can be imported."""
    return [name for name in ENGINES if importlib.util.find_spec(name)]


def version(name: str) -> str:
    return metadata.version(name)
