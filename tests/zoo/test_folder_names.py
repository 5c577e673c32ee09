"""What the parts of a folder of images may be called, and what in it is no data."""

import shutil
from pathlib import Path

import pytest

from prunit.errors import DataError
from prunit.zoo import data
from tests.zoo.layouts import save_image


@pytest.mark.parametrize("train", ["Train", "TRAIN", "training", "Training"])
@pytest.mark.parametrize("evaluated", ["Val", "valid", "VALID", "validation", "Validation", "Test", "testing"])
def test_the_parts_of_a_folder_are_known_by_their_usual_names(photos: Path, train: str, evaluated: str) -> None:
    (photos / "train").rename(photos / train)
    (photos / "val").rename(photos / evaluated)
    loaded = data.load(str(photos))
    assert (len(loaded.train), len(loaded.test)) == (12, 4)


@pytest.mark.parametrize("validation", ["val", "Valid", "validation"])
def test_with_val_and_test_both_there_val_is_watched_and_test_judges(photos: Path, validation: str) -> None:
    shutil.copytree(photos / "train", photos / "Test")
    (photos / "val").rename(photos / validation)
    for stream in (False, True):
        found = data.load(str(photos), stream=stream)
        assert found.watched is not None
        assert (len(found.train), len(found.watched), len(found.test)) == (12, 4, 12)
        assert (found.watching.test is found.watched, found.watching.train is found.train) == (True, True)
        assert found.watched.x_BCHW.shape[2:] == found.test.x_BCHW.shape[2:]
        assert "train 12, val 4 (watched in training), test 12 (judged by)" in found.told
    assert len(data.load(str(photos), subset=4).watching.test) == 4


def test_what_systems_and_archives_leave_behind_is_no_data(photos: Path) -> None:
    for part in ("", "train", "val", "train/cat"):
        for name in ("__MACOSX", "__macosx", "@eaDir", ".ipynb_checkpoints", "$RECYCLE.BIN", ".Trash/train"):
            save_image(photos / part / name / "train" / "thumbnail.jpg")
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._1.jpg", "README.txt"):
            (photos / part / name).write_bytes(b"no image")
    loaded = data.load(str(photos))
    assert loaded.classes == ("cat", "dog")
    assert (len(loaded.train), len(loaded.test)) == (12, 4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "Train",
            r"holds Train and train, and each could be its 'train' folder \(it holds Train, train, val\); rename",
        ),
        ("training", r"holds train and training, and each could be its 'train' folder"),
        ("valid", r"holds val and valid, and each could be its 'val' folder"),
        ("Validation", r"holds Validation and val, and each could be its 'val' folder"),
    ],
)
def test_two_folders_for_one_part_are_refused(photos: Path, more: str, message: str) -> None:
    (photos / more).mkdir()
    with pytest.raises(DataError, match=message):
        data.load(str(photos))


def test_two_test_folders_matter_only_without_val(photos: Path) -> None:
    for name in ("test", "Testing"):
        (photos / name).mkdir()
    assert len(data.load(str(photos)).test) == 4
    shutil.rmtree(photos / "val")
    with pytest.raises(DataError, match=r"holds Testing and test, and each could be its 'test' folder"):
        data.load(str(photos))


def test_a_folder_of_another_name_is_listed_with_what_was_found(photos: Path) -> None:
    (photos / "train").rename(photos / "trainset")
    (photos / "__MACOSX").mkdir()
    with pytest.raises(DataError, match=r"has no 'train' folder \(it holds trainset, val\); expected DIR/train/CLASS"):
        data.load(str(photos))
