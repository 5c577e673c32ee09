"""Image files as uint8 tensors of the size of a model's input, and their targets in its pixels."""

import importlib.util
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import torch

from prunit.batches import Split
from prunit.edge.pixels import Fit, opened
from prunit.edge.reading import Files, Listing, Masks
from prunit.edge.reading.photos import Problem, filled, named, quiet
from prunit.errors import DataError, MissingExtraError
from prunit.zoo.data.raw import AnyArray, Raw, refuse_too_large

HEADERS = 1000
"""Files whose size is looked up to settle the common one; spread over the whole list."""
PART = 256
"""Files per task of a decoding thread."""
LARGEST: Final = 256
"""The most that the side of an image is where boxes or masks are learnt and no size was asked for."""
STEP: Final = 32
"""Such a side is a multiple of it: what networks for boxes and masks halve five times."""


_FITTED: Final = {"crop": "short side fitted, centre cut out", "letterbox": "long side fitted, bars beside"}


def decode(listing: Listing, *, name: str, image_size: int | None, fit: Fit = "crop", skip_broken: bool = False) -> Raw:
    """The images of `listing` (what a subset needs is cut from the listing, before anything is decoded).

    Broken files, and targets that do not fit their image, are all found before the first ones are named; with
    `skip_broken` they are left out. Without `image_size` it is `common_size`, or `rounded_size` with a letterbox.
    """
    if importlib.util.find_spec("PIL") is None:
        raise MissingExtraError(f"reading the images of '{name}'", "pillow", "train")
    train, test = listing.train, listing.judged
    paths = (*train.paths, *test.paths)
    with quiet():
        size = image_size or (common_size if fit == "crop" else rounded_size)(paths)
        channels = 4 if isinstance(train.targets, Masks) else 3
        refuse_too_large(name, (len(train), len(test)), (channels, size, size))
        (x_train, problems), (x_test, more) = (_part(files, size, fit) for files in (train, test))
    parts, problems = (x_train, x_test), problems + more
    notes = [f"{size}x{size} px, {_FITTED[fit]}"]
    if problems and not skip_broken:
        raise DataError(named(problems))
    if problems:
        notes.insert(0, f"left out: {named(problems)}")
        empty = next((what for what, part in zip(("training", "test"), parts, strict=True) if not len(part)), None)
        if empty is not None:
            raise DataError(f"data set '{name}': of its {empty} images none can be used; {named(problems)}")
    return Raw(*parts, listing.classes, flip=True, told="; ".join([listing.told, *notes]))


def common_size(paths: Sequence[Path]) -> int:
    """The side of the images if they are squares of one size, else 64 or 224, whichever is nearer to their use."""
    sizes = _sizes(paths)
    if len(set(sizes)) == 1 and sizes[0][0] == sizes[0][1]:
        return sizes[0][0]
    return 64 if not sizes or statistics.median(min(size) for size in sizes) <= 64 else 224


def rounded_size(paths: Sequence[Path]) -> int:
    """The median of the images' short sides or 256, whichever is less, made a multiple of 32."""
    sizes = _sizes(paths)
    side = min(int(statistics.median(min(size) for size in sizes)), LARGEST) if sizes else LARGEST
    return -(-side // STEP) * STEP


def _sizes(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Width and height of files spread over the list, as far as they can be opened."""
    sizes: list[tuple[int, int]] = []
    for path in paths[:: max(1, len(paths) // HEADERS)]:
        try:
            with opened(path) as image:
                sizes.append(image.size)
        except Exception:  # a broken image is named when it is decoded
            continue
    return sizes


def _part(files: Files, size: int, fit: Fit) -> tuple[Split, list[Problem]]:
    """The images of a part and their targets, without those that cannot be used, and these."""
    x_BCHW = np.empty((len(files), 3, size, size), np.uint8)

    def fill(start: int) -> list[AnyArray | Problem]:
        return [filled(x_BCHW[i], files, i, fit) for i in range(start, min(start + PART, len(files)))]

    # Pillow decodes outside Python's lock, so threads share the work without copying pixels between processes.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = [one for part in pool.map(fill, range(0, len(files), PART)) for one in part]
    problems = [one for one in found if isinstance(one, Problem)]
    targets = [one for one in found if not isinstance(one, Problem)]
    if problems:
        x_BCHW = x_BCHW[[i for i, one in enumerate(found) if not isinstance(one, Problem)]]
    y_B = torch.from_numpy(files.targets.together(targets))
    return Split(torch.from_numpy(x_BCHW), y_B), problems
