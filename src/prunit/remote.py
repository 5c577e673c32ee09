"""Addresses of folders elsewhere (`s3://bucket/portfolio`, `gs://…`, `memory://…`): read and written through fsspec.

fsspec and its drivers are imported for an address only. Nothing here makes a bucket: drivers do when they are asked for
a folder that is not there (s3fs 2026.9), and a misspelt name would be one more.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from prunit.errors import ConfigError, FileError, MissingExtraError, harmless

_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+://")
_WORN: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)(.*)")
"""An address that went through `Path`, which makes one '/' of two; a drive of Windows has one letter."""
_OF_HERE: Final = ("file", "local")
"""Addresses of files of this machine: no host stands after the '//', so an absolute path makes a third '/'."""
_ABSOLUTE: Final = re.compile(r"/|[A-Za-z]:[/\\]")
_SECRET: Final = re.compile(r"://[^/@\s]*@")
_PROBE: Final = ".prunit-probe-"
_FIRST_CHARACTERS: Final = 300


def is_address(where: object) -> bool:
    """Whether this is text like `SCHEME://…`, which names a place that fsspec may reach, and no path."""
    return isinstance(where, str) and _ADDRESS.match(where) is not None


def meant_by(path: Path) -> str:
    """The address that a path was made of, '' for any other path: `Path("s3://b/x")` is `s3:/b/x`.

    `file:/x` was `file:///x`: a relative `file://x` names nothing (`Store.open`).
    """
    worn = _WORN.fullmatch(path.as_posix())
    return f"{worn[1]}:{'///' if worn[1].lower() in _OF_HERE else '//'}{worn[2]}" if worn else ""


def hint_for(path: Path) -> str:
    """What to do with a path that was an address, where a folder of this machine is needed; '' for any other path."""
    address = shown(meant_by(path))
    return (
        address and f"'{address}' is an address, and this needs a folder: 'prunit install {address} DIR' brings it here"
    )


def check_to_folder(path: Path) -> None:
    """Raise `ConfigError` for a path that was an address, where something is to be written to a folder."""
    if address := shown(meant_by(path)):
        raise ConfigError(f"'{address}' is an address, and this needs a folder of this machine to write to")


def ends_with_process(address: str) -> bool:
    """Whether what is sent to an address is gone when this process ends: it lies in its memory."""
    return address.partition("://")[0].lower() == "memory"


def shown(text: str) -> str:
    """The text without the names and passwords that addresses in it may hold, in one line."""
    return harmless(" ".join(_SECRET.sub("://…@", text).split()))


@dataclass(frozen=True)
class Store:
    """A folder at an address. Paths are relative to it, with '/'.

    Every method raises `FileError` in one line, whatever the driver raised, and says nothing of it to a terminal.
    """

    address: str
    """As it is shown: without a password."""
    root: str
    fs: Any
    """fsspec's `AbstractFileSystem`, with nothing in its caches from before."""

    @classmethod
    def open(cls, address: str) -> "Store":
        """The folder; nothing is asked of it yet.

        Raises `ConfigError` for an address that names no folder, or none that is known; `MissingExtraError` without
        fsspec; `FileError` where its driver is not installed or refuses.
        """
        told = shown(address)
        scheme, _, path = address.partition("://")
        if "::" in address or any(c in path for c in "*?[]"):
            raise ConfigError(f"'{told}': name one folder, without '::', '*', '?' or brackets")
        if not path.strip("/"):
            example = "/PATH/NAME" if scheme.lower() in _OF_HERE else "BUCKET/NAME"
            raise ConfigError(f"'{told}' names no folder: write it as {scheme}://{example}")
        if scheme.lower() in _OF_HERE and not _ABSOLUTE.match(path):
            raise ConfigError(
                f"'{told}': {scheme}:// needs an absolute path, with a third '/': {scheme}:///PATH/NAME; for a relative"
                " one leave the scheme away"
            )
        try:
            from fsspec.core import url_to_fs
            from fsspec.registry import get_filesystem_class
        except ImportError as error:
            raise MissingExtraError(f"the address '{told}'", "fsspec", "remote") from error
        try:
            get_filesystem_class(scheme)
        except ValueError as error:
            raise ConfigError(
                f"'{told}': fsspec knows no addresses that begin with '{scheme}://'; among those that it knows are s3://,"
                " gs://, abfs://, sftp:// and file://"
            ) from error
        except ImportError as error:
            raise FileError(f"'{told}' needs a driver that is not installed: {shown(str(error))}") from error
        try:
            # An instance of its own: credentials are read now, and listings are none of hours ago.
            fs, root = url_to_fs(address, skip_instance_cache=True)
        except Exception as error:  # a driver's own may be of any kind
            raise FileError(f"'{told}' cannot be opened: {_reason(error)}") from error
        return cls(told, root.rstrip("/"), fs)

    def read(self, path: str) -> bytes | None:
        """The bytes of a file, None where there is none."""
        with self._told(f"read '{path}' in"):
            try:
                return self.fs.cat_file(self._at(path))
            except FileNotFoundError:
                return None

    def names(self) -> list[str]:
        """What lies directly in the folder; nothing where it is not there. A file of its name is ''."""
        with self._told("list"):
            self.fs.invalidate_cache()
            try:
                found = self.fs.ls(self.root, detail=False)
            except FileNotFoundError:
                return []
            return sorted({each.rstrip("/")[len(self.root) :].lstrip("/") for each in found} - self._itself())

    def bring(self, path: str, file: Path) -> None:
        """Write the file `path` to `file` here, whose folder is there. Cut short, it lies there in part."""
        with self._told(f"bring '{path}' from"):
            self.fs.get_file(self._at(path), str(file))

    def send(self, file: Path, path: str) -> None:
        """Write a file of here to `path`; cut short, part of it may be left where the store keeps no whole objects."""
        with self._told(f"write '{path}' to"):
            self._make_parent(path)
            self.fs.put_file(str(file), self._at(path))

    def put(self, path: str, data: bytes) -> None:
        """Write the file `path` so that a reader finds the old or the new one, whole.

        An object store shows an object when it is whole; elsewhere the file is written beside its place and moved.
        """
        with self._told(f"write '{path}' to"):
            if self._has_objects:
                self.fs.pipe_file(self._at(path), data)
                return
            self._make_parent(path)
            folder, _, name = self._at(path).rpartition("/")
            aside = f"{folder}/.{name}.{uuid4().hex[:8]}.tmp"
            try:
                self.fs.pipe_file(aside, data)
                self.fs.mv(aside, self._at(path))
            except BaseException:
                with suppress(Exception):
                    self.fs.rm_file(aside)
                raise

    def remove(self, path: str) -> None:
        """Remove a file."""
        with self._told(f"remove '{path}' from"):
            self.fs.rm_file(self._at(path))

    def remove_folder(self, path: str) -> None:
        """Remove a folder with all that is in it; that it is gone already is no error."""
        with self._told(f"remove '{path}' from"):
            self.fs.invalidate_cache()
            with suppress(FileNotFoundError):
                self.fs.rm(self._at(path), recursive=True)

    def sizes(self, path: str) -> dict[str, int]:
        """The bytes of all files in a folder and below it, by their paths in it; nothing where it is not there."""
        with self._told(f"list '{path}' in"):
            self.fs.invalidate_cache()
            try:
                found = self.fs.find(self._at(path), detail=True)
            except FileNotFoundError:
                return {}
            begin = len(self._at(path)) + 1
            return {name[begin:]: int(about["size"]) for name, about in found.items()}

    def age_s(self, path: str) -> float:
        """Seconds since the youngest file in a folder was written; 0 where the store does not tell."""
        try:
            times = [self.fs.modified(file).timestamp() for file in self.fs.find(self._at(path))]
        except Exception:  # not every driver tells, and each says so in its own way
            return 0.0
        return time.time() - max(times) if times else 0.0

    def check_writable(self) -> None:
        """Raise `FileError` where a small file cannot be written and removed again. No folder is left that was not."""
        path = f"{_PROBE}{uuid4().hex[:8]}"
        made = not self._has_objects and not self._there()
        try:
            self.put(path, b"written by prunit to see whether it may; it can be removed")
            self.remove(path)
        finally:
            if made:
                with suppress(Exception):
                    self.fs.rmdir(self.root)

    @property
    def _has_objects(self) -> bool:
        """Names are flat, folders need not be made, and what is written appears whole."""
        return not self.fs.root_marker

    def _there(self) -> bool:
        with self._told("look at"):
            return bool(self.fs.exists(self.root))

    def _itself(self) -> set[str]:
        """What `names` leaves out: the folder's own entry in an object store, and what a probe that was killed left."""
        with suppress(Exception):
            if self.fs.isfile(self.root):
                return set()
        return {""}

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}"

    def _make_parent(self, path: str) -> None:
        if not self._has_objects:
            self.fs.makedirs(self._at(path).rpartition("/")[0], exist_ok=True)

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except FileError:
            raise
        except Exception as error:  # a driver's own may be of any kind
            raise FileError(
                f"cannot {doing} '{self.address}': {_reason(error)}; check that its bucket or folder is there, your"
                " credentials, and what they may do"
            ) from error


def leftover(name: str) -> bool:
    """Whether a name in a folder is that of a probe, or a file on its way to its place, that was killed."""
    return name.startswith(_PROBE) or (name.startswith(".") and name.endswith(".tmp"))


def _reason(error: Exception) -> str:
    """What a driver said, in one line: its text, or the kind of error where it said nothing."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (shown(text) or type(error).__name__).rstrip(".")[:_FIRST_CHARACTERS]
