"""What all layouts share: which task reads which folder, automatic splits, what a device reads; no torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prunit.edge.reading import READ, Files, Values, read, split
from prunit.errors import DataError, UnknownNameError
from tests.edge.reading.labelled import coco, save_mask, save_photo, write, write_voc


def classes_of(part: Files) -> list[int]:
    assert isinstance(part.targets, Values)
    return part.targets.values.tolist()


def write_classes(folder: Path, counts: dict[str, int]) -> Path:
    for name, n in counts.items():
        for i in range(n):
            save_photo(folder / name / f"{i}.jpg")
    return folder


@pytest.mark.parametrize("part", ["", "train", "Training"])
def test_classes_without_a_part_to_judge_by_are_split_evenly(tmp_path: Path, part: str) -> None:
    write_classes(tmp_path / part, {"cat": 20, "dog": 10, "eel": 5})
    found = read(tmp_path, "classification")
    assert found.classes == ("cat", "dog", "eel")
    assert np.bincount(classes_of(found.train)).tolist() == [16, 8, 4]
    assert np.bincount(classes_of(found.judged)).tolist() == [4, 2, 1]
    assert not {*found.train.paths} & {*found.judged.paths}
    assert found.told == (
        "35 images of 3 classes (cat, dog, eel; class folders): train 28, val 7 (20% held out, drawn with a fixed seed)"
    )


def test_a_split_is_always_the_same_and_another_with_another_seed() -> None:
    files = Files(tuple(Path(str(i)) for i in range(50)), Values(np.arange(50, dtype=np.int64) % 5))
    one, again, other = split(files), split(files), split(files, seed=1)
    assert (one[0].paths, one[1].paths) == (again[0].paths, again[1].paths)
    assert one[1].paths != other[1].paths
    assert [int(str(path)) for path in one[0].paths] == sorted(int(str(path)) for path in one[0].paths)


@pytest.mark.parametrize(("classes", "held"), [([0, 1], 1), ([0, 0, 0], 1), ([0, 1, 2, 3, 4, 5, 5, 5, 5, 5], 1)])
def test_a_class_of_one_image_is_trained_on_if_it_can_be(classes: list[int], held: int) -> None:
    files = Files(tuple(Path(str(i)) for i in range(len(classes))), Values(np.array(classes, np.int64)))
    train, val = split(files)
    assert len(val) == held
    assert len(train) + len(val) == len(classes)
    if len(classes) == 10:
        assert {*classes_of(train)} == {0, 1, 2, 3, 4, 5}


def test_the_rarest_class_of_boxes_is_on_both_sides(tmp_path: Path) -> None:
    box = (1, 1, 9, 9)
    common, rare = [("red", box)] * 5, [("red", box), ("white", box)]
    write_voc(tmp_path, {f"{i:02}": rare if i < 10 else common for i in range(50)})
    found = read(tmp_path, "detection")
    white = [sum((boxes[:, 4] == 1).any() for boxes in part.targets.boxes) for part in found.parts.values()]  # type: ignore[attr-defined]
    assert white == [8, 2]


def test_a_device_takes_the_model_s_classes_and_needs_nothing_to_train_on(tmp_path: Path) -> None:
    write_classes(tmp_path / "val", {"dog": 2})
    found = read(tmp_path, "classification", classes=("cat", "dog"), train=False)
    assert (found.judged_by, classes_of(found.judged), found.classes) == ("val", [1, 1], ("cat", "dog"))
    assert found.told == "2 images of 2 classes (cat, dog; class folders): val 2"
    with pytest.raises(DataError, match=r"has no 'train' folder"):
        read(tmp_path, "classification")
    with pytest.raises(DataError, match=r"val/dog' is no class of the model's: cat, cow"):
        read(tmp_path, "classification", classes=("cat", "cow"), train=False)


def write_all(folder: Path) -> dict[str, Path]:
    """A data set of each layout by its task."""
    for stem in "ab":
        save_photo(folder / "segmentation" / "images" / f"{stem}.jpg", (4, 2))
        save_mask(folder / "segmentation" / "masks" / f"{stem}.png", [[0, 0, 1, 1]] * 2)
        save_photo(folder / "coco" / "train" / f"{stem}.jpg")
    write_voc(folder / "detection", {stem: [("dog", (1, 1, 9, 9))] for stem in "ab"})
    boxes = [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9]}]
    write(folder / "coco" / "train" / "_annotations.coco.json", coco(boxes, ["a.jpg", "b.jpg"]))
    write_classes(folder / "classification" / "train", {"cat": 2, "dog": 2})
    write(folder / "regression" / "x.csv", "file,age\n")
    return {place.name: place for place in folder.iterdir()}


@pytest.mark.parametrize(
    ("held", "task", "message"),
    [
        ("segmentation", "classification", r"holds data for segmentation, not for classification: write --task segm"),
        ("detection", "classification", r"holds data for detection, not for classification: write --task detection"),
        ("coco", "classification", r"holds data for detection, not for classification: write --task detection"),
        ("detection", "segmentation", r"holds data for detection, not for segmentation: write --task detection"),
        ("segmentation", "regression", r"holds data for segmentation, not for regression"),
        ("classification", "detection", r"holds images in class folders, not data for detection: write --task class"),
        ("regression", "detection", r"no data for detection in a layout that is known; expected annotations/inst"),
        ("classification", "multilabel", r"no data for multilabel in a layout that is known; expected train\.csv"),
    ],
)
def test_data_for_another_task(tmp_path: Path, held: str, task: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write_all(tmp_path)[held], task)


def test_classes_called_as_another_layout_are_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"masks": 2, "no masks": 2})
    write_classes(tmp_path / "val", {"masks": 1, "no masks": 1})
    assert read(tmp_path, "classification").classes == ("masks", "no masks")


def test_a_task_of_one_s_own_is_not_read_from_files(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown task to read files for 'depth'.*FILE|FACTORY"):
        read(tmp_path, "depth")
    assert {"classification", "multilabel", "regression", "segmentation", "detection"} == READ


def test_reading_loads_no_torch(tmp_path: Path) -> None:
    place = write_all(tmp_path)["detection"]
    code = (
        "import sys; from pathlib import Path; from prunit.edge.reading import read;"
        f"print(len(read(Path({str(place)!r}), 'detection').train), 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["1", "False"], found.stderr
