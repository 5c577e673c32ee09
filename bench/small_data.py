"""Few images: accuracy and seconds by batch size, peak learning rate and epochs: `python -m bench.small_data`.

Each cell is one training of ResNet-20 in float32 on the first images of a data set that is drawn evenly from its
classes, judged once at its end on test images. Cells are done in the order of `CELLS`, most telling first; what stands
in the JSON file is not done again, so that a run of some `--minutes` can be continued. Defaults were chosen on the
seeds `CHOOSING`; what is claimed of them is told on the seeds `JUDGING`.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Final

import torch

from bench._common import arguments, record, write
from prunit import zoo
from prunit.batches import Dataset, Split, stratified
from prunit.recipe.folder import read_json
from prunit.train import TrainConfig, evaluate, train

CHOOSING: Final = (0, 1)
JUDGING: Final = (2, 3, 4)
MODEL: Final = "resnet20"
TEST: Final = 2_000
"""Test images at the most."""


@dataclass(frozen=True)
class Images:
    """A data set cut to `train` images of `size` pixels a side; `name` as `zoo.data.load` reads it."""

    title: str
    name: str
    train: int
    size: int


@dataclass(frozen=True)
class Setting:
    """What a training is told."""

    batch_size: int
    lr: float
    epochs: int

    @property
    def text(self) -> str:
        return f"batch {self.batch_size}, lr {self.lr:g}, {self.epochs} epochs"


PHOTOS: Final = Images("1,000 photos of 20 kinds", "tiny-imagenet", 1_000, 16)
FEW: Final = Images("1,000 of CIFAR-10", "cifar10", 1_000, 16)
MORE: Final = Images("5,000 of CIFAR-10", "cifar10", 5_000, 16)

BEFORE: Final = Setting(128, 0.2, 30)
"""The defaults whatever the data set, as they were before those for few images."""
SMALLER: Final = Setting(32, 0.1, 30)
"""Smaller batches, with the rate that goes with the root of their size."""
LONGER: Final = Setting(32, 0.1, 60)
RATES: Final = (Setting(32, 0.2, 30), Setting(32, 0.05, 30))
"""The rate as it was, and in proportion to the batch."""


def cells() -> Iterator[tuple[Images, Setting, int]]:
    """Images, setting and seed of each training, in the order in which they are done."""
    yield from product((PHOTOS,), (BEFORE, *RATES, SMALLER, LONGER), CHOOSING[:1])
    yield from product((PHOTOS,), (BEFORE, SMALLER, LONGER), CHOOSING[1:])
    for seed in JUDGING:
        yield from product((PHOTOS, FEW), (BEFORE, SMALLER), (seed,))
    yield from product((PHOTOS,), RATES, CHOOSING[1:])
    yield from product((MORE,), (BEFORE, SMALLER), (*CHOOSING, *JUDGING))


@cache
def images(asked: Images) -> Dataset:
    """The data set, its test split cut evenly, too."""
    whole = zoo.data.load(asked.name, subset=asked.train, image_size=asked.size)
    part = stratified(whole.test.y_B, TEST, seed=0)
    return replace(whole, test=Split(whole.test.x_BCHW[part], whole.test.y_B[part]))


def cell_of(asked: Images, setting: Setting, seed: int) -> dict[str, Any]:
    """What came of one training."""
    dataset = images(asked)
    few = replace(dataset, test=Split(dataset.test.x_BCHW[:8], dataset.test.y_B[:8]))  # not judged in each epoch
    classes = len(dataset.classes)
    model = zoo.load(MODEL, num_classes=classes, in_channels=dataset.channels, image_size=asked.size, seed=seed)
    config = TrainConfig(
        epochs=setting.epochs,
        batch_size=setting.batch_size,
        lr=setting.lr,
        seed=seed,
        device="cpu",
        precision="32-true",
    )
    started = time.process_time()
    epochs = list(train(model, few, config))
    trained = time.process_time()
    return {
        **key_of(asked, setting, seed),
        "train_accuracy": epochs[-1].train_accuracy,
        "loss": epochs[-1].loss,
        "accuracy": evaluate(model, dataset, device="cpu"),
        "cpu_s": trained - started,
    }


def key_of(asked: Images, setting: Setting, seed: int) -> dict[str, Any]:
    """What tells a cell from the others."""
    return {
        "images": asked.title,
        "train": asked.train,
        "size": asked.size,
        "seed": seed,
        "batch_size": setting.batch_size,
        "lr": setting.lr,
        "epochs": setting.epochs,
    }


def main() -> None:
    """Train what is missing, and write the result after each training."""
    args = arguments("small_data", __doc__, minutes=60)
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * args.minutes
    rows: list[dict[str, Any]] = read_json(args.json)["rows"] if Path(args.json).exists() else []
    for asked, setting, seed in cells():
        key = key_of(asked, setting, seed)
        if any(key.items() <= row.items() for row in rows):
            continue
        if time.monotonic() > until:
            break
        rows.append(cell_of(asked, setting, seed))
        print(asked.title, setting.text, seed, rows[-1]["accuracy"], f"{rows[-1]['cpu_s']:.0f} s", flush=True)
        config = {"model": MODEL, "choosing": CHOOSING, "judging": JUDGING, "test": TEST, "precision": "32-true"}
        result = record("small_data", rows, config=config, n=len(rows), percentile="means over seeds", threads=1)
        write(result, args.json)


if __name__ == "__main__":
    main()
