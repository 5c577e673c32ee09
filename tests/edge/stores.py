"""Stores in memory that fail when they are told to, and tell a watcher of every change."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from prunit.edge.portfolio import MANIFEST, Portfolio
from prunit.edge.publishing import fetch


@dataclass
class Fault:
    """The `at`-th change (from 1) fails: it is not done, not confirmed, or done in part; `good`: all later ones too."""

    at: int
    how: Literal["before", "after", "part"] = "before"
    good: bool = False
    seen: int = 0

    def hits(self) -> bool:
        """Whether the change that comes now fails."""
        self.seen += 1
        return self.seen == self.at or (self.good and self.seen > self.at)


class Folders(MemoryFileSystem):
    """`folders://…`: files in folders, of which half may be written; a file is put in its place by moving it."""

    protocol = "folders"
    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    fault: ClassVar[Fault | None] = None
    watch: ClassVar[Callable[[], None] | None] = None
    changes: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return super()._strip_protocol(str(path).removeprefix(f"{cls.protocol}://"))

    @classmethod
    def forget(cls) -> None:
        """Everything that was put here."""
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.changes.clear()
        cls.fault = cls.watch = None

    def put_file(self, lpath: Any, rpath: str, *args: Any, **kwargs: Any) -> None:
        self._write(rpath, Path(lpath).read_bytes())

    def pipe_file(self, path: str, value: bytes, *args: Any, **kwargs: Any) -> None:
        self._write(path, value)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        with self._changed(f"copy {path2}"):
            super().cp_file(path1, path2, **kwargs)

    def _rm(self, path: str) -> None:
        with self._changed(f"remove {path}"):
            super()._rm(path)

    def _write(self, path: str, value: bytes) -> None:
        fault = type(self).fault
        if fault and fault.how == "part" and fault.seen + 1 == fault.at:
            super().pipe_file(path, value[: len(value) // 2])
        with self._changed(f"write {path}"):
            super().pipe_file(path, value)

    @contextmanager
    def _changed(self, what: str) -> Iterator[None]:
        kind = type(self)
        fails = kind.fault is not None and kind.fault.hits()
        if fails and kind.fault and kind.fault.how != "after":
            raise ConnectionResetError(104, "Connection reset by peer")
        yield
        kind.changes.append(what)
        if kind.watch:
            kind.watch()
        if fails:
            raise ConnectionResetError(104, "Connection reset by peer")


class Objects(Folders):
    """`objects://bucket/…`: whole objects under flat names, as of S3; asked for a folder, it would make a bucket."""

    protocol = "objects"
    root_marker = ""
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    changes: ClassVar[list[str]] = []

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        raise AssertionError(f"a bucket would be made for {path}")

    def mv(self, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("an object that is put is whole: it needs no move")


register_implementation("folders", Folders, clobber=True)
register_implementation("objects", Objects, clobber=True)


OLD, NEW = {"large": 4.0, "small": 1.0}, {"large": 4.0, "tiny": 0.5}
"""The variants of two portfolios."""


def address(store: type[Folders]) -> str:
    return f"{store.protocol}://bucket/portfolio"


def names(portfolio: Portfolio) -> set[str]:
    return {variant.name for variant in portfolio.variants}


def places(store: type[Folders]) -> set[str]:
    found = {path.removeprefix("/bucket/portfolio/").partition("/")[0] for path in store.store}
    return found - {MANIFEST}


def seen_by_a_reader(store: type[Folders], folder: Path) -> set[str]:
    """The variants of the portfolio at the address, which is whole and has the report that goes with it."""
    found = fetch(address(store), folder)
    assert Portfolio.read(folder) == found
    assert found.verify(folder) == []
    report = (folder / "report.html").read_text()
    assert report == ("old report" if names(found) == set(OLD) else "new report")
    return names(found)
