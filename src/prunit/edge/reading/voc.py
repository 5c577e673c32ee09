"""Boxes in the XML of Pascal VOC (Everingham et al., 2010), one file for each photo.

Coordinates are taken as they are written. The original counts pixels from 1; most programs that write this format do
not, and no file says which: it is a matter of one pixel.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prunit.edge.reading.boxes import Notes, Object, Photo, files_of, names_in
from prunit.edge.reading.listing import Files, Listing, arranged, some
from prunit.edge.reading.places import (
    PARTS,
    WHOLE,
    by_stem,
    child,
    class_names,
    files_in,
    images_in,
    parts_of,
    perhaps_parts,
    read_text,
)
from prunit.errors import DataError

if TYPE_CHECKING:
    import xml.etree.ElementTree as ET

LAYOUT: Final = "JPEGImages/*.jpg, Annotations/*.xml and ImageSets/Main/train.txt, val.txt (VOC)"
_MOST_BYTES: Final = 20 * 2**20
_ANNOTATIONS: Final = ("annotations", "annotation", "xmls")
_IMAGES: Final = ("jpegimages", "images", "image")
_DECLARATIONS: Final = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


def looks_so(folder: Path) -> bool:
    """Whether annotations of VOC lie in the folder or in one of its parts."""
    return any(_xmls(place) for place in perhaps_parts(folder))


def read(folder: Path, *, known: Sequence[str] | None = None, train: bool = True) -> Listing:
    """Photos and boxes of a folder as VOC's, or of folders train, val and test with photos and XML side by side.

    `known`: the classes in the order of their numbers; else classes.txt, else those that have a box, by name.
    """
    notes, photos = Notes(), dict[str, list[Photo]]()
    if parts := {part: place for part, place in parts_of(folder).items() if _xmls(place)}:
        photos = {part: list(_photos(place, notes).values()) for part, place in parts.items()}
    else:
        photos = _by_sets(folder, _photos(folder, notes), notes)
    classes = known or class_names(folder) or names_in([one for part in photos.values() for one in part])
    if not classes:
        raise DataError(f"'{folder}' (VOC): no XML file holds an object, so there is nothing to learn")
    files: dict[str, Files] = {part: files_of(some_of, classes, notes) for part, some_of in photos.items()}
    return arranged(files, classes, "VOC", folder, notes=notes.told(), train=train)


def _xmls(folder: Path) -> list[Path]:
    """The annotations of a folder: in Annotations, else beside the photos."""
    return files_in(child(folder, _ANNOTATIONS) or folder, ".xml")


def _photos(folder: Path, notes: Notes) -> dict[str, Photo]:
    """All photos of a folder that have an XML file, by the stem of that."""
    place = child(folder, _IMAGES) or folder
    images = by_stem(images_in(place), place)
    found: dict[str, Photo] = {}
    for file in _xmls(folder):
        root = _root(file)
        # The name of the file is what is kept when photos are renamed; <filename> is often that of long ago.
        path = images.pop(file.stem, None) or images.pop(Path(_text(root, "filename")).stem, None)
        if path is None:
            raise DataError(f"'{file}' belongs to no image: there is no '{file.stem}.*' in '{place}'")
        found[file.stem] = Photo(path, file, _frame(root, file), tuple(_objects(root, file)))
    if images:
        paths = [path.name for path in images.values()]
        notes.others.append(
            f"{len(images)} image{'s' if len(images) > 1 else ''} without XML left out: {some(paths, 3)}"
        )
    return found


def _by_sets(folder: Path, photos: dict[str, Photo], notes: Notes) -> dict[str, list[Photo]]:
    """The photos by the lists in ImageSets/Main; one part where there are none."""
    main = folder / "ImageSets" / "Main"
    lists = {file.stem.lower(): file for file in (files_in(main, ".txt") if main.is_dir() else [])}
    chosen = {part: lists[name] for part, names in PARTS.items() for name in names if name in lists}
    if "train" not in chosen and "trainval" in lists:
        chosen["train"] = lists["trainval"]
    if not chosen:
        return {WHOLE: list(photos.values())}
    found: dict[str, list[Photo]] = {}
    for part, file in chosen.items():
        stems = [line.split()[0] for line in read_text(file).splitlines() if line.strip()]
        lost = [stem for stem in stems if stem not in photos]
        if lost:
            raise DataError(f"'{file}' names {some(lost, 3)}, without XML in Annotations ({len(lost)} of {len(stems)})")
        found[part] = [photos[stem] for stem in stems]
    return found


def _root(file: Path) -> "ET.Element":
    """An XML file's outermost element. Entities could make a small file a huge text: they are refused, unread."""
    import xml.etree.ElementTree as ET  # a parser that most data sets need not

    if file.stat().st_size > _MOST_BYTES:
        raise DataError(f"'{file}' has {file.stat().st_size / 2**20:.0f} MB: no annotation of VOC is so large")
    text = read_text(file)
    if _DECLARATIONS.search(text):
        raise DataError(f"'{file}' declares a DOCTYPE or entities, which no annotation needs: take them out")
    try:
        # What a file says of its own encoding cannot be had in a text that is decoded.
        root = ET.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    except ET.ParseError as cause:
        raise DataError(f"'{file}' is no XML: {cause}") from cause
    if root.tag != "annotation":
        raise DataError(f"'{file}' is no annotation of VOC: it holds <{root.tag}>, not <annotation>")
    return root


def _frame(root: "ET.Element", file: Path) -> tuple[int, int]:
    """Height and width of the photo as the file has them, (0, 0) where it does not say; some programs write 0."""
    if not _text(root, "size/width") or not _text(root, "size/height"):
        return 0, 0
    high, wide = (int(_number(root, f"size/{side}", file)) for side in ("height", "width"))
    return (high, wide) if high > 0 and wide > 0 else (0, 0)


def _objects(root: "ET.Element", file: Path) -> Iterator[Object]:
    for one in root.findall("object"):
        label = _text(one, "name")
        if not label:
            raise DataError(f"'{file}' has an object without a name")
        x1, y1, x2, y2 = (_number(one, f"bndbox/{side}", file) for side in ("xmin", "ymin", "xmax", "ymax"))
        yield Object((x1, y1, x2, y2), label, ignored=_text(one, "difficult") in ("1", "true", "True"))


def _text(element: "ET.Element", path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(element: "ET.Element", path: str, file: Path) -> float:
    text = _text(element, path)
    try:
        return float(text)
    except ValueError:
        raise DataError(f"'{file}': <{path}> should be a number and is '{text}'") from None
