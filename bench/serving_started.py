"""Servers and loads in processes of their own, for bench/serving.py and bench/serving_front.py."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench._common import ROOT


def path_of(source: Path | None = None) -> str:
    """PYTHONPATH of a child: this process's, with another build's source before it if one is given."""
    return os.pathsep.join([*([str(source)] if source else []), *(p for p in sys.path if p)])


def begun(
    folder: Path, port: int, *arguments: str, stderr: int = subprocess.DEVNULL, source: Path | None = None
) -> subprocess.Popen[str]:
    """`prunit serve` in a process, of this build or of the one in `source`."""
    command = [sys.executable, "-m", "prunit", "serve", str(folder), "--port", str(port), *arguments]
    environment = {**os.environ, "PYTHONPATH": path_of(source), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=stderr, text=True)


@contextmanager
def server(folder: Path, *arguments: str, source: Path | None = None) -> Iterator[tuple[int, int]]:
    """A server on a free port: (port, process id). It is ended by SIGTERM."""
    process = begun(folder, 0, *arguments, stderr=subprocess.PIPE, source=source)
    assert process.stderr
    try:
        while True:
            line = process.stderr.readline()
            if not line:
                raise RuntimeError("the server did not start")
            told = json.loads(line)
            if told["message"] == "listening":
                port = int(told["url"].rpartition(":")[2])
            elif told["message"] == "ready":
                break
        # Whatever else it says must not fill the pipe.
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        yield port, process.pid
        drain.kill()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def in_a_child(asked: dict[str, Any]) -> dict[str, Any]:
    """A load from a process of its own."""
    command = [sys.executable, "-m", "bench.serving_load", json.dumps(asked)]
    child = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path_of()}, capture_output=True, text=True, check=True
    )
    return json.loads(child.stdout.splitlines()[-1])
