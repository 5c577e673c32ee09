"""Small networks, pruned and trained for a few minutes, that the measurements of int8 are made on."""

from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import nn

import prunit
from prunit.allocate import Budget, Target, global_threshold
from prunit.batches import Dataset
from prunit.cut.plans import choose
from prunit.edge.portfolio import Artifact
from prunit.edge.session import Array
from prunit.export import export_onnx
from prunit.scores import score_channels
from prunit.train import TrainConfig, train

NETS: Final = {
    "resnet20": ("resnet20", "macs=1/4", 16, 6),
    "mobilenetv2": ("mobilenetv2", "macs=1/8", 16, 12),
    "vgg11": ("vgg11", "macs=1/8", 16, 6),
}
"""By name: the zoo's network, its budget, the side of its images and for how many epochs it trains."""
SUBSET, SEED = 5000, 0


class Net(NamedTuple):
    """An exported float network with images: to find ranges in, to choose with, and to judge by, with their classes."""

    artifact: Artifact
    folder: Path
    calibration: Array
    holdout: Array
    test: Array
    labels: np.ndarray


def made(name: str, folder: Path, data_dir: Path) -> Net:
    """A network of `NETS`, trained if `folder` does not hold it yet."""
    model_name, budget, side, epochs = NETS[name]
    data = prunit.zoo.data.load("cifar10", data_dir=data_dir, subset=SUBSET, image_size=side)
    data = replace(data, test=data.test.taken(slice(0, 2000)))
    kept = folder / f"{name}.pt"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        model = _trained(model_name, budget, data, epochs)
        torch.save(model, kept)
    model = torch.load(kept, weights_only=False)
    artifact = export_onnx(model, torch.zeros(1, 3, side, side), folder, name=name)
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(SEED))[:768]
    images = data.normalise(data.train.x_BCHW[order]).numpy()
    test = data.normalise(data.test.x_BCHW).numpy()
    return Net(artifact, folder, images[:256], images[256:], test, data.test.y_B.numpy())


def _trained(name: str, budget: str, data: Dataset, epochs: int) -> nn.Module:
    torch.manual_seed(SEED)
    dense = prunit.zoo.load(name, image_size=data.image_size, seed=SEED)
    batches = data.scoring_batches(per_class=10, batch_size=100, seed=SEED)
    graph = prunit.trace(dense, batches[0][0][:1])
    scores = score_channels(dense, graph, "snip", batches)
    plan = choose(graph, scores, global_threshold(Target(graph, Budget.parse(budget)), scores))
    small = prunit.compact(dense, graph, plan)
    prunit.rectify(small, dense, "reinit", seed=SEED)
    settings = TrainConfig(epochs=epochs, device="cpu", seed=SEED, precision="32-true", batch_size=64)
    for epoch in train(small, data, settings):
        print(f"{name}: {epoch}", flush=True)
    return small
