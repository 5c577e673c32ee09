"""Seconds from a dense model to a compact one at half width, prunit beside Torch-Pruning, one after the other in turn.

prunit          trace, plan (magnitude scores, half of every group that may shrink), compact: a new model
Torch-Pruning   the pruner's constructor, which builds the dependency graph, and one step: the model itself shrinks

Their dependency graph is built once more on its own, to hold against our trace. That one also finds the groups, which
Torch-Pruning does in its constructor and again in a step; so trace is held against the constructor, too. Then residual
networks of up to 1,000 convolutions, to see whether what prunit takes grows with the number of layers.

With `--against SRC` the trace of another build of prunit, whose `src` that is, is held against this one's: each in a
process of its own, as what runs before it in the same process decides what the processor's caches hold.

Both keep the classifier's outputs and halve everything else, residual streams included. Torch-Pruning changes the
model that it is given, so it gets a fresh copy each time, made before the clock starts.
"""

import copy
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from bench._builds import NETS, Build
from bench._common import ROOT, parser_of, quotient, record, spread, take_turns, write
from bench._nets import Make, count, plan_at
from prunit.cut.surgery import compact
from prunit.graph import trace

Parts = dict[str, float]
"""Milliseconds of each part of one run by the wall clock, and of all of it in CPU time (`cpu`)."""

PARTS: Final = {"prunit": ("trace", "plan", "compact"), "torch_pruning": ("constructor", "step")}


def with_prunit(model: nn.Module, example: Tensor) -> tuple[nn.Module, Parts]:
    """The compact model, and milliseconds of each part."""
    times = [_now()]
    graph = trace(model, example)
    times.append(_now())
    plan = plan_at(model, graph, example)
    times.append(_now())
    small = compact(model, graph, plan)
    times.append(_now())
    return small, _parts("prunit", times)


def with_torch_pruning(model: nn.Module, example: Tensor) -> tuple[nn.Module, Parts]:
    """A pruned copy of the model, and milliseconds of each part; the copying is not counted."""
    import torch_pruning as tp

    twin = copy.deepcopy(model)
    times = [_now()]
    pruner = tp.pruner.BasePruner(
        twin,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[[m for m in twin.modules() if isinstance(m, nn.Linear)][-1]],
    )
    times.append(_now())
    pruner.step()
    times.append(_now())
    return twin, _parts("torch_pruning", times)


def graph_alone(model: nn.Module, example: Tensor) -> float:
    """Milliseconds of building Torch-Pruning's dependency graph: the greater part of its constructor."""
    import torch_pruning as tp

    twin = copy.deepcopy(model)
    start_ms, _ = _now()
    tp.DependencyGraph().build_dependency(twin, example_inputs=example)
    return _now()[0] - start_ms


def _now() -> tuple[float, float]:
    """Milliseconds by the wall clock, and in CPU time of all threads."""
    return time.perf_counter() * 1e3, time.process_time() * 1e3


def _parts(tool: str, times: list[tuple[float, float]]) -> Parts:
    parts = {part: b[0] - a[0] for part, (a, b) in zip(PARTS[tool], pairwise(times), strict=True)}
    return parts | {"cpu": times[-1][1] - times[0][1]}


def measure(make: Make, rounds: int, builds: Mapping[str, Callable[[], float]] | None = None) -> dict[str, Any]:
    """Both tools on one model: milliseconds by tool and part, their ratio, and the parameters that each leaves.

    `builds` give the milliseconds of one trace by this build ("now") and by another ("earlier").
    """
    model, example = make()
    params: dict[str, int] = {}

    def ours() -> Parts:
        small, parts = with_prunit(model, example)
        params["prunit"] = _runs(small, example)
        return parts

    def theirs() -> Parts:
        small, parts = with_torch_pruning(model, example)
        params["torch_pruning"] = _runs(small, example)
        return parts

    turns = {"prunit": ours, "torch_pruning": theirs, "graph": lambda: {"graph": graph_alone(model, example)}}
    turns |= {name: lambda trace=trace: {"trace": trace()} for name, trace in (builds or {}).items()}
    found = take_turns(turns, rounds)
    by_build = {name: [run["trace"] for run in found.pop(name)] for name in builds or {}}
    alone = [run["graph"] for run in found.pop("graph")]
    totals = {tool: [sum(run[part] for part in PARTS[tool]) for run in runs] for tool, runs in found.items()}
    traced = [run["trace"] for run in found["prunit"]]
    built = [run["constructor"] for run in found["torch_pruning"]]
    step = [run["step"] for run in found["torch_pruning"]]
    cut = [run["compact"] for run in found["prunit"]]
    planned = [run["plan"] + run["compact"] for run in found["prunit"]]
    if not 0.8 < params["prunit"] / params["torch_pruning"] < 1.25:
        raise SystemExit(f"the two tools left different networks: {params} parameters")
    compared: dict[str, Any] = {}
    if by_build:
        compared["trace_ms_by_build"] = {name: spread(times) for name, times in by_build.items()}
        compared["trace_times_earlier"] = quotient(by_build["earlier"], by_build["now"])
    return {
        "params": {"dense": count(model), **params},
        "total_ms": {tool: spread(times) for tool, times in totals.items()},
        "cpu_ms": {tool: spread([run["cpu"] for run in runs]) for tool, runs in found.items()},
        "parts_ms": {
            tool: {part: spread([run[part] for run in runs]) for part in PARTS[tool]} for tool, runs in found.items()
        },
        "torch_pruning_graph_alone_ms": spread(alone),
        "times_faster": quotient(totals["torch_pruning"], totals["prunit"]),
        "trace_times_faster": quotient(alone, traced),
        "trace_times_faster_than_constructor": quotient(built, traced),
        "cut_times_faster": quotient(step, cut),
        "plan_and_cut_times_faster": quotient(step, planned),
        **compared,
    }


def _runs(small: nn.Module, example: Tensor) -> int:
    """The parameters of a model, after a check that it still answers."""
    with torch.no_grad():
        if not torch.isfinite(small(example)).all():
            raise SystemExit("a pruned network answers with numbers that are not finite")
    return count(small)


class Deep(nn.Module):
    """A residual network of so many 3x3 convolutions, each with a batch norm, for images of 8x8."""

    def __init__(self, layers: int, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            for _ in range(layers - 1)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem(x_BCHW)
        for first, second in zip(self.blocks[::2], self.blocks[1::2], strict=False):
            x_BCHW = x_BCHW + second(first(x_BCHW))
        return self.head(x_BCHW.mean((2, 3)))


def growth(layers: int, rounds: int) -> dict[str, Any]:
    """Milliseconds that prunit takes for a network of so many layers, by part."""
    model, example = Deep(layers).eval(), torch.zeros(1, 3, 8, 8)
    runs = take_turns({"prunit": lambda: with_prunit(model, example)[1]}, rounds)["prunit"]
    return {"layers": layers, "parts_ms": {part: spread([run[part] for run in runs]) for part in PARTS["prunit"]}}


def main() -> None:
    parser = parser_of("speed", __doc__, rounds=9, threads=2)
    parser.add_argument("--against", type=Path, metavar="SRC", help="the `src` of another build, to compare its trace")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with ExitStack() as open_processes:
        sources = {"now": ROOT / "src", "earlier": options.against} if options.against else {}
        builds = {n: open_processes.enter_context(Build(source, options.threads)) for n, source in sources.items()}
        rows = [_row(key, options.rounds, builds) for key in NETS]
    config = {"width": "1/2 of every free group", "score": "magnitude", "batch": 1, "warm_up": 1, "order": "ABAB"}
    result = record("speed", rows, config=config, n=options.rounds, percentile="median (p50)", threads=options.threads)
    result["growth"] = [growth(layers, 5) for layers in (10, 30, 100, 300, 1000)]
    write(result, options.json)


def _row(key: str, rounds: int, builds: Mapping[str, Build]) -> dict[str, Any]:
    """One network measured, and said in a line."""
    net = NETS[key]
    found = measure(net.make, rounds, {name: partial(build.trace, key) for name, build in builds.items()})
    total, ratio = found["total_ms"], found["times_faster"]
    print(
        f"{net.title}: prunit {total['prunit']['median']:.0f} ms, Torch-Pruning"
        f" {total['torch_pruning']['median']:.0f} ms, {ratio['of_medians']:.1f} times; trace"
        f" {found['trace_times_faster']['of_medians']:.1f}, cut {found['cut_times_faster']['of_medians']:.1f} times"
    )
    if builds:
        by_build, times = found["trace_ms_by_build"], found["trace_times_earlier"]["of_medians"]
        print(
            f"    trace alone: {by_build['now']['median']:.1f} ms, the other build"
            f" {by_build['earlier']['median']:.1f} ms, {times:.2f} times"
        )
    return {"model": key, "title": net.title, **found}


if __name__ == "__main__":
    main()
