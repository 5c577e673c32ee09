"""Where results go: a folder, or an address (`s3://bucket/portfolio`) to which they are sent when all is done.

Work is done in a folder of this machine in either case: a training writes a checkpoint each epoch, and goes on from it.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from prunit.errors import ConfigError, FileError
from prunit.recipe.progress import OnStep, Step
from prunit.remote import Store, check_to_folder, is_address, meant_by, shown

PLACE: Final = "prunit-builds"
"""Where builds for an address are worked on, below the folder that the command runs in."""


@dataclass(frozen=True)
class Out:
    """The folder to work in, and the address to send its results to, '' for none."""

    folder: Path
    address: str = ""

    @classmethod
    def of(cls, out: Path | str, work: Path | str | None = None) -> "Out":
        """What was asked for: `work` is the folder for what goes to an address, by default one named after it.

        Raises `ConfigError` for a folder to work in beside a folder, an address to work in, and one that was made a
        `Path`.
        """
        if is_address(out):
            check_to_folder(Path(work or ""))
            return cls(Path(work) if work else Path(PLACE) / _name_of(str(out)), str(out))
        _check_no_worn(out)
        if work is not None:
            raise ConfigError(
                f"work={work} (--work) is where to work for an address (--out s3://…): --out {out} is a folder"
            )
        return cls(Path(out))

    @property
    def shown_address(self) -> str:
        """The address as it may be printed: without a password."""
        return shown(self.address)

    def check(self) -> None:
        """Raise what is wrong with the address; it is asked, and a small file is written there and removed."""
        if self.address:
            from prunit.edge.publishing import check_target  # needs more than a wrong command line should wait for

            check_target(self.address)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Inside, what is wrong with the folder tells which option names it."""
        try:
            yield
        except (ConfigError, FileError) as error:
            if not self.address or "(--out)" not in str(error):
                raise
            raise type(error)(str(error).replace("(--out)", "(--work)")) from None

    def send(self, *, inner: str = "", extras: Mapping[str, Path] | None = None, on_step: OnStep | None = None) -> None:
        """Send the portfolio in the folder, or in `inner` below it, if it is for an address; `extras` go along."""
        if not self.address:
            return
        from prunit.edge.publishing import publish

        def tell(name: str, done: int, total: int) -> None:
            if on_step:
                on_step(Step("all", "send", done, total, name, 1.0))

        folder = self.folder / inner
        try:
            publish(folder, self.address, extras=extras, on_file=tell)
        except FileError as error:
            raise FileError(
                f"{error}; the portfolio is whole in '{folder}', and the same command with --resume sends it"
            ) from error


@dataclass(frozen=True)
class OutFile:
    """A file to write, with others beside it: `file` here, or a file of this name in the folder at an address."""

    file: Path
    address: str = ""

    @classmethod
    def of(cls, out: str) -> "OutFile":
        """What was asked for: a path, or the file's own address."""
        if not is_address(out):
            _check_no_worn(out)
            return cls(Path(out))
        scheme, _, path = out.partition("://")
        folder, _, name = path.rpartition("/")
        return cls(Path(name), f"{scheme}://{folder}")

    @property
    def shown_address(self) -> str:
        """As `Out.shown_address`, of the folder."""
        return shown(self.address)

    def check(self) -> None:
        """As `Out.check`."""
        if self.address:
            Store.open(self.address).check_writable()

    @contextmanager
    def written(self) -> Iterator[Path]:
        """Inside, the file to write. It is sent then, after all that lies beside it; each file in one step."""
        if not self.address:
            yield self.file
            return
        with TemporaryDirectory() as place:
            file = Path(place) / self.file
            yield file
            store = Store.open(self.address)
            for each in (*(other for other in sorted(Path(place).iterdir()) if other != file), file):
                store.put(each.name, each.read_bytes())

    def told(self, file: str) -> str:
        """Where a file that was written inside `written` is now."""
        return f"{shown(self.address)}/{Path(file).name}" if self.address else file


def _check_no_worn(out: Path | str) -> None:
    """Raise `ConfigError` for what was an address before it was made a `Path`, or lacks a '/' to be one."""
    if meant := shown(meant_by(Path(out))):
        told = shown(str(out))
        raise ConfigError(f"'{told}' lacks a '/' to be an address (a Path drops one): give '{meant}' as text")


def _name_of(address: str) -> str:
    """A folder's name that tells of an address: `s3_bucket_my-portfolio`."""
    scheme, _, path = shown(address).partition("://")
    path = path.rpartition("@")[2]
    return "_".join([scheme, *(re.sub(r"[^A-Za-z0-9._-]", "-", part) for part in path.split("/") if part)])
