"""What the tests of the zoo share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.zoo.layouts import save_image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """An ImageFolder: red cats and blue dogs of 10x10, six each to train on and two each to test on."""
    folder = tmp_path / "photos"
    for split, n in (("train", 6), ("val", 2)):
        for name, color in (("cat", (255, 0, 0)), ("dog", (0, 0, 255))):
            for i in range(n):
                save_image(folder / split / name / f"{i}.png", color=color)
    return folder


@pytest.fixture
def write_python(tmp_path: Path) -> Callable[[str], Path]:
    """A function that writes a user's file and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(text)
        return path

    return write
