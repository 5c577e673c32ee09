"""Cells as files: one small JSON each, `PROTOCOL/SETTING/BUDGET/ARM.sSEED.json` below a folder.

Committed they stand in bench/results/evidence/, a file each: what different machines made merges by adding files, a
conflict is about one cell, and a killed run has lost one cell. A cell holds the digest of its task's settings; where
the declared grid has other settings by now, it is out of date and counts as missing.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench._common import RESULTS
from bench.evidence.tasks import Task, file_of
from prunit.errors import FileError
from prunit.files import write_atomically

CELLS: Final = RESULTS / "evidence"

Cell = Mapping[str, Any]


def store(cell: Cell, task: Task, folder: Path) -> Path:
    """The cell's file, written whole or not at all."""
    file = file_of(task, folder)
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in cell.items())
    write_atomically(file, f"{{\n{lines}\n}}\n")
    return file


def read(file: Path) -> Cell | None:
    """A stored cell; None if there is none."""
    if not file.exists():
        return None
    try:
        cell = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileError(f"'{file}' is no cell: {error}; remove it, and run it again") from error
    if not isinstance(cell, dict) or not {"digest", "task", "versions"} <= cell.keys():
        raise FileError(f"'{file}' is no cell: it lacks digest, task or versions; remove it, and run it again")
    return cell


@dataclass(frozen=True)
class Found:
    """The cells of a protocol: those that are there, by task, and what is missing or out of date."""

    cells: Mapping[Task, Cell]
    missing: tuple[Task, ...]
    stale: tuple[Task, ...]

    @property
    def tasks(self) -> int:
        """How many there should be."""
        return len(self.cells) + len(self.missing) + len(self.stale)


def find(tasks: Iterable[Task], folder: Path) -> Found:
    """The cells of these tasks in a folder."""
    cells: dict[Task, Cell] = {}
    missing: list[Task] = []
    stale: list[Task] = []
    for task in tasks:
        cell = read(file_of(task, folder))
        if cell is None:
            missing.append(task)
        elif cell["digest"] != task.digest:
            stale.append(task)
        else:
            cells[task] = cell
    return Found(cells, tuple(missing), tuple(stale))


def merge(tasks: Iterable[Task], source: Path, into: Path) -> tuple[int, list[str]]:
    """How many cells of `source` were added to `into`, and a line for each that both have and that do not agree.

    A cell that is there stays, unless it is out of date. Cells of the same task must keep the same channels: where
    they do not, the first one stays and the difference is told.
    """
    added, told = 0, []
    for task in tasks:
        new, old = read(file_of(task, source)), read(file_of(task, into))
        if new is None or new["digest"] != task.digest:
            continue
        if old is None or old["digest"] != task.digest:
            store(new, task, into)
            added += 1
        elif old.get("plan") != new.get("plan"):
            told.append(f"{task.key}: plan {old.get('plan')} is there, {new.get('plan')} in '{source}'; kept the first")
    return added, told
