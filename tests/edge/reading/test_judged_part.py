"""In every layout: with val and test both there models are judged by test, and val is what is looked at before."""

from collections.abc import Callable
from pathlib import Path

import pytest

from prunit.edge.reading import read
from tests.edge.reading.labelled import coco, save_mask, save_photo, voc_xml, write

COUNTS = {"train": 4, "val": 2, "test": 3}
BOX = ("dog", (1.0, 1.0, 9.0, 9.0))


def classes(folder: Path, part: str, n: int) -> None:
    for name in ("cat", "dog"):
        for i in range(n // 2 + 1):
            save_photo(folder / part / name / f"{i}.jpg")


def masks(folder: Path, part: str, n: int) -> None:
    for i in range(n):
        save_photo(folder / part / "images" / f"{i}.jpg", (4, 2))
        save_mask(folder / part / "masks" / f"{i}.png", [[0, 0, 1, 1]] * 2)


def voc(folder: Path, part: str, n: int) -> None:
    for i in range(n):
        save_photo(folder / part / f"{i}.jpg")
        write(folder / part / f"{i}.xml", voc_xml([BOX]))


def voc_lists(folder: Path, part: str, n: int) -> None:
    stems = [f"{part}{i}" for i in range(n)]
    for stem in stems:
        save_photo(folder / "JPEGImages" / f"{stem}.jpg")
        write(folder / "Annotations" / f"{stem}.xml", voc_xml([BOX]))
    write(folder / "ImageSets" / "Main" / f"{part}.txt", "\n".join(stems))


def coco_parts(folder: Path, part: str, n: int) -> None:
    names = [f"{i}.jpg" for i in range(n)]
    for name in names:
        save_photo(folder / part / name)
    rows = [{"image_id": i + 1, "category_id": 3, "bbox": [0, 0, 9, 9]} for i in range(n)]
    write(folder / part / "_annotations.coco.json", coco(rows, names))


def yolo(folder: Path, part: str, n: int) -> None:
    for i in range(n):
        save_photo(folder / "images" / part / f"{i}.jpg")
        write(folder / "labels" / part / f"{i}.txt", "0 0.5 0.5 0.2 0.2\n")
    write(folder / "data.yaml", "".join(f"{p}: images/{p}\n" for p in COUNTS) + "names: [dog]\n")


def table(folder: Path, part: str, n: int) -> None:
    for i in range(n):
        save_photo(folder / part / f"{i}.jpg")
    write(folder / f"{part}.csv", "file,age\n" + "".join(f"{i}.jpg,{i}\n" for i in range(n)))


LAYOUTS = [
    *((classes, "classification", {"train": 6, "val": 4, "test": 4}), (masks, "segmentation", COUNTS)),
    *((voc, "detection", COUNTS), (voc_lists, "detection", COUNTS), (coco_parts, "detection", COUNTS)),
    *((yolo, "detection", COUNTS), (table, "regression", COUNTS)),
]


@pytest.mark.parametrize(("written", "task", "images"), LAYOUTS)
def test_test_judges_and_val_is_watched(
    written: Callable[[Path, str, int], None], task: str, images: dict[str, int], tmp_path: Path
) -> None:
    for part, n in COUNTS.items():
        written(tmp_path, part, n)
    found = read(tmp_path, task)
    assert {part: len(files) for part, files in found.parts.items()} == images
    assert (found.judged_by, found.judged, found.watched) == ("test", found.parts["test"], found.parts["val"])
    train, val, test = images.values()
    assert f"train {train}, val {val} (watched in training), test {test} (judged by)" in found.told


@pytest.mark.parametrize(("written", "task", "images"), LAYOUTS)
@pytest.mark.parametrize("only", ["val", "test"])
def test_the_one_that_is_there_judges(
    written: Callable[[Path, str, int], None], task: str, images: dict[str, int], only: str, tmp_path: Path
) -> None:
    for part in ("train", only):
        written(tmp_path, part, COUNTS[part])
    found = read(tmp_path, task)
    assert (found.judged_by, found.watched) == (only, None)
    assert f"{only} {images[only]} (judged by)" in found.told


def test_a_test_that_lacks_labels_is_left_aside_beside_val(tmp_path: Path) -> None:
    for part, n in COUNTS.items():
        yolo(tmp_path, part, n)
    for file in (tmp_path / "labels" / "test").iterdir():
        file.unlink()
    found = read(tmp_path, "detection")
    assert (found.judged_by, found.watched) == ("val", None)
    assert "test has not a single box and is left aside" in found.told
