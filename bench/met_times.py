"""Whether a budget of time holds for what is built: `python -m bench.met_times`.

Each network gets a plan for so many times faster, found by timing untrained plans. Then the compact model gets new
weights, as a training would leave others, is exported as a build exports it, and measured in turns with the dense model
for longer, on its own: not one figure of the search is used again.
"""

import itertools
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from bench._common import arguments, record, write
from bench._nets import HALVED, SMALL
from prunit.allocate import Budget
from prunit.cut.surgery import compact, rectify
from prunit.edge.measuring.probe import ProbeSettings, turns
from prunit.edge.runtimes import runtime
from prunit.export import export_onnx
from prunit.graph import trace
from prunit.recipe import decide_here
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import example_batch

NETS: Final = ("vgg16-32", "resnet20-32", "mobilenetv2-32", "resnet18-224")
BUDGETS: Final = ("faster=1.5x", "faster=3x")


def row_of(net: str, budget: str, seconds: float) -> dict[str, Any]:
    """What was asked of one network, what its plan was found to take, and what the finished file takes."""
    made = {**HALVED, **SMALL}[net]
    model, example = made.make()
    graph = trace(model, example)
    parsed = Budget.parse(budget)
    started = time.perf_counter()
    chosen = decide_here(model, graph, example, [example_batch(example)], parsed, PruneConfig(), measure=False)
    took_s = time.perf_counter() - started
    decision, (timing,) = chosen.decision, chosen.decision.measured
    small = compact(model, graph, decision.plan)
    rectify(small, model, "all", seed=1)
    with TemporaryDirectory(prefix="prunit-") as folder:
        files = {"dense": model, "small": small}
        sessions = {}
        for name, each in files.items():
            export_onnx(each, example, Path(folder), name=name)
            sessions[name] = runtime().open(Path(folder) / f"{name}.onnx", threads=1)
        shape = tuple(example.shape[1:])
        settings = ProbeSettings(batches=(1,), seconds=seconds, limit_seconds=6 * seconds)
        times = turns(sessions, dict.fromkeys(sessions, shape), settings)[1]
        for session in sessions.values():
            session.close()
    ratios = sorted(a / b for a, b in zip(times["dense"], times["small"], strict=True))
    assert parsed.timed is not None
    assert parsed.timed.share is not None
    return {
        "title": made.title,
        "budget": budget,
        "asked": 1 / parsed.timed.share,
        "promised": timing.times_faster,
        "finished": ratios[len(ratios) // 2],
        "n": len(ratios),
        "plans": len(chosen.candidates),
        "seconds": took_s,
        "macs": decision.cost.macs / decision.dense.macs,
        "params": decision.cost.params / decision.dense.params,
    }


def main() -> None:
    """Meet every budget with every network and write the JSON."""
    args = arguments("met_times", __doc__, seconds=5)
    torch.set_num_threads(1)
    rows = []
    for net, budget in itertools.product(NETS, BUDGETS):
        rows.append(row_of(net, budget, args.seconds))
        print(rows[-1], flush=True)
    n = min(row["n"] for row in rows)
    config = {"budgets": BUDGETS, "seconds": args.seconds}
    write(record("met_times", rows, config=config, n=n, percentile="medians of ratios in turns", threads=1), args.json)


if __name__ == "__main__":
    main()
