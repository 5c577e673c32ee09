"""Which image files a folder holds, by split and class; nothing is opened but a list of names."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from prunit.edge.pixels import FORMATS
from prunit.errors import DataError
from prunit.zoo.data.raw import Files, Listing

SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
TRAIN = ("train", "training")
VAL = ("val", "valid", "validation")
TEST = ("test", "testing")
"""Names of a folder's parts, in small letters."""
LEFT_BEHIND = frozenset(
    ("__macosx", "thumbs.db", "desktop.ini", "@eadir", "lost+found", "$recycle.bin", "system volume information")
)
"""What systems and archives put beside a user's files, besides hidden ones; some of it holds pictures."""
LAYOUT = "DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg (or test)"
TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def image_folder(folder: Path) -> Listing:
    """The files of a folder in ImageFolder layout; with `val` and `test` both there, `val` is what we test on.

    Both parts are known by their usual names in any case: train or training, val, valid or validation, test or testing.
    """
    held = _folders(folder)
    train = _called(folder, held, TRAIN)
    evaluated = _called(folder, held, VAL) or _called(folder, held, TEST)
    if train is None or evaluated is None:
        missing = "'train' folder" if train is None else "'val' or 'test' folder"
        raise DataError(f"'{folder}' has no {missing} (it holds {_some(held)}); expected {LAYOUT}")
    classes = _folders(folder / train)
    if len(classes) < 2:
        raise DataError(f"'{folder / train}' should hold two class folders or more and holds {_some(classes)}")
    _same_classes(folder, train, evaluated, classes)
    parts = [_by_class([folder / name / c for c in classes]) for name in (train, evaluated)]
    return Listing(*parts, classes=tuple(classes))


def _called(folder: Path, held: Sequence[str], names: Sequence[str]) -> str | None:
    """The one folder that has one of these names, in any case."""
    found = [name for name in held if name.lower() in names]
    if len(found) > 1:
        raise DataError(
            f"'{folder}' holds {' and '.join(found)}, and each could be its '{names[0]}' folder (it holds"
            f" {_some(held)}); rename or move what is not to be used"
        )
    return found[0] if found else None


def tiny_imagenet(data_dir: Path) -> Listing:
    """The files of Tiny ImageNet, as it is distributed (val/val_annotations.txt) or in ImageFolder layout."""
    found = sorted(folder for folder in data_dir.glob("tiny-imagenet*") if (folder / "train").is_dir())
    if not found:
        raise DataError(
            f"data set 'tiny-imagenet': no folder tiny-imagenet-200 (or tiny-imagenet*) with train in '{data_dir}';"
            f" unpack {TINY_URL} there, or name the folder that holds it with --data-dir or PRUNIT_DATA"
        )
    folder = next((one for one in found if one.name == "tiny-imagenet-200"), found[0])
    annotations = folder / "val" / "val_annotations.txt"
    if not annotations.is_file():
        return image_folder(folder)
    classes = _folders(folder / "train")
    train = _by_class([folder / "train" / name for name in classes])
    return Listing(train, _annotated(annotations, classes), tuple(classes))


def _annotated(annotations: Path, classes: Sequence[str]) -> Files:
    """The files that the lines `val_0.JPEG<tab>n03444034<tab>...` name, in val/images."""
    index = {name: i for i, name in enumerate(classes)}
    paths, labels = [], []
    for number, line in enumerate(annotations.read_text(errors="replace").splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in index:
            raise DataError(f"'{annotations}' line {number} names no class of the train folder: {line[:60]!r}")
        paths.append(annotations.parent / "images" / fields[0])
        labels.append(index[fields[1]])
    if not paths:
        raise DataError(f"'{annotations}' is empty; fetch the data set again")
    return Files(tuple(paths), torch.tensor(labels))


def _folders(folder: Path) -> list[str]:
    """The folders in a folder, without what a file system or a program left there."""
    try:
        if not any(folder.iterdir()):
            raise DataError(f"'{folder}' is empty; expected {LAYOUT}")
        return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not _left_behind(e.name))
    except OSError as cause:
        raise DataError(f"'{folder}' cannot be read: {cause.strerror}") from cause


def _left_behind(name: str) -> bool:
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def _some(names: Sequence[str]) -> str:
    return (", ".join(names[:5]) + (", ..." if len(names) > 5 else "")) or "no folder"


def _same_classes(folder: Path, train: str, evaluated: str, classes: Sequence[str]) -> None:
    own, other = set(classes), set(_folders(folder / evaluated))
    if own != other:
        lacks = f" lacks {_some(sorted(own - other))}" if own - other else ""
        more = f" has {_some(sorted(other - own))}, which '{train}' has not" if other - own else ""
        raise DataError(
            f"class folders differ: '{folder / evaluated}'{lacks}{' and' if lacks and more else ''}{more};"
            " the same class folders must be in both"
        )


def _by_class(folders: Sequence[Path]) -> Files:
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        images = _images(folder)
        if not images:
            raise DataError(f"class folder '{folder}' holds no images (looked for {', '.join(sorted(SUFFIXES))})")
        paths += images
        labels += [label] * len(images)
    return Files(tuple(paths), torch.tensor(labels))


def _images(folder: Path) -> list[Path]:
    """All image files below `folder`, in the order of their paths; none that are hidden (._1.jpg of macOS)."""

    def refuse(cause: OSError) -> None:
        raise DataError(f"'{cause.filename}' cannot be read: {cause.strerror}") from cause

    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not _left_behind(name)]
        found += [Path(place, n) for n in names if not _left_behind(n) and Path(n).suffix.lower() in SUFFIXES]
    return sorted(found)
