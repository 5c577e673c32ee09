"""Threads of each training: the same however many trainings run at once, since a sum depends on how it is shared out.

PyTorch on a CPU adds up in parts, one for each thread, so that weights are the same to the last bit only with the same
number of threads. A build that trains variants beside each other says once how many each of them has, and writes it
down: whoever goes on with it, with however many jobs, keeps to it. Scores and timed steps have as many, too.
"""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch

from prunit.files import write_atomically
from prunit.recipe.folder import STATE, read_json
from prunit.recipe.places.pieces import Executor

FILE = "threads.json"


def threads_for(executor: Executor, state: Path) -> int | None:
    """Threads of each training of the build whose state lies in that folder; None: as many as torch has here."""
    file = state / FILE
    if file.exists():
        return int(read_json(file)["threads"])
    if executor.threads is not None:
        return executor.threads
    return None if executor.at_once == 1 else max(1, torch.get_num_threads() // executor.at_once)


def keep(threads: int | None, state: Path) -> None:
    """Write down what `threads_for` said, for whoever goes on."""
    if threads is not None and not (state / FILE).exists():
        write_atomically(state / FILE, json.dumps({"threads": threads}))


@contextmanager
def limited(threads: int | None) -> Iterator[None]:
    """Inside, torch computes with so many threads in this process."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads is not None:
            torch.set_num_threads(before)


@contextmanager
def working(executor: Executor, trainings: int, folder: Path) -> Iterator[int | None]:
    """Inside, so many trainings of the folder's build may be done there, each with as many threads as it yields."""
    with closing(executor):
        executor.ready(trainings, folder)
        threads = threads_for(executor, folder / STATE)
        with limited(threads):
            yield threads


def told(executor: Executor, threads: int | None) -> str:
    """In a line what is done at the same time, '' for one after the other."""
    if executor.at_once == 1:
        return ""
    each = "" if threads is None else f", {threads} thread{'s' * (threads > 1)} each"
    return f"up to {executor.at_once} trainings at the same time{each}"
