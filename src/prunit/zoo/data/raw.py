"""What reading a data set gives, before it is cut to a subset, resized and measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from prunit.batches import Split
from prunit.errors import DataError

LIMIT_BYTES = 8 * 10**9
"""The most memory that the images of a data set may take."""
_PARTS = ("training", "test", "validation")
AnyArray = np.ndarray[tuple[int, ...], np.dtype[np.generic]]


@dataclass(frozen=True, eq=False)
class Raw:
    """The images of a data set as they are stored. `flip`: a mirrored image keeps its class."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    flip: bool = True
    told: str = ""
    watched: Split | None = None


def split_of(x_BCHW: AnyArray, y_B: Iterable[int]) -> Split:
    """A split that holds its own memory, from arrays that may be read-only views."""
    x = torch.from_numpy(np.require(x_BCHW, dtype=np.uint8, requirements=["C", "W", "O"]))
    return Split(x, torch.as_tensor(list(y_B), dtype=torch.int64))


def needed_bytes(images: Sequence[int], shape: tuple[int, int, int]) -> int:
    """Of memory for `images` training, test and perhaps watched images of `shape` (C, H, W)."""
    channels, height, width = shape
    return sum(images) * channels * height * width


def refuse_too_large(name: str, images: Sequence[int], shape: tuple[int, int, int]) -> None:
    """Refuse a data set of so many training, test and perhaps watched images of `shape` (C, H, W): too much memory."""
    _, height, width = shape
    needed = needed_bytes(images, shape)
    if needed > LIMIT_BYTES:
        each = [f"{number} {what}" for number, what in zip(images, _PARTS, strict=False)]
        raise DataError(
            f"data set '{name}' would need {needed / 1e9:.1f} GB of memory ({', '.join(each[:-1])} and {each[-1]}"
            f" images at {height}x{width}), more than {LIMIT_BYTES / 1e9:.0f} GB: take part of it with --subset N,"
            " or smaller images with --image-size N"
        )
