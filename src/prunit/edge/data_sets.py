"""Data sets by name: which there are, where each lies, what any other name stands for. Nothing of them is read.

Importing this loads no torch: a name that stands for nothing is refused before anybody waits for it. What reads the
data sets is in `zoo.data`.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prunit import user
from prunit.errors import DataError, MissingExtraError, unknown

if TYPE_CHECKING:
    from prunit.edge.reading import Listing


@dataclass(frozen=True)
class Named:
    """A data set that has a name; of one with a public download the folder and the files, as they are unpacked."""

    about: str
    folder: str = ""
    files: tuple[str, ...] = ()
    endings: tuple[str, ...] = ("",)

    def missing(self, where: Path) -> list[str]:
        """Those of the files that are not in the folder `where`."""
        return [f for f in self.files if not any((where / f"{f}{end}").is_file() for end in self.endings)]


DATA_SETS: Final[Mapping[str, Named]] = {
    "cifar10": Named(
        "60,000 colour photos of 32x32 in 10 classes (Krizhevsky, 2009)",
        "cifar-10-batches-py",
        (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
    ),
    "cifar100": Named(
        "60,000 colour photos of 32x32 in 100 classes (Krizhevsky, 2009)",
        "cifar-100-python",
        ("train", "test", "meta"),
    ),
    "fashion-mnist": Named(
        "70,000 grey pictures of clothes, 28x28, in 10 classes (Xiao et al., 2017)",
        "FashionMNIST/raw",
        tuple(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")),
        ("", ".gz"),
    ),
    "digits": Named("1,797 grey scans of handwritten digits, 8x8, in 10 classes; comes with scikit-learn"),
    "tiny-imagenet": Named("110,000 colour photos of 64x64 in 200 classes; a folder tiny-imagenet* (no download)"),
}
_FORMS: Final = (
    "Or a folder with train/CLASS/*.jpg and val or test, or with labels for another task, or path/to/file.py:FACTORY,"
    " package.module:FACTORY."
)


def place_of(data_dir: Path | None) -> Path:
    """Where data sets lie: `data_dir`, else the folder PRUNIT_DATA, else ./data."""
    return Path(data_dir or os.environ.get("PRUNIT_DATA") or "data").expanduser().absolute()


def listed(name: str, place: Path, task: str, *, download: bool = False) -> "Listing | None":
    """The image files that a data set's name stands for; None where it stands for no folder and no list of files.

    Raises what is wrong with the name, the files or their layout, as far as it shows without reading an image or
    running anything of the user's. With `download` files that are missing may still come.
    """
    if name in DATA_SETS:
        _check_task(name, task)
        if name == "tiny-imagenet":
            from prunit.edge.reading.folders import tiny_imagenet

            return tiny_imagenet(place)
        if name == "digits":
            check_digits()
        if not download:
            check_there(name, place)
        return None
    from prunit.edge import reading

    for path in (Path(name).expanduser(), place / name):
        if path.is_dir() or (path.suffix.lower() in reading.LISTS and path.is_file()):
            return reading.read(path, task)
    if ":" not in name:
        raise _no_such(name, place, reading.LISTS)
    user.check(name, error=DataError)
    return None


def _check_task(name: str, task: str) -> None:
    if task == "classification":
        return
    from prunit.edge.reading import READ

    if task in READ:
        raise DataError(f"data set '{name}' is for classification, not for {task}: give a folder of your own")


def check_there(name: str, place: Path, *, fetched: bool = False) -> None:
    """Raise `DataError` where files of a data set with a name are missing, `fetched` after they should have come."""
    one = DATA_SETS[name]
    where = place / one.folder
    if missing := one.missing(where):
        more = "" if fetched else " or fetch them with --download"
        raise DataError(
            f"data set '{name}': no {', '.join(missing)} in '{where}'; put them there, name the folder that holds"
            f" {one.folder} with --data-dir or PRUNIT_DATA,{more}"
        )


def check_digits() -> None:
    """Raise `MissingExtraError` without the package that brings the digits."""
    if find_spec("sklearn") is None:
        raise MissingExtraError("the data set 'digits'", "scikit-learn", "train")


def _no_such(name: str, place: Path, lists: Collection[str]) -> Exception:
    if name.endswith(".py"):
        return DataError(f"'{name}' names a file but no factory in it: write {name}:FACTORY")
    if Path(name).suffix.lower() in lists:
        return DataError(f"there is no file '{name}' (working folder: {Path.cwd()}, data folder: {place})")
    if Path(name).is_file():
        return DataError(f"'{name}' is a file; a data set is a folder with train/CLASS/*.jpg and val or test")
    if "/" in name or "\\" in name or name.startswith((".", "~")):
        return DataError(f"there is no folder '{name}' (working folder: {Path.cwd()}, data folder: {place})")
    return unknown("data set", name, DATA_SETS, _FORMS)
