"""Is what a build makes faster than what went in? `python -m bench.default_speed`, on an idle machine.

Seven networks of the zoo at 32 pixels and eight of timm at 96, each at three budgets, untrained. Of each budget several
plans: widths of any size (`1`, what was the default), multiples of 4, 8, 16, the widths that the engine likes (`auto`),
and the default of a build (`chosen`: the fastest of such plans here that gives up nothing). All of a budget take turns
with the dense network in ONNX Runtime with one thread, at batch 1 and 32; how many times faster is the median of the
ratios of the single turns. A cell, one network and budget, is a file in `--work`; it is measured again only for other
arms, seconds or clock, or if the code has changed since.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from bench import default_summary
from bench._arms import ARMS, Case
from bench._common import RESULTS, commit, percentile, record, write
from bench._nets import Net
from prunit import zoo
from prunit.allocate import Budget
from prunit.edge.measuring.probe import ProbeSettings, turns
from prunit.edge.runtimes import runtime
from prunit.errors import BudgetError, ConfigError
from prunit.export.translation import Translation, translated
from prunit.export.untrained import Untrained
from prunit.files import staged
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import Cost, cost_of
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import Decision, example_batch, scored_for

TIMM: Final = (
    *("mobilenetv3_small_100", "efficientnet_lite0", "mobilenetv2_100", "resnet18"),
    *("regnetx_002", "mobileone_s0", "ghostnet_100", "convnext_atto"),
)
BUDGETS: Final = ("macs=1/2", "macs=1/4", "params=1/8")
BATCHES: Final = (1, 32)
CLOCKS: Final = {"wall": time.perf_counter_ns, "cpu": time.process_time_ns}
LEAST: Final = 55
"""Turns at batch 1; a fifth of it at 32."""


@dataclass(frozen=True)
class TenClasses(Net):
    """A network for ten classes at any size."""

    @property
    def classes(self) -> int:
        return 10


def nets() -> Mapping[str, Net]:
    """All that are measured, by the name of their cells."""
    small = {name: TenClasses(f"{name}, 32×32", name, 32) for name in zoo.models("classification")}
    return small | {f"timm-{name}": TenClasses(f"{name} (timm), 96×96", f"timm:{name}", 96) for name in TIMM}


class Dense:
    """A network, and the files of its plans, each made once."""

    def __init__(self, model: nn.Module, example: Tensor, folder: Path) -> None:
        self.model, self.example, self.folder = model, example, folder
        self.graph: ChannelGraph = trace(model, example)
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def untrained(self) -> Untrained:
        return Untrained(self.model, self.graph, self.example, translation=self.translation())

    def translation(self) -> Translation:
        """What torch makes of it, once; a copy."""
        return self._translation.copy()

    @cached_property
    def _translation(self) -> Translation:
        return translated(self.model, self.example.expand(2, -1, -1, -1))

    @property
    def depthwise(self) -> bool:
        """Whether it has a depthwise convolution."""
        return any(
            layer.geometry and layer.geometry.groups > 1 and self.graph.tensors[layer.weight].shape[1] == 1
            for layer in self.graph.layers
        )

    def file(self, decision: Decision | None = None) -> Path:
        """The ONNX file of a plan, of the dense network if there is none."""
        path = self.folder / f"{decision.plan.hash if decision else 'dense'}.onnx"
        if not path.exists():
            with staged(path) as new:
                if decision:
                    self.untrained.write(decision.plan, new)
                else:
                    self.untrained.write_dense(new)
        return path


def decided(dense: Dense, budget: str, arms: Sequence[str]) -> tuple[dict[str, Decision | str], float]:
    """A plan for each arm, or why there is none, and the seconds that scoring the weights took, once for all."""
    started = time.perf_counter()
    limit, config = Budget.parse(budget), PruneConfig(round_to=1)
    try:
        scored, _ = scored_for(dense.model, dense.graph, [example_batch(dense.example)], limit, config)
    except BudgetError as error:
        return dict.fromkeys(arms, str(error)), time.perf_counter() - started
    took = time.perf_counter() - started
    found: dict[str, Decision | str] = {}
    for arm in arms:
        try:
            found[arm] = ARMS[arm](Case(scored, limit, dense.example, dense.translation))
        except (BudgetError, ConfigError) as error:
            found[arm] = str(error)
    return found, took


def measure(
    files: Mapping[str, Path],
    shape: tuple[int, int, int],
    seconds: float,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> dict[int, dict[str, list[int]]]:
    """Nanoseconds of each turn by batch size and name; each session has about so many seconds at each batch size."""
    engine = runtime("onnxruntime")
    settings = ProbeSettings(
        batches=BATCHES, min_runs=LEAST, max_runs=2000, seconds=seconds * len(files), limit_seconds=90, warm_up=3
    )
    with ExitStack() as closing:
        sessions = {name: engine.open(file, threads=1) for name, file in files.items()}
        for session in sessions.values():
            closing.callback(session.close)
        return turns(sessions, dict.fromkeys(files, shape), settings, clock_ns=clock_ns)


def cell(dense: Dense, budget: str, arms: Sequence[str], seconds: float, clock: str = "wall") -> dict[str, Any]:
    """What is found of a network and a budget: cost and latencies of each arm beside the dense network's."""
    plans, scoring_s = decided(dense, budget, arms)
    started = time.perf_counter()
    # Arms that come to the same plan are one file: it is measured once, and they differ by nothing.
    files = {p.plan.hash: dense.file(p) for p in plans.values() if isinstance(p, Decision)}
    writing_s = time.perf_counter() - started
    channels, height, width = dense.example.shape[1:]
    times = (
        measure({"dense": dense.file(), **files}, (channels, height, width), seconds, CLOCKS[clock]) if files else {}
    )
    first = plans[arms[0]]
    found = {
        arm: {"refused": plan}
        if isinstance(plan, str)
        else {
            "plan": plan.plan.hash,
            **_cost(plan.cost),
            "decide_s": round(plan.seconds, 3),
            "latency": {
                str(batch): _latency(
                    of_batch[plan.plan.hash],
                    of_batch["dense"],
                    of_batch[first.plan.hash] if isinstance(first, Decision) else None,
                )
                for batch, of_batch in times.items()
            },
        }
        for arm, plan in plans.items()
    }
    return {
        "budget": budget,
        "depthwise": dense.depthwise,
        "dense": {
            **_cost(cost_of(dense.graph)),
            "latency": {str(batch): _spread(of_batch["dense"]) for batch, of_batch in times.items()},
        },
        "arms": found,
        "scoring_s": round(scoring_s, 2),
        "writing_s": round(writing_s, 2),
    }


def _cost(cost: Cost) -> dict[str, int]:
    return {"params": cost.params, "macs": cost.macs}


def _spread(times_ns: Sequence[int]) -> dict[str, Any]:
    return {
        "n": len(times_ns),
        "p50_ms": round(percentile(times_ns, 0.5) / 1e6, 5),
        "p90_ms": round(percentile(times_ns, 0.9) / 1e6, 5),
    }


def _latency(times_ns: Sequence[int], dense_ns: Sequence[int], first_ns: Sequence[int] | None) -> dict[str, Any]:
    """With how many times faster it is than the dense network and than the first arm, turn by turn."""
    faster = float(np.median(np.divide(dense_ns, times_ns)))
    than_first = {} if first_ns is None else {"than_first": round(float(np.median(np.divide(first_ns, times_ns))), 4)}
    return {**_spread(times_ns), "times_faster": round(faster, 4), **than_first}


def cells(
    chosen: Iterable[tuple[str, Net]], budgets: Sequence[str], work: Path, asked: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The cells: those from their files that were asked for the same (`arms`, `seconds`, `clock`) of one commit."""
    by_commit = {**asked, "commit": commit()}
    models = work / "models" / str(by_commit["commit"])
    for key, net in chosen:
        dense: Dense | None = None
        for budget in budgets:
            file = work / f"{key}--{budget.replace('/', '-')}.json"
            if file.exists():
                found = json.loads(file.read_text(encoding="utf-8"))
                if found["asked"] == by_commit:
                    yield found
                    continue
            dense = dense or Dense(*net.make(), models / key)
            found = {"net": key, "title": net.title, **cell(dense, budget, **asked), "asked": by_commit}
            with staged(file) as new:
                new.write_text(json.dumps(found, indent=1), encoding="utf-8")
            yield found


def main() -> None:
    options = _arguments()
    torch.set_num_threads(1)
    chosen = [(key, net) for key, net in nets().items() if not options.only or any(o in key for o in options.only)]
    rows = []
    asked = {"arms": options.arms, "seconds": options.seconds, "clock": options.clock}
    for row in cells(chosen, options.budgets, options.work, asked):
        rows.append(row)
        print(default_summary.line(row), flush=True)
    print(default_summary.criteria(rows))
    config = {"runtime": "onnxruntime", **asked, "order": "in turn, shuffled"}
    ns = [a["latency"]["32"]["n"] for row in rows for a in row["arms"].values() if "latency" in a]
    result = record("default_speed", rows, config=config, n=min(ns, default=0), percentile="p50 and p90", threads=1)
    if options.json:
        write(result, options.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.default_speed", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "default_speed.json", metavar="FILE", help="to write")
    parser.add_argument("--work", type=Path, default=Path("default_speed.work"), metavar="FOLDER", help="of the cells")
    parser.add_argument("--only", type=_listed, default=[], help="networks with one of these in their name")
    parser.add_argument("--budgets", type=_listed, default=list(BUDGETS), help=f"default {' '.join(BUDGETS)}")
    parser.add_argument("--arms", type=_listed, default=["1", "auto", "chosen"], help=f"of {', '.join(ARMS)}")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each arm and batch size; default 0.5")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu where other processes run; default wall")
    options = parser.parse_args()
    unknown = [arm for arm in options.arms if arm not in ARMS]
    if unknown or not options.arms:
        parser.error(f"no arm {', '.join(unknown) or 'was named'}: there are {', '.join(ARMS)}")
    return options


def _listed(text: str) -> list[str]:
    return text.replace(";", " ").split()


if __name__ == "__main__":
    main()
