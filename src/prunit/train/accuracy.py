"""Top-1 accuracy of a model, and whether a model and a data set fit each other before hours are spent on them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from prunit.batches import Dataset, Split
from prunit.errors import DataError, ModelError, PrunitError
from prunit.graph.finite import check_finite
from prunit.train.place import device_named


def evaluate(model: nn.Module, dataset: Dataset, *, device: str = "auto", batch_size: int = 512) -> float:
    """Share (0 to 1) of the test images whose class the model ranks first; the model is left where and as it was."""
    check_split(dataset, "test")
    place = device_named(device)
    check_model(model, dataset)
    home = _device_of(model)
    try:
        correct = correct_of(model.to(place), dataset, dataset.test, batch_size=batch_size)
    finally:
        model.to(home)
    return int(correct) / len(dataset.test)


def correct_of(model: nn.Module, dataset: Dataset, split: Split, *, batch_size: int = 512) -> Tensor:
    """How many images of `split` (int64, on the model's device) the model, in evaluation mode, ranks correctly."""
    device = _device_of(model)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with evaluating(model):
        for x_BCHW, y_B in zip(split.x_BCHW.split(batch_size), split.y_B.split(batch_size), strict=True):
            logits_BK = model(dataset.normalise(x_BCHW.to(device)))
            correct += (logits_BK.argmax(1) == y_B.to(device)).sum()
    return correct


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
    low, high = (int(bound) for bound in split.y_B.aminmax())
    if low < 0 or high >= len(dataset.classes):
        raise DataError(
            f"data set '{dataset.name}' has {name} labels from {low} to {high}, but {len(dataset.classes)} classes: "
            f"labels go from 0 to {len(dataset.classes) - 1}"
        )


def check_model(model: nn.Module, dataset: Dataset) -> None:
    """ModelError unless the model turns an image of the data set into one number per class (or more)."""
    check_finite(model)
    x_BCHW = dataset.test.x_BCHW[:1].to(_device_of(model))
    what = f"images of shape {tuple(x_BCHW.shape[1:])} from data set '{dataset.name}'"
    try:
        with evaluating(model):
            logits_BK = model(dataset.normalise(x_BCHW))
    except PrunitError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ModelError(f"the model cannot be called on {what}: {type(error).__name__}: {reason}") from error
    shape = tuple(logits_BK.shape) if isinstance(logits_BK, Tensor) else type(logits_BK).__name__
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] < len(dataset.classes):
        raise ModelError(
            f"the model gives {shape} for one of the {what}; needed are (1, {len(dataset.classes)}) numbers, "
            f"one per class: build it with num_classes={len(dataset.classes)}"
        )


def _device_of(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    return tensor.device if tensor is not None else torch.device("cpu")
