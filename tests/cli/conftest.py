"""A small portfolio that the tests of the command line share, built by the command itself."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.running import Result, prunit

NET = """
from torch import nn

def network(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, num_classes),
    )

def failing(num_classes):
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(9, num_classes))

def no_model():
    return 3

def raising():
    raise RuntimeError("no weights here")
"""


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks this small are slower with more, and on a busy machine many times so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with factories of a user."""
    file = tmp_path_factory.mktemp("net") / "net.py"
    file.write_text(NET)
    return file


@pytest.fixture(scope="session")
def built(net: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder of a build with one budget, and what the command said with --json."""
    folder = tmp_path_factory.mktemp("built") / "portfolio"
    options = ["--subset", "100", "--epochs", "1", "--device", "cpu", "--budget", "params=1/2", "--seed", "2"]
    settings = ["--set", "probe.seconds=0.01", "--set", "prune.rounds=4", "--set", "train.batch_size=50"]
    settings += ["--set", "prune.measure=false", "--train", "equal-epochs"]
    with one_thread():
        result = prunit("build", f"{net}:network", "--data", "digits", "--out", folder, *options, *settings, "--json")
    return folder, result


@pytest.fixture
def manifest(built: tuple[Path, Result]) -> dict[str, Any]:
    """portfolio.json of that build."""
    return json.loads((built[0] / "portfolio.json").read_text())
