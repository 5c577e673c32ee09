"""How good a model is at its task, and whether model and data set fit each other before hours are spent on them."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn

from prunit.batches import Dataset, Split
from prunit.edge.answers import Answers
from prunit.edge.tasks import Evidence
from prunit.edge.tasks.classification import DeviceClassification
from prunit.errors import DataError, ModelError, PrunitError, TrainingError
from prunit.graph.finite import check_finite
from prunit.tasks import Task
from prunit.train.place import device_named

BATCH: Final = 512
"""Images at once; more are not faster."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What a model's outputs for a split say beside the targets."""

    task: Task
    evidence: Evidence
    """Image by image, in the order of the split: see `edge.tasks`."""
    commonest: int
    """Images of the class that has most of them; 0 for another task than classification."""
    test_set: str
    """`digest_of_images` of the split."""

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics by name, those left out of which these images tell nothing."""
        found = self.task.metrics(self.evidence)
        return {name: float(value) for name, value in found.items() if math.isfinite(value)}

    @property
    def main(self) -> float:
        """The main metric; `TrainingError` if it is not a number."""
        return main_metric(self.task, self.evidence)

    @property
    def answers(self) -> Answers | None:
        """Right or wrong, image by image; None for another task than classification."""
        if not self.commonest:
            return None
        right_N = self.evidence[:, 0] == self.evidence[:, 1]
        return Answers.of(right_N, commonest=self.commonest, test_set=self.test_set)


def evaluate(model: nn.Module, dataset: Dataset, *, device: str = "auto", batch_size: int = BATCH) -> float:
    """The main metric of the data set's task on its test images; the model is left where and as it was.

    For classification the share (0 to 1) of the images whose class the model ranks first.
    """
    return judge(model, dataset, device=device, batch_size=batch_size).main


def judge(model: nn.Module, dataset: Dataset, *, device: str = "auto", batch_size: int = BATCH) -> Judged:
    """What `evaluate` counts, image by image: two models that saw the same images can be compared in pairs."""
    check_split(dataset, "test")
    place = device_named(device)
    check_model(model, dataset)
    home = _device_of(model)
    try:
        evidence = evidence_of(model.to(place), dataset, dataset.test, batch_size=batch_size)
    finally:
        model.to(home)
    classifies = isinstance(dataset.task, DeviceClassification)
    commonest = int(dataset.test.y_B.bincount().max()) if classifies else 0
    return Judged(dataset.task, evidence, commonest, digest_of_images(dataset.test))


def evidence_of(model: nn.Module, dataset: Dataset, split: Split, *, batch_size: int = BATCH) -> Evidence:
    """What the task says of each image of `split`, (N, …): the model is in evaluation mode, on its own device."""
    device = _device_of(model)
    found: list[Evidence] = []
    with evaluating(model):
        for x_BCHW, y_B in zip(split.x_BCHW.split(batch_size), split.y_B.split(batch_size), strict=True):
            found.append(dataset.task.judged(model(dataset.normalise(x_BCHW.to(device))), y_B.to(device)))
    return np.concatenate(found)


def main_metric(task: Task, evidence: Evidence) -> float:
    """The main metric; `TrainingError` if it is not a number."""
    found = float(task.metrics(evidence)[task.metric])
    if not math.isfinite(found):
        raise TrainingError(
            f"the metric '{task.metric}' of the {task.name} is {found} on {len(evidence)} test images: their targets"
            " tell nothing that it can be computed from, or the model's outputs are not numbers"
        )
    return found


def digest_of_images(*splits: Split, images: int = 500) -> str:
    """16 hex digits that differ for splits of other labels, in another order, or with other pixels in some images."""
    digest = hashlib.sha256()
    for split in splits:
        for tensor in (split.y_B, split.x_BCHW[:: max(1, len(split) // images)]):
            digest.update(f"{tuple(tensor.shape)};".encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, every module is in evaluation mode and no gradients are kept; afterwards each has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def check_split(dataset: Dataset, name: str) -> None:
    """DataError if the split has no images, or labels that are not classes of the data set."""
    split: Split = getattr(dataset, name)
    if not len(split):
        raise DataError(f"data set '{dataset.name}' has no {name} images")
    if len(split.x_BCHW) != len(split.y_B):
        raise DataError(f"data set '{dataset.name}' has {len(split.x_BCHW)} {name} images but {len(split.y_B)} labels")
    what = f"data set '{dataset.name}' has {name}"
    dataset.task.check_targets(split.y_B, dataset.classes, dataset.image_size, what=what)


def check_model(model: nn.Module, dataset: Dataset) -> None:
    """ModelError unless the model turns an image of the data set into what its task takes: one score per class."""
    check_finite(model)
    x_BCHW = dataset.test.x_BCHW[:1].to(_device_of(model))
    what = f"images of shape {tuple(x_BCHW.shape[1:])} from data set '{dataset.name}'"
    try:
        with evaluating(model):
            found = model(dataset.normalise(x_BCHW))
    except PrunitError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ModelError(f"the model cannot be called on {what}: {type(error).__name__}: {reason}") from error
    dataset.task.check_outputs(found, 1, dataset.classes, dataset.image_size, where=f"for one of the {what}")


def _device_of(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    return tensor.device if tensor is not None else torch.device("cpu")
