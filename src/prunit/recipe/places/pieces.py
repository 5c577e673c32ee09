"""Pieces of work that may be done anywhere: each reads files of a folder, and leaves files there."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from prunit.batches import Dataset
    from prunit.recipe.places.handed import Handed
    from prunit.recipe.progress import Progress


@dataclass(frozen=True)
class Piece:
    """One training, say, of one variant: plain data that any process understands.

    `kind` says what is done ('train', 'export', 'try', 'rung'), `name` for which variant; `arguments` are numbers and
    texts. It reads what those `after` which it comes (by their `key`) left behind.
    """

    kind: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What tells it from the other pieces of a folder."""
        recipe = self.arguments.get("recipe", "")
        return f"{self.kind} {self.name}" + (f" {recipe}" if recipe else "")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Piece":
        """That of which `as_dict` told, through JSON or not."""
        return cls(**{**told, "after": tuple(told["after"])})


def next_of(waiting: Sequence[Piece], busy: Iterable[Piece]) -> Piece | None:
    """The first piece that waits for none of those that wait or are being done."""
    undone = {piece.key for piece in (*waiting, *busy)}
    return next((piece for piece in waiting if not undone.intersection(piece.after)), None)


class Bench(Protocol):
    """What pieces are done with: model, data and settings of one folder."""

    @property
    def folder(self) -> Path:
        """Where pieces read and leave files; what only other processes need may lie in it too."""
        ...

    @property
    def dataset(self) -> "Dataset | None":
        """The images of all pieces; None where each piece names its own, and finds them wherever it is done."""
        ...

    @property
    def progress(self) -> "Progress":
        """Who is told how far they are."""
        ...

    def do(self, piece: Piece) -> None:
        """Leave the piece's files, each whole; done again it reads them back, or goes on where it was stopped."""
        ...

    def has(self, piece: Piece) -> bool:
        """Whether its files are there."""
        ...

    def handed(self) -> "Handed":
        """What another process makes the same bench of; `ConfigError` where it cannot."""
        ...


Run = Callable[[Iterable[Piece]], Iterator[Piece]]
"""Has pieces done, and yields each when its files are there. Where pieces are done one after the other, the next one is
asked for when the one before is done."""


class Executor(Protocol):
    """Where pieces are done."""

    @property
    def at_once(self) -> int:
        """How many at the same time, at the most."""
        ...

    @property
    def threads(self) -> int | None:
        """Of each training; None: as many as torch has here."""
        ...

    def ready(self, trainings: int, folder: Path) -> None:
        """Raise what is wrong with the place for so many trainings in a folder, which is not touched."""
        ...

    def close(self) -> None:
        """Leave the place: nothing more is done there."""
        ...

    def open(self, bench: Bench) -> AbstractContextManager[Run]:
        """Inside, pieces of that bench are done; when it is left, nothing of them is running any more."""
        ...


class Here:
    """In this process, one after the other."""

    at_once = 1
    threads = None

    def ready(self, trainings: int, folder: Path) -> None:
        """As `Executor.ready`."""

    def close(self) -> None:
        """As `Executor.close`."""

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Run]:
        """As `Executor.open`."""

        def run(pieces: Iterable[Piece]) -> Iterator[Piece]:
            for piece in pieces:
                bench.do(piece)
                yield piece

        yield run
