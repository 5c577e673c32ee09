"""Boxes in the text files of YOLO: a line for each, `class x y width height` in shares of the photo, or a polygon."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

from prunit.edge.reading.boxes import Notes, Object, Photo, files_of
from prunit.edge.reading.listing import Listing, arranged, some
from prunit.edge.reading.places import (
    PARTS,
    WHOLE,
    check_names,
    child,
    class_names,
    files_in,
    images_in,
    parts_of,
    perhaps_parts,
    read_text,
)
from prunit.errors import DataError, MissingExtraError

Value = str | list[Any] | dict[str, Any]
"""What stands behind a key of a list of data sets: text, a list, or more keys; numbers are text too."""

LAYOUT: Final = "data.yaml, or images/train and labels/train (or train/images and train/labels) with classes.txt (YOLO)"
_SUFFIXES: Final = (".yaml", ".yml")
_IMAGES: Final = ("images",)
_LABELS: Final = ("labels",)
_FRAME: Final = (1, 1)
_MOST: Final = 2.0
"""Shares above are none but pixels; up to it they reach beyond the photo and are cut."""


def looks_so(place: Path) -> bool:
    """Whether the place is, or holds, a data.yaml or labels as text."""
    if place.is_file():
        return place.suffix.lower() in _SUFFIXES
    return _list_in(place) is not None or any(_has_text(folder) for folder in perhaps_parts(place))


def read(place: Path, *, known: Sequence[str] | None = None, train: bool = True) -> Listing:
    """Photos and boxes of a folder, or of a data.yaml as Ultralytics' trainers take it.

    An image without a file of labels has no object. A polygon counts as the box around it. `known`: the classes in the
    order of their numbers where they are known; else those of data.yaml, classes.txt or obj.names, else the numbers.
    """
    notes = Notes()
    file = place if place.is_file() else _list_in(place)
    folder = place.parent if place.is_file() else place
    held = settings(file) if file else {}
    images = _listed(file, held, notes) if file else {}
    images = images or _found(folder)
    if not images:
        raise DataError(f"'{place}' lists no images with labels; expected {LAYOUT}")
    own = _names(file, held.get("names", "")) if file else None
    own = own or class_names(folder, folder / "labels", *(p for p in perhaps_parts(folder / "labels")))
    rows = {part: [(path, *_rows(path)) for path in paths] for part, paths in images.items()}
    for part, some_of in rows.items():
        left_aside = part == "test" and "val" in rows  # `arranged` does so where a test has no box
        if some_of and not left_aside and not any(label for _, label, _ in some_of):
            raise DataError(f"'{place}' (YOLO): no image of {part} has a file of labels, as '{_label(some_of[0][0])}'")
    highest = max((number for part in rows.values() for _, _, found in part for number, _ in found), default=-1)
    if highest < 0:
        raise DataError(f"'{place}' (YOLO): there is not a single box, so there is nothing to learn")
    if own is None:
        own = tuple(known or map(str, range(highest + 1)))
        notes.others.append("its classes have no names (data.yaml or classes.txt)")
    photos = {
        part: [
            Photo(path, label or path, _FRAME, tuple(_objects(found, own, label or path))) for path, label, found in r
        ]
        for part, r in rows.items()
    }
    files = {part: files_of(some_of, known or own, notes) for part, some_of in photos.items()}
    return arranged(files, known or own, "YOLO", place, notes=notes.told(), train=train)


def settings(path: Path) -> dict[str, Value]:
    """The outermost keys of a YAML file, its values as they are written; `DataError` if it is none."""
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError(f"reading '{path.name}'", "pyyaml", "evaluate") from error
    try:
        # Of this loader all is text: class names like `no` and `007` stay what they are, and nothing is made of a tag.
        found: Any = yaml.load(read_text(path), Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise DataError(f"'{path}' is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict):
        return {}
    held = cast("dict[str, Value]", found)
    return {key: "" if value in ("null", "~") else value for key, value in held.items()}


def _list_in(folder: Path) -> Path | None:
    """The folder's data.yaml, or another YAML file that names parts and classes."""
    if not folder.is_dir():
        return None
    files = sorted(files_in(folder, *_SUFFIXES), key=lambda file: file.stem.lower() != "data")
    return next((file for file in files if {"train", "names"} <= settings(file).keys()), None)


def _has_text(folder: Path) -> bool:
    labels = child(folder, _LABELS)
    return labels is not None and next(labels.rglob("*.txt"), None) is not None


def _listed(file: Path, held: dict[str, Value], notes: Notes) -> dict[str, list[Path]]:
    """The images of each part that a data.yaml names."""
    found: dict[str, list[Path]] = {}
    for part, names in PARTS.items():
        value = next((held[name] for name in names if held.get(name)), "")
        texts = value if isinstance(value, list) else [value] if isinstance(value, str) and value else []
        places = [(text, _resolved(file, held.get("path", ""), text)) for text in texts]
        lost = [text for text, place in places if place is None]
        if lost and part != "train":
            notes.others.append(f"{part} ({some(lost)}) is not there")
        elif lost:
            raise DataError(f"'{file}' says that {part} is in '{lost[0]}', which is not there (nor in '{file.parent}')")
        paths = [path for _, place in places if place for path in _images(place)]
        if paths and paths == found.get("train"):
            notes.others.append(f"{part} is the same as train and not used")
        elif paths:
            found[part] = paths
    return found


def _resolved(file: Path, base: Value, text: str) -> Path | None:
    """A place that a data.yaml names: below its `path`, else beside it.

    Roboflow writes `../train/images` for the folder train beside the file: there the dots are taken away.
    """
    root = file.parent / Path(base if isinstance(base, str) else "").expanduser()
    tried = [where / one for where in (root, file.parent) for one in (text, text.removeprefix("../"))]
    return next((one for one in tried if one.exists()), None)


def _images(place: Path) -> list[Path]:
    if place.is_dir():
        return images_in(place)
    lines = [line.strip() for line in read_text(place).splitlines()]
    return [place.parent / line for line in lines if line]


def _found(folder: Path) -> dict[str, list[Path]]:
    """The images of each part by the folders: train/images, images/train, or images alone."""
    found = {part: home for part, place in parts_of(folder).items() if (home := child(place, _IMAGES))}
    images = child(folder, _IMAGES)
    if not found and images is not None:
        found = parts_of(images) or {WHOLE: images}
    return {part: images_in(home) for part, home in found.items()}


def _names(file: Path, value: Value) -> tuple[str, ...] | None:
    """The classes of a data.yaml, a list or numbered from 0."""
    if isinstance(value, dict):
        numbers = sorted(int(key) for key in value if key.isdecimal())
        if numbers != list(range(len(value))):
            raise DataError(f"'{file}': 'names' should be numbered from 0 without a gap; it has {some(list(value))}")
        value = [value[str(number)] for number in numbers]
    if not isinstance(value, list):
        return None
    check_names(value, file)
    return tuple(value)


def _label(path: Path) -> Path:
    """Where an image's labels are looked for: its path with the last `images` in it replaced by `labels`."""
    parts = list(path.parts)
    last = max((i for i, part in enumerate(parts[:-1]) if part.lower() == "images"), default=None)
    if last is not None:
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def _rows(path: Path) -> tuple[Path | None, list[tuple[int, tuple[float, float, float, float]]]]:
    """An image's file of labels, None without one, and its classes and boxes x1, y1, x2, y2 in shares."""
    label = next((one for one in (_label(path), path.with_suffix(".txt")) if one.is_file()), None)
    if label is None:
        return None, []
    found: list[tuple[int, tuple[float, float, float, float]]] = []
    for number, line in enumerate(read_text(label).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = [float(word) for word in line.split()]
        except ValueError:
            values = []
        if len(values) < 5 or not (len(values) == 5 or len(values) % 2) or values[0] != int(values[0]) or values[0] < 0:
            raise DataError(
                f"'{label}' line {number} should be a class and x, y, width, height (or a polygon) and is {line[:60]!r}"
            )
        if max(values[1:]) > _MOST:
            raise DataError(
                f"'{label}' line {number} holds {max(values[1:]):g}: places are shares of the photo, from 0 to 1"
            )
        found.append((int(values[0]), _box(values[1:])))
    return label, found


def _box(values: Sequence[float]) -> tuple[float, float, float, float]:
    if len(values) == 4:
        x, y, wide, high = values
        return x - wide / 2, y - high / 2, x + wide / 2, y + high / 2
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])


def _objects(
    rows: Sequence[tuple[int, tuple[float, float, float, float]]], names: Sequence[str], file: Path
) -> Iterator[Object]:
    for number, box in rows:
        if number >= len(names):
            raise DataError(f"'{file}' has a box of class {number}, but there are {len(names)}: {some(names)}")
        yield Object(box, names[number])
