"""`trace` of a source tree of prunit, timed in a process of its own, which waits for its turn."""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Final, cast

import torch
from torch import Tensor, nn

from bench._common import ROOT
from bench._nets import HALVED, MORE

NETS: Final = {**HALVED, **MORE}
"""The networks of `bench.speed`."""


class Build:
    """Times `trace` of the prunit in the folder `source` (a `src`) on the networks of `bench.speed`, by key."""

    def __init__(self, source: Path, threads: int) -> None:
        path = os.pathsep.join((str(source.resolve()), str(ROOT)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench._builds", str(source.resolve()), str(threads)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Build":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.communicate()

    def trace(self, key: str) -> float:
        """Milliseconds of one trace of that network."""
        asked, told = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        print(key, file=asked, flush=True)
        line = told.readline()
        if not line:
            raise SystemExit("a build's process has ended: see above")
        return float(line)


def answer(source: str, threads: int) -> None:
    """Trace the network that each line names, and write how long it took."""
    import prunit
    from prunit.graph import trace

    if not str(prunit.__file__).startswith(source):
        raise SystemExit(f"prunit came from {prunit.__file__}, not from {source}")
    torch.set_num_threads(threads)
    made: dict[str, tuple[nn.Module, Tensor]] = {}
    for line in sys.stdin:
        key = line.strip()
        if key not in made:
            made = {key: NETS[key].make()}
        model, example = made[key]
        gc.collect()
        start = time.perf_counter()
        trace(model, example)
        print((time.perf_counter() - start) * 1e3, flush=True)


if __name__ == "__main__":
    answer(sys.argv[1], int(sys.argv[2]))
