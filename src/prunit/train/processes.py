"""A generator run in several processes at once, one per device; what the first one yields comes back as it is made.

The processes are started afresh ('spawn'), so that CUDA may be in use already; what they work on is sent to them whole,
since shared memory is small in containers.
"""

import os
import pickle
import queue
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import torch
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, start_processes

from prunit.errors import ModelError, PrunitError, TrainingError

OnStep = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""

_POLL_S: Final = 0.5
_Job = TypeVar("_Job")
_Record = TypeVar("_Record")
_Work = Callable[[_Job, OnStep | None], Iterator[_Record]]


def in_processes(
    work: "_Work[_Job, _Record]", job: _Job, *, processes: int, on_step: OnStep | None
) -> Iterator[_Record]:
    """What `work(job, on_step)` yields in the first of `processes` processes; all are ended when this one is left."""
    payload = _sendable(work, job, with_steps=on_step is not None)
    news = mp.get_context("spawn").Queue()
    threads = max(1, torch.get_num_threads() // processes)
    group = start_processes(
        _process, (payload, _free_port(), threads, news), nprocs=processes, join=False, start_method="spawn"
    )
    assert group is not None  # because of join=False
    try:
        while True:
            kind, value = _next(news, group)
            if kind == "end":
                return
            if kind == "error":
                raise value
            if kind == "step" and on_step:
                on_step(*value)
            if kind == "record":
                yield value
    finally:
        for process in filter(None, group.processes):
            if process.is_alive():
                process.terminate()
        for process in filter(None, group.processes):
            process.join()


def _sendable(work: object, job: object, *, with_steps: bool) -> bytes:
    try:
        return pickle.dumps((work, job, with_steps))
    except Exception as error:
        raise ModelError(
            f"training on several devices starts a process for each, and this model cannot be sent to them ({error}): "
            f"define its classes and functions at the top level of an importable module, or use devices=1"
        ) from error


def _next(news: "mp.Queue[tuple[str, Any]]", group: ProcessContext) -> tuple[str, Any]:
    while True:
        try:
            return news.get(timeout=_POLL_S)
        except queue.Empty:
            pass
        try:
            group.join(timeout=0)
        except ProcessExitedException as error:
            raise TrainingError(f"a training process ended by itself ({error}); its own message is above") from error


def _process(rank: int, payload: bytes, port: int, threads: int, news: "mp.Queue[tuple[str, Any]]") -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(threads)
    work, job, with_steps = pickle.loads(payload)

    def on_step(done: int, steps: int) -> None:
        news.put(("step", (done, steps)))

    try:
        for record in work(job, on_step if with_steps and rank == 0 else None):
            if rank == 0:
                news.put(("record", record))
        if rank == 0:
            news.put(("end", None))
    except PrunitError as error:
        news.put(("error", error))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
