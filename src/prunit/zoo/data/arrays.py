"""Images that are already in memory: what a user's factory returned, resizing, mean and deviation."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from prunit.batches import Dataset, Split
from prunit.errors import DataError
from prunit.zoo.data.raw import Raw

MEASURED = 10_000
"""Training images that mean and deviation are taken from; spread over the whole set."""


def from_factory(made: object, reference: str) -> Dataset | Raw:
    """What a user's factory returned, checked: a Dataset, or (x_train, y_train, x_test, y_test)."""
    if isinstance(made, Dataset):
        for part, split in (("train", made.train), ("test", made.test)):
            _check(split, len(made.classes), f"'{reference}' {part}")
        _same_shape(made.train, made.test, reference)
        if {len(made.mean_C), len(made.std_C)} - {0, made.channels}:
            raise DataError(
                f"'{reference}': mean_C and std_C have {len(made.mean_C)} and {len(made.std_C)} values for images of"
                f" {made.channels} channels; give one each, or () to have them measured"
            )
        return made
    if not isinstance(made, tuple | list) or len(made) != 4:
        what = f"{len(made)} values" if isinstance(made, tuple | list) else f"an object of type {type(made).__name__}"
        raise DataError(
            f"'{reference}' returned {what}: return a prunit.batches.Dataset, or (x_train, y_train, x_test, y_test)"
            " with uint8 images"
        )
    x_train, y_train, x_test, y_test = made
    train, test = (
        Split(_images(x, f"'{reference}' x_{part}"), _labels(y, f"'{reference}' y_{part}"))
        for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test))
    )
    classes = tuple(str(i) for i in range(int(train.y_B.max()) + 1 if len(train) else 0))
    for part, split in (("train", train), ("test", test)):
        _check(split, len(classes), f"'{reference}' {part}")
    _same_shape(train, test, reference)
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


def _labels(value: object, what: str) -> Tensor:
    y_B = _tensor(value, what)
    if y_B.is_floating_point() or y_B.is_complex() or y_B.dtype == torch.bool:
        raise DataError(f"{what} holds {y_B.dtype}: class indices are whole numbers from 0")
    return y_B.long()


def _check(split: Split, classes: int, what: str) -> None:
    x, y = split.x_BCHW, split.y_B
    if x.dtype != torch.uint8:
        raise DataError(f"{what}: images are {x.dtype}; give uint8 from 0 to 255, they are normalised per batch")
    if x.ndim != 4 or x.shape[2] != x.shape[3]:
        raise DataError(f"{what}: images have shape {tuple(x.shape)}; give squares, BCHW or BHWC")
    if y.ndim != 1 or len(y) != len(x) or len(y) == 0:
        raise DataError(f"{what}: {len(x)} images and labels of shape {tuple(y.shape)}; give one label per image")
    if y.dtype != torch.int64 or int(y.min()) < 0 or int(y.max()) >= classes:
        raise DataError(
            f"{what}: labels are {y.dtype} from {int(y.min())} to {int(y.max())};"
            f" give int64 from 0 to {classes - 1} ({classes} classes)"
        )


def _same_shape(train: Split, test: Split, reference: str) -> None:
    if train.x_BCHW.shape[1:] != test.x_BCHW.shape[1:]:
        raise DataError(
            f"'{reference}': training images are {tuple(train.x_BCHW.shape[1:])},"
            f" test images {tuple(test.x_BCHW.shape[1:])}"
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
    means, stds = [], []
    for channel in range(x_BCHW.shape[1]):
        # Counting the 256 values is exact and needs no floating-point copy of the images.
        share = torch.bincount(x_BCHW[chosen, channel].flatten(), minlength=256).double()
        share /= share.sum()
        mean = float((share * value).sum())
        means.append(mean)
        stds.append(max(float((share * (value - mean) ** 2).sum()) ** 0.5, 1 / 255))
    return tuple(means), tuple(stds)
