"""Boxes in the JSON of COCO (Lin et al., 2014): COCO's own folders, and those that Roboflow and others export."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from prunit.edge.reading.boxes import Notes, Object, Photo, files_of
from prunit.edge.reading.listing import Listing, arranged, some
from prunit.edge.reading.places import (
    PARTS,
    WHOLE,
    child,
    files_in,
    folders_in,
    part_in,
    parts_of,
    perhaps_parts,
    read_text,
)
from prunit.errors import DataError

LAYOUT: Final = "annotations/instances_train.json, or _annotations.coco.json in train, val and test (COCO)"
_ANNOTATIONS: Final = ("annotations", "annotation", "labels")
_NO_BOXES: Final = ("captions", "person_keypoints", "stuff", "panoptic", "image_info")
"""How the names of COCO's other files begin."""
_Rows = list[dict[str, Any]]


def looks_so(place: Path) -> bool:
    """Whether the place is, or holds, a JSON file with images and annotations."""
    if place.is_file():
        return place.suffix.lower() == ".json"
    return any(_is_coco(file) for folder in perhaps_parts(place) for file in _files(folder))


def read(place: Path, *, known: Sequence[str] | None = None, train: bool = True) -> Listing:
    """Photos and boxes of a JSON file or of a folder with one for each part.

    Classes have the order of their ids; a category that only names a group of others, as Roboflow writes the project's
    with id 0, is none. `iscrowd` boxes are marked as not to count. `known`: the classes where they are known.
    """
    notes = Notes()
    contents = {part: (file, _content(file)) for part, file in _by_part(place).items()}
    names = {part: _categories(file, content) for part, (file, content) in contents.items()}
    photos = {part: _photos(*contents[part], names[part], part, notes) for part in contents}
    used = {one.label for part in photos.values() for photo in part for one in photo.objects}
    if not used:
        raise DataError(f"'{place}' (COCO): there is not a single box, so there is nothing to learn")
    groups = {str(c.get("supercategory")) for _, content in contents.values() for c in content["categories"]}
    every = list(dict.fromkeys(name for part in names.values() for name in part.values()))
    if grouping := [name for name in every if name in groups and name not in used]:
        notes.others.append(f"{some(grouping)} is no class but the name of a group")
    classes = known or [name for name in every if name not in grouping]
    files = {part: files_of(some_of, classes, notes) for part, some_of in photos.items()}
    return arranged(files, classes, "COCO", place, notes=notes.told(), train=train)


def _files(folder: Path) -> list[Path]:
    """The JSON files of a folder that may hold boxes: in annotations, else in itself."""
    place = child(folder, _ANNOTATIONS)
    found = (files_in(place, ".json") if place else []) or files_in(folder, ".json")
    instances = [file for file in found if file.name.startswith("instances_")]
    return instances or [file for file in found if not file.name.startswith(_NO_BOXES)]


def _is_coco(file: Path) -> bool:
    if "coco" in file.name.lower() or file.name.startswith("instances_"):
        return True
    text = file.read_text("utf-8", errors="replace")
    return all(re.search(rf'"{key}"\s*:\s*\[', text) for key in ("images", "annotations", "categories"))


def _by_part(place: Path) -> dict[str, Path]:
    """The JSON file of each part."""
    if place.is_file():
        return {WHOLE: place}
    inside = {part: [f for f in _files(folder) if _is_coco(f)] for part, folder in parts_of(place).items()}
    found = {part: files for part, files in inside.items() if files}
    if not found:
        for file in filter(_is_coco, _files(place)):
            found.setdefault(part_in(file.stem) or WHOLE, []).append(file)
    several = next((files for files in found.values() if len(files) > 1), None)
    if several is not None or (WHOLE in found and len(found) > 1):
        files = several or [file for one in found.values() for file in one]
        raise DataError(
            f"'{place}' holds {some([file.name for file in files])}: which of them is for what? Call them"
            " instances_train.json, instances_val.json and instances_test.json, or give one of them"
        )
    return {part: files[0] for part, files in found.items()}


def _content(file: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(read_text(file))
    except (json.JSONDecodeError, RecursionError) as cause:
        raise DataError(f"'{file}' is no JSON: {cause}") from cause
    found = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    for key in ("images", "annotations", "categories"):
        rows: Any = found.get(key)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in cast("list[Any]", rows)):
            raise DataError(
                f"'{file}' is not COCO's: it needs the list '{key}', besides images, annotations, categories"
            )
    return found


def _categories(file: Path, content: dict[str, Any]) -> dict[Any, str]:
    """The name of each category by its id, in the order of the ids."""
    rows = cast("_Rows", content["categories"])
    found = {row.get("id"): row.get("name") for row in rows}
    if not all(isinstance(i, int) and isinstance(name, str) for i, name in found.items()) or len(found) < len(rows):
        raise DataError(f"'{file}': each of 'categories' needs an id of its own, a whole number, and a name")
    return {i: str(found[i]) for i in sorted(cast("dict[int, str]", found))}


def _photos(file: Path, content: dict[str, Any], names: dict[Any, str], part: str, notes: Notes) -> list[Photo]:
    objects: dict[Any, list[Object]] = {}
    for row in cast("_Rows", content["annotations"]):
        box: Any = row.get("bbox")
        if not isinstance(box, list) or len(cast("list[Any]", box)) != 4:
            raise DataError(f"'{file}': annotation {row.get('id')} needs a bbox [x, y, width, height]; it has {box}")
        if row.get("category_id") not in names:
            raise DataError(
                f"'{file}': annotation {row.get('id')} is of category {row.get('category_id')}, which is none of"
                f" {some([str(i) for i in names])}"
            )
        try:
            x, y, wide, high = (float(number) for number in cast("list[Any]", box))
        except (TypeError, ValueError):
            raise DataError(f"'{file}': annotation {row.get('id')} has the bbox {box}, which are no numbers") from None
        one = Object((x, y, x + wide, y + high), names[row.get("category_id")], ignored=bool(row.get("iscrowd")))
        objects.setdefault(row.get("image_id"), []).append(one)
    rows = cast("_Rows", content["images"])
    paths = _paths(file, [str(row.get("file_name", "")).replace("\\", "/") for row in rows], part)
    found = [
        Photo(path, path, _frame(row), tuple(objects.pop(row.get("id"), ())))
        for path, row in zip(paths, rows, strict=True)
    ]
    if objects:
        notes.others.append(f"boxes of {len(objects)} image ids without an image left out")
    return found


def _frame(row: dict[str, Any]) -> tuple[int, int]:
    high, wide = row.get("height"), row.get("width")
    return (high, wide) if isinstance(high, int) and isinstance(wide, int) and high > 0 and wide > 0 else (0, 0)


def _paths(file: Path, names: Sequence[str], part: str) -> list[Path]:
    """Where the images lie: beside the JSON file, in images, or in a folder for its part beside annotations."""
    if not all(names):
        raise DataError(f"'{file}': each of 'images' needs a file_name")
    near, up = file.parent, file.parent.parent
    homes = [near, near / "images", up, up / "images"]
    for home in (near, up, near / "images", up / "images"):
        inside = folders_in(home) if home.is_dir() else []
        # First the folder of the file's own name: instances_train2017 goes with train2017.
        inside.sort(key=lambda name: not file.stem.endswith(name))
        called = PARTS.get(part, ())
        homes += [home / n for n in inside if part_in(n) == part or n.lower() in called or file.stem.endswith(n)]
    home = next((home for home in homes if names and (home / names[0]).is_file()), None)
    if home is None and names:
        tried = some([str(home) for home in dict.fromkeys(homes) if home.is_dir()])
        raise DataError(f"'{file}' names the image '{names[0]}', which is in none of {tried}")
    return [(home or near) / name for name in names]
