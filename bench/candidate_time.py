"""How long it takes to learn how fast an untrained plan will be: its file, a session, twenty turns or a second of them.

Beside it what is paid once per network (translating the dense model, and a second one where its code has numbers of
channels) and what the file would take by a full export with its proof.
"""

import tempfile
import time
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from bench._common import arguments, record, spread, write
from bench._nets import HALVED, Net, plan_at
from prunit.cut.surgery import compact
from prunit.export import exporter
from prunit.export.translation import translated
from prunit.export.untrained import Untrained
from prunit.graph import trace
from prunit.recipe.stopwatch import Stopwatch

NETS: Final[Mapping[str, Net]] = {
    "resnet50-224": HALVED["resnet50-224"],
    "mobilenetv2-224": HALVED["mobilenetv2-224"],
    "ghostnet-224": Net("GhostNet, 224×224", "timm:ghostnet_100", 224),
}
SHARES: Final = tuple(Fraction(n, 8) for n in (7, 6, 5, 4, 3, 2))


def measure(model: nn.Module, example: Tensor, plans: int, seconds: float = 1.0) -> dict[str, Any]:
    """Seconds for each of some plans, one after the other, and what came before them."""
    graph = trace(model, example)
    chosen = {str(share): plan_at(model, graph, example, share) for share in SHARES[:plans]}
    start = time.perf_counter()
    translation = translated(model, example)
    translate_s = time.perf_counter() - start
    untrained = Untrained(model, graph, example, translation=translation.copy())
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        exporter("onnx")(compact(model, graph, next(iter(chosen.values()))), example, Path(folder), name="full")
        full_s = time.perf_counter() - start
        start = time.perf_counter()
        untrained.write_dense(Path(folder) / "dense.onnx")
        dense_s = time.perf_counter() - start
        file_s: list[float] = []
        derived = 0
        for plan in chosen.values():
            start = time.perf_counter()
            derived += untrained.write(plan, Path(folder) / "plan.onnx")
            file_s.append(time.perf_counter() - start)
    with Stopwatch(model, graph, example, seconds=seconds, translation=translation) as stopwatch:
        whole_s: list[float] = []
        cpu_s: list[float] = []
        first = next(iter(chosen))
        timings = {first: stopwatch({first: chosen[first]})[first][0]}  # the dense file and session, which are kept
        for name, plan in chosen.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            timings[name] = stopwatch({name: plan})[name][0]
            whole_s.append(time.perf_counter() - start)
            cpu_s.append(time.process_time() - cpu_start)
    return {
        "translate_s": translate_s,
        "dense_file_s": dense_s,
        "full_export_s": full_s,
        "first_file_s": file_s[0],
        "file_s": spread(file_s[1:]),
        "candidate_s": spread(whole_s),
        "candidate_cpu_s": spread(cpu_s),
        "derived": derived,
        "plans": len(chosen),
        "turns": min(timing.n for timing in timings.values()),
        "dense_p50_ms": timings[first].dense_p50_ms,
        "times_faster": {name: timing.times_faster for name, timing in timings.items()},
    }


def main() -> None:
    options = arguments("candidate_time", __doc__, plans=len(SHARES))
    torch.set_num_threads(1)
    rows = []
    for key, net in NETS.items():
        row = {"model": key, "title": net.title, **measure(*net.make(), max(2, options.plans))}
        print(
            f"{net.title}: {row['candidate_s']['median']:.2f} s a candidate, {row['file_s']['median']:.2f} s of it for"
            f" its file ({row['derived']} of {row['plans']} derived)"
        )
        rows.append(row)
    config = {"runtime": "onnxruntime", "batch": 1, "seconds": 1.0, "order": "each plan and the dense model in turn"}
    n = min(row["plans"] for row in rows)
    write(record("candidate_time", rows, config=config, n=n, percentile="median (range)", threads=1), options.json)


if __name__ == "__main__":
    main()
