"""What all tests share: the folder of the real data sets."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PACKED = Path(__file__).parents[2] / "shared" / "datasets"
"""Beside the checkout; its prepare.py unpacks the sets into the folders in which they are usually found."""


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The folder with the real data sets: PRUNIT_DATA, else what lies beside the checkout, unpacked once."""
    if place := os.environ.get("PRUNIT_DATA"):
        return Path(place)
    script = PACKED / "prepare.py"
    if not script.exists():
        return None
    folder = tmp_path_factory.mktemp("real")
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{script} failed: {done.stderr[-500:]}"
    return folder


@pytest.fixture
def real_data(data_root: Path | None) -> Callable[[str], Path]:
    """A function of a set's folder name that gives the folder it lies in, or skips the test where it is not there."""

    def place(folder: str) -> Path:
        if data_root is None or not list(data_root.glob(folder)):
            pytest.skip(f"no real data: PRUNIT_DATA={data_root or '(unset)'} holds no {folder}")
        return data_root

    return place


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes name a case by their argument: packed data may hold the time, and all processes must name cases alike."""
    return argname if isinstance(val, bytes) else None
