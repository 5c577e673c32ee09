"""Cells made beside each other, in processes of their own or on Ray, are those made one after the other."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.evidence import __main__ as command
from bench.evidence import cells, pieces, running
from bench.evidence.arms import ARMS
from bench.evidence.tasks import Task, file_of
from prunit.errors import WorkerError
from prunit.recipe.places.on_ray import OnRay
from prunit.recipe.places.pieces import Executor, Piece
from prunit.recipe.places.processes import Processes
from prunit.recipe.places.threads import limited
from tests.evidence.setup import TRAIN, places, task
from tests.recipe.places.somewhere import kill, left_over, workers

TASKS = (task("dense", ""), task("uniform"), task("l1-trained"), task("mask-snip"))


def stripped(cell: Any) -> dict[str, Any]:
    """A cell without what a clock, or the machine's load, says."""
    timed = ("date", "load_average", "seconds", "latency", "peak_memory_bytes", "steps")
    left = {name: value for name, value in cell.items() if name not in timed}
    return left | {"epochs": [{n: v for n, v in epoch.items() if n != "seconds"} for epoch in cell["epochs"]]}


def assert_same_cells(tasks: Sequence[Task], one: Path, other: Path) -> None:
    for each in tasks:
        a, b = (stripped(cells.read(file_of(each, folder))) for folder in (one, other))
        assert json.dumps(a) == json.dumps(b)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One after the other, in this process, with one thread."""
    folder = tmp_path_factory.mktemp("reference")
    with limited(1):
        assert running.run(TASKS, folder / "cells", places(folder)) == (4, [])
    return folder / "cells"


@pytest.mark.parametrize(
    "one", [*TASKS, replace(task("snap", "macs=1/4", 3), train=TRAIN.model_copy(update={"lr": 0.3}), probe_s=2.0)]
)
def test_a_task_is_the_same_after_it_was_sent(one: Task) -> None:
    sent = Piece.of(json.loads(json.dumps(pieces.piece_of(one).as_dict())))
    found = pieces.task_of(sent.arguments["task"])
    assert (found, found.digest, found.training) == (one, one.digest, one.training)


def test_what_needs_a_trained_model_waits_for_the_dense_cell() -> None:
    dense = pieces.piece_of(task("dense", "", 1))
    assert pieces.piece_of(task("l1-trained", seed=1)).after == (dense.key,)
    assert {arm for arm in ARMS if arm != "dense" and pieces.piece_of(task(arm)).after} == {
        arm for arm in ARMS if ARMS[arm].after_training
    }


@pytest.mark.slow
def test_two_processes_make_the_same_cells_with_as_many_threads_each(tmp_path: Path, reference: Path) -> None:
    with limited(2):
        assert running.run(TASKS, tmp_path / "cells", places(tmp_path), executor=Processes(2)) == (4, [])
    assert_same_cells(TASKS, tmp_path / "cells", reference)
    made = [cells.read(file_of(each, tmp_path / "cells")) for each in TASKS]
    assert {cell["device"]["threads"] for cell in made if cell} == {1}
    assert workers() == []
    assert left_over(tmp_path) == []
    assert not list((tmp_path / "scratch" / ".build" / "outcomes").iterdir())


@pytest.mark.slow
def test_a_process_that_is_killed_costs_the_cells_that_it_was_making(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killing(_cell: Any) -> str:
        for process in workers():
            kill(process)
        return "made"

    monkeypatch.setattr(running, "line", killing)
    with pytest.raises(WorkerError, match=r"its process was ended by signal 9 .*: run it again, or with fewer jobs"):
        running.run(TASKS, tmp_path / "cells", places(tmp_path), executor=Processes(2))
    monkeypatch.undo()
    assert workers() == []
    found = cells.find(TASKS, tmp_path / "cells")
    assert 0 < len(found.cells) < len(TASKS)
    before = {each: file_of(each, tmp_path / "cells").read_bytes() for each in found.cells}
    left = len(found.missing)
    assert running.run(found.missing, tmp_path / "cells", places(tmp_path), executor=Processes(2)) == (left, [])
    assert {each: file_of(each, tmp_path / "cells").read_bytes() for each in found.cells} == before
    with limited(1):
        assert_same_cells(TASKS, tmp_path / "cells", reference)


@pytest.mark.slow
def test_a_fault_in_another_process_costs_its_own_cell(tmp_path: Path) -> None:
    gone = task("mask-snip", "params=1/0")
    made, failed = running.run([gone, task("uniform")], tmp_path / "cells", places(tmp_path), executor=Processes(2))
    assert made == 1
    assert len(failed) == 1
    assert failed[0].startswith(f"{gone.key}: ")
    assert not file_of(gone, tmp_path / "cells").exists()


def made_by(executor: Executor, folder: Path) -> tuple[int, list[str]]:
    return running.run(TASKS[:2], folder / "cells", places(folder), executor=executor, minutes=0)


@pytest.mark.slow
def test_other_processes_begin_no_cell_when_the_time_is_over(tmp_path: Path) -> None:
    assert made_by(Processes(2), tmp_path) == (0, [])
    assert not (tmp_path / "cells").exists()


@pytest.mark.slow
def test_on_ray_the_cells_are_the_same(tmp_path: Path, reference: Path) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'prunit[ray]'")
    assert running.run(TASKS, tmp_path / "cells", places(tmp_path), executor=OnRay("local")) == (4, [])
    assert_same_cells(TASKS, tmp_path / "cells", reference)
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--jobs", "0"), "--jobs 0: it must be a whole number, at least 1, of cells at the same time"),
        (("--cpus-per-trial", "2"), "--cpus-per-trial 2 is of trainings on Ray"),
        (("--ray", "nowhere"), "--ray nowhere: write local, auto, or the HOST:PORT"),
    ],
)
def test_places_that_cannot_be_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, ...], message: str
) -> None:
    assert command.main(["run", "smoke", "--work", str(tmp_path / "work"), *asked]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
