"""All tasks of a protocol: one process or several, stopped at any moment and continued."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from bench.evidence import cells
from bench.evidence.filling import Places, fill, forget, line
from bench.evidence.tasks import Task

Done = tuple[Task, dict[str, Any] | None, str]
"""A task, its cell, and instead of the cell what went wrong."""


def run(
    tasks: Sequence[Task], folder: Path, places: Places, *, jobs: int = 1, minutes: float | None = None
) -> tuple[int, list[str]]:
    """How many cells were made, and a line for each that failed. No cell is begun once the minutes are over.

    What an arm cannot do (a budget out of reach, a training that diverges) is a result; a failure is anything else,
    is not stored, and stops nothing but its own cell.
    """
    started = time.monotonic()
    made, failed = 0, []
    for i, (task, cell, error) in enumerate(_done(_in_time(tasks, started, minutes), folder, places, jobs), 1):
        said = line(cell) if cell is not None else error
        print(f"[{i}/{len(tasks)}, {time.monotonic() - started:.0f} s] {task.key}: {said}", flush=True)
        made += cell is not None
        failed += [f"{task.key}: {error}"] if cell is None else []
    return made, failed


def _in_time(tasks: Sequence[Task], started: float, minutes: float | None) -> Iterator[Task]:
    for task in tasks:
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            return
        yield task


def _done(tasks: Iterator[Task], folder: Path, places: Places, jobs: int) -> Iterable[Done]:
    if jobs == 1:
        for task in tasks:
            yield work(task, folder, places)
        return
    # Spawned, as CUDA cannot be used in a process forked from one that used it. A small network leaves most of a GPU
    # idle between its kernels; processes fill the gaps, and each holds the data set on the device once.
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(threads, os.getpid())) as pool:
        waiting: set[Future[Done]] = set()
        for task in tasks:  # handed out one by one: the next one is asked for only when a process is free
            waiting.add(pool.submit(work, task, folder, places))
            if len(waiting) >= jobs:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ready)
        yield from (future.result() for future in waiting)


def _begin(threads: int, parent: int) -> None:
    """Prepare a process that fills cells; it ends with the one that began it, also where that one is killed."""
    torch.set_num_threads(threads)

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)  # or it would go on training, and hold the lock on its checkpoint against the next run

    threading.Thread(target=follow, daemon=True).start()


def work(task: Task, folder: Path, places: Places) -> Done:
    """Fill a cell and store it."""
    try:
        cell = fill(task, places)
    except Exception as error:  # one arm's fault must not cost the others their night
        return task, None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    cells.store(cell, task, folder)
    forget(task, places)
    return task, cell, ""
