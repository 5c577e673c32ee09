"""`Processes`: several pieces at once, each in a process of this machine.

The processes are started anew (no fork: torch has threads), import what they need once, and do one piece after the
other. They end with whoever started them: at its end, at Ctrl-C, or when it is killed.
"""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryFile
from typing import Any, Final

from prunit import errors
from prunit.errors import PrunitError, WorkerError, harmless
from prunit.recipe.folder import STATE
from prunit.recipe.places.handed import images_of, write_arrays
from prunit.recipe.places.pieces import Bench, Piece, Run, next_of

_PATIENCE_S: Final = 10.0
"""How long a process may take to tidy up when it is told to stop."""
_SHARED: Final = "handed"
"""Folder in a build's state where the images lie for as long as processes read them."""


class Processes:
    """So many pieces at the same time, in processes of this machine, which share out its threads."""

    threads = None

    def __init__(self, jobs: int) -> None:
        self.at_once = jobs

    def ready(self, trainings: int, folder: Path) -> None:
        """As `Executor.ready`: a number of jobs was checked before."""

    def close(self) -> None:
        """As `Executor.close`: processes end with their bench."""

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Run]:
        """As `Executor.open`."""
        pool = _Pool(bench, self.at_once)
        try:
            yield pool.run
        finally:
            pool.close()


class _Pool:
    """The processes for one bench, started when there is something to do."""

    def __init__(self, bench: Bench, jobs: int) -> None:
        self.bench, self.jobs = bench, jobs
        self.news: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self.workers: dict[int, _Worker] = {}
        self.shared = bench.folder / STATE / _SHARED
        self.first = b""

    def run(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """As `pieces.Run`; the first error ends it, and names the variant."""
        asked = list(pieces)
        waiting: list[Piece] = []
        for piece in asked:
            if self.bench.has(piece):
                yield piece
            else:
                waiting.append(piece)
        busy: dict[int, Piece] = {}
        while waiting or busy:
            self._hand_out(waiting, busy)
            place, message = self.news.get()
            if message is None:
                raise WorkerError(self.workers[place].ended(busy.get(place)))
            if "step" in message:
                self.bench.progress(*message["step"], place=place)
            elif "log" in message:
                name, level, text = message["log"]
                logging.getLogger(name).log(level, "%s", text)
            elif "error" in message:
                raise error_of(message["error"], busy.get(place))
            else:
                yield busy.pop(place)

    def _hand_out(self, waiting: list[Piece], busy: dict[int, Piece]) -> None:
        """Give each process that is free the first piece that needs nothing of those that are not done."""
        for place in range(1, self.jobs + 1):
            if place in busy:
                continue
            ready = next_of(waiting, busy.values())
            if ready is None:
                if place in self.workers:
                    self.bench.progress.waits(place)
                continue
            waiting.remove(ready)
            busy[place] = ready
            if place not in self.workers:
                self.workers[place] = _Worker(place, self._opening(), self.news, self.threads)
            self.workers[place].send(ready)

    def _opening(self) -> bytes:
        """What each process is told first; the images are written down for all of them once."""
        if not self.first:
            handed = self.bench.handed()
            self.threads = handed.threads
            data, arrays = images_of(self.bench, handed)
            files = write_arrays(arrays, self.shared)
            self.first = json.dumps({"handed": handed.as_dict(), "data": data, "files": files}).encode() + b"\n"
        return self.first

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers.values():
            worker.stop()
        for worker in self.workers.values():
            worker.join()
        rmtree(self.shared, ignore_errors=True)


class _Worker:
    """One process, and a thread that listens to it."""

    def __init__(
        self, place: int, first: bytes, news: "queue.Queue[tuple[int, dict[str, Any] | None]]", threads: int
    ) -> None:
        self._said = TemporaryFile()
        self.process = subprocess.Popen(
            # Without the working folder on the path: a file there may be called like a module of Python's.
            [sys.executable, "-P", "-m", "prunit.recipe.places.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=_environment(threads),
            start_new_session=True,  # Ctrl-C in a terminal is for this process alone, which then ends the others
        )
        self._write(first)
        self._listener = threading.Thread(target=self._listen, args=(place, news), daemon=True)
        self._listener.start()
        self._stopped = False

    def send(self, piece: Piece) -> None:
        """Have a piece done."""
        self._write(json.dumps(piece.as_dict()).encode() + b"\n")

    def stop(self) -> None:
        """Let it tidy up and end."""
        self._stopped = True
        if self.process.poll() is None:
            self.process.terminate()

    def join(self) -> None:
        """Wait until it has ended, and end it if that takes too long."""
        try:
            self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._listener.join()
        for stream in (self.process.stdin, self.process.stdout, self._said):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()

    def ended(self, piece: Piece | None) -> str:
        """The message for a process that has ended by itself."""
        code = self.process.wait()
        what = f"{piece.name}: its process" if piece else "a process for variants"
        if code < 0:
            known = {number.value: f" ({number.name})" for number in signal.Signals}
            why = f"was ended by signal {-code}{known.get(-code, '')}"
            why += ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
        else:
            why = f"has ended by itself with exit code {code}"
        last = self._last_line()
        return (
            f"{what} {why}{f' ({last})' if last else ''}; finished epochs are kept: go on with --resume"
            " (resume=True), or with fewer jobs"
        )

    def _write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, as the listener tells
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _listen(self, place: int, news: "queue.Queue[tuple[int, dict[str, Any] | None]]") -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            news.put((place, json.loads(line)))
        news.put((place, None))

    def _last_line(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        return harmless(next((line.strip() for line in reversed(lines) if line.strip()), ""))[:200]


def error_of(told: Mapping[str, str], piece: Piece | None) -> Exception:
    """The error that another process told of, with the variant's name in front."""
    kind = getattr(errors, told["kind"], None) if told["kind"] else None
    where = f"{piece.name}: " if piece else ""
    if not (isinstance(kind, type) and issubclass(kind, PrunitError)):
        return RuntimeError(f"{where}a bug, in another process:\n{told['message']}")
    error = kind.__new__(kind)  # not by its own arguments, of which the message was made
    Exception.__init__(error, f"{where}{told['message']}")
    for name, value in (("closest", {}), ("module", "")):
        setattr(error, name, value)
    return error


def _environment(threads: int) -> dict[str, str]:
    """Ours, where the same prunit is found, with as many threads as a training has."""
    here = str(Path(errors.__file__).resolve().parents[1])
    # What the user's file imports lies where this process looked for it: beside a script, where a test runner says.
    own = [entry for entry in sys.path if entry and not entry.startswith((sys.prefix, sys.base_prefix))]
    path = os.pathsep.join(dict.fromkeys([here, *own]))
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**os.environ, **limits, "PYTHONPATH": path}
