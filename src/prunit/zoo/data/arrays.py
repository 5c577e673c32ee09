"""Images that are already in memory: what a user's factory returned, resizing, mean and deviation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from prunit.batches import Dataset, Split
from prunit.edge.reading import IGNORED
from prunit.errors import DataError
from prunit.tasks import Task
from prunit.zoo.data import torchsets
from prunit.zoo.data.raw import Raw

_COMMON: Final = "classification"
_IN_FLOAT32: Final = ("multilabel", "regression", "detection")
MEASURED = 10_000
"""Training images that mean and deviation are taken from; spread over the whole set."""
TOGETHER = 500
"""Of them, as many as are copied, or read from disk, at once."""


def from_factory(made: object, reference: str, task: Task) -> Dataset | Raw:
    """What a user's factory returned, checked: a Dataset, two of torch, or (x_train, y_train, x_test, y_test).

    A Dataset that does not say what it is for is for `task`.
    """
    if isinstance(made, Dataset):
        if made.task.name == _COMMON and task.name != _COMMON:
            made = replace(made, task=task)
        for part, split in made.parts.items():
            _check(split, made.classes, f"'{reference}' {part}", made.task)
            _same_shape(made.train, split, reference, part)
        if {len(made.mean_C), len(made.std_C)} - {0, made.channels}:
            raise DataError(
                f"'{reference}': mean_C and std_C have {len(made.mean_C)} and {len(made.std_C)} values for images of"
                f" {made.channels} channels; give one each, or () to have them measured"
            )
        return made
    names: tuple[str, ...] = ()
    if torchsets.is_pair(made):
        train, test, names = torchsets.held(made, reference, task)
        made = (train.x_BCHW, train.y_B, test.x_BCHW, test.y_B)
    if not isinstance(made, tuple | list) or len(made) != 4:
        what = f"{len(made)} values" if isinstance(made, tuple | list) else f"an object of type {type(made).__name__}"
        raise DataError(
            f"'{reference}' returned {what}: return a prunit.batches.Dataset, or (x_train, y_train, x_test, y_test)"
            " with uint8 images, or two data sets of torch"
        )
    x_train, y_train, x_test, y_test = made
    train, test = (
        Split(_images(x, f"'{reference}' x_{part}"), _targets(y, f"'{reference}' y_{part}", task))
        for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test))
    )
    classes = names or tuple(str(i) for i in range(_told_apart(train.y_B, task)))
    for part, split in (("train", train), ("test", test)):
        _check(split, classes, f"'{reference}' {part}", task)
    _same_shape(train, test, reference, "test")
    # Whether a mirrored image keeps its class is not said; a needless flip harms more than a missing one.
    return Raw(train, test, classes, flip=False)


def _tensor(value: Any, what: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.cpu()
    try:
        return torch.from_numpy(np.require(np.asarray(value), requirements=["C", "W"]))
    except (TypeError, ValueError) as cause:
        raise DataError(f"{what} is no array: {cause}") from cause


def _images(value: object, what: str) -> Tensor:
    """x_BCHW from BCHW, BHWC or BHW. Images are square, so the two equal sides tell where the channels are."""
    x = _tensor(value, what)
    x = x[:, None] if x.ndim == 3 else x
    if x.ndim == 4 and x.shape[2] != x.shape[3] and x.shape[1] == x.shape[2]:
        x = x.permute(0, 3, 1, 2)
    return x.contiguous()


def _targets(value: object, what: str, task: Task) -> Tensor:
    """Targets in the form in which the task takes them, as far as that is a matter of their dtype."""
    if task.name == _COMMON:
        return _labels(value, what)
    y_B = _tensor(value, what)
    if task.name in _IN_FLOAT32:
        y_B = y_B.float()
    elif task.name == "segmentation" and not y_B.is_floating_point() and y_B.numel() and y_B.min() >= 0:
        y_B = y_B.clamp(max=IGNORED).to(torch.uint8)
    return y_B[:, None] if task.name == "regression" and y_B.ndim == 1 else y_B


def _told_apart(y_B: Tensor, task: Task) -> int:
    """How many classes, or values, training targets speak of; of a task of the user's own with other targets one."""
    if not y_B.numel():
        return 0
    if task.name in ("multilabel", "regression"):
        return y_B.shape[1] if y_B.ndim == 2 else 0
    if task.name == "detection":
        return int(y_B[..., 4].max()) + 1 if y_B.ndim == 3 and y_B.shape[2] == 6 else 0
    if task.name == "segmentation":
        return int(torch.where(y_B == IGNORED, 0, y_B).max()) + 1
    return int(y_B.max()) + 1 if y_B.ndim == 1 and y_B.dtype == torch.int64 else 1


def _labels(value: object, what: str) -> Tensor:
    y_B = _tensor(value, what)
    if y_B.is_floating_point() or y_B.is_complex() or y_B.dtype == torch.bool:
        raise DataError(f"{what} holds {y_B.dtype}: class indices are whole numbers from 0")
    return y_B.long()


def _check(split: Split, names: Sequence[str], what: str, task: Task) -> None:
    x, y, classes = split.x_BCHW, split.y_B, len(names)
    if x.dtype != torch.uint8:
        raise DataError(f"{what}: images are {x.dtype}; give uint8 from 0 to 255, they are normalised per batch")
    if x.ndim != 4 or x.shape[2] != x.shape[3]:
        raise DataError(f"{what}: images have shape {tuple(x.shape)}; give squares, BCHW or BHWC")
    if task.name != _COMMON:
        if not y.ndim or len(y) != len(x) or len(y) == 0:
            raise DataError(f"{what}: {len(x)} images and targets of shape {tuple(y.shape)}; give one target per image")
        task.check_targets(y, names, x.shape[2], what=what)
        return
    if y.ndim != 1 or len(y) != len(x) or len(y) == 0:
        raise DataError(f"{what}: {len(x)} images and labels of shape {tuple(y.shape)}; give one label per image")
    if y.dtype != torch.int64 or int(y.min()) < 0 or int(y.max()) >= classes:
        raise DataError(
            f"{what}: labels are {y.dtype} from {int(y.min())} to {int(y.max())};"
            f" give int64 from 0 to {classes - 1} ({classes} classes)"
        )


def _same_shape(train: Split, other: Split, reference: str, what: str) -> None:
    if train.x_BCHW.shape[1:] != other.x_BCHW.shape[1:]:
        raise DataError(
            f"'{reference}': training images are {tuple(train.x_BCHW.shape[1:])},"
            f" {what} images {tuple(other.x_BCHW.shape[1:])}"
        )


def resized(split: Split, size: int) -> Split:
    """The split with images of `size` x `size` pixels."""
    if split.x_BCHW.shape[2:] == (size, size):
        return split
    parts = [
        interpolate(x.float(), (size, size), mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
        for x in split.x_BCHW.split(1000)  # whole, the floats would take four times the images' memory
    ]
    return replace(split, x_BCHW=torch.cat(parts))


def mean_and_std(x_BCHW: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel of pixels scaled to [0, 1]; a constant channel gets a deviation of 1/255."""
    n = min(len(x_BCHW), MEASURED)
    chosen = torch.arange(n) * len(x_BCHW) // n
    value = torch.arange(256, dtype=torch.float64) / 255
    counts_C256 = torch.zeros(x_BCHW.shape[1], 256, dtype=torch.int64)
    for part in chosen.split(TOGETHER):
        x_PCHW = x_BCHW[part]
        for channel, counts in enumerate(counts_C256):
            # Counting the 256 values is exact and needs no floating-point copy of the images.
            counts += torch.bincount(x_PCHW[:, channel].flatten(), minlength=256)
    means, stds = [], []
    for counts in counts_C256:
        share = counts.double()
        share /= share.sum()
        mean = float((share * value).sum())
        means.append(mean)
        stds.append(max(float((share * (value - mean) ** 2).sum()) ** 0.5, 1 / 255))
    return tuple(means), tuple(stds)
