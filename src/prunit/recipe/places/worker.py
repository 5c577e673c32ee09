"""A process that does pieces: told which by lines of JSON on its standard input, it answers on its standard output.

The first line says how to make the bench, each other one is a piece. Its answers: how far a piece is ('step'), a
warning ('log'), that it is done ('done'), or what was wrong ('error'). It ends at once when its input does, which is
when whoever started it has ended, however that was.
"""

import json
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from time import monotonic
from typing import IO, Any, Final

from prunit.errors import PrunitError
from prunit.recipe.places.pieces import Bench, Piece
from prunit.recipe.progress import Progress

_EVERY_S: Final = 0.1
"""How often a stage says how far it is."""

Tell = Callable[[Mapping[str, Any]], None]


class Reporting(Progress):
    """Tells another process, which knows how long all will take."""

    def __init__(self, tell: Tell, *, every_s: float = _EVERY_S) -> None:
        super().__init__(None)
        self.tell, self._every_s = tell, every_s
        self._said: tuple[str, str] = ("", "")
        self._said_at = 0.0

    def __call__(self, variant: str, stage: str, done: int, total: int, note: str = "", *, place: int = 0) -> None:
        """A step of a stage is done; of many in a moment only some are told."""
        now = monotonic()
        if self._said != (variant, stage) or now - self._said_at >= self._every_s or done == total:
            self._said, self._said_at = (variant, stage), now
            self.tell({"step": [variant, stage, done, total, note]})

    def tell_to(self, tell: Tell) -> None:
        """Tell another one from now on."""
        self.tell, self._said = tell, ("", "")


class Logged(logging.Handler):
    """Hands warnings of prunit to another process, which shows them."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.WARNING)
        self._tell_of = tell

    def emit(self, record: logging.LogRecord) -> None:
        """As `logging.Handler.emit`."""
        self._tell_of({"log": [record.name, record.levelno, record.getMessage()]})


def outcome(bench: Bench, piece: Piece) -> dict[str, Any]:
    """What came of doing a piece: 'done', or an 'error' with its kind and message."""
    try:
        bench.do(piece)
    except (Exception, SystemExit) as error:
        return failure(error)
    return {"done": piece.key}


def failure(error: BaseException) -> dict[str, Any]:
    """An error in plain values. What a user can repair is one line; all else keeps its traceback."""
    if isinstance(error, PrunitError):
        return {"error": {"kind": type(error).__name__, "message": str(error)}}
    if isinstance(error, OSError):
        where = f" '{error.filename}'" if error.filename else ""
        return {"error": {"kind": "FileError", "message": f"the system refused{where}: {error.strerror or error}"}}
    if isinstance(error, SystemExit):
        message = f"code that was called left by sys.exit({error.code!r}): raise an exception instead"
        return {"error": {"kind": "WorkerError", "message": message}}
    return {"error": {"kind": "", "message": "".join(traceback.format_exception(error))}}


def main() -> None:
    """Do what is asked until nothing more is."""
    asked, answers = _own_streams()
    lock = threading.Lock()

    def tell(message: Mapping[str, Any]) -> None:
        with lock:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    signal.signal(signal.SIGTERM, _interrupt)
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(asked, lines), daemon=True).start()
    try:
        _serve(lines, tell)
    except KeyboardInterrupt:
        os._exit(130)
    except BrokenPipeError:  # whoever asked has gone
        os._exit(1)


def _serve(lines: "queue.Queue[str]", tell: Tell) -> None:
    first = json.loads(lines.get())
    try:
        bench = _bench(first, tell)
    except (Exception, SystemExit) as error:
        tell(failure(error))
        return
    while True:
        tell(outcome(bench, Piece.of(json.loads(lines.get()))))


def _bench(first: Mapping[str, Any], tell: Tell) -> Bench:
    import torch

    from prunit.recipe.places.benches import bench_again
    from prunit.recipe.places.handed import Handed, read_arrays

    handed = Handed(**first["handed"])
    torch.set_num_threads(handed.threads)
    logging.getLogger("prunit").addHandler(Logged(tell))
    return bench_again(handed, first["data"], read_arrays(first["files"]), Reporting(tell))


def _own_streams() -> tuple[IO[str], IO[str]]:
    """The two ends of the conversation; what others print goes to standard error, and they read nothing."""
    asked = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return asked, answers


def _read(asked: IO[str], lines: "queue.Queue[str]") -> None:
    for line in asked:
        lines.put(line)
    # Not by an exception: the main thread may be deep in a training, and nobody waits for it any more.
    os._exit(0)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
