"""Cells as pieces that may be done anywhere: in this process, in others of this machine, on Ray."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from bench.evidence import cells
from bench.evidence.arms import ARMS
from bench.evidence.filling import Places, fill, forget
from bench.evidence.tasks import DENSE, Data, Search, Task
from prunit.files import write_atomically
from prunit.recipe.folder import STATE
from prunit.recipe.places.handed import Handed
from prunit.recipe.places.pieces import Piece
from prunit.recipe.progress import Progress
from prunit.train import TrainConfig

CELL: Final = "cell"


@dataclass(frozen=True)
class Outcome:
    """What came of a piece: a cell that is stored, or what went wrong; neither, where the time was over."""

    made: bool = False
    error: str = ""


def piece_of(task: Task, *, until: float | None = None) -> Piece:
    """A task as plain data; nothing is begun after `until`, in seconds since 1970.

    What needs the dense model trained comes after that cell where it is to be done too, and else trains it itself.
    """
    told = {**asdict(task), "train": task.train.model_dump(mode="json")}
    first = (f"{CELL} {replace(task, arm='dense', budget=DENSE).key}",) if ARMS[task.arm].after_training else ()
    return Piece(CELL, task.key, {"task": told, "until": until}, after=first)


def task_of(told: Mapping[str, Any]) -> Task:
    """The task of a piece's arguments."""
    parts = {"data": Data(**told["data"]), "search": Search(**told["search"]), "train": TrainConfig(**told["train"])}
    return Task(**{**told, **parts})


@dataclass(frozen=True)
class CellBench:
    """Fills cells; each process reads a cell's images itself, and keeps them for the next one."""

    cells: Path
    """The folder of all cells."""
    places: Places
    progress: Progress
    dataset = None

    @property
    def folder(self) -> Path:
        """What trainings leave between two runs."""
        return self.places.scratch

    def do(self, piece: Piece) -> None:
        """Leave the cell, or what was wrong: one arm's fault must not cost the others their night."""
        task, until = task_of(piece.arguments["task"]), piece.arguments["until"]
        if until is not None and time.time() >= until:
            return self._leave(task, Outcome())
        try:
            cell = fill(task, self.places)
        except Exception as error:
            return self._leave(task, Outcome(error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))
        cells.store(cell, task, self.cells)
        forget(task, self.places)
        return self._leave(task, Outcome(made=True))

    def has(self, piece: Piece) -> bool:
        """Never: cells that are there were left out before, and those that are asked for afresh are done again."""
        return False

    def handed(self) -> Handed:
        """As `Bench.handed`: a cell names its own model."""
        more = {"cells": str(self.cells.resolve()), "data": str(self.places.data) if self.places.data else None}
        folder, home = str(self.folder.resolve()), str(Path.cwd())
        return Handed(f"{__name__}:bench_again", folder, home, {}, "", "", (), torch.get_num_threads(), more)

    def came_of(self, task: Task) -> Outcome:
        """What is left of a piece that was done; it can be asked once."""
        file = self._file(task)
        found = Outcome(**json.loads(file.read_text("utf-8")))
        file.unlink()
        return found

    def _leave(self, task: Task, outcome: Outcome) -> None:
        write_atomically(self._file(task), json.dumps(asdict(outcome)))

    def _file(self, task: Task) -> Path:
        return self.folder / STATE / "outcomes" / f"{task.protocol}.{task.digest}.json"


def bench_again(handed: Handed, progress: Progress) -> CellBench:
    """The bench in another process."""
    data = handed.more["data"]
    return CellBench(Path(handed.more["cells"]), Places(Path(handed.folder), Path(data) if data else None), progress)
