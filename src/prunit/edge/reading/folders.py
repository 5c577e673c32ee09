"""Folders of images by class: the usual layout of classification, and Tiny ImageNet's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from prunit.edge.reading.listing import Files, Listing, arranged
from prunit.edge.reading.places import (
    PARTS,
    SUFFIXES,
    WHOLE,
    called,
    child,
    files_in,
    folders_in,
    images_in,
    perhaps_parts,
    some_folders,
)
from prunit.edge.reading.targets import Values
from prunit.errors import DataError

LAYOUT: Final = "DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg (or test)"
TINY_URL: Final = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_NAME: Final = "class folders"


def looks_so(place: Path) -> bool:
    """Whether the place is a folder without a table of its images; what is wrong with it is said when it is read."""
    if not place.is_dir():
        return False
    return not files_in(place, ".csv") or any(folders_in(part) for part in perhaps_parts(place)[1:])


def image_folder(folder: Path, *, known: Sequence[str] | None = None, train: bool = True) -> Listing:
    """The files of a folder in ImageFolder layout; where `test` is not labelled as `val` is, it is left aside.

    Parts are known by their usual names in any case: train or training, val, valid or validation, test or testing.
    Without val and test, or without any part (DIR/CLASS/*.jpg), a fifth of the images is held out. `known`: the classes
    in the order of their numbers; else those of the folders by name. Without `train` a folder of val or test will do.
    """
    held = folders_in(folder, LAYOUT)
    trained = called(folder, held, PARTS["train"])
    val = called(folder, held, PARTS["val"])
    test = None if val else called(folder, held, PARTS["test"])
    judged = val or test
    if trained is None and judged is None and len(held) > 1 and all(_holds_images(folder / name) for name in held):
        classes = tuple(known or held)
        whole = {WHOLE: _by_class(folder, held, classes)}
        return arranged(whole, classes, _NAME, folder, notes=_beside(folder), train=train)
    if trained is None and (train or judged is None):
        raise DataError(f"'{folder}' has no 'train' folder (it holds {some_folders(held)}); expected {LAYOUT}")
    own = folders_in(folder / (trained or judged or ""), LAYOUT)
    if len(own) < 2 and not known:
        what = folder / (trained or judged or "")
        raise DataError(f"'{what}' should hold two class folders or more and holds {some_folders(own)}")
    classes, parts = tuple(known or own), dict[str, Files]()
    if trained is not None and judged is not None:
        _same_classes(folder, trained, judged, own)
    for part, name in (("train", trained), ("val" if val else "test", judged)):
        if name is not None:
            parts[part] = _by_class(folder / name, own, classes)
    notes: list[str] = []
    if val:
        # What lies in test is often without labels. That must not stop a build, which val can judge as well.
        try:
            if test := called(folder, held, PARTS["test"]):
                _same_classes(folder, trained or val, test, own)
                parts["test"] = _by_class(folder / test, own, classes)
        except DataError as error:
            notes.append(f"test is left aside: {error}")
    return arranged(parts, classes, _NAME, folder, notes=notes, train=train)


def _beside(folder: Path) -> list[str]:
    """A note where the folder is one part of a data set, and another to judge by lies beside it."""
    place = folder.resolve()
    if place.name.lower() not in PARTS["train"]:
        return []
    unused = child(place.parent, PARTS["val"]) or child(place.parent, PARTS["test"])
    if unused is None:
        return []
    return [f"'{unused.name}' lies beside it and is not used: name the folder that holds both to judge by it"]


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
    classes = tuple(folders_in(folder / "train", LAYOUT))
    parts = {"train": _by_class(folder / "train", classes, classes), "val": _annotated(annotations, classes)}
    return Listing(_NAME, parts, classes)


def _annotated(annotations: Path, classes: Sequence[str]) -> Files:
    """The files that the lines `val_0.JPEG<tab>n03444034<tab>...` name, in val/images."""
    index = {name: i for i, name in enumerate(classes)}
    paths: list[Path] = []
    labels: list[int] = []
    for number, line in enumerate(annotations.read_text(errors="replace").splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in index:
            raise DataError(f"'{annotations}' line {number} names no class of the train folder: {line[:60]!r}")
        paths.append(annotations.parent / "images" / fields[0])
        labels.append(index[fields[1]])
    if not paths:
        raise DataError(f"'{annotations}' is empty; fetch the data set again")
    return Files(tuple(paths), Values(np.array(labels, np.int64)))


def _holds_images(folder: Path) -> bool:
    """Whether an image lies in the folder itself."""
    return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())


def _same_classes(folder: Path, train: str, judged: str, classes: Sequence[str]) -> None:
    own, other = set(classes), set(folders_in(folder / judged, LAYOUT))
    if own != other:
        lacks = f" lacks {some_folders(sorted(own - other))}" if own - other else ""
        more = f" has {some_folders(sorted(other - own))}, which '{train}' has not" if other - own else ""
        raise DataError(
            f"class folders differ: '{folder / judged}'{lacks}{' and' if lacks and more else ''}{more};"
            " the same class folders must be in both"
        )


def _by_class(folder: Path, held: Sequence[str], classes: Sequence[str]) -> Files:
    """The images of the class folders `held`."""
    paths: list[Path] = []
    labels: list[int] = []
    for name in held:
        if name not in classes:
            raise DataError(f"'{folder / name}' is no class of the model's: {some_folders(classes)}")
        images = images_in(folder / name)
        if not images:
            raise DataError(
                f"class folder '{folder / name}' holds no images (looked for {', '.join(sorted(SUFFIXES))})"
            )
        paths += images
        labels += [classes.index(name)] * len(images)
    return Files(tuple(paths), Values(np.array(labels, np.int64)))
