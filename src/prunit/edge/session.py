"""The seam to an inference engine: a Runtime opens a model file as a Session, a Session answers batches."""

import importlib
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from prunit.errors import ConfigError, DataError, FileError, MissingExtraError, PortfolioError
from prunit.files import inside, sha256_of

if TYPE_CHECKING:
    from prunit.edge.portfolio import Artifact, Variant

Array = npt.NDArray[np.float32]


class Session(Protocol):
    """A model file held ready in an engine. One for models of several outputs is a `ManySession`."""

    def run(self, x_BCHW: Array, /) -> Array:
        """The model's first output for a batch, its first dimension B."""
        ...

    def close(self) -> None:
        """Frees what the engine holds; the session answers no more."""
        ...


class ManySession(Session, Protocol):
    """A session that gives all outputs of a model."""

    def run_all(self, x_BCHW: Array, /) -> tuple[Array, ...]:
        """The model's outputs for a batch in the file's order, the first dimension of each B."""
        ...


class Runtime(Protocol):
    """An inference engine. The engine's package is imported by the methods, not with this one."""

    @property
    def name(self) -> str: ...

    def version(self) -> str:
        """The version of the engine's package."""
        ...

    def open(self, path: Path, *, threads: int = 1) -> Session:
        """A session of the model file at `path` that computes with `threads` threads."""
        ...

    def install(self, path: Path, into: Path) -> Path:
        """The model file in the form that this engine opens fastest on this machine, written into a folder."""
        ...

    def open_installed(self, path: Path, *, threads: int = 1) -> Session:
        """A session of a file that `install` wrote."""
        ...


def outputs_of(session: Session, x_BCHW: Array) -> tuple[Array, ...]:
    """All outputs for a batch; of a session that knows `run` alone, the one that this gives."""
    # Not by isinstance, which takes microseconds for a Protocol: every request comes through here.
    run_all: Callable[[Array], tuple[Array, ...]] | None = getattr(session, "run_all", None)
    return (session.run(x_BCHW),) if run_all is None else run_all(x_BCHW)


def expected_key(index: int) -> str:
    """What a self-test calls the stored output of that index."""
    return f"expected_{index}" if index else "expected"


def self_test(session: Session, artifact: "Artifact", folder: Path) -> float:
    """The largest absolute difference between the session's and the stored outputs of the artifact's stored input.

    Raises PortfolioError where it exceeds the output's tolerance: then the file or the engine is not to be used.
    """
    x_BCHW, stored = stored_test(inside(folder, artifact.self_test), artifact)
    outputs = outputs_of(session, x_BCHW)
    failed = f"'{artifact.path}' failed its self-test:"
    if len(outputs) < len(stored):
        raise PortfolioError(
            f"{failed} the engine's session gives {len(outputs)} of its {len(stored)} outputs; it needs 'run_all'"
        )
    largest = 0.0
    for output, found, expected in zip(artifact.outputs, outputs, stored, strict=False):
        what = "the output" if len(stored) == 1 else f"the output '{output.name}'"
        if found.shape != expected.shape:
            raise PortfolioError(f"{failed} {what} has shape {found.shape}, expected {expected.shape}")
        difference = float(np.max(np.abs(found.astype(np.float64) - expected), initial=0.0))
        tolerance = output.tolerance or artifact.tolerance
        if not difference <= tolerance:  # a NaN is no pass
            what = "an output" if len(stored) == 1 else what
            raise PortfolioError(
                f"{failed} {what} is off by {difference:.3g}, more than its tolerance of {tolerance:.3g}; do not use "
                "it on this device with this engine"
            )
        largest = max(largest, difference)
    return largest


def stored_test(path: Path, artifact: "Artifact") -> tuple[Array, tuple[Array, ...]]:
    """The stored images, and what each output has to be for them."""
    try:
        if sha256_of(path) != artifact.self_test_sha256:
            raise PortfolioError(f"'{path}' was changed: its SHA-256 is not the manifest's; copy the folder again")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            expected = (arrays[expected_key(i)].astype(np.float32) for i in range(len(artifact.outputs)))
            return arrays["input"].astype(np.float32), tuple(expected)
    except FileNotFoundError:
        raise PortfolioError(f"'{path}', the self-test of '{artifact.path}', is missing") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise PortfolioError(f"'{path}' is no self-test of '{artifact.path}': {error}") from error


def engine(module: str, *, extra: str) -> ModuleType:
    """The engine's package, imported now; MissingExtraError with the command that installs it if it is absent.

    ONNX Runtime keeps a diary of how it is used and sends it home, from 1.31 on also on Linux, unless a variable says
    no before it is loaded. It says no here; who wants it sets ORT_DISABLE_TELEMETRY=0.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"the runtime '{module}'", module, extra) from error


def check_opening(path: Path, threads: int) -> None:
    """Refuses what no engine can open, in prunit's words rather than the engine's."""
    if threads < 1:
        raise ConfigError(f"cannot open '{path}' with {threads} threads: at least 1 is needed")
    if not path.is_file():
        raise FileError(f"cannot open '{path}': there is no such file")


def as_input(x_BCHW: Array, shape: Sequence[int | str | None], path: Path) -> Array:
    """`x_BCHW` as contiguous float32, after the check that its dimensions are those `shape` fixes by a number."""
    fits = x_BCHW.ndim == len(shape) and all(
        not isinstance(wanted, int) or wanted == found for wanted, found in zip(shape, x_BCHW.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise DataError(f"'{path}' takes input of shape ({wanted}), got {x_BCHW.shape}")
    return np.ascontiguousarray(x_BCHW, dtype=np.float32)


class Answer(NamedTuple):
    """The outputs for a batch in the manifest's order, and the variant that gave them, in which engine."""

    outputs: tuple[Array, ...]
    variant: str
    engine: str = ""

    @property
    def output(self) -> Array:
        """The first output, of most models the only one."""
        return self.outputs[0]


class Held:
    """An open session, its engine, and how many requests it answers right now."""

    def __init__(self, variant: "Variant", session: Session, engine: str = "") -> None:
        self.variant, self.session, self.engine, self.users = variant, session, engine, 0
