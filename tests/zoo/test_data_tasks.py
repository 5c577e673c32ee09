"""Folders of images read for other tasks than classification."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunit.edge.pixels import BAR, Fit
from prunit.edge.reading import read
from prunit.errors import DataError, UnknownNameError
from prunit.tasks import Classification
from prunit.zoo import data
from tests.edge.reading.labelled import save_mask, save_photo, write, write_voc

Write = Callable[[str], Path]


class Named(Classification):
    """A task as far as reading asks it."""

    def __init__(self, name: str, fit: Fit = "letterbox", **settings: Any) -> None:
        self.name, self.fit, self.given = name, fit, settings

    def settings(self) -> Mapping[str, Any]:
        return self.given

    def check_targets(self, targets: torch.Tensor, classes: object, size: int, *, what: str) -> None:
        if targets.dtype not in (torch.float32, torch.uint8):
            raise DataError(f"{what}: {targets.dtype}")


DETECTION, SEGMENTATION = Named("detection"), Named("segmentation")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Ten photos of 80x40 as VOC's, each with a dog in its left half."""
    folder = write_voc(tmp_path / "pets", {f"{i}": [("dog", (0, 0, 20, 20))] for i in range(10)})
    for path in (folder / "JPEGImages").iterdir():
        save_photo(path, (80, 40))
    for path in (folder / "Annotations").iterdir():
        path.write_text(path.read_text().replace(">40<", ">80<").replace("<height>20<", "<height>40<"))
    return folder


def test_boxes_in_pixels_of_letterboxed_images(pets: Path) -> None:
    found = data.load(str(pets), task=DETECTION, image_size=64)
    assert found.task is DETECTION
    assert found.train.x_BCHW.shape == (8, 3, 64, 64)
    assert (found.train.y_B.dtype, found.train.y_B.shape) == (torch.float32, (8, 1, 6))
    assert found.train.y_B[0].tolist() == [[0, 16, 16, 32, 0, 0]]
    assert found.train.x_BCHW[0, :, 0, 0].tolist() == [BAR] * 3
    assert found.flip
    assert found.told.startswith("10 photos with 10 boxes of 1 class (dog; VOC): train 8, val 2 (20% held out")
    assert found.told.endswith("64x64 px, long side fitted, bars beside; 123 kB in memory")


@pytest.mark.parametrize(("size", "expected"), [((80, 40), 64), ((640, 480), 256), ((200, 130), 160), ((64, 64), 64)])
def test_the_size_that_was_not_asked_for(tmp_path: Path, size: tuple[int, int], expected: int) -> None:
    for stem in "ab":
        save_photo(tmp_path / "images" / f"{stem}.png", size)
        save_mask(tmp_path / "masks" / f"{stem}.png", np.arange(size[0] * size[1]).reshape(size[::-1]) % 2)
    found = data.load(str(tmp_path), task=SEGMENTATION)
    assert found.image_size == expected
    assert f"{expected}x{expected} px" in found.told
    assert (found.train.y_B.dtype, found.train.y_B.shape) == (torch.uint8, (1, expected, expected))


def test_a_subset_is_drawn_before_anything_is_decoded(pets: Path) -> None:
    whole = data.load(str(pets), task=DETECTION, image_size=32)
    part = data.load(str(pets), task=DETECTION, image_size=32, subset=3)
    assert (len(part.train), len(part.test)) == (3, len(whole.test))
    assert "train 3" in part.told


def break_some(folder: Path, n: int = 5) -> None:
    """Of the images to train on."""
    for path in read(folder, "detection").train.paths[:n]:
        path.write_bytes(b"no jpeg")


def test_broken_images_are_named_and_left_out_if_asked(pets: Path) -> None:
    break_some(pets)
    with pytest.raises(
        DataError, match=r"^broken images: .*/\d\.jpg' \(not an image of a known format, 7 bytes\);.* and 2 more$"
    ):
        data.load(str(pets), task=DETECTION, image_size=32)
    found = data.load(str(pets), task=DETECTION, image_size=32, skip_broken=True)
    assert len(found.train) + len(found.test) == 5
    assert "left out: broken images: '" in found.told
    assert " and 2 more; 32x32 px" in found.told
    break_some(pets, 8)
    with pytest.raises(DataError, match=r"pets': of its training images none can be used; broken images"):
        data.load(str(pets), task=DETECTION, image_size=32, skip_broken=True)


def test_broken_images_of_classes_too(photos: Path) -> None:
    (photos / "train" / "dog" / "0.png").write_bytes(b"")
    found = data.load(str(photos), skip_broken=True)
    assert found.train.y_B.tolist() == [0] * 6 + [1] * 5
    assert found.train.x_BCHW[6, :, 0, 0].tolist() == [0, 0, 255]
    assert "left out: broken image: '" in found.told


def test_labels_that_do_not_fit_their_images_are_named_beside_broken_ones(pets: Path) -> None:
    save_photo(pets / "JPEGImages" / "3.jpg", (20, 80))
    message = r"^label that does not fit its image: '.*3\.jpg': its boxes are for 80x40, the photo, .* has 20x80; ann"
    with pytest.raises(DataError, match=message):
        data.load(str(pets), task=DETECTION, image_size=32)
    save_photo(pets / "JPEGImages" / "4.jpg", (20, 80))
    (pets / "JPEGImages" / "5.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"^broken image: '.*5\.jpg' .*; labels that do not fit their images: '.*3\.jp"):
        data.load(str(pets), task=DETECTION, image_size=32)


def test_masks_of_another_size_are_named_with_their_image(tmp_path: Path) -> None:
    for stem in "ab":
        save_photo(tmp_path / "images" / f"{stem}.jpg", (8, 8))
        save_mask(tmp_path / "masks" / f"{stem}.png", [[0, 1]] * 2)
    with pytest.raises(DataError, match=r"a\.jpg': its mask '.*a\.png' has 2x2 pixels, the photo, .* 8x8; make both"):
        data.load(str(tmp_path), task=SEGMENTATION)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("RGB", r"it holds colours, not classes: write the number of each pixel's class, as indexed or grey PNG"),
        ("I;16", r"it holds values from 700 to 700: classes are 0 to 254"),
        (None, r"cannot identify image file"),
    ],
)
def test_masks_that_are_none_are_named_and_left_out_if_asked(tmp_path: Path, mode: str | None, message: str) -> None:
    for stem in "abcdefghij":
        save_photo(tmp_path / "images" / f"{stem}.jpg", (2, 2))
        save_mask(tmp_path / "masks" / f"{stem}.png", [[0, 1]] * 2)
    stem = read(tmp_path, "segmentation").train.paths[0].stem
    wrong = tmp_path / "masks" / f"{stem}.png"
    if mode is None:
        wrong.write_bytes(b"no png")
    else:
        x = np.full((2, 2, 3), (9, 8, 7), np.uint8) if mode == "RGB" else np.full((2, 2), 700, np.uint16)
        Image.fromarray(x).save(wrong)
    said = rf"^label that does not fit its image: .*{stem}\.jpg': its mask '.*\.png' cannot be used: {message}"
    with pytest.raises(DataError, match=said):
        data.load(str(tmp_path), task=SEGMENTATION)
    found = data.load(str(tmp_path), task=SEGMENTATION, skip_broken=True)
    assert (len(found.train), found.classes) == (7, ("0", "1"))


def test_photos_on_their_side_are_measured_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for stem in "ab":
        save_mask(tmp_path / "masks" / f"{stem}.png", [[0] * 20] * 20 + [[1] * 20] * 20)
        save_photo(tmp_path / "images" / f"{stem}.jpg", (40, 20))
        with Image.open(tmp_path / "images" / f"{stem}.jpg") as image:
            image.save(tmp_path / "images" / f"{stem}.jpg", exif=exif)
    found = data.load(str(tmp_path), task=SEGMENTATION, image_size=40)
    assert found.train.y_B[0, :, 20].tolist() == [0] * 20 + [1] * 20
    assert found.train.y_B[0, 20].tolist() == [255] * 10 + [1] * 20 + [255] * 10


def test_values_are_standardised_by_those_of_training(tmp_path: Path, write_python: Write) -> None:
    for i in range(10):
        save_photo(tmp_path / f"{i}.png", (8, 8))
    rows = "".join(f"{i}.png,{i},7\n" for i in range(10))
    found = data.load(str(write(tmp_path / "x.csv", "file,age,same\n" + rows)), task="regression")
    values = found.train.y_B.double()
    settings = found.task.settings()
    assert settings["mean"] == pytest.approx(values.mean(0).tolist())
    assert settings["std"] == pytest.approx((values[:, 0].std(correction=0).item(), 1.0))
    assert json.loads(json.dumps(settings)).keys() == {"mean", "std"}
    assert found.classes == ("age", "same")
    made = data.load(f"{write_python(ARRAYS)}:values", task="regression")
    assert (made.train.y_B.shape, made.classes) == ((4, 1), ("0",))
    assert made.task.settings() == {"mean": (2.5,), "std": (pytest.approx(1.25**0.5),)}


ARRAYS = """
import numpy as np
from prunit.batches import Dataset, Split
import torch
x = np.zeros((4, 8, 8, 3), np.uint8)
def values(): return x, np.array([1.0, 2, 3, 4]), x, np.array([1.0, 2, 3, 4])
def masks(): return x, np.where(np.eye(8) > 0, 2, 255)[None].repeat(4, 0), x, np.zeros((4, 8, 8), int)
def boxes(): return x, np.array([[[0, 0, 4, 4, 3, 0.0]]] * 4), x, np.array([[[0, 0, 4, 4, 1, 0.0]]] * 4)
def short(): return x, np.zeros((3, 1)), x, np.zeros((4, 1))
def words(): return x, np.array([[1 + 1j]] * 4), x, np.zeros((4, 1))
def own(): return Dataset("own", Split(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, 8, 8).byte()),
    Split(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, 8, 8).byte()), ("a", "b"), (), ())
"""


def test_arrays_of_one_s_own_for_each_task(write_python: Write) -> None:
    place = write_python(ARRAYS)
    masks = data.load(f"{place}:masks", task=SEGMENTATION)
    assert (masks.train.y_B.dtype, masks.classes) == (torch.uint8, ("0", "1", "2"))
    boxes = data.load(f"{place}:boxes", task=DETECTION)
    assert (boxes.train.y_B.dtype, boxes.classes) == (torch.float32, ("0", "1", "2", "3"))
    assert data.load(f"{place}:own", task=SEGMENTATION).task is SEGMENTATION
    with pytest.raises(DataError, match=r"short' train: 4 images and targets of shape \(3, 1\); give one target"):
        data.load(f"{place}:short", task=DETECTION)
    with pytest.raises(DataError, match=r"words' train: torch\.complex128"):
        data.load(f"{place}:words", task=Named("own"))


@pytest.mark.parametrize("name", ["digits", "cifar10", "tiny-imagenet"])
def test_sets_of_classes_are_for_nothing_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"data set '{name}' is for classification, not for detection"):
        data.load(name, task=DETECTION, data_dir=tmp_path)


def test_a_folder_for_another_task_and_a_task_that_is_not_there(pets: Path) -> None:
    with pytest.raises(DataError, match=r"holds data for detection, not for classification: write --task detection"):
        data.load(str(pets))
    with pytest.raises(UnknownNameError, match=r"unknown task 'detecting'"):
        data.load(str(pets), task="detecting")


@pytest.mark.parametrize(("made", "task"), [("boxes", DETECTION), ("masks", SEGMENTATION)])
def test_targets_in_pixels_are_not_left_behind_when_images_are_resized(
    made: str, task: Named, write_python: Write
) -> None:
    place = write_python(ARRAYS)
    with pytest.raises(DataError, match="images of 8 pixels with targets in these pixels, which are not resized"):
        data.load(f"{place}:{made}", task=task, image_size=16)
    assert data.load(f"{place}:{made}", task=task, image_size=8).image_size == 8
