"""The process: a socket, one worker or several that share it, and an end without loss."""

import os
import shutil
import socket
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from prunit.edge.serve import logs
from prunit.edge.serve.app import make
from prunit.edge.serve.guard import Guard
from prunit.edge.serve.metrics import FOLDER_VARIABLE
from prunit.edge.serve.service import check_served
from prunit.edge.serve.settings import Settings
from prunit.errors import DeviceError

_TURN_S: Final = 5e-5
"""For so long a thread of Python may go on while another one waits. The engine's thread waits for the event loop when a
batch is computed, and nothing is computed meanwhile; Python's own 5 ms are as long as many batches."""


def serve(settings: Settings) -> None:
    """Answer until SIGTERM or Ctrl-C; then what is being answered is finished, for `drain_s` at most.

    Raises `ConfigError` or `PortfolioError` for what cannot be served, `DeviceError` if the port is taken.
    """
    check_served(settings)
    if settings.cpus:
        os.sched_setaffinity(0, settings.cpus)
    listening = _listening(settings)
    shared: Path | None = None
    if settings.workers > 1:
        # In memory where there is a file system for it: workers lay down their state several times a second.
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        shared = Path(tempfile.mkdtemp(prefix="prunit-", dir=place))
        os.environ[FOLDER_VARIABLE] = str(shared)
        settings = replace(settings, shared=shared)
    logs.begin()
    host, port = listening.getsockname()[:2]
    told = {"url": f"http://{host}:{port}", "folder": str(settings.folder), "workers": settings.workers}
    logs.tell("listening", told)
    config = uvicorn.Config(
        partial(worker, settings),
        factory=True,
        http=Guard,
        ws="none",
        lifespan="on",
        workers=settings.workers,
        timeout_keep_alive=int(settings.keep_alive_s),
        timeout_graceful_shutdown=int(settings.drain_s),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        loop="auto",
    )
    try:
        if settings.workers > 1:
            Multiprocess(config, sockets=[listening]).run()
        else:
            _Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass  # Ctrl-C ends it as SIGTERM does
    finally:
        if shared:
            shutil.rmtree(shared, ignore_errors=True)
    logs.tell("ended")


def worker(settings: Settings) -> Any:
    """The application of one process; in a child the logs have to be set up anew."""
    sys.setswitchinterval(_TURN_S)
    logs.begin()
    return make(settings)


class _Server(uvicorn.Server):
    """Ends with success on SIGTERM: it did what it was told."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        self._captured_signals.clear()


def _listening(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((settings.host, settings.port))
    except OSError as error:
        found.close()
        raise DeviceError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; choose another --port"
        ) from error
    found.listen(2048)
    found.set_inheritable(True)
    return found
