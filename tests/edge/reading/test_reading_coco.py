"""COCO's JSON, of COCO's own folders and of Roboflow's export."""

from pathlib import Path

import pytest

from prunit.edge.reading import Boxes, read
from prunit.errors import DataError
from tests.edge.reading.labelled import coco, save_photo, write

BOXES = [
    {"image_id": 1, "category_id": 7, "bbox": [4, 2, 16, 8]},
    {"image_id": 1, "category_id": 3, "bbox": [0, 0, 40, 20], "iscrowd": 1},
    {"image_id": 2, "category_id": 3, "bbox": [30, 10, 20, 20]},
]


def rows(part: object) -> list[list[list[float]]]:
    targets = getattr(part, "targets")  # noqa: B009
    assert isinstance(targets, Boxes)
    return [one.tolist() for one in targets.boxes]


def test_the_folders_of_coco_itself(tmp_path: Path) -> None:
    for part in ("train2017", "val2017"):
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            save_photo(tmp_path / part / name)
        write(tmp_path / "annotations" / f"instances_{part}.json", coco(BOXES, ["a.jpg", "b.jpg", "c.jpg"]))
        write(tmp_path / "annotations" / f"captions_{part}.json", "{}")
    found = read(tmp_path, "detection")
    assert found.classes == ("cat", "dog")  # by the numbers of their ids
    assert found.train.paths[0] == tmp_path / "train2017" / "a.jpg"
    assert found.judged.paths[0] == tmp_path / "val2017" / "a.jpg"
    assert rows(found.train) == [[[4, 2, 20, 10, 1, 0], [0, 0, 40, 20, 0, 1]], [[30, 10, 40, 20, 0, 0]], []]
    assert "6 boxes of 2 classes (cat, dog; COCO): train 3, val 3 (judged by); 2 boxes cut at the border" in found.told


def test_the_export_of_roboflow_whose_first_category_is_none(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": "pets"},
        {"id": 7, "name": "dog", "supercategory": "pets"},
    ]
    for part in ("train", "valid"):
        for name in ("a.jpg", "b.jpg"):
            save_photo(tmp_path / part / name)
        write(tmp_path / part / "_annotations.coco.json", coco(BOXES, ["a.jpg", "b.jpg"], categories))
    found = read(tmp_path, "detection")
    assert found.classes == ("cat", "dog")
    assert {name: len(files) for name, files in found.parts.items()} == {"train": 2, "val": 2}
    assert "pets is no class but the name of a group" in found.told


@pytest.mark.parametrize("home", ["", "images"])
def test_one_file_is_split(tmp_path: Path, home: str) -> None:
    names = [f"{i}.jpg" for i in range(10)]
    for name in names:
        save_photo(tmp_path / home / name)
    file = write(tmp_path / "all.json", coco(BOXES, names))
    found = read(file, "detection")
    assert (len(found.train), len(found.judged), found.automatic) == (8, 2, True)
    assert {p for part in found.parts.values() for p in part.paths} == {tmp_path / home / name for name in names}
    assert read(tmp_path, "detection").train.paths == found.train.paths


def test_annotations_of_no_image_are_told_of(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        save_photo(tmp_path / name)
    lost = {"image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1]}
    found = read(write(tmp_path / "x.json", coco([*BOXES, lost], ["a.jpg", "b.jpg"])), "detection")
    assert "boxes of 1 image ids without an image left out" in found.told


def with_box(**changed: object) -> str:
    return coco([{**BOXES[0], **changed}], ["a.jpg"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"x\.json' is no JSON: Expecting property name"),
        ("[" * 100_000, r"x\.json' is no JSON: "),
        ("{}", r"x\.json' is not COCO's: it needs the list 'images'"),
        ('{"images": [], "annotations": [3], "categories": []}', r"it needs the list 'annotations'"),
        (with_box(bbox=[1, 2, 3]), r"annotation 0 needs a bbox \[x, y, width, height\]; it has \[1, 2, 3\]"),
        (with_box(bbox=["a", 2, 3, 4]), r"annotation 0 has the bbox .*, which are no numbers"),
        (with_box(bbox=[float("inf"), 2, 3, 4]), r"a coordinate that is no finite number"),
        (with_box(category_id=5), r"annotation 0 is of category 5, which is none of 3, 7"),
        (coco([], ["a.jpg"]), r"there is not a single box"),
        (coco(BOXES, ["b.jpg", "a.jpg"]), r"names the image 'b\.jpg', which is in none of "),
        (coco(BOXES, ["", "a.jpg"]), r"each of 'images' needs a file_name"),
        (coco(BOXES, ["a.jpg"], [{"id": "x", "name": "dog"}]), r"each of 'categories' needs an id of its own"),
        (coco(BOXES[:1], ["a.jpg"]), r"1 image cannot be split into train and val: give more"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, text: str, message: str) -> None:
    save_photo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=message) as raised:
        read(write(tmp_path / "x.json", text), "detection")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("names", [("one.json", "two.json"), ("train.json", "other.json")])
def test_files_of_which_none_says_what_it_is_for(tmp_path: Path, names: tuple[str, str]) -> None:
    save_photo(tmp_path / "a.jpg")
    for name in names:
        write(tmp_path / "annotations" / name, coco(BOXES, ["a.jpg"]))
    with pytest.raises(DataError, match=r"which of them is for what\? Call them instances_train\.json"):
        read(tmp_path, "detection")
