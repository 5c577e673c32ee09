"""The ONNX reference evaluator: plain numpy, slow, one thread, independent of every engine.

It is what the others are compared with; it needs no compiled engine.
"""

import shutil
from pathlib import Path
from typing import Any

from prunit.edge.session import Array, as_input, check_opening, engine
from prunit.errors import FileError


class Reference:
    """Opens .onnx files with `onnx.reference`; `threads` makes no difference."""

    name: str = "reference"

    def version(self) -> str:
        return str(engine("onnx", extra="train").__version__)

    def open(self, path: Path, *, threads: int = 1) -> "ReferenceSession":
        check_opening(path, threads)
        onnx = engine("onnx", extra="train")
        reference = engine("onnx.reference", extra="train")
        try:
            model = onnx.load(path)
            return ReferenceSession(reference.ReferenceEvaluator(model), model.graph.input[0], path)
        except Exception as error:  # protobuf's, onnx's and numpy's: none share a base class
            raise FileError(f"cannot open '{path}' with the reference runtime: {error}") from error

    def install(self, path: Path, into: Path) -> Path:
        """A copy: this engine has no form of its own."""
        check_opening(path, 1)
        return Path(shutil.copy(path, into / "model.onnx"))

    def open_installed(self, path: Path, *, threads: int = 1) -> "ReferenceSession":
        return self.open(path, threads=threads)


class ReferenceSession:
    """A model of one input, interpreted node by node."""

    def __init__(self, evaluator: Any, model_input: Any, path: Path) -> None:
        self._evaluator: Any = evaluator
        self._path = path
        self._input: str = model_input.name
        self._shape: list[int | str | None] = [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
            for dim in model_input.type.tensor_type.shape.dim
        ]

    def run(self, x_BCHW: Array, /) -> Array:
        return self.run_all(x_BCHW)[0]

    def run_all(self, x_BCHW: Array, /) -> tuple[Array, ...]:
        if self._evaluator is None:
            raise ValueError(f"the session of '{self._path}' is closed")
        return tuple(self._evaluator.run(None, {self._input: as_input(x_BCHW, self._shape, self._path)}))

    def close(self) -> None:
        self._evaluator = None
