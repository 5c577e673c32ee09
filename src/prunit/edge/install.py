"""A portfolio as this device runs it: optimised once, weights mapped from disk; the ONNX files stay as they are.

An engine that optimises a model each time it opens it takes many times as long to open it, and holds a copy of the
weights for every session. So each variant is optimised once here and saved with its weights beside it, from where they
are mapped: sessions and processes share them, and the system may drop and read them again. Such a file holds the layout
of *this* CPU and engine; where either changed, or the file did, it is made anew from the portable one. What is made for
several engines lies side by side: the default one's in the place itself, another one's in a folder of its name there.
"""

import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import NonNegativeInt, ValidationError

from prunit.edge import runtimes
from prunit.edge.names import public_name
from prunit.edge.portfolio import Portfolio, Variant, file_problem
from prunit.edge.records import Record, RelativePath, Sha256
from prunit.edge.session import Runtime, Session, self_test
from prunit.errors import DeviceError, FileError, PortfolioError, PrunitError
from prunit.files import inside, sha256_of, write_atomically

FOLDER: Final = ".installed"
"""In the portfolio's folder, or where `cache` says: what only this device can use."""
RECORD: Final = "installed.json"
_LOCK: Final = ".lock"
_PATIENCE_S: Final = 120.0
_FORM: Final = re.compile(r".*-[0-9a-f]{12}")
"""What the folder of an installed form is called: nothing else in a place is ever removed."""


class InstalledFile(Record):
    """A file that was written here; where its size and time are still these, its content is not read again."""

    path: RelativePath
    sha256: Sha256
    bytes: NonNegativeInt
    mtime_ns: int


class InstalledVariant(Record):
    """One variant in the engine's own form; `artifact_sha256` is that of the ONNX file that it was made of."""

    artifact_sha256: Sha256
    model: RelativePath
    files: tuple[InstalledFile, ...]


class Installed(Record):
    """What was made for which engine on which CPU; `failed` holds the reason for variants that have only their file."""

    format: Literal["prunit-installed"] = "prunit-installed"
    version: Literal[1] = 1
    engine: str
    engine_version: str
    cpu: str
    variants: Mapping[str, InstalledVariant] = {}
    failed: Mapping[str, str] = {}


def install(
    portfolio: Portfolio,
    folder: Path,
    *,
    runtime: str | Runtime = runtimes.DEFAULT,
    cache: Path | None = None,
    only: Collection[str] | None = None,
    on_variant: Callable[[str, int, int], None] | None = None,
) -> Installed:
    """Make the installed form of every variant that lacks a good one; what is good already stays.

    With `only` none is made for variants of other names, and `on_variant` (a name, how many came before it, how many
    there are) is told of none. A variant whose installed form does not give its stored output
    is left with its portable file. Of processes that begin together one makes it, and the others find it: each mapping
    its own would have the weights in memory as often as there are processes. Raises `FileError` where nothing can be
    written, `PortfolioError` for a variant whose own file is damaged.
    """
    engine = runtimes.runtime(runtime)
    place = place_for(place_of(folder, cache), engine)
    with _alone(place):
        return _brought(portfolio, folder, place, engine, only, on_variant)


def _brought(
    portfolio: Portfolio,
    folder: Path,
    place: Path,
    engine: Runtime,
    only: Collection[str] | None,
    on_variant: Callable[[str, int, int], None] | None,
) -> Installed:
    now = _here(engine)
    before = _read(place, now)
    done: dict[str, InstalledVariant] = {}
    failed: dict[str, str] = {}
    asked = [variant.name for variant in portfolio.variants if only is None or variant.name in only]
    for variant in portfolio.variants:
        if on_variant and variant.name in asked:
            on_variant(variant.name, asked.index(variant.name), len(asked))
        held = before.variants.get(variant.name) if before else None
        if held and held.artifact_sha256 == variant.artifact.sha256 and not problem(place, held):
            done[variant.name] = held
            continue
        if variant.name not in asked:
            continue
        file = _portable(folder, variant)
        try:
            done[variant.name] = _installed(variant, file, folder, place, engine)
        except OSError as error:
            raise FileError(f"cannot install into '{place}': {error.strerror or error}") from error
        except PrunitError as error:
            failed[variant.name] = str(error)
    found = now.model_copy(update={"variants": done, "failed": failed})
    write_atomically(place / RECORD, found.model_dump_json(indent=1))
    _remove_others(place, found)
    return found


@contextmanager
def _alone(place: Path) -> Generator[None, None, None]:
    """Inside, no other process installs there: one that ends, however it does, lets the next one in.

    Where there is no such lock, or it is held for very long, all go on: what they make is good, if made twice.
    """
    descriptor = None
    with suppress(OSError, ImportError):  # a place that cannot be written to; Windows
        import fcntl

        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def place_of(folder: Path, cache: Path | None = None) -> Path:
    """Where the installed form of the portfolio in `folder` lies."""
    return folder / FOLDER if cache is None else cache


def place_for(place: Path, engine: Runtime) -> Path:
    """Where in a place the installed form for an engine lies: for the default one where older prunits put it."""
    return place if engine.name == runtimes.DEFAULT else place / public_name(engine.name)


def read(place: Path, runtime: str | Runtime = runtimes.DEFAULT) -> Installed | None:
    """What is installed in a place for an engine; None if nothing is, or for another version of it or another CPU."""
    engine = runtimes.runtime(runtime)
    return _read(place_for(place, engine), _here(engine))


def _read(place: Path, now: Installed) -> Installed | None:
    try:
        found = Installed.model_validate_json((place / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError):
        return None
    same = (found.engine, found.engine_version, found.cpu) == (now.engine, now.engine_version, now.cpu)
    return found if same else None


def problem(place: Path, variant: InstalledVariant) -> str:
    """What is wrong with the files of a variant that lie in its engine's place, '' if nothing is."""
    for file in variant.files:
        if not _as_written(inside(place, file.path), file):
            wrong = file_problem(place, file.path, file.bytes, file.sha256)
            if wrong:
                return wrong
    return ""


def _as_written(path: Path, file: InstalledFile) -> bool:
    """Size and time are those of then: the content need not be read."""
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (file.bytes, file.mtime_ns)


def opened(
    variant: Variant,
    folder: Path,
    *,
    runtime: str | Runtime = runtimes.DEFAULT,
    threads: int = 1,
    place: Path | None = None,
    installed: Installed | None = None,
) -> tuple[Session, str]:
    """A session of a variant, from its installed form if that is good, and a note where it is not, else ''.

    Raises `FileError` or `PortfolioError` if the portable file cannot be opened or is not the manifest's.
    """
    engine, note = runtimes.runtime(runtime), ""
    held = installed.variants.get(variant.name) if installed else None
    if held is not None and place is not None:
        place = place_for(place, engine)
        note = problem(place, held)
        if held.artifact_sha256 != variant.artifact.sha256:
            note = "it was made of another file"
        if not note:
            try:
                return engine.open_installed(inside(place, held.model), threads=threads), ""
            except PrunitError as error:
                note = str(error)
    return engine.open(_portable(folder, variant), threads=threads), note and f"the installed form is not used: {note}"


def ready(
    variant: Variant,
    folder: Path,
    *,
    runtime: str | Runtime = runtimes.DEFAULT,
    threads: int = 1,
    place: Path | None = None,
    installed: Installed | None = None,
    test: bool = True,
) -> tuple[Session, str]:
    """As `opened`, after the self-test and a warm-up: the first request waits for nothing.

    A warm-up reads every page of the weights from the disk. Without `test` it is all: for a variant that has passed
    the test before, from files that have not changed since. Raises `PortfolioError` where the stored output is not met,
    `FileError` or `DeviceError` where the variant cannot run here.
    """
    session: Session | None = None
    try:
        session, note = opened(variant, folder, runtime=runtime, threads=threads, place=place, installed=installed)
        if test:
            self_test(session, variant.artifact, folder)
        session.run(np.zeros((1, *variant.artifact.input_shape), dtype=np.float32))
        return session, note
    except Exception as error:  # an engine's own may be of any kind
        if session is not None:
            session.close()
        if isinstance(error, PrunitError):
            raise
        if isinstance(error, MemoryError):
            raise DeviceError(f"no memory to open '{variant.name}'") from error
        raise FileError(f"'{variant.name}' cannot be run here: {type(error).__name__}: {error}") from error


def _portable(folder: Path, variant: Variant) -> Path:
    """The variant's own file; `PortfolioError` if it is not the manifest's."""
    wrong = file_problem(folder, variant.artifact.path, None, variant.artifact.sha256)
    if wrong:
        raise PortfolioError(f"{wrong}; copy the portfolio to '{folder}' again")
    return inside(folder, variant.artifact.path)


def _installed(variant: Variant, file: Path, folder: Path, place: Path, engine: Runtime) -> InstalledVariant:
    """Written into a folder of its own, tried, and only then put in its place."""
    place.mkdir(parents=True, exist_ok=True)
    name = f"{public_name(variant.name)}-{variant.artifact.sha256[:12]}"
    staged = place / f".{name}.{os.getpid()}"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        model = engine.install(file, staged)
        session = engine.open_installed(model, threads=1)
        try:
            self_test(session, variant.artifact, folder)
        finally:
            session.close()
        shutil.rmtree(place / name, ignore_errors=True)
        staged.rename(place / name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    files: list[InstalledFile] = []
    for path in sorted((place / name).iterdir()):
        status = path.stat()
        files.append(
            InstalledFile(
                path=f"{name}/{path.name}", sha256=sha256_of(path), bytes=status.st_size, mtime_ns=status.st_mtime_ns
            )
        )
    return InstalledVariant(artifact_sha256=variant.artifact.sha256, model=f"{name}/{model.name}", files=tuple(files))


def _remove_others(place: Path, installed: Installed) -> None:
    """What belongs to no variant any more; a process that has it mapped keeps its pages."""
    wanted = {held.model.partition("/")[0] for held in installed.variants.values()}
    with suppress(OSError):
        for path in place.iterdir():
            if _FORM.fullmatch(path.name) and path.is_dir() and path.name not in wanted and path.name[0] != ".":
                shutil.rmtree(path, ignore_errors=True)


def _here(engine: Runtime) -> Installed:
    return Installed(engine=engine.name, engine_version=engine.version(), cpu=cpu_features())


def cpu_features() -> str:
    """16 hex digits that differ for processors with other instructions: kernels and layouts are chosen by them."""
    text = f"{platform.machine()} {platform.processor()}"
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
        text += "".join(sorted({line for line in lines if line.startswith(wanted)}))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
