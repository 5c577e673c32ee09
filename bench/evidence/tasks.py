"""A task: one arm on one model, data set, budget and seed, with everything else that decides what comes of it."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from prunit.train import TrainConfig, device_named
from prunit.train.checkpoint import LATER

DENSE: Final = ""
"""The budget of the model that is not pruned."""


@dataclass(frozen=True)
class Data:
    """A data set of `prunit.zoo.data`, cut to so many training and test images of equally many classes."""

    name: str
    train: int | None = None
    test: int | None = None
    image_size: int | None = None


@dataclass(frozen=True)
class Search:
    """What a search over widths may spend; counted, not timed, so that it finds the same widths everywhere.

    `candidates` networks are trained for `epochs` each; of `proxies` networks only the proxy is computed.
    """

    candidates: int = 8
    epochs: int = 1
    proxies: int = 64


@dataclass(frozen=True)
class Task:
    """A cell that is to be filled; `budget` is as `prunit` reads it, or density=1/c for masks alone."""

    protocol: str
    model: str
    data: Data
    arm: str
    budget: str
    seed: int
    train: TrainConfig
    search: Search = Search()
    probe_s: float = 1.0

    @property
    def setting(self) -> str:
        """What arms must have in common to be compared: model, data and recipe."""
        return f"{plain(self.model)}-{self.data.name}-{self.train.schedule}{self.train.epochs}"

    @property
    def key(self) -> str:
        """The cell's file below the folder of cells, without its ending."""
        budget = plain(self.budget.partition("@")[0]) if self.budget else "dense"
        return f"{self.protocol}/{self.setting}/{budget}/{self.arm}.s{self.seed}"

    @property
    def epochs(self) -> int:
        """Epochs of the dense model's training, which every protocol names."""
        assert self.train.epochs is not None
        return self.train.epochs

    @property
    def training(self) -> TrainConfig:
        """The recipe with the task's seed: all arms see the same images in the same order.

        What the recipe leaves open is settled here, not by defaults that change: cells of years must be comparable. On
        a CPU that is float32, as the cells were trained that left it open; on another device `auto` stays.
        """
        pinned: dict[str, Any] = {"seed": self.seed, "batch_size": self.train.batch_size or 128}
        if self.train.lr is None:
            pinned["lr"] = {"step": 0.1, "onecycle": 0.2}[self.train.schedule]
        if self.train.precision == "auto" and device_named(self.train.device).type == "cpu":
            pinned["precision"] = "32-true"
        return self.train.model_copy(update=pinned)

    @property
    def settings(self) -> dict[str, Any]:
        """All of it as plain data. Where it runs plays no part, nor does how long latency is measured."""
        # Cells are older than these.
        unused = () if self.train.distill else ("distill", "temperature")
        unused += tuple(n for n in LATER if getattr(self.train, n) == TrainConfig.model_fields[n].default)
        train = self.train.model_dump(mode="json", exclude={"device", "devices", "channels_last", "seed", *unused})
        found = {name: value for name, value in asdict(self).items() if name not in ("train", "probe_s")}
        return found | {"train": train}

    @cached_property
    def digest(self) -> str:
        """16 hex digits that differ for tasks with different settings: a cell of other settings is out of date."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:16]


def plain(text: str) -> str:
    """The text as a file name: `params=1/16` becomes `params-1-16`."""
    return "-".join(re.findall(r"[a-z0-9.]+", text.lower()))


def file_of(task: Task, folder: Path) -> Path:
    """Where a task's cell is stored below the folder of all cells."""
    return folder / f"{task.key}.json"
