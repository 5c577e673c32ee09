"""A folder that is one part of a data set is taken whole, and what lies beside it is named."""

from pathlib import Path

import pytest
from PIL import Image

from prunit.edge.reading.folders import image_folder


def photos(folder: Path, count: int = 5) -> Path:
    for name in ("fern", "moss"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize("other", ["val", "Test"])
def test_the_part_beside_it_is_named(tmp_path: Path, other: str) -> None:
    train = photos(tmp_path / "photos" / "train")
    photos(tmp_path / "photos" / other)
    found = image_folder(train)
    assert found.automatic
    assert f"'{other}' lies beside it and is not used" in found.told
    assert "beside" not in image_folder(tmp_path / "photos").told


def test_nothing_is_said_of_a_folder_that_is_no_part(tmp_path: Path) -> None:
    photos(tmp_path / "val")
    assert not image_folder(photos(tmp_path / "photos")).notes
    assert not image_folder(photos(tmp_path / "alone" / "train")).notes
