"""Folders of image files, and a user's own arrays."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunit.edge.pixels import FORMATS
from prunit.errors import DataError, MissingExtraError
from prunit.zoo import data
from prunit.zoo.data import raw
from prunit.zoo.data.images import common_size
from tests.zoo.layouts import save_image

Write = Callable[[str], Path]


def test_a_folder_of_class_folders(photos: Path) -> None:
    loaded = data.load(str(photos))
    assert loaded.classes == ("cat", "dog")
    assert loaded.train.x_BCHW.shape == (12, 3, 10, 10)
    assert loaded.test.y_B.tolist() == [0, 0, 1, 1]
    assert loaded.train.x_BCHW[0, :, 5, 5].tolist() == [255, 0, 0]
    assert loaded.train.x_BCHW[11, :, 5, 5].tolist() == [0, 0, 255]
    assert loaded.mean_C == pytest.approx((0.5, 0, 0.5))
    assert loaded.flip


def test_a_folder_is_found_in_the_data_folder_too(photos: Path) -> None:
    assert len(data.load("photos", data_dir=photos.parent).train) == 12


@pytest.mark.parametrize("written", ["photos", "photos/", "./photos", "./photos//", "photos/."])
def test_a_folder_has_one_name_however_it_is_written(
    photos: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.chdir(photos.parent)
    assert data.load(written, data_dir=photos.parent / "none").name == photos.name == "photos"
    monkeypatch.chdir(photos)
    assert data.load(written, data_dir=photos.parent).name == "photos"
    assert data.load(f"{photos}/").name == str(photos)


def test_test_serves_where_there_is_no_val(photos: Path) -> None:
    (photos / "val").rename(photos / "test")
    assert len(data.load(str(photos)).test) == 4


def test_images_deeper_down_count_and_hidden_or_other_files_do_not(photos: Path) -> None:
    save_image(photos / "train" / "cat" / "more" / "x.JPG")
    (photos / "train" / "cat" / "._0.png").write_bytes(b"what macOS leaves")
    (photos / "train" / "cat" / "notes.txt").write_text("no image")
    (photos / "train" / ".hidden").mkdir()
    assert data.load(str(photos)).train.y_B.bincount().tolist() == [7, 6]


def test_other_shapes_get_their_short_side_resized_and_their_centre_cut(photos: Path) -> None:
    x_HWC = np.zeros((20, 60, 3), np.uint8)
    x_HWC[:, 20:40] = 200
    Image.fromarray(x_HWC).save(photos / "train" / "cat" / "0.png")
    loaded = data.load(str(photos), image_size=20)
    assert loaded.train.x_BCHW.shape == (12, 3, 20, 20)
    assert loaded.train.x_BCHW[0].unique().tolist() == [200]


def test_grey_palette_and_transparent_images_become_rgb(photos: Path) -> None:
    folder = photos / "train" / "cat"
    Image.new("L", (10, 10), 99).save(folder / "0.png")
    palette = Image.new("P", (10, 10), 0)
    palette.putpalette([10, 20, 30])
    palette.save(folder / "1.png", transparency=b"\x80")
    Image.new("RGBA", (10, 10), (1, 2, 3, 255)).save(folder / "2.png")
    x_BCHW = data.load(str(photos)).train.x_BCHW
    assert x_BCHW[:3, :, 0, 0].tolist() == [[99, 99, 99], [132, 137, 142], [1, 2, 3]]  # half seen, on white


def test_photos_are_turned_as_they_say_and_16_bits_are_scaled(photos: Path) -> None:
    folder = photos / "train" / "cat"
    exif = Image.Exif()
    exif[0x0112] = 3
    upside_down = Image.new("RGB", (10, 10))
    upside_down.paste((200, 200, 200), (0, 5, 10, 10))
    upside_down.save(folder / "0.png", exif=exif)
    Image.fromarray(np.full((10, 10), 32896, np.uint16)).save(folder / "1.png")
    x_BCHW = data.load(str(photos)).train.x_BCHW
    assert x_BCHW[0, :, :, 0].tolist() == [[200] * 5 + [0] * 5] * 3
    assert x_BCHW[1].unique().tolist() == [128]


def test_every_format_that_is_served_is_trained_on(photos: Path) -> None:
    for kind, (suffix, *_) in FORMATS.items():
        Image.new("RGB", (10, 10), (0, 255, 0)).save(photos / "train" / "cat" / f"a{suffix}", kind)
    x_BCHW = data.load(str(photos)).train.x_BCHW
    assert len(x_BCHW) == 12 + len(FORMATS)
    assert (x_BCHW[:, 1, 5, 5] > 250).sum() == len(FORMATS)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(photos: Path) -> None:
    for path in photos.rglob("*.png"):
        path.unlink()
        save_image(path.with_suffix(".jpg"), (640, 480), (255, 0, 0))
    x_BCHW = data.load(str(photos), image_size=10).train.x_BCHW
    assert x_BCHW.shape == (12, 3, 10, 10)
    assert (x_BCHW[:, 0] > 250).all()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(32, 32), (32, 32)], 32),
        ([(300, 300), (300, 300)], 300),
        ([(40, 30), (40, 30)], 64),
        ([(64, 90), (60, 64)], 64),
        ([(640, 480), (300, 200), (50, 50)], 224),
    ],
)
def test_the_size_is_the_common_one_or_64_or_224(tmp_path: Path, sizes: list[tuple[int, int]], expected: int) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        save_image(path, size)
    assert common_size(paths) == expected


def test_a_subset_of_a_folder_is_cut_before_anything_is_decoded(photos: Path) -> None:
    loaded = data.load(str(photos), subset=4, seed=1)
    assert loaded.train.y_B.tolist() == [0, 0, 1, 1]
    assert len(loaded.test) == 4
    for path in sorted(photos.glob("train/*/*.png")):
        path.write_bytes(b"")
    for split in ("val/cat", "val/dog"):
        save_image(photos / split / "0.png")
    with pytest.raises(DataError, match=r"broken images: .* and 1 more$"):
        data.load(str(photos), subset=4, seed=1)


def test_broken_images_are_named_with_their_reason(photos: Path) -> None:
    save_image(photos / "train" / "dog" / "cut.jpg", (64, 64))
    content = (photos / "train" / "dog" / "cut.jpg").read_bytes()
    (photos / "train" / "dog" / "cut.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"^broken image: '.*train/dog/cut\.jpg' \(.*[Tt]runcated.*\)$"):
        data.load(str(photos))
    (photos / "train" / "cat" / "0.png").write_bytes(b"no png")
    Image.fromarray(np.zeros((10, 10), np.float32)).save(photos / "val" / "cat" / "0.tif")
    message = r"^broken images: '.*cat/0\.png' \(not an image of a known format, 6 bytes\); .*floating-point pixels"
    with pytest.raises(DataError, match=message):
        data.load(str(photos))


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            shutil.rmtree(folder / name)

    return change


def empty_class(folder: Path) -> None:
    for path in (folder / "train" / "dog").iterdir():
        path.unlink()


def loose_images(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    save_image(folder / "train" / "0.png")


def other_class(folder: Path) -> None:
    (folder / "val" / "dog").rename(folder / "val" / "wolf")


def empty_train(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("train", "val"), r"photos' is empty; expected DIR/train/CLASS/\*\.jpg"),
        (remove("train"), r"photos' has no 'train' folder \(it holds val\); expected DIR/train"),
        (empty_train, r"photos/train' is empty"),
        (loose_images, r"photos/train' should hold two class folders or more and holds no folder"),
        (remove("train/cat"), r"photos/train' should hold two class folders or more and holds dog"),
        (empty_class, r"class folder '.*train/dog' holds no images \(looked for \.apng, \.bmp,"),
        (remove("val/dog"), r"class folders differ: '.*photos/val' lacks dog; the same"),
        (other_class, r"photos/val' lacks dog and has wolf, which 'train' has not"),
    ],
)
def test_a_folder_in_another_layout(photos: Path, change: Callable[[Path], None], message: str) -> None:
    change(photos)
    with pytest.raises(DataError, match=message):
        data.load(str(photos))


def test_a_folder_that_cannot_be_held_in_memory(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"19\.2 GB .*\(12 training and 4 test images at 20000x20000\), .*--subset"):
        data.load(str(photos), image_size=20_000)
    monkeypatch.setattr(raw, "LIMIT_BYTES", 16 * 3 * 10 * 10)
    assert len(data.load(str(photos)).train) == 12
    monkeypatch.setattr(raw, "LIMIT_BYTES", 16 * 3 * 10 * 10 - 1)
    with pytest.raises(DataError, match=r"--image-size"):
        data.load(str(photos))


def test_a_folder_without_pillow(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"reading the images of '.*' needs the package 'pillow'"):
        data.load(str(photos))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/folder", r"there is no folder 'no/such/folder' \(working folder: .*, data folder: "),
        ("./mine.py", r"names a file but no factory in it: write \./mine\.py:FACTORY"),
        ("lost.json", r"there is no file 'lost\.json' \(working folder: .*, data folder: "),
        ("pyproject.toml", r"'pyproject\.toml' is a file; a data set is a folder"),
    ],
)
def test_a_path_that_is_no_folder(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    with pytest.raises(DataError, match=message):
        data.load(name)


def write_tiny_imagenet(data_dir: Path) -> Path:
    """The layout in which Tiny ImageNet is distributed: two classes, three images each."""
    folder = data_dir / "tiny-imagenet-200"
    for wnid in ("n01", "n02"):
        for i in range(3):
            save_image(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", (64, 64))
    for i in range(2):
        save_image(folder / "val" / "images" / f"val_{i}.JPEG", (64, 64))
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n")
    return folder


def test_tiny_imagenet_as_it_is_distributed(tmp_path: Path) -> None:
    write_tiny_imagenet(tmp_path)
    loaded = data.load("tiny-imagenet", data_dir=tmp_path)
    assert loaded.train.x_BCHW.shape == (6, 3, 64, 64)
    assert loaded.test.y_B.tolist() == [1, 0]
    assert loaded.classes == ("n01", "n02")


def test_tiny_imagenet_as_class_folders(photos: Path) -> None:
    photos.rename(photos.parent / "tiny-imagenet-20")
    assert data.load("tiny-imagenet", data_dir=photos.parent).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"val_annotations\.txt' is empty"),
        ("val_0.JPEG\tn03\n", r"val_annotations\.txt' line 1 names no class of the train folder"),
        ("val_0.JPEG\tn01\nval_9.JPEG\tn01\n", r"broken image: '.*val/images/val_9\.JPEG' \(it is not there"),
    ],
)
def test_tiny_imagenet_with_broken_annotations(tmp_path: Path, text: str, message: str) -> None:
    (write_tiny_imagenet(tmp_path) / "val" / "val_annotations.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        data.load("tiny-imagenet", data_dir=tmp_path)


ARRAYS = """
import numpy as np
import torch
from pathlib import Path
from prunit.batches import Dataset, Split
x, y = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 2, 0])
def channels_last(): return x, y, x[:2], y[:2]
def channels_first(): return torch.zeros(4, 5, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2, 0]), x_first[:2], [1, 2]
x_first = np.zeros((4, 5, 8, 8), np.uint8)
def grey(): return x[..., 0], y, x[:2, ..., 0], y[:2]
def asks(data_dir, image_size=None, *, seed):
    assert isinstance(data_dir, Path) and seed == 7
    return x, y, x, y
split = Split(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1, 0]))
def dataset(): return Dataset("own", split, split, ("a", "b"), (0.25,), (0.5,), True)
def unmeasured(): return Dataset("own", split, split, ("a", "b"), (), ())
def wrong_mean(): return Dataset("own", split, split, ("a", "b"), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
def one_class(): return Dataset("own", split, split, ("a",), (), ())
def floats(): return x / 255, y, x, y
def oblong(): return x[:, :4], y, x, y
def short(): return x, y[:3], x, y
def empty(): return x[:0], y[:0], x, y
def negative(): return x, y - 1, x, y
def unseen(): return x, y, x, y + 1
def fractions(): return x, y / 2, x, y
def two_sizes(): return x, y, x[:, :4, :4], y
def three(): return x, y, x
def words(): return ["a"], y, x, y
def number(): return 3
def fails(): raise OSError("disk on fire")
"""


@pytest.mark.parametrize(
    ("attribute", "shape"),
    [("channels_last", (4, 3, 8, 8)), ("channels_first", (4, 5, 8, 8)), ("grey", (4, 1, 8, 8))],
)
def test_a_factory_of_arrays(write_python: Write, attribute: str, shape: tuple[int, ...]) -> None:
    reference = f"{write_python(ARRAYS)}:{attribute}"
    loaded = data.load(reference)
    assert loaded.name == reference
    assert loaded.train.x_BCHW.shape == shape
    assert loaded.train.x_BCHW.is_contiguous()
    assert loaded.train.y_B.tolist() == [0, 1, 2, 0]
    assert loaded.test.y_B.dtype == torch.int64
    assert loaded.classes == ("0", "1", "2")
    assert not loaded.flip


def test_a_factory_of_data_gets_what_its_signature_names(write_python: Write) -> None:
    loaded = data.load(f"{write_python(ARRAYS)}:asks", seed=7, subset=3, image_size=4)
    assert loaded.train.x_BCHW.shape == (3, 3, 4, 4)


def test_a_data_set_of_a_factory_keeps_what_it_says(write_python: Write) -> None:
    path = write_python(ARRAYS)
    own = data.load(f"{path}:dataset")
    assert (own.name, own.classes, own.mean_C, own.std_C, own.flip) == ("own", ("a", "b"), (0.25,), (0.5,), True)
    assert data.load(f"{path}:unmeasured").mean_C == (0.0,)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("wrong_mean", r"mean_C and std_C have 3 and 3 values for images of 1 channels"),
        ("one_class", r"one_class' train: labels are torch\.int64 from 0 to 1; give int64 from 0 to 0 \(1 classes\)"),
        ("floats", r"floats' train: images are torch\.float64; give uint8 from 0 to 255"),
        ("oblong", r"oblong' train: images have shape \(4, 4, 8, 3\); give squares"),
        ("short", r"short' train: 4 images and labels of shape \(3,\); give one label per image"),
        ("empty", r"empty' train: 0 images and labels of shape \(0,\)"),
        ("negative", r"negative' train: labels are torch\.int64 from -1 to 1"),
        ("unseen", r"unseen' test: labels are torch\.int64 from 1 to 3; give int64 from 0 to 2"),
        ("fractions", r"fractions' y_train holds torch\.float64: class indices are whole numbers"),
        ("two_sizes", r"training images are \(3, 8, 8\), test images \(3, 4, 4\)"),
        ("three", r"three' returned 3 values: return a prunit\.batches\.Dataset, or \(x_train"),
        ("words", r"words' x_train is no array: "),
        ("number", r"number' returned an object of type int"),
        ("fails", r"mine\.py': fails\(\) raised OSError: disk on fire \(mine\.py:\d+\)"),
        ("nothing", r"mine\.py' has no 'nothing'; it defines: asks, channels_first"),
    ],
)
def test_a_mistake_in_a_data_factory_is_one_line(write_python: Write, attribute: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        data.load(f"{write_python(ARRAYS)}:{attribute}")
    assert "\n" not in str(raised.value)
