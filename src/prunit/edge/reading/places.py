"""Where the parts of a data set lie, and which files in a folder are images; nothing is opened."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from prunit.edge.pixels import FORMATS
from prunit.edge.reading.listing import some
from prunit.errors import DataError

SUFFIXES: Final = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
TRAIN: Final = ("train", "training")
VAL: Final = ("val", "valid", "validation")
TEST: Final = ("test", "testing")
"""Names of a folder's parts, in small letters."""
PARTS: Final[Mapping[str, tuple[str, ...]]] = {"train": TRAIN, "val": VAL, "test": TEST}
WHOLE: Final = "all"
"""The part of a data set that is not split."""
LEFT_BEHIND: Final = frozenset(
    ("__macosx", "thumbs.db", "desktop.ini", "@eadir", "lost+found", "$recycle.bin", "system volume information")
)
"""What systems and archives put beside a user's files, besides hidden ones; some of it holds pictures."""
_NAMES: Final = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt")


def called(folder: Path, held: Sequence[str], names: Sequence[str], what: str = "folder") -> str | None:
    """The one of the folder's entries `held` that has one of these names, in any case."""
    found = [name for name in held if name.lower() in names]
    if len(found) > 1:
        raise DataError(
            f"'{folder}' holds {' and '.join(found)}, and each could be its '{names[0]}' {what} (it holds"
            f" {some_folders(held)}); rename or move what is not to be used"
        )
    return found[0] if found else None


def parts_of(folder: Path) -> dict[str, Path]:
    """The folders for train, val and test in a folder, as far as they are there; `DataError` where one is twice."""
    held = folders_in(folder) if folder.is_dir() else []
    found = {part: called(folder, held, names) for part, names in PARTS.items()}
    return {part: folder / name for part, name in found.items() if name is not None}


def perhaps_parts(folder: Path) -> list[Path]:
    """A folder, and the folders in it that are called as parts are: where to look what lies there."""
    if not folder.is_dir():
        return []
    return [folder, *(folder / name for name in folders_in(folder) if any(name.lower() in n for n in PARTS.values()))]


def part_in(name: str) -> str | None:
    """The part that a name as `instances_val2017` or `Train` speaks of: the last of its words that names one."""
    words = "".join(c if c.isalpha() else " " for c in name.lower()).split()
    return next((part for word in reversed(words) for part, names in PARTS.items() if word in names), None)


def entries(folder: Path, layout: str = "") -> list[os.DirEntry[str]]:
    """What lies in a folder, by name, without what a file system or a program left there."""
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as cause:
        raise DataError(f"'{folder}' cannot be read: {cause.strerror}") from cause
    if layout and not found:
        raise DataError(f"'{folder}' is empty; expected {layout}")
    return [entry for entry in found if not left_behind(entry.name)]


def folders_in(folder: Path, layout: str = "") -> list[str]:
    """The names of the folders in a folder; with `layout` an empty one is an error that names what was expected."""
    return [entry.name for entry in entries(folder, layout) if entry.is_dir()]


def child(folder: Path, names: Sequence[str]) -> Path | None:
    """The folder in `folder` that has one of these names in any case; None also where `folder` is none."""
    if not folder.is_dir():
        return None
    return next((folder / name for wanted in names for name in folders_in(folder) if name.lower() == wanted), None)


def files_in(folder: Path, *suffixes: str) -> list[Path]:
    """The files in a folder, not below it, that end so in any case, by name."""
    return [Path(e.path) for e in entries(folder) if Path(e.name).suffix.lower() in suffixes and e.is_file()]


def images_in(folder: Path, accepted: Callable[[str], bool] | None = None) -> list[Path]:
    """All image files below `folder`, in the order of their paths; none that are hidden (._1.jpg of macOS)."""

    def refuse(cause: OSError) -> None:
        raise DataError(f"'{cause.filename}' cannot be read: {cause.strerror}") from cause

    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not left_behind(name) and (accepted is None or accepted(name))]
        found += [Path(place, n) for n in names if not left_behind(n) and Path(n).suffix.lower() in SUFFIXES]
    return sorted(found)


def by_stem(paths: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Files by their place below `folder` without ending; `DataError` where two have the same."""
    found: dict[str, Path] = {}
    for path in paths:
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"'{found[stem]}' and '{path}' differ in their ending alone: keep one of them")
        found[stem] = path
    return found


def class_names(*folders: Path) -> tuple[str, ...] | None:
    """The lines of the first classes.txt (obj.names) in these folders; None without one."""
    path = next((f / name for f in folders for name in _NAMES if (f / name).is_file()), None)
    if path is None:
        return None
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    check_names(names, path)
    return names


def check_names(names: Sequence[str], path: Path) -> None:
    """`DataError` where there is no class, or one twice."""
    if not names:
        raise DataError(f"'{path}' names no class: write one a line, in the order of their numbers")
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DataError(f"'{path}' names the class '{twice}' twice: each needs a name of its own")


def read_text(path: Path) -> str:
    """A file's text, without the mark that some editors put before it; `DataError` where it is none."""
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise DataError(f"'{path}' is no UTF-8 text (byte {cause.start}): save it as UTF-8") from cause
    except OSError as cause:
        raise DataError(f"'{path}' cannot be read: {cause.strerror}") from cause


def left_behind(name: str) -> bool:
    """Whether an entry of a folder is hidden, or of a system's or archive's own."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def some_folders(names: Sequence[str]) -> str:
    """The first of many names, for an error."""
    return some(names).replace("…", "...") or "no folder"
