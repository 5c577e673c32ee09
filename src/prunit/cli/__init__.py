"""The command line, the only place that prints: results to standard output, progress and errors to standard error.

commands.py    what each command does
options.py     what commands have in common
sparse.py      `prunit ladder` and `prunit shrink`
running.py     `prunit install`, `prunit simulate`, `prunit replay`
serving.py     `prunit serve`, `prunit top`
evaluating.py  `prunit evaluate`
shrinking.py   from a checkpoint with zeros to a small model
planning.py    `prunit plan`
inspecting.py  `prunit inspect`
show.py        tables and explanations of plans, portfolios and files
progress.py    bars with an honest remaining time
safe.py        what comes from outside, as text that a terminal does not obey
"""

import gc
import sys
from typing import Final

from prunit.errors import MissingExtraError, PrunitError, harmless

STOPPED: Final = 130
"""Exit code after Ctrl-C, as shells have it."""

_EXTRAS: Final = {
    "torch": "train",
    "safetensors": "train",
    "lightning_fabric": "train",
    "onnx": "train",
    "onnxscript": "train",
    "onnxruntime": "edge",
    "psutil": "edge",
    "uvicorn": "serve",
    "starlette": "serve",
    "httptools": "serve",
    "prometheus_client": "serve",
}
"""Packages that a device may lack, and the extra that brings each."""


def main() -> None:
    """Run the command line. A user's mistake is one line and exit code 2; a bug keeps its traceback."""
    try:
        _run()
    finally:
        gc.freeze()  # the process ends: to look for garbage among all that was loaded takes longer than most commands


def _run() -> None:
    code: object = None
    try:
        from prunit.cli.commands import app

        code = app(prog_name="prunit", standalone_mode=False)
    except PrunitError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _stopped()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        _fail(str(MissingExtraError("this command", package, _EXTRAS[package])), 2)
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        _fail(f"the system refused{where}: {error.strerror or error}", 2)
    except Exception as error:
        if error.__class__.__name__ == "Abort":
            _stopped()
        if not hasattr(error, "format_message"):
            raise
        _fail(_usage(error), 2)
    # The library turns Ctrl-C into its exit code.
    if code == STOPPED:
        _stopped()
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Exception) -> str:
    """A wrong option or argument in one line, as the command line's library words it."""
    context = getattr(error, "ctx", None)
    where = getattr(context, "command_path", "prunit")
    return f"{error.format_message().rstrip('.')}; see `{where} --help`"  # pyright: ignore[reportAttributeAccessIssue]


def _stopped() -> None:
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    goes_on = command in ("build", "sweep", "ladder")
    _fail("stopped" + (f"; `prunit {command} … --resume` goes on where it was" if goes_on else ""), STOPPED)


def _fail(message: str, code: int) -> None:
    line = " ".join(part.strip() for part in message.splitlines() if part.strip())
    sys.stderr.write(f"prunit: {harmless(line)}\n")
    sys.exit(code)
