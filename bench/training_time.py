"""Seconds of training of models pruned before it, beside train, prune, train again: `python -m bench.training_time`.

Epochs of the dense model and of each pruned one take turns, on made-up images: what an epoch takes does not depend on
what they show. Nothing is learned here, bench.evidence has the accuracies. Training twice is the dense model's epochs,
then as many of the model whose layers all keep the same share of their filters (L1 filters, Li et al. 2017, end at
these widths); training once is the epochs of the pruned model alone.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch import nn

from bench._common import arguments, record, spread, take_turns, write
from bench._nets import SMALL, Net
from prunit.allocate import Budget
from prunit.batches import Dataset, Split
from prunit.cut.surgery import compact
from prunit.graph import trace
from prunit.recipe import decide
from prunit.recipe.config import PruneConfig
from prunit.train import TrainConfig, train

BUDGETS: Final = ("params=1/8", "macs=1/4")
TWICE: Final = "uniform"
RECIPES: Final[dict[str, dict[str, Any]]] = {
    TWICE: {"recipe": "uniform"},
    **{f"complexity, {mode}": {"recipe": "complexity", "mode": mode} for mode in ("pa", "fa", "ma")},
    "reconvene (default)": {},
}
IMAGES: Final = {"vgg16-32": 256, "resnet20-32": 1024, "mobilenetv2-32": 512}
"""How many are in an epoch: enough for some seconds of it."""


def images(net: Net, number: int) -> Dataset:
    """Noise of the network's image size, with classes that take turns."""
    generator = torch.Generator().manual_seed(0)
    x_BCHW = torch.randint(256, (number, 3, net.image_size, net.image_size), dtype=torch.uint8, generator=generator)
    split = Split(x_BCHW, torch.arange(number) % net.classes)
    test = Split(x_BCHW[:10], split.y_B[:10])
    return Dataset("noise", split, test, tuple(map(str, range(net.classes))), (0.5,) * 3, (0.3,) * 3)


def epoch(model: nn.Module, dataset: Dataset) -> float:
    """Seconds of one epoch."""
    started = time.perf_counter()
    for _ in train(model, dataset, TrainConfig(epochs=1, batch_size=64, device="cpu")):
        pass
    return time.perf_counter() - started


def rows_of(name: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each budget and recipe of a network: an epoch's seconds, and shares of time saved."""
    net = SMALL[name]
    model, example = net.make()
    graph, dataset = trace(model, example), images(net, IMAGES[name])
    batches = dataset.scoring_batches(per_class=10, batch_size=256, seed=0)
    runs: dict[tuple[str, str], Callable[[], float]] = {("none", "dense"): partial(epoch, model, dataset)}
    pruning: dict[tuple[str, str], float] = {("none", "dense"): 0.0}
    for budget in BUDGETS:
        for title, settings in RECIPES.items():
            decision = decide(model, graph, batches, Budget.parse(budget), PruneConfig(**settings))
            runs[budget, title] = partial(epoch, compact(model, graph, decision.plan), dataset)
            pruning[budget, title] = decision.seconds
    keys = {f"{budget}|{title}": (budget, title) for budget, title in runs}
    found = take_turns({text: runs[key] for text, key in keys.items()}, rounds)
    seconds = {keys[text]: times for text, times in found.items()}
    dense = seconds["none", "dense"]
    rows = []
    for (budget, title), once in seconds.items():
        row = {"title": net.title, "budget": budget, "recipe": title, "epoch_s": spread(once), "images": IMAGES[name]}
        if title != "dense":
            again = seconds[budget, TWICE]
            saved = [1 - a / (d + u) for a, d, u in zip(once, dense, again, strict=True)]
            row |= {
                "of_dense": statistics.median(once) / statistics.median(dense),
                "less_than_twice": 1 - statistics.median(once) / (statistics.median(dense) + statistics.median(again)),
                "less_paired": spread(saved),
                "prune_s": pruning[budget, title],
            }
        rows.append(row)
    return rows


def main() -> None:
    """Measure, and write the result."""
    args = arguments("training_time", __doc__, rounds=5)
    torch.set_num_threads(1)
    rows = []
    for name in SMALL:
        for row in rows_of(name, args.rounds):
            print(row["title"], row["budget"], row["recipe"], row["epoch_s"], row.get("less_than_twice"), flush=True)
            rows.append(row)
    note = "medians; of epochs that take turns"
    write(record("training_time", rows, config={"batch": 64}, n=args.rounds, percentile=note, threads=1), args.json)


if __name__ == "__main__":
    main()
