"""Does a training in bfloat16 autocast cost accuracy? `python -m bench.bf16_accuracy`.

Pairs of trainings that differ in nothing but the precision, from the same weights on the same images in the same order;
float32 and bf16-mixed, seed by seed, with the images and epochs of the evidence's protocol `cpu`. The accuracy is that
in float32, on all test images. What is written after each seed stands if the run is stopped: pairs that the file has of
the same images and epochs are not trained again.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from bench._common import arguments, record, write
from bench.evidence.case import images, network
from bench.evidence.pairs import MARGIN, compared
from bench.evidence.tasks import Data
from prunit.batches import Dataset, Split
from prunit.train import TrainConfig, evaluate, train
from prunit.train.config import Precision

MODELS: Final[Mapping[str, str]] = {"resnet20": "ResNet-20", "vgg16/4": "VGG-16/4"}
PRECISIONS: Final[tuple[Precision, ...]] = ("32-true", "bf16-mixed")
DATA: Final = Data("cifar10", train=10_000, image_size=16)
WATCHED: Final = 512
"""Test images that are classified after each epoch: of no use here, a training wants some."""


def trained(name: str, dataset: Dataset, seed: int, precision: Precision, epochs: int) -> dict[str, float]:
    """Accuracy in float32 after a training, in percent, and the training's seconds."""
    model = network(name, dataset, seed=seed)
    config = TrainConfig(epochs=epochs, precision=precision, seed=seed, device="cpu")
    few = replace(dataset, test=Split(dataset.test.x_BCHW[:WATCHED], dataset.test.y_B[:WATCHED]))
    started = time.perf_counter()
    last = list(train(model, few, config))[-1]
    seconds = time.perf_counter() - started
    return {"accuracy": 100 * evaluate(model, dataset, device="cpu"), "loss": last.loss, "seconds": seconds}


def rows_of(found: Mapping[str, Mapping[int, Mapping[Precision, dict[str, float]]]]) -> list[dict[str, Any]]:
    """A row per model: what each seed gave, and bf16 minus float32 with its 95 % interval, in points."""
    rows = []
    for name, seeds in found.items():
        whole = {s: pair for s, pair in seeds.items() if len(pair) == len(PRECISIONS)}
        ours, theirs = ({s: pair[p]["accuracy"] for s, pair in whole.items()} for p in PRECISIONS[::-1])
        difference = compared(ours, theirs)
        if difference is None:
            continue
        told = vars(difference) | {"verdict": difference.verdict(), "margin": MARGIN}
        runs = [{"seed": s, "precision": p, **run} for s, pair in whole.items() for p, run in pair.items()]
        rows.append({"title": MODELS[name], "model": name, "bf16_minus_float32": told, "runs": runs})
    return rows


def stored(file: Path, config: Mapping[str, Any]) -> dict[str, dict[int, dict[Precision, dict[str, float]]]]:
    """The runs in a file of an earlier run with these settings."""
    found: dict[str, dict[int, dict[Precision, dict[str, float]]]] = {name: {} for name in MODELS}
    if not file.exists():
        return found
    before = json.loads(file.read_text(encoding="utf-8"))
    for row in before["rows"] if before["config"] == config else ():
        for run in row["runs"]:
            figures = {key: run[key] for key in ("accuracy", "loss", "seconds")}
            found[row["model"]].setdefault(run["seed"], {})[run["precision"]] = figures
    return found


def main() -> None:
    """Train, pair by pair, and write the result after each."""
    args = arguments("bf16_accuracy", __doc__, seeds=6, epochs=8)
    torch.set_num_threads(1)
    dataset = images(DATA)
    config = {"epochs": args.epochs, "train": DATA.train, "image_size": DATA.image_size}
    found = stored(args.json, config)
    for seed in range(args.seeds):
        for name in MODELS:
            if len(found[name].get(seed, {})) == len(PRECISIONS):
                continue
            pair = found[name][seed] = {}
            # Which one comes first takes turns, too.
            for precision in PRECISIONS if seed % 2 == 0 else PRECISIONS[::-1]:
                pair[precision] = trained(name, dataset, seed, precision, args.epochs)
                print(name, seed, precision, pair[precision], flush=True)
        note = f"{seed + 1} pairs per model; mean and 95 % interval of the paired differences"
        rows = rows_of(found)
        write(record("bf16_accuracy", rows, config=config, n=seed + 1, percentile=note, threads=1), args.json)


if __name__ == "__main__":
    main()
