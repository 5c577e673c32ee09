"""Files that are written whole or not at all, their hashes, and paths that stay inside one folder."""

import hashlib
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from prunit.errors import FileError, PortfolioError


@contextmanager
def staged(path: Path, *, shared: bool = False) -> Generator[Path, None, None]:
    """A path beside `path` to write to: it takes the place of `path` when the block ends well, and vanishes if not.

    So a reader finds the old file or the whole new one, after a kill or a power cut too. The staging name is fixed:
    what a killed process left behind is overwritten by the next attempt. With `shared` it is each process's own, for a
    file that several write at the same time.
    """
    own = f"{os.getpid()}-{threading.get_ident()}." if shared else ""
    temporary = path.with_name(f".{path.stem}.{own}tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise FileError(
            f"cannot write '{path}': {error.strerror or error}; check that its folder is writable and the disk has room"
        ) from error
    finally:
        with suppress(OSError):  # gone already, or never made
            temporary.unlink()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; the file is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def why_not_relative(path: str) -> str | None:
    """What is wrong with `path` as a path inside a folder, None if nothing: relative, with '/', without '..'."""
    if "\\" in path or ":" in path or "\0" in path:
        return f"the path {path!r} must use '/' and no '\\', ':' or null character"
    parts = PurePosixPath(path)
    if not parts.parts:
        return "a path must not be empty"
    if parts.is_absolute() or ".." in parts.parts:
        return f"the path {path!r} leaves the portfolio folder"
    return None


def inside(folder: Path, path: str) -> Path:
    """`folder / path`, after the check that neither '..' nor a symbolic link leads out of `folder`."""
    problem = why_not_relative(path)
    if problem is None and not (folder / path).resolve().is_relative_to(folder.resolve()):
        problem = f"the path {path!r} leads through a link out of the portfolio folder"
    if problem:
        raise PortfolioError(f"'{folder}': {problem}")
    return folder / path


def _flush_folder(folder: Path) -> None:
    """Puts a rename on the disk, where the system lets a folder be opened (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes | str, *, shared: bool = False) -> None:
    """Write the whole file or none of it; `FileError` in one line where the disk or the folder refuses.

    With `shared` several processes may write it at the same time: it is that of the last one.
    """
    with staged(path, shared=shared) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
