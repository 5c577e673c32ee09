"""Photos and masks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunit.edge.pixels import Placing
from prunit.edge.reading import IGNORED, read
from prunit.errors import DataError
from tests.edge.reading.labelled import save_mask, save_photo, write

STEMS = "abcde"


def write_masks(folder: Path, values: object, mode: str = "L", stems: str = STEMS) -> Path:
    """Photos of 4x2 with the same mask."""
    for stem in stems:
        save_photo(folder / "images" / f"{stem}.jpg", (4, 2))
        save_mask(folder / "masks" / f"{stem}.png", values, mode)
    return folder


def first(folder: Path, size: tuple[int, int] = (2, 4), **more: object) -> tuple[tuple[str, ...], list[list[int]]]:
    found = read(folder, "segmentation", **more)  # type: ignore[arg-type]
    return found.classes, found.train.targets.of(0, Placing.of((2, 4), size, "letterbox")).tolist()


@pytest.mark.parametrize(
    ("mode", "values", "classes", "meant"),
    [
        ("L", [[0, 0, 255, 255]] * 2, ("background", "foreground"), [[0, 0, 1, 1]] * 2),
        ("L", [[0, 1, 2, 255]] * 2, ("0", "1", "2"), [[0, 1, 2, 255]] * 2),
        ("L", [[0, 1, 1, 1]] * 2, ("0", "1"), [[0, 1, 1, 1]] * 2),
        ("L", [[0, 127, 0, 127]] * 2, ("0", "127"), [[0, 1, 0, 1]] * 2),
        ("L", [[0, 60, 180, 255]] * 2, ("0", "60", "180"), [[0, 1, 2, 255]] * 2),
        ("P", [[0, 3, 0, 3]] * 2, ("0", "1", "2", "3"), [[0, 3, 0, 3]] * 2),
        ("P", [[0, 1, 1, 255]] * 2, ("0", "1"), [[0, 1, 1, 255]] * 2),
    ],
)
def test_what_values_mean(
    tmp_path: Path, mode: str, values: list[list[int]], classes: tuple[str, ...], meant: list[list[int]]
) -> None:
    assert first(write_masks(tmp_path, values, mode)) == (classes, meant)


def test_black_and_white_and_grey_saved_as_colours(tmp_path: Path) -> None:
    write_masks(tmp_path, [[0, 0, 255, 255]] * 2)
    bits = Image.fromarray(np.array([[0, 0, 255, 255]] * 2, np.uint8))
    bits.convert("1").save(tmp_path / "masks" / "a.png")
    bits.convert("RGB").save(tmp_path / "masks" / "b.png")
    classes, mask = first(tmp_path)
    assert (classes, mask) == (("background", "foreground"), [[0, 0, 1, 1]] * 2)
    found = read(tmp_path, "segmentation")
    masks = [
        p.targets.of(i, Placing.of((2, 4), (2, 4), "letterbox")) for p in found.parts.values() for i in range(len(p))
    ]
    assert all(one.tolist() == mask for one in masks)


def test_the_nearest_class_is_taken_and_bars_do_not_count(tmp_path: Path) -> None:
    write_masks(tmp_path, [[0, 1, 2, 0], [0, 1, 2, 0]])
    _, small = first(tmp_path, (6, 4))
    assert small == [[IGNORED] * 4] * 2 + [[0, 1, 2, 0]] * 2 + [[IGNORED] * 4] * 2
    _, large = first(tmp_path, (8, 8))
    assert large[2:6] == [[0, 0, 1, 1, 2, 2, 0, 0]] * 4
    cut = read(tmp_path, "segmentation").train.targets.of(0, Placing.of((2, 4), (2, 2), "crop"))
    assert cut.tolist() == [[1, 2]] * 2


def test_names_given_and_names_that_are_levels(tmp_path: Path) -> None:
    write_masks(tmp_path, [[0, 1, 1, 0]] * 2)
    assert first(tmp_path, classes=("soil", "crop", "weed")) == (("soil", "crop", "weed"), [[0, 1, 1, 0]] * 2)
    write(tmp_path / "classes.txt", "soil\ncrop\n")
    assert first(tmp_path)[0] == ("soil", "crop")
    # A model that learnt levels 0, 1 and 127 knows them by its classes' names, whichever of them are here.
    assert first(tmp_path, classes=("0", "127", "1")) == (("0", "127", "1"), [[0, 2, 2, 0]] * 2)


def test_black_masks_alone_can_be_judged_by_a_model_that_knows_more(tmp_path: Path) -> None:
    write_masks(tmp_path, [[0, 0, 0, 0]] * 2)
    assert first(tmp_path, classes=("background", "foreground"))[1] == [[0, 0, 0, 0]] * 2
    with pytest.raises(DataError, match=r"hold one class alone \(0\): there must be two"):
        read(tmp_path, "segmentation")


@pytest.mark.parametrize(
    ("images", "masks"),
    [("train/images", "train/masks"), ("images/train", "masks/train"), ("Train/Image", "Train/Mask")],
)
def test_parts(tmp_path: Path, images: str, masks: str) -> None:
    for part in (("train", "train"), ("Train", "Validation"), ("train", "val")):
        save_photo(tmp_path / images.replace(*part) / "a.jpg", (4, 2))
        save_mask(tmp_path / masks.replace(*part) / "a_mask.png", [[0, 0, 1, 1]] * 2)
    found = read(tmp_path, "segmentation")
    assert {name: len(files) for name, files in found.parts.items()} == {"train": 1, "val": 1}


def test_what_is_told_of_ignored_pixels(tmp_path: Path) -> None:
    told = read(write_masks(tmp_path, [[0, 1, 1, 255]] * 2), "segmentation").told
    assert told == (
        "5 images of 2 classes (0, 1; masks): train 4, val 1 (20% held out, drawn with a fixed seed);"
        " pixels of value 255 are left out"
    )
    assert "255" not in read(write_masks(tmp_path / "x", [[0, 0, 255, 255]] * 2), "segmentation").told


def of_noise(folder: Path) -> object:
    return save_mask(folder / "masks" / "b.png", np.arange(200).reshape(10, 20))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_noise, r"masks as '.*b\.png' hold 200 values \(64 can be classes at most\): a mask saved as JPEG"),
        (lambda f: (f / "masks" / "b.png").unlink(), r"no mask for b \(1 in all\); each image needs its mask"),
        (lambda f: save_mask(f / "masks" / "z.png", [[0]]), r"no image for z \(1 in all\)"),
        (lambda f: write(f / "classes.txt", "a\n"), r"mask '.*a\.png' has the value 1, but the classes are 1: a$"),
        (lambda f: Image.new("F", (4, 2), 0.5).save(f / "masks" / "b.tif"), r"differ in their ending alone"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    change(write_masks(tmp_path, [[0, 0, 1, 1]] * 2))
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path, "segmentation")
    assert "\n" not in str(raised.value)


def test_masks_that_are_colours_all_of_them(tmp_path: Path) -> None:
    write_masks(tmp_path, [[0]])
    for stem in STEMS:
        save_photo(tmp_path / "masks" / f"{stem}.png", (4, 2))
    with pytest.raises(DataError, match=r"^mask '.*a\.png' cannot be used: it holds colours, not classes"):
        read(tmp_path, "segmentation")


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    targets = read(write_masks(tmp_path, [[0, 1]] * 3), "segmentation").train.targets
    with pytest.raises(DataError, match=r"its mask '.*png' has 2x3 pixels, the photo, turned as its file says, 4x2;"):
        targets.of(0, Placing.of((2, 4), (2, 4), "letterbox"))
