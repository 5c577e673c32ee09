"""`trace` of a source tree of prunit, timed in a process of its own, which waits for its turn."""

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, cast

import torch
from torch import nn

from bench._common import RESULTS, ROOT
from bench._nets import HALVED, MORE

NETS: Final = {**HALVED, **MORE}
"""The networks of `bench.speed`."""
COVERED: Final = RESULTS / "coverage.json"


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
        return self.traced(key)["ms"]

    def traced(self, key: str) -> dict[str, Any]:
        """One trace of that network: `ms`, `cpu_ms`, and how many channels are `free` to go.

        The key is one of `NETS`, or the name of a network of `bench.coverage`.
        """
        asked, told = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        print(key, file=asked, flush=True)
        line = told.readline()
        if not line:
            raise SystemExit("a build's process has ended: see above")
        return json.loads(line)


def answer(source: str, threads: int) -> None:
    """Trace the network that each line names, and write how long it took."""
    import prunit
    from prunit.graph import trace

    if not str(prunit.__file__).startswith(source):
        raise SystemExit(f"prunit came from {prunit.__file__}, not from {source}")
    torch.set_num_threads(threads)
    told, sys.stdout = sys.stdout, sys.stderr  # some packages greet whoever imports them
    made: dict[str, tuple[nn.Module, Any]] = {}
    for line in sys.stdin:
        key = line.strip()
        if key not in made:
            made = {key: NETS[key].make() if key in NETS else covered(key)}
        model, example = made[key]
        gc.collect()
        start, cpu = time.perf_counter(), time.process_time()
        graph = trace(model, example)
        found = {"ms": (time.perf_counter() - start) * 1e3, "cpu_ms": (time.process_time() - cpu) * 1e3}
        print(json.dumps(found | {"free": sum(g.size for g in graph.groups if not g.pinned)}), file=told, flush=True)


def covered(name: str) -> tuple[nn.Module, Any]:
    """A network of `bench.coverage` and its example, as it is tried there."""
    from bench.coverage.beyond import operators, registry
    from bench.coverage.networks import single, without_chance
    from bench.coverage.selection import Case

    operators.stand_in()
    if ":" in name:
        model, draw = next(case for case in registry.everything() if case.name == name).make()
    else:
        row = next(row for row in json.loads(COVERED.read_text(encoding="utf-8"))["rows"] if row["name"] == name)
        model, draw = Case(*(row[key] for key in ("name", "family", "kind", "image_size", "params"))).make()
    without_chance(model)
    return model, single(draw)


if __name__ == "__main__":
    answer(sys.argv[1], int(sys.argv[2]))
