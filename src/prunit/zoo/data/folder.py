"""Which image files a folder holds, by split and class; nothing is opened but a list of names."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from prunit.edge.fitting import FORMATS
from prunit.errors import DataError
from prunit.zoo.data.raw import Files, Listing

SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
LAYOUT = "DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg (or test)"
TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def image_folder(folder: Path) -> Listing:
    """The files of a folder in ImageFolder layout; with `val` and `test` both there, `val` is what we test on."""
    held = _folders(folder)
    evaluated = next((name for name in ("val", "test") if name in held), None)
    if "train" not in held or evaluated is None:
        missing = "'train' folder" if "train" not in held else "'val' or 'test' folder"
        raise DataError(f"'{folder}' has no {missing} (it holds {_some(held)}); expected {LAYOUT}")
    classes = _folders(folder / "train")
    if len(classes) < 2:
        raise DataError(f"'{folder / 'train'}' should hold two class folders or more and holds {_some(classes)}")
    _same_classes(folder, evaluated, classes)
    parts = [_by_class([folder / name / c for c in classes]) for name in ("train", evaluated)]
    return Listing(*parts, classes=tuple(classes))


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
    try:
        if not any(folder.iterdir()):
            raise DataError(f"'{folder}' is empty; expected {LAYOUT}")
        return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    except OSError as cause:
        raise DataError(f"'{folder}' cannot be read: {cause.strerror}") from cause


def _some(names: Sequence[str]) -> str:
    return (", ".join(names[:5]) + (", ..." if len(names) > 5 else "")) or "no folder"


def _same_classes(folder: Path, evaluated: str, classes: Sequence[str]) -> None:
    train, other = set(classes), set(_folders(folder / evaluated))
    if train != other:
        lacks = f" lacks {_some(sorted(train - other))}" if train - other else ""
        more = f" has {_some(sorted(other - train))}, which 'train' has not" if other - train else ""
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
    """All image files below `folder`, in the order of their paths; hidden ones (._1.jpg of macOS) are none."""

    def refuse(cause: OSError) -> None:
        raise DataError(f"'{cause.filename}' cannot be read: {cause.strerror}") from cause

    return sorted(
        Path(place, name)
        for place, _, names in os.walk(folder, onerror=refuse, followlinks=True)
        for name in names
        if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
    )
