"""From sparse to small: `python -m bench.removal --data-dir DATA`. Needs CIFAR-10.

Iterative magnitude pruning with rewinding in short, by half at each level, on a few images: enough for trained batch
norms and empty filters, not for accuracies worth a comparison. At each level the zeros are removed in four ways: as
`remove_zeros` does it, with all constants kept that a padded convolution reads, with these folded as if nothing were
padded, and without any constants, as the code of DNNShifter's authors removes filters. The published sizes beside them
are those of networks trained for hours at 20 % a level, so they need not be alike.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from bench._common import RESULTS, record, write
from prunit import zoo
from prunit.cut.surgery import compact
from prunit.cut.zeros import difference, remove_zeros
from prunit.graph import trace
from prunit.recipe.ladders import prunable, smallest_dropped
from prunit.recipe.source import example_of
from prunit.train import TrainConfig, evaluate, train
from prunit.train.sparse import Masks

PUBLISHED: Final = {
    "vgg16": (14_719_818, 14_296_439, 14_228_064, 13_420_775, 11_580_637, 8_749_089, 5_293_404, 2_863_466),
    "resnet50": (24.04e6, 23.63e6, 23.21e6, 22.88e6, 21.93e6, 19.34e6, 15.91e6, 13.68e6),
}
"""Parameters after removal at 1/2, 1/4, … 1/256 in the authors' notebooks; ResNet-50 of 25.56 M on Tiny ImageNet."""
IMAGES: Final = {"vgg16": 1000, "resnet50": 256}
SIZE: Final = 16
"""Of the images that are trained on: a quarter of the work. Parameters are the same at any size."""
TIMED: Final = {"vgg16": 16, "resnet50": 64}
"""Of the images that the seconds are for, those of the networks as they are used where the network takes any."""


def levels(name: str, data_dir: Path | None, runs: int) -> Iterator[dict[str, Any]]:
    """A row for each level of a network."""
    data = zoo.data.load("cifar10", data_dir=data_dir, subset=IMAGES[name], image_size=SIZE)
    config = TrainConfig(epochs=4, batch_size=32, lr=0.02, device="cpu", precision="32-true")
    model = zoo.load(name, image_size=SIZE)
    example = example_of(data)
    graph = trace(model, example)
    names = prunable(graph)
    start = model
    for epoch in train(model, data, config):
        if epoch.index == 1:
            start = copy.deepcopy(model)
    masks: Masks = {}
    for level in range(1, len(PUBLISHED[name]) + 1):
        masks = smallest_dropped(model, names, masks, 0.5)
        model = copy.deepcopy(start)
        list(train(model, data, config, masks=masks, first=1))
        row = removed(model, TIMED[name], runs) | {"published": PUBLISHED[name][level - 1]}
        alive = sum(int(mask.sum()) for mask in masks.values())
        yield {"net": name, "compression": 2**level, "weights": alive, **row, "accuracy": evaluate(model, data)}


def removed(model: nn.Module, size: int, runs: int) -> dict[str, Any]:
    """Parameters and error of each way, seconds of ours, and the equality in double precision."""
    example = torch.zeros(1, 3, size, size)
    graph = trace(model, example)
    ours, seconds = remove_zeros(model, example, graph=graph), []
    for _ in range(runs):
        started = time.perf_counter()
        remove_zeros(model, example, graph=graph)
        seconds.append(time.perf_counter() - started)
    double, example64 = copy.deepcopy(model).double(), example.double()
    ways: dict[str, nn.Module] = {
        way: remove_zeros(double, example64, padded=way).model  # type: ignore[arg-type]
        for way in ("merge", "keep", "fold")
    }
    plan = remove_zeros(double, example64, padded="fold").plan
    ways["drop"] = compact(double, trace(double, example64), plan)
    found = {
        way: {"params": sum(p.numel() for p in small.parameters()), "error": difference(double, small, example64)}
        for way, small in ways.items()
    }
    return {
        "dense": sum(p.numel() for p in model.parameters()),
        "ways": found,
        "gone": {"unread": ours.unread, "constants": ours.constants, "merged": ours.merged},
        "seconds": statistics.median(seconds),
    }


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m bench.removal", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "removal.json", metavar="FILE", help="where to write")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where CIFAR-10 lies")
    parser.add_argument("--runs", type=int, default=5, help="of the removal, for its seconds; default 5")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in PUBLISHED:
        for row in levels(name, args.data_dir, args.runs):
            print(row, flush=True)
            rows.append(row)
            stored(rows, args.runs, args.json)  # what is there of a run that was stopped is worth as much


def stored(rows: list[dict[str, Any]], runs: int, file: Path) -> None:
    """Write what has been measured so far."""
    config = {"epochs": 4, "lr": 0.02, "rewind": 1, "fraction": 0.5, "images": dict(IMAGES), "size": SIZE}
    config |= {"timed": dict(TIMED)}
    write(record("removal", rows, config=config, n=runs, percentile="median seconds", threads=1), file)


if __name__ == "__main__":
    main()
