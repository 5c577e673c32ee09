"""Photos in `images/` and, by the same names, the class of each of their pixels in `masks/`."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from prunit.edge.reading.listing import Files, Listing, arranged, some
from prunit.edge.reading.places import PARTS, WHOLE, by_stem, child, class_names, images_in, parts_of, perhaps_parts
from prunit.edge.reading.targets import IGNORED, Masks, mask_values
from prunit.errors import DataError

LAYOUT: Final = "images/*.jpg and masks/*.png of the same names, or both in train, val and test"
IMAGES: Final = ("images", "image", "imgs", "img")
MASKS: Final = ("masks", "mask")
_FRONT: Final = ("background", "foreground")
_MOST: Final = 64
"""Grey values in masks; more are no classes."""
_FEW: Final = 5
"""Masks, from which on a value that stands in a single one is worth a word."""
_SUFFIXES: Final = ("_mask", "-mask", "_seg")
"""What stands behind the photo's name in that of its mask, if it is not the same."""


def looks_so(folder: Path) -> bool:
    """Whether images and masks lie in the folder or in one of its parts."""
    return any(child(place, IMAGES) and child(place, MASKS) for place in perhaps_parts(folder))


def read(folder: Path, *, known: Sequence[str] | None = None, train: bool = True) -> Listing:
    """Photos and masks. Of an indexed mask the indices are the classes, of a grey one its levels; 255 is left out.

    Masks of 0 and 255 alone are background and foreground. Grey levels with gaps between them (0, 127) are counted
    through, and the classes are named by them. `known` or classes.txt name the classes in the order of their values;
    names that are whole numbers mean the levels themselves.
    """
    places = _places(folder)
    if not places:
        raise DataError(f"'{folder}' holds no images with masks; expected {LAYOUT}")
    pairs = {part: list(_pairs(*place)) for part, place in places.items()}
    files = [mask for part in pairs.values() for _, mask in part]
    used = _values(files)
    meaning, classes = _meaning(files, used, known or class_names(folder))
    parts = {
        part: Files(tuple(i for i, _ in two), Masks(tuple(m for _, m in two), meaning)) for part, two in pairs.items()
    }
    notes = ["pixels of value 255 are left out"] if meaning[IGNORED] == IGNORED and used[:, IGNORED].any() else []
    alone = [value for value in np.flatnonzero(used.sum(axis=0) == 1).tolist() if value != IGNORED]
    if len(files) >= _FEW and not (known or class_names(folder)):
        notes += [f"only '{files[int(used[:, v].argmax())].name}' has the value {v}, taken for a class" for v in alone]
    return arranged(parts, classes, "masks", folder, notes=notes, train=train)


def _places(folder: Path) -> dict[str, tuple[Path, Path]]:
    """For each part the folders of its photos and of its masks: train/masks, masks/train, or masks alone."""
    found: dict[str, tuple[Path, Path]] = {}
    for part, place in parts_of(folder).items():
        images, masks = child(place, IMAGES), child(place, MASKS)
        if images and masks:
            found[part] = images, masks
    images, masks = child(folder, IMAGES), child(folder, MASKS)
    if found or images is None or masks is None:
        return found
    for part, names in PARTS.items():
        one, other = child(images, names), child(masks, names)
        if one and other:
            found[part] = one, other
    return found or {WHOLE: (images, masks)}


def _pairs(images: Path, masks: Path) -> Iterator[tuple[Path, Path]]:
    """Photos with their masks, by name."""
    photos, own = by_stem(images_in(images), images), by_stem(images_in(masks), masks)
    for stem in own.keys() - photos.keys():
        short = next((stem.removesuffix(end) for end in _SUFFIXES if stem.removesuffix(end) in photos), stem)
        own[short] = own.pop(stem)
    lost, more = sorted(photos.keys() - own.keys()), sorted(own.keys() - photos.keys())
    if lost or more:
        what = f"no mask for {some(lost, 3)}" if lost else f"no image for {some(more, 3)}"
        raise DataError(f"'{masks}' and '{images}': {what} ({len(lost or more)} in all); each image needs its mask")
    if not photos:
        raise DataError(f"'{images}' holds no images")
    yield from ((path, own[stem]) for stem, path in photos.items())


def _values(files: Sequence[Path]) -> npt.NDArray[np.bool_]:
    """(N, 256): whether the mask has that value; of one that cannot be read nothing is known until it is used."""

    def of(path: Path) -> npt.NDArray[np.bool_] | Exception:
        try:
            return np.bincount(mask_values(path).ravel(), minlength=256) > 0
        except Exception as cause:  # decoders fail in many ways
            return cause

    from concurrent.futures import ThreadPoolExecutor  # with what it brings, as much as all else here

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(of, files))
    read = [one for one in found if not isinstance(one, Exception)]
    if not read:
        raise DataError(f"mask '{files[0]}' cannot be used: {' '.join(str(found[0]).split())}")
    return np.stack([np.zeros(256, np.bool_) if isinstance(one, Exception) else one for one in found])


def _meaning(
    files: Sequence[Path], used: npt.NDArray[np.bool_], names: Sequence[str] | None
) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """The class of each of the 256 values, and the classes' names."""
    found = np.flatnonzero(used.any(axis=0)).tolist()
    meaning = np.full(256, IGNORED, np.uint8)
    levels = [value for value in found if value != IGNORED]
    if names and all(name.isdecimal() and int(name) <= IGNORED for name in names):
        levels = [int(name) for name in names]
    elif IGNORED in found and set(found) <= {0, IGNORED} and len(names or _FRONT) == len(_FRONT):
        levels, names = [0, IGNORED], names or _FRONT
    elif names:
        levels = list(range(len(names)))
    elif len(levels) > _MOST:
        worst = files[int(used.sum(axis=1).argmax())]
        raise DataError(
            f"masks as '{worst}' hold {len(levels)} values ({_MOST} can be classes at most):"
            " a mask saved as JPEG, or made smaller with smoothing, is none any more; write indexed or grey PNG"
        )
    elif _indexed(files[0]):
        levels = list(range(max(levels, default=0) + 1))
    classes = tuple(names or map(str, levels))
    strange = [value for value in found if value not in levels and value != IGNORED]
    if strange:
        file = files[int(used[:, strange[0]].argmax())]
        raise DataError(
            f"mask '{file}' has the value {strange[0]}, but the classes are {len(classes)}: {some(classes)}"
        )
    if len(classes) < 2:
        raise DataError(f"'{files[0]}' and all other masks hold one class alone ({some(classes)}): there must be two")
    meaning[levels] = np.arange(len(levels), dtype=np.uint8)
    return meaning, classes


def _indexed(path: Path) -> bool:
    from prunit.edge.pixels import opened

    with opened(path) as image:
        return bool(image.mode == "P")
