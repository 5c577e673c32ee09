"""Seconds from a dense model to a compact one at half width, prunit beside Torch-Pruning, one after the other in turn.

prunit          trace, plan (magnitude scores, half of every group that may shrink), compact: a new model
Torch-Pruning   the pruner's constructor, which builds the dependency graph, and one step: the model itself shrinks

Both keep the classifier's outputs and halve everything else, residual streams included. Torch-Pruning changes the
model that it is given, so it gets a fresh copy each time, made before the clock starts.
"""

import copy
import time
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn

from bench._common import arguments, quotient, record, spread, take_turns, write
from bench._nets import HALVED, Make, count, plan_at
from prunit.graph import trace
from prunit.surgery import compact

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


def measure(make: Make, rounds: int) -> dict[str, Any]:
    """Both tools on one model: milliseconds by tool and part, their ratio, and the parameters that each leaves."""
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

    found = take_turns({"prunit": ours, "torch_pruning": theirs}, rounds)
    alone = take_turns({"graph": lambda: graph_alone(model, example)}, min(rounds, 3))["graph"]
    totals = {tool: [sum(run[part] for part in PARTS[tool]) for run in runs] for tool, runs in found.items()}
    if not 0.8 < params["prunit"] / params["torch_pruning"] < 1.25:
        raise SystemExit(f"the two tools left different networks: {params} parameters")
    return {
        "params": {"dense": count(model), **params},
        "total_ms": {tool: spread(times) for tool, times in totals.items()},
        "cpu_ms": {tool: spread([run["cpu"] for run in runs]) for tool, runs in found.items()},
        "parts_ms": {
            tool: {part: spread([run[part] for run in runs]) for part in PARTS[tool]} for tool, runs in found.items()
        },
        "torch_pruning_graph_alone_ms": spread(alone),
        "times_faster": quotient(totals["torch_pruning"], totals["prunit"]),
    }


def _runs(small: nn.Module, example: Tensor) -> int:
    """The parameters of a model, after a check that it still answers."""
    with torch.no_grad():
        if not torch.isfinite(small(example)).all():
            raise SystemExit("a pruned network answers with numbers that are not finite")
    return count(small)


def main() -> None:
    options = arguments("prune_speed", __doc__, rounds=9, threads=2)
    torch.set_num_threads(options.threads)
    rows = []
    for key, net in HALVED.items():
        row = {"model": key, "title": net.title, **measure(net.make, options.rounds)}
        total, ratio = row["total_ms"], row["times_faster"]
        print(
            f"{net.title}: prunit {total['prunit']['median']:.0f} ms, Torch-Pruning"
            f" {total['torch_pruning']['median']:.0f} ms, {ratio['of_medians']:.1f} times"
        )
        rows.append(row)
    config = {"width": "1/2 of every free group", "score": "magnitude", "batch": 1, "warm_up": 1, "order": "ABAB"}
    result = record(
        "prune_speed", rows, config=config, n=options.rounds, percentile="median (p50)", threads=options.threads
    )
    write(result, options.json)


if __name__ == "__main__":
    main()
