"""YOLO's text files and data.yaml."""

from pathlib import Path

import pytest

from prunit.edge.pixels import Placing
from prunit.edge.reading import Boxes, read
from prunit.edge.reading.yolo import settings
from prunit.errors import DataError
from tests.edge.reading.labelled import save_photo, write

LINES = "1 0.5 0.5 0.5 0.5\n0 0.25 0.5 0.5 1.0\n"
PLACING = Placing.of((20, 40), (20, 40), "letterbox")


def write_yolo(folder: Path, images: str, labels: str, stems: str = "ab", text: str = LINES) -> Path:
    for stem in stems:
        save_photo(folder / images / f"{stem}.jpg")
        write(folder / labels / f"{stem}.txt", text)
    return folder


def rows(part: object, i: int = 0) -> list[list[float]]:
    targets = getattr(part, "targets")  # noqa: B009
    assert isinstance(targets, Boxes)
    return targets.of(i, PLACING).tolist()


@pytest.mark.parametrize(("images", "labels"), [("images/{}", "labels/{}"), ("{}/images", "{}/labels")])
def test_both_layouts_with_a_list_of_classes(tmp_path: Path, images: str, labels: str) -> None:
    for part in ("train", "valid"):
        write_yolo(tmp_path, images.format(part), labels.format(part))
    write(tmp_path / "classes.txt", "cat\ndog\n")
    found = read(tmp_path, "detection")
    assert found.classes == ("cat", "dog")
    assert {name: len(files) for name, files in found.parts.items()} == {"train": 2, "val": 2}
    assert rows(found.train) == [[10, 5, 30, 15, 1, 0], [0, 0, 20, 20, 0, 0]]
    assert "8 boxes of 2 classes (cat, dog; YOLO): train 2, val 2 (judged by)" in found.told


def test_no_parts_are_split_and_classes_without_names_are_numbers(tmp_path: Path) -> None:
    found = read(write_yolo(tmp_path, "images", "labels", "abcdefghij"), "detection")
    assert found.classes == ("0", "1")
    assert (len(found.train), len(found.judged)) == (8, 2)
    assert "its classes have no names (data.yaml or classes.txt)" in found.told


def test_names_beside_the_labels_as_labelimg_writes_them(tmp_path: Path) -> None:
    write(write_yolo(tmp_path, "images", "labels") / "labels" / "classes.txt", "cat\ndog\n")
    assert read(tmp_path, "detection").classes == ("cat", "dog")


ROBOFLOW = """train: ../train/images
val: ../valid/images
test: ../test/images

nc: 2
names: ['cat', "dog"]  # two

roboflow:
  workspace: somebody
  names: 7
"""
ULTRALYTICS = """# COCO128
path: {folder} # dataset root dir
train: images/train2017 # 128 images
val: images/val2017
test: # optional

# Classes
names:
  0: cat
  1: 'hot dog'
"""
LISTS = """
train:
  - images/train2017
val: val.txt
names: [cat,
  dog]
"""


def test_the_export_of_roboflow_whose_paths_lead_one_folder_too_high(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        write_yolo(tmp_path, f"{part}/images", f"{part}/labels")
    write(tmp_path / "data.yaml", ROBOFLOW)
    found = read(tmp_path, "detection")
    assert found.classes == ("cat", "dog")
    assert {name: len(files) for name, files in found.parts.items()} == {"train": 2, "val": 2}
    assert "test (../test/images) is not there" in found.told


def test_a_list_of_ultralytics_and_one_that_names_files(tmp_path: Path) -> None:
    for part in ("train2017", "val2017"):
        write_yolo(tmp_path / "set", f"images/{part}", f"labels/{part}")
    own = write(tmp_path / "elsewhere" / "pets.yaml", ULTRALYTICS.format(folder=tmp_path / "set"))
    found = read(own, "detection")
    assert found.classes == ("cat", "hot dog")
    assert found.judged.paths[0] == tmp_path / "set" / "images" / "val2017" / "a.jpg"
    write(tmp_path / "set" / "val.txt", "./images/val2017/b.jpg\n\n")
    listed = read(write(tmp_path / "set" / "data.yml", LISTS), "detection")
    assert listed.judged.paths == (tmp_path / "set" / "images" / "val2017" / "b.jpg",)
    assert rows(listed.judged) == [[10, 5, 30, 15, 1, 0], [0, 0, 20, 20, 0, 0]]


def test_val_that_is_train_is_no_val(tmp_path: Path) -> None:
    write_yolo(tmp_path, "images/train2017", "labels/train2017", "abcdefghij")
    write(tmp_path / "data.yaml", "train: images/train2017\nval: images/train2017\nnames: [cat, dog]\n")
    found = read(tmp_path, "detection")
    assert (len(found.train), len(found.judged), found.automatic) == (8, 2, True)
    assert "val is the same as train and not used" in found.told


def test_a_polygon_is_the_box_around_it_and_no_file_no_object(tmp_path: Path) -> None:
    write_yolo(tmp_path, "images", "labels", "a", "0 0.1 0.2 0.5 0.4 0.3 0.9\n")
    save_photo(tmp_path / "images" / "b.jpg")
    found = read(tmp_path, "detection")
    every = {path.stem: rows(part, i) for part in found.parts.values() for i, path in enumerate(part.paths)}
    assert every == {"a": [pytest.approx([4, 4, 20, 18, 0, 0])], "b": []}


def test_boxes_at_the_border_with_six_decimals_are_not_spoken_of(tmp_path: Path) -> None:
    write_yolo(
        tmp_path, "images", "labels", "ab", "0 0.083333 0.5 0.166667 1.000001\n1 0.9 0.5 0.4 0.2\n1 0.5 0.5 0 0.3\n"
    )
    found = read(tmp_path, "detection")
    assert "2 boxes without area left out: a.txt, b.txt; 2 boxes cut at the border: a.txt, b.txt" in found.told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.5\n", r"a\.txt' line 1 should be a class and x, y, width, height .* and is '0 0\.5 0\.5 0\.5'"),
        ("\n0 0.5 0.5 0.5 x\n", r"a\.txt' line 2 should be a class"),
        ("0.5 0.5 0.5 0.5 0.5\n", r"a\.txt' line 1 should be a class"),
        ("0 0.5 0.5 0.5 0.5 0.9\n", r"a\.txt' line 1 should be a class"),
        ("0 120 60 30 30\n", r"a\.txt' line 1 holds 120: places are shares of the photo, from 0 to 1"),
        ("5 0.5 0.5 0.5 0.5\n", r"a\.txt' has a box of class 5, but there are 2: cat, dog"),
        ("0 nan 0.5 0.5 0.5\n", r"a\.txt' has a box with a coordinate that is no finite number"),
        ("", r"there is not a single box"),
    ],
)
def test_a_line_that_cannot_be_meant(tmp_path: Path, text: str, message: str) -> None:
    write(write_yolo(tmp_path, "images", "labels", text=text) / "classes.txt", "cat\ndog\n")
    with pytest.raises(DataError, match=message):
        read(tmp_path, "detection")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: nowhere\nnames: [a, b]\n", r"data\.yaml' says that train is in 'nowhere', which is not there"),
        ("train: images\nnames: [a, a]\n", r"data\.yaml' names the class 'a' twice"),
        ("train: images\nnames:\n  0: a\n  2: b\n", r"'names' should be numbered from 0 without a gap; it has 0, 2"),
        ("train: images\nnames: [a, b\n", r"data\.yaml' is not YAML: while parsing a flow sequence"),
    ],
)
def test_a_list_that_cannot_be_meant(tmp_path: Path, text: str, message: str) -> None:
    write(write_yolo(tmp_path, "images", "labels") / "data.yaml", text)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "data.yaml", "detection")


def test_a_part_without_any_labels(tmp_path: Path) -> None:
    write_yolo(tmp_path, "images/train", "labels/train")
    save_photo(tmp_path / "images" / "val" / "a.jpg")
    with pytest.raises(DataError, match=r"no image of val has a file of labels, as '.*labels/val/a\.txt'"):
        read(tmp_path, "detection")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('a: 1 # one\nb: \'x # y\'\nc: "q\\"r"\n', {"a": "1", "b": "x # y", "c": 'q"r'}),
        ("a: [x, 'y, z', \"w\"]\n", {"a": ["x", "y, z", "w"]}),
        ("a: {0: x, 1: y}\n", {"a": {"0": "x", "1": "y"}}),
        ("a:\n- x\n- it's\nb:\n", {"a": ["x", "it's"], "b": ""}),
        ("a:\n  b: 1\n  c:\n    d: 2\n", {"a": {"b": "1", "c": {"d": "2"}}}),
        ("a: [no, 007, 1e3]\n", {"a": ["no", "007", "1e3"]}),
        ("a: C:\\data\nb: http://x/y\nc: null\n", {"a": "C:\\data", "b": "http://x/y", "c": ""}),
    ],
)
def test_the_yaml_that_such_lists_use(tmp_path: Path, text: str, found: object) -> None:
    assert settings(write(tmp_path / "x.yaml", text)) == found
