"""Seconds of a training step, dense and pruned, in float32 and in what `auto` takes: `python -m bench.training_step`.

All variants of a network in both precisions take turns, on made-up images: what a step takes does not depend on what
they show. Pruned: the default recipe's plan with the widths that it takes, in multiples of 8, and in single channels.
"""

import statistics
import time
from functools import partial
from typing import Any, Final

import torch
from torch import nn

from bench._common import arguments, record, spread, take_turns, write
from bench._nets import Net
from bench.training_time import images
from prunit.allocate import Budget
from prunit.cut.surgery import compact, copied
from prunit.graph import trace
from prunit.recipe import decide
from prunit.recipe.config import PruneConfig
from prunit.train import TrainConfig, fitted_to, resolved_precision
from prunit.train.config import Chosen
from prunit.train.run import Job, Run, start

NETS: Final = (Net("ResNet-20, 32×32", "resnet20", 32), Net("MobileNetV2, 32×32", "mobilenetv2", 32))
BUDGETS: Final = ("macs=1/2", "macs=1/4")
WIDTHS: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "multiples of 8": {"round_to": 8},
    "single channels": {"round_to": 1},
}
BATCH: Final = 128
LR: Final = 1e-6


def step_of(run: Run, threads: int) -> float:
    """Seconds of a step: the processor's with one thread, so that other programs do not count, else of the clock."""
    clock = time.process_time if threads == 1 else time.perf_counter
    draws = run.feed.draws(seed=0, epoch=0).part(run.share(0))
    run.wrapped.train()
    started = clock()
    run.step(run.feed.batch(draws), LR)
    return clock() - started


def rows_of(net: Net, rounds: int, threads: int) -> list[dict[str, Any]]:
    """A row for each variant and precision: a step's seconds, of the dense step today and of that in this precision."""
    model, example = net.make()
    graph, dataset = trace(model, example), images(net, 4 * BATCH)
    config = fitted_to(TrainConfig(epochs=1, batch_size=BATCH, device="cpu"), dataset)
    batches = dataset.scoring_batches(per_class=10, batch_size=256, seed=0)
    models: dict[tuple[str, str], nn.Module] = {("none", "dense"): model}
    for budget in BUDGETS:
        for widths, settings in WIDTHS.items():
            plan = decide(model, graph, batches, Budget.parse(budget), PruneConfig(**settings)).plan
            models[budget, widths] = compact(model, graph, plan)
    auto = resolved_precision(model, dataset, config)
    precisions: tuple[Chosen, ...] = tuple(dict.fromkeys(("32-true", auto)))
    jobs = {
        (*key, precision): Job(copied(each), dataset, config, None, precision=precision)
        for key, each in models.items()
        for precision in precisions
    }
    keys, runs = list(jobs), [start(job) for job in jobs.values()]
    found = take_turns({str(i): partial(step_of, run, threads) for i, run in enumerate(runs)}, rounds)
    times = {key: found[str(i)] for i, key in enumerate(keys)}
    median = {key: statistics.median(values) for key, values in times.items()}
    rows = []
    for (budget, widths, precision), values in times.items():
        today, now = median["none", "dense", "32-true"], median["none", "dense", precision]
        step = median[budget, widths, precision]
        row = {"title": net.title, "threads": threads, "budget": budget, "widths": widths, "precision": precision}
        rows.append(row | {"step_s": spread(values), "of_dense_float32": step / today, "of_dense": step / now})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, and write the result."""
    args = arguments("training_step", __doc__, rounds=9, most_threads=2)
    rows = []
    for threads in range(1, args.most_threads + 1):
        torch.set_num_threads(threads)
        for net in NETS:
            rows += rows_of(net, args.rounds, threads)
    note = "medians; of steps that take turns; seconds of the processor with one thread"
    counts = list(range(1, args.most_threads + 1))
    write(
        record("training_step", rows, config={"batch": BATCH}, n=args.rounds, percentile=note, threads=counts),
        args.json,
    )


if __name__ == "__main__":
    main()
