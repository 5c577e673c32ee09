"""Top-1 accuracy of a model, and whether a model and a data set fit each other before hours are spent on them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from prunit.batches import Dataset, Split
from prunit.edge.answers import Answers
from prunit.errors import DataError, ModelError, PrunitError
from prunit.graph.finite import check_finite
from prunit.train.place import device_named

BATCH: Final = 512
"""Images at once; more are not faster."""


def evaluate(model: nn.Module, dataset: Dataset, *, device: str = "auto", batch_size: int = BATCH) -> float:
    """Share (0 to 1) of the test images whose class the model ranks first; the model is left where and as it was."""
    return int(_judged(model, dataset, device, batch_size).sum()) / len(dataset.test)


def answers_of(model: nn.Module, dataset: Dataset, *, device: str = "auto", batch_size: int = BATCH) -> Answers:
    """What `evaluate` counts, image by image: two models that answered the same images can be compared in pairs."""
    right_N = _judged(model, dataset, device, batch_size).cpu()
    return Answers.of(
        right_N.numpy(), commonest=int(dataset.test.y_B.bincount().max()), test_set=digest_of_images(dataset.test)
    )


def correct_of(model: nn.Module, dataset: Dataset, split: Split, *, batch_size: int = BATCH) -> Tensor:
    """How many images of `split` (int64, on the model's device) the model, in evaluation mode, ranks correctly."""
    return right_of(model, dataset, split, batch_size=batch_size).sum()


def right_of(model: nn.Module, dataset: Dataset, split: Split, *, batch_size: int = BATCH) -> Tensor:
    """For each image of `split` (N, bool, on the model's device) whether the model, in evaluation mode, is right."""
    device = _device_of(model)
    right: list[Tensor] = []
    with evaluating(model):
        for x_BCHW, y_B in zip(split.x_BCHW.split(batch_size), split.y_B.split(batch_size), strict=True):
            logits_BK = model(dataset.normalise(x_BCHW.to(device)))
            right.append(logits_BK.argmax(1) == y_B.to(device))
    return torch.cat(right)


def digest_of_images(*splits: Split, images: int = 500) -> str:
    """16 hex digits that differ for splits of other labels, in another order, or with other pixels in some images."""
    digest = hashlib.sha256()
    for split in splits:
        for tensor in (split.y_B, split.x_BCHW[:: max(1, len(split) // images)]):
            digest.update(f"{tuple(tensor.shape)};".encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _judged(model: nn.Module, dataset: Dataset, device: str, batch_size: int) -> Tensor:
    """`right_of` the test images, on a device by name; the model is left where and as it was."""
    check_split(dataset, "test")
    place = device_named(device)
    check_model(model, dataset)
    home = _device_of(model)
    try:
        return right_of(model.to(place), dataset, dataset.test, batch_size=batch_size)
    finally:
        model.to(home)


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
    """ModelError unless the model turns an image of the data set into one score per class."""
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
    check_scores(logits_BK, 1, dataset, where=f"for one of the {what}")


def check_scores(found: Any, images: int, dataset: Dataset, *, where: str) -> None:
    """ModelError unless what a model gave for so many images is one tensor of scores, one for each class.

    The message says what it is instead, `where`, and what to do.
    """
    classes = len(dataset.classes)
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != images or not found.is_floating_point():
        given, hint = _no_scores(found, images)
        raise ModelError(
            f"the model gives {given} {where}: build, train and evaluate take a classifier, which returns one tensor of"
            f" scores ({images}, {classes}), one for each class; {hint}"
        )
    if found.shape[1] != classes:
        few = " (a single score ranks no classes)" if found.shape[1] == 1 else ""
        raise ModelError(
            f"the model gives {tuple(found.shape)} {where}; needed are ({images}, {classes}) numbers, one per class"
            f"{few}: build it with num_classes={classes}"
        )


_OTHER_TASK: Final = "for another task, cut it with trace, a plan and compact, and train it in a loop of your own"


def _no_scores(found: Any, images: int) -> tuple[str, str]:
    """What a model gave that are no scores, in words, and what its user can do."""
    alone = f"switch off its further outputs, wrap it in a module that returns the scores alone, or {_OTHER_TASK}"
    if isinstance(found, Mapping):
        keys = [repr(key) for key in cast("Mapping[Any, Any]", found)]
        return f"a {type(found).__name__} of {_some(keys)}", alone
    if isinstance(found, list | tuple):
        parts = [_shape(part) for part in cast("Sequence[Any]", found)]
        return f"a {type(found).__name__} of {len(parts)}: {_some(parts)}", alone
    if not isinstance(found, Tensor):
        return f"a {type(found).__name__}", alone
    shape = tuple(found.shape)
    if not found.is_floating_point():
        return f"{str(found.dtype).removeprefix('torch.')} numbers {shape}", "return scores, not classes or masks"
    if found.ndim == 4:
        return f"a map {shape}, a score for each pixel or place", (
            f"end it with a mean over height and width, .mean((2, 3)), or {_OTHER_TASK}"
        )
    if found.ndim == 3:
        return f"{shape}, a score for each position", f"end it with a mean over the positions, or {_OTHER_TASK}"
    if found.ndim == 1 and len(found) == images:
        return f"one number for each image, {shape}", "give it an output for each class, and no squeeze at the end"
    return f"a tensor {shape}, whose first dimension is not the batch" if found.ndim else "one number", alone


def _shape(part: Any) -> str:
    return str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__


def _some(words: Sequence[str], most: int = 4) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def _device_of(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    return tensor.device if tensor is not None else torch.device("cpu")
