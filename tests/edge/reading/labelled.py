"""Small labelled data sets in the layouts that people have."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]


def save_photo(path: Path, size: tuple[int, int] = (40, 20)) -> Path:
    """A grey-green photo of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 90)).save(path)
    return path


def save_mask(path: Path, values: Any, mode: str = "L") -> Path:
    """A mask of these values (H, W); mode P: indices of a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    if mode == "P":
        image = Image.fromarray(np.asarray(values, np.uint8)).convert("P")
        image.putpalette([i % 256 for i in range(768)])
        image.frombytes(np.asarray(values, np.uint8).tobytes())
    image.save(path)
    return path


def voc_xml(
    objects: Sequence[tuple[str, Box]], size: tuple[int, int] = (40, 20), more: str = "", name: str = ""
) -> str:
    """An annotation: names and boxes, width and height of the photo; `more` goes into each object."""
    boxes = "".join(
        f"<object><name>{label}</name>{more}<bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax>"
        f"<ymax>{b[3]}</ymax></bndbox></object>"
        for label, b in objects
    )
    return (
        f"<annotation><filename>{name}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
        f"{boxes}</annotation>"
    )


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_voc(folder: Path, photos: Mapping[str, Sequence[tuple[str, Box]]]) -> Path:
    """Photos and annotations by stem, as VOC has them, without lists."""
    for stem, objects in photos.items():
        save_photo(folder / "JPEGImages" / f"{stem}.jpg")
        write(folder / "Annotations" / f"{stem}.xml", voc_xml(objects))
    return folder


def coco(
    boxes: Sequence[Mapping[str, Any]],
    images: Sequence[str],
    categories: Sequence[Mapping[str, Any]] = ({"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}),
) -> str:
    """A JSON file's text: images of 40x20 numbered from 1."""
    return json.dumps(
        {
            "images": [{"id": i + 1, "file_name": name, "width": 40, "height": 20} for i, name in enumerate(images)],
            "annotations": [{"id": i, **box} for i, box in enumerate(boxes)],
            "categories": list(categories),
        }
    )
