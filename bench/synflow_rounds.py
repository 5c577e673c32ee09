"""What SynFlow's rounds cost and what they buy, on VGG-16 for CIFAR.

Cost: seconds of the whole way from dense to compact (trace, score in so many rounds, drop the channels that the mask
leaves without input or output, compact), on one thread and on two, the numbers of rounds taking turns.
Gain: how many times fewer parameters are left at the same mask density, and the widths of the layers.

With `--against SRC`, the `src` of another build of prunit, that is left as it was measured. Both builds score larger
networks instead, taking turns, each time in a process of its own: seconds, peak memory, and how alike they rank.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from bench._common import ROOT, parser_of, quotient, record, spread, take_turns, write
from bench._nets import HALVED, MORE, Net
from prunit import zoo
from prunit.cut.plans import Plan
from prunit.cut.surgery import compact
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_of
from prunit.scores import WeightScores, per_channel, score_weights

ROUNDS: Final = (1, 5, 20, 50, 100, 200)
SHOWN: Final = (20, 100)
"""Rounds of which the widths of every layer are recorded."""
DENSITIES: Final = (1 / 16, 1 / 64)
THREADS: Final = (1, 2)
LARGE: Final = tuple({**HALVED, **MORE}[key] for key in ("resnet50-224", "mobilenetv2-224", "convnextt-224"))
"""The networks that two builds score."""
LARGE_DENSITY: Final = 1 / 16
"""What `plan` thins out to for half of the multiply-adds."""


@dataclass(frozen=True)
class Case:
    """A dense network to prune."""

    model: nn.Module
    example: Tensor
    graph: ChannelGraph

    @staticmethod
    def of(model: nn.Module, example: Tensor) -> "Case":
        return Case(model, example, trace(model, example))

    @staticmethod
    def vgg16(seed: int) -> "Case":
        """VGG-16 for CIFAR, initialised from `seed`."""
        return Case.of(zoo.load("vgg16", seed=seed).eval(), torch.zeros(1, 3, 32, 32))

    def scores(self, rounds: int, density: float) -> WeightScores:
        batch = (self.example, torch.empty(0, dtype=torch.int64))
        return score_weights(self.model, self.graph, "synflow", [batch], density=density, rounds=rounds)


def emptied(graph: ChannelGraph, weights: WeightScores, density: float) -> tuple[Plan, int]:
    """The plan without the channels that the mask of this density leaves without input or output.

    A group of which the mask leaves nothing keeps its best channel; the second figure counts such groups.
    """
    flat = np.concatenate([w.detach().reshape(-1).numpy() for w in weights.values()])
    gone = len(flat) - round(density * len(flat))
    threshold = float(np.partition(flat, gone - 1)[gone - 1]) if gone else -np.inf
    keep: dict[str, tuple[int, ...]] = {}
    collapsed = 0
    for name, score in per_channel(graph, weights, "last").items():
        group = graph.group(name)
        kept = range(group.size) if group.pinned else (score > threshold).nonzero().flatten().tolist()
        collapsed += not len(kept)
        keep[name] = tuple(kept) or (int(score.argmax()),)
    return Plan(keep, {g.name: g.size for g in graph.groups}), collapsed


def gain(cases: Sequence[Case], rounds: int, density: float) -> dict[str, Any]:
    """How many times fewer parameters are left, over all cases; the widths for the first of them."""
    times_fewer, collapsed, widths = [], 0, {}
    for i, case in enumerate(cases):
        plan, empty = emptied(case.graph, case.scores(rounds, density), density)
        times_fewer.append(cost_of(case.graph).params / cost_of(case.graph, plan).params)
        collapsed += empty
        if i == 0:
            free = [g.name for g in case.graph.groups if not g.pinned]
            widths = {name: [plan.dense[name], plan.widths[name]] for name in free}
    row: dict[str, Any] = {"times_fewer_params": spread(times_fewer), "collapsed_groups": collapsed}
    return row | ({"widths": widths} if rounds in SHOWN else {})


def seconds(case: Case, rounds: int, density: float) -> dict[str, float]:
    """Wall and CPU seconds (of all threads) from the dense model to the compact one."""
    wall, cpu = time.perf_counter(), time.process_time()
    again = Case.of(case.model, case.example)
    plan, _ = emptied(again.graph, again.scores(rounds, density), density)
    compact(again.model, again.graph, plan)
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def timing(case: Case, rounds: Sequence[int], threads: int, repeats: int) -> dict[int, dict[str, Any]]:
    """Seconds by number of rounds at `threads` threads; the sparsest mask, so that all rounds have work to do."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        runs = {str(r): lambda r=r: seconds(case, r, min(DENSITIES)) for r in rounds}
        seconds(case, 1, min(DENSITIES))
        found = take_turns(runs, repeats, warm_up=0)
    finally:
        torch.set_num_threads(before)
    return {
        r: {figure: spread([run[figure] for run in found[str(r)]]) for figure in ("wall_s", "cpu_s")} for r in rounds
    }


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """How alike two rankings are, 1 being the same; equal values share the mean of their ranks."""
    ranks = []
    for values in (a, b):
        _, place, number = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(number) - (number - 1) / 2)[place])
    return float(np.corrcoef(*ranks)[0, 1])


def scored(source: Path, net: Net, rounds: int, file: Path) -> dict[str, float]:
    """Seconds and peak memory of scoring in a process with the prunit in `source`; channel scores go to `file`."""
    asked = (source, net.name, net.image_size, net.classes, rounds, LARGE_DENSITY, file)
    done = subprocess.run(
        [sys.executable, "-m", "bench._scored", *map(str, asked)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(source), str(ROOT))), "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"scoring {net.title} with {source} failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compared(net: Net, against: Path, rounds: int, repeats: int) -> dict[str, Any]:
    """One network scored by both builds in turn."""
    sources = {"now": ROOT / "src", "earlier": against.resolve()}
    with TemporaryDirectory(prefix="prunit-synflow-") as folder:
        files = {name: Path(folder) / f"{name}.npy" for name in sources}
        runs = {n: lambda n=n, source=source: scored(source, net, rounds, files[n]) for n, source in sources.items()}
        found = take_turns(runs, repeats, warm_up=0)
        channels = {name: np.load(file) for name, file in files.items()}
    figures = ("wall_s", "cpu_s", "peak_bytes")
    by_build = {name: {f: spread([run[f] for run in took]) for f in figures} for name, took in found.items()}
    times = {f: quotient(*([run[f] for run in found[n]] for n in ("earlier", "now"))) for f in ("wall_s", "cpu_s")}
    return {
        "title": net.title,
        "rounds": rounds,
        "builds": by_build,
        "times_faster": times,
        "channels": len(channels["now"]),
        "spearman": spearman(channels["now"], channels["earlier"]),
    }


def against(source: Path, repeats: int, file: Path, rounds: int = 100) -> None:
    """Measure the large networks, and write them into the file beside what stands there."""
    rows = []
    for net in LARGE:
        row = compared(net, source, rounds, repeats)
        now, earlier = (row["builds"][name]["cpu_s"]["median"] for name in ("now", "earlier"))
        print(f"{net.title}: CPU {now:.1f} s, before {earlier:.1f} s; Spearman {row['spearman']:.6f}", flush=True)
        rows.append(row)
        config = {"density": LARGE_DENSITY, "rounds": rounds, "order": "ABAB", "process": "one for each run"}
        part = record("synflow_rounds", rows, config=config, n=repeats, percentile="median (p50)", threads=1)
        whole = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        write({**whole, "networks": part}, file)


def main() -> None:
    parser = parser_of("synflow_rounds", __doc__, repeats=5, seeds=3)
    parser.add_argument("--against", type=Path, metavar="SRC", help="the `src` of another build, to compare with")
    options = parser.parse_args()
    if options.against:
        against(options.against, options.repeats, options.json)
        return
    print(f"timing {len(ROUNDS) * len(THREADS) * options.repeats} runs; takes minutes", flush=True)
    cases = [Case.vgg16(seed) for seed in range(options.seeds)]
    times = {threads: timing(cases[0], ROUNDS, threads, options.repeats) for threads in THREADS}
    torch.set_num_threads(max(THREADS))
    rows = []
    for rounds in ROUNDS:
        row = {
            "rounds": rounds,
            "seconds": {str(threads): times[threads][rounds] for threads in THREADS},
            "masks": [{"density": density, **gain(cases, rounds, density)} for density in DENSITIES],
        }
        fewer = ", ".join(f"{m['times_fewer_params']['median']:.2f}x at {m['density']:.4f}" for m in row["masks"])
        print(f"{rounds} rounds: {row['seconds'][str(max(THREADS))]['wall_s']['median']:.2f} s; {fewer}", flush=True)
        rows.append(row)
    config = {
        "model": "vgg16, 32x32, 10 classes",
        "timed_density": min(DENSITIES),
        "seeds": options.seeds,
        "order": "numbers of rounds in turn",
    }
    result = record(
        "synflow_rounds", rows, config=config, n=options.repeats, percentile="median (p50)", threads=list(THREADS)
    )
    before = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    write({**result, **{name: before[name] for name in ("networks",) if name in before}}, options.json)


if __name__ == "__main__":
    main()
