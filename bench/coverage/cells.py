"""One model and one tool in a process of its own, with limits; what came of it is one JSON file, a *cell*.

The processes are forked from one that has imported everything, so none of them pays for that and a source that is
being edited cannot mix two states in one sweep. A cell is written anew at each stage: where a process is killed it
still says how far it came.
"""

import json
import multiprocessing
import os
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

import torch
from torch import nn

from bench.coverage import ours, theirs
from bench.coverage.networks import Draw, pictures
from prunit.errors import PrunitError
from prunit.files import write_atomically

SECONDS: Final = {"prunit": 300, "onnx": 180, "torch-pruning": 300}
"""CPU time of each tool for one model, most of which goes into our comparisons; by the wall clock three times that."""
THEIR_SECONDS: Final = 40
"""CPU time in which Torch-Pruning has to build its graph, and again to prune: where it ends at all it takes less."""
GIGABYTES: Final = 14
"""Address space of each process."""

Cell = dict[str, Any]
Make = Callable[[], tuple[nn.Module, Draw]]


class Case(Protocol):
    """A model to try: its name, and what builds it."""

    @property
    def name(self) -> str: ...

    def make(self) -> tuple[nn.Module, Draw]: ...


class _OutOfTime(BaseException):
    """The limit was reached: no `except Exception` of a tool may catch it."""


def fill(tool: str, make: Make, note: Callable[[Cell], None] = lambda cell: None) -> Cell:
    """The cell of one model, in this process; `note` gets it at each stage. Errors become part of it."""
    cell: Cell = {"tool": tool, "status": "died", "stage": "start"}

    def at(stage: str) -> None:
        cell["stage"] = stage
        note(cell)

    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if tool == "torch-pruning":
                theirs.examine(make, cell, at)
                cell["status"] = theirs.verdict(cell)
            elif tool == "onnx":
                ours.export(make, cell, at)
                cell["status"] = "exact"
            else:
                ours.examine(make, cell, at)
                cell["status"] = ours.verdict(cell)
    except _OutOfTime:
        cell["status"] = "timeout"
    except MemoryError:
        cell["status"] = "memory"
    except Exception as error:
        _failed(cell, error)
        if tool == "prunit" or cell["stage"] == "build":
            _blame(cell, make)
    cell["cpu_s"] = round(time.process_time() - start, 2)
    note(cell)
    return cell


def _failed(cell: Cell, error: Exception) -> None:
    cell["status"] = "memory" if "can't allocate memory" in str(error) else "failed"
    cell["error_line"] = ours.first_line(error)
    cell["on_purpose"] = isinstance(error, PrunitError)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in f.filename]
    cell["where"] = [f"{'/'.join(Path(f.filename).parts[-3:])}:{f.lineno} in {f.name}" for f in frames[-4:]]


def _blame(cell: Cell, make: Make) -> None:
    """A model that fails in the same way uncut is nobody's failure."""
    try:
        ours.runs_uncut(make)
    except Exception as error:
        cell |= {"status": "uncut", "error_line": ours.first_line(error)}


def run(case: Case, tool: str, file: Path, *, commit: str | None = None) -> Cell:
    """The cell of one model, made by a process of its own and stored in `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    worker = multiprocessing.get_context("fork").Process(target=_work, args=(case, tool, file))
    worker.start()
    worker.join(3 * SECONDS[tool])
    late = worker.is_alive()
    if late:
        worker.kill()
        worker.join()
    cell = read(file) or {"tool": tool, "status": "died", "stage": "start"}
    if cell["status"] == "died":
        cell["status"] = "timeout" if late or worker.exitcode in (-signal.SIGXCPU, -signal.SIGKILL) else "died"
        cell["exit_code"] = worker.exitcode
    cell |= {"name": case.name, "commit": commit, "date": datetime.now(UTC).date().isoformat()}
    store(cell, file)
    return cell


def _work(case: Case, tool: str, file: Path) -> None:
    """What the forked process does."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)  # it comes again every second, while the cell is being stored
        raise _OutOfTime

    signal.signal(signal.SIGXCPU, stop)
    used = int(time.process_time())  # what the parent used counts in the child's limit only on some systems
    last = used + SECONDS[tool]
    resource.setrlimit(resource.RLIMIT_CPU, (last, last + 10))
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, GIGABYTES << 30))

    def note(cell: Cell) -> None:
        if tool == "torch-pruning":
            until = int(time.process_time()) + THEIR_SECONDS if cell["stage"] in ("graph", "prune") else last
            resource.setrlimit(resource.RLIMIT_CPU, (min(until, last), last + 10))
        store(cell, file)

    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    fill(tool, case.make, note)
    os._exit(0)


def finished(cell: Cell | None) -> bool:
    """The process of this cell came to its end, and was not stopped together with the sweep."""
    return cell is not None and "commit" in cell


def read(file: Path) -> Cell | None:
    """A stored cell; None if there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def store(cell: Mapping[str, Any], file: Path) -> None:
    """Store a cell, whole or not at all."""
    write_atomically(file, json.dumps(cell, indent=1))


def warm_up(tools: Sequence[str]) -> None:
    """Import what the processes need and run every tool once on a toy, so that the first model does not pay for it."""
    torch.set_num_threads(1)
    if "torch-pruning" in tools:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch_pruning  # noqa: F401
    for tool in tools:
        fill(tool, toy)


def toy() -> tuple[nn.Module, Draw]:
    """Two convolutions and a classifier, and pictures of 16 pixels."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Dropout(0.2), nn.Linear(16, 4)),
    )
    return net.eval(), pictures(16)
