"""A build whose model has a name, so that other processes can make it; importable by those that tests start."""

import os
import signal
from pathlib import Path
from typing import Any, Final

import psutil

from prunit.batches import Dataset
from tests.recipe import building
from tests.train.toys import Small, stripes

MODEL: Final = "tests.recipe.places.somewhere:network"
VARIANTS: Final = ("dense", "params-1-2", "params-1-3")
CONFIG: Final[dict[str, Any]] = {**building.CONFIG, "budgets": ["params=1/2", "params=1/3"]}
LONG: Final[dict[str, Any]] = {**CONFIG, "train": {**CONFIG["train"], "epochs": 60}}
"""Trainings that last long enough to be stopped in the middle."""


def network() -> Small:
    """For 4 classes of grey images; whoever calls it seeds."""
    return Small(12)


def data() -> Dataset:
    """50 training images of 8x8."""
    return stripes(50)


def workers(of: int | None = None) -> list[psutil.Process]:
    """The processes that do pieces for a process, oldest first: this one, if none is named."""
    found = [p for p in psutil.Process(of).children() if "prunit.recipe.places.worker" in " ".join(p.cmdline())]
    return sorted(found, key=lambda p: p.create_time())


def kill(process: psutil.Process) -> None:
    """End a process of ours without asking it."""
    os.kill(process.pid, signal.SIGKILL)


def left_over(folder: Path) -> list[str]:
    """Files that should not be there once nothing is running."""
    return [str(p) for p in folder.rglob("*") if ".tmp" in p.name or p.suffix == ".npy"]
