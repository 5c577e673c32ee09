"""The seam to an inference engine: a Runtime opens a model file as a Session, a Session answers batches."""

import importlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from prunit.edge.portfolio import Artifact, Variant
from prunit.errors import ConfigError, DataError, FileError, MissingExtraError, PortfolioError
from prunit.files import inside, sha256_of

Array = npt.NDArray[np.float32]


class Session(Protocol):
    """A model file held ready in an engine."""

    def run(self, x_BCHW: Array, /) -> Array:
        """The model's output for a batch, its first dimension B."""
        ...

    def close(self) -> None:
        """Frees what the engine holds; the session answers no more."""
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


def self_test(session: Session, artifact: Artifact, folder: Path) -> float:
    """The largest absolute difference between the session's and the stored output of the artifact's stored input.

    Raises PortfolioError where it exceeds the artifact's tolerance: then the file or the engine is not to be used.
    """
    x_BCHW, expected = _stored(inside(folder, artifact.self_test), artifact)
    found = session.run(x_BCHW)
    if found.shape != expected.shape:
        raise PortfolioError(
            f"'{artifact.path}' failed its self-test: the output has shape {found.shape}, expected {expected.shape}"
        )
    difference = float(np.max(np.abs(found.astype(np.float64) - expected)))
    if not difference <= artifact.tolerance:  # a NaN is no pass
        raise PortfolioError(
            f"'{artifact.path}' failed its self-test: an output is off by {difference:.3g}, more than its tolerance "
            f"of {artifact.tolerance:.3g}; do not use it on this device with this engine"
        )
    return difference


def _stored(path: Path, artifact: Artifact) -> tuple[Array, Array]:
    try:
        if sha256_of(path) != artifact.self_test_sha256:
            raise PortfolioError(f"'{path}' was changed: its SHA-256 is not the manifest's; copy the folder again")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays["input"].astype(np.float32), arrays["expected"].astype(np.float32)
    except FileNotFoundError:
        raise PortfolioError(f"'{path}', the self-test of '{artifact.path}', is missing") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise PortfolioError(f"'{path}' is no self-test of '{artifact.path}': {error}") from error


def engine(module: str, *, extra: str) -> ModuleType:
    """The engine's package, imported now; MissingExtraError with the command that installs it if it is absent."""
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
    """The output for a batch, and the variant that gave it."""

    output: Array
    variant: str


class Held:
    """An open session and how many requests it answers right now."""

    def __init__(self, variant: Variant, session: Session) -> None:
        self.variant, self.session, self.users = variant, session, 0
