"""What SynFlow's rounds cost and what they buy, on VGG-16 for CIFAR.

Cost: seconds of the whole way from dense to compact (trace, score in so many rounds, drop the channels that the mask
leaves without input or output, compact), on one thread and on two, the numbers of rounds taking turns.
Gain: how many times fewer parameters are left at the same mask density, and the widths of the layers.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from bench._common import arguments, record, spread, take_turns, write
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


def main() -> None:
    options = arguments("synflow_rounds", __doc__, repeats=5, seeds=3)
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
    write(result, options.json)


if __name__ == "__main__":
    main()
