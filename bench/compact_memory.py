"""Peak memory that compact takes on top of the dense model, beside the size of its result plus one dense layer.

Each figure is from a process of its own: the peak resident set size (VmHWM) during compact minus the resident set size
just before. Freed heap is given back to the system first, so that the old pages cannot hide what compact takes, and a
toy model is compacted first, so that code that runs for the first time does not count. Linux only.

as run    the allocator as a user has it: blocks that are freed within compact may stay with the process
live      every block above 64 KiB goes back when it is freed: what compact holds at one time
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from bench._common import RESULTS, ROOT, record, spread, write
from bench._nets import HALVED, LARGE, count, plan_at
from prunit.cut.surgery import compact
from prunit.graph import trace

NETS: Final = {**HALVED, **LARGE}
STATUS: Final = Path("/proc/self/status")
LIVE: Final = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
"""Makes glibc map each larger block on its own, and so give it back at once."""


def growth(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Bytes that this process grew by at the peak of compact at half width, and the sizes to compare it with."""
    _warm_up()
    graph = trace(model, example)
    plan = plan_at(model, graph, example)
    _give_back_heap()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from the present size
    before = _status_bytes("VmRSS")
    small = compact(model, graph, plan)
    peak = _status_bytes("VmHWM")
    return {
        "extra_bytes": max(peak - before, 0),
        "dense_bytes": _bytes(model),
        "compact_bytes": _bytes(small),
        "largest_layer_bytes": max(
            sum(t.nbytes for t in (*m.parameters(recurse=False), *m.buffers(recurse=False))) for m in model.modules()
        ),
        "params": count(small),
    }


def in_a_child(net: str, environment: Mapping[str, str]) -> dict[str, int]:
    """`growth` of a network, in a fresh process with these variables set too."""
    child = subprocess.run(
        [sys.executable, "-m", "bench.compact_memory", "--child", net],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([p for p in sys.path if p]), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise SystemExit(f"the process for {net} failed: {child.stderr.strip().splitlines()[-1:]}")
    return json.loads(child.stdout.splitlines()[-1])


def row_of(as_run: list[dict[str, int]], live: list[dict[str, int]]) -> dict[str, Any]:
    """The figures of several runs of both kinds as one row."""
    extra = spread([run["extra_bytes"] for run in as_run])
    allowed = as_run[0]["compact_bytes"] + as_run[0]["largest_layer_bytes"]
    return {
        **as_run[0],
        "extra_bytes": extra,
        "live_bytes": spread([run["extra_bytes"] for run in live]),
        "allowed_bytes": allowed,
        "share_of_allowed": extra["median"] / allowed,
    }


def _warm_up() -> None:
    toy = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 3)).eval()
    example = torch.zeros(1, 3, 8, 8)
    graph = trace(toy, example)
    compact(toy, graph, plan_at(toy, graph, example))


def _give_back_heap() -> None:
    gc.collect()
    with suppress(OSError, AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(field: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"{STATUS} has no {field}: this benchmark needs Linux")


def _bytes(model: nn.Module) -> int:
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.compact_memory", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "compact_memory.json", metavar="FILE")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", choices=NETS, help="measure this one network here, print JSON and stop")
    options = parser.parse_args()
    if not STATUS.exists():
        raise SystemExit("this benchmark reads /proc/self/status and so needs Linux")
    torch.set_num_threads(2)
    if options.child:
        print(json.dumps(growth(*NETS[options.child].make())))
        return
    rows = []
    for key, net in NETS.items():
        as_run, live = ([in_a_child(key, e) for _ in range(options.repeats)] for e in ({}, LIVE))
        row = {"model": key, "title": net.title, **row_of(as_run, live)}
        print(
            f"{net.title}: {row['extra_bytes']['median'] / 1e6:.1f} MB extra ({row['live_bytes']['median'] / 1e6:.1f}"
            f" live), {row['allowed_bytes'] / 1e6:.1f} MB allowed"
        )
        rows.append(row)
    config = {"width": "1/2 of every free group", "process": "fresh for each run"}
    write(
        record("compact_memory", rows, config=config, n=options.repeats, percentile="median (p50)", threads=2),
        options.json,
    )


if __name__ == "__main__":
    main()
