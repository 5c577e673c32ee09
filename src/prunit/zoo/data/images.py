"""Image files as uint8 tensors of the size of a model's input, and their targets in its pixels."""

import importlib.util
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor

from prunit.batches import Split
from prunit.edge.pixels import Fit, opened
from prunit.edge.reading import Files, Listing, Masks
from prunit.edge.reading.photos import Problem, filled, named, quiet
from prunit.errors import DataError, MissingExtraError
from prunit.zoo.data import raw
from prunit.zoo.data.raw import AnyArray, Raw, needed_bytes, refuse_too_large
from prunit.zoo.data.streamed import ImageFiles

HEADERS = 1000
"""Files whose size is looked up to settle the common one; spread over the whole list."""
PART = 256
"""Files per task of a decoding thread."""
AT_ONCE: Final = 64
"""Images of a small batch, which must fit into memory in any case."""
LARGEST: Final = 256
"""The most that the side of an image is where boxes or masks are learnt and no size was asked for."""
STEP: Final = 32
"""Such a side is a multiple of it: what networks for boxes and masks halve five times."""


_FITTED: Final = {"crop": "short side fitted, centre cut out", "letterbox": "long side fitted, bars beside"}


def decode(
    listing: Listing,
    *,
    name: str,
    image_size: int | None,
    fit: Fit = "crop",
    skip_broken: bool = False,
    stream: bool | None = None,
) -> Raw:
    """The images of `listing` (what a subset needs is cut from the listing, before anything is decoded).

    Broken files, and targets that do not fit their image, are all found before the first ones are named; with
    `skip_broken` they are left out. Without `image_size` it is `common_size`, or `rounded_size` with a letterbox.
    `stream` says whether images stay on disk (`ImageFiles`); None: where they would take too much memory.
    """
    if importlib.util.find_spec("PIL") is None:
        raise MissingExtraError(f"reading the images of '{name}'", "pillow", "train")
    given = {"training": listing.train, "test": listing.judged}
    given |= {"validation": listing.watched} if listing.watched is not None else {}
    paths = [path for files in given.values() for path in files.paths]
    with quiet():
        size = image_size or (common_size if fit == "crop" else rounded_size)(paths)
        number, masked = [len(files) for files in given.values()], isinstance(listing.train.targets, Masks)
        needed = needed_bytes(number, (3 + masked, size, size))
        stream = needed > raw.LIMIT_BYTES if stream is None else stream
        if not stream:
            refuse_too_large(name, number, (3 + masked, size, size))
        elif masked or AT_ONCE * 3 * size * size > raw.LIMIT_BYTES:
            refuse_too_large(name, number, (1 if masked else 3, size, size))
        found = {what: _part(files, size, fit, stream) for what, files in given.items()}
    parts = {what: split for what, (split, _) in found.items()}
    problems = [problem for _, some in found.values() for problem in some]
    where = "read from disk as needed" if stream else f"{_size(needed)} in memory"
    notes = [f"{size}x{size} px, {_FITTED[fit]}; {where}"]
    if problems and not skip_broken:
        raise DataError(named(problems))
    if problems:
        notes.insert(0, f"left out: {named(problems)}")
        empty = next((what for what, part in parts.items() if not len(part)), None)
        if empty is not None:
            raise DataError(f"data set '{name}': of its {empty} images none can be used; {named(problems)}")
    return Raw(
        *(parts["training"], parts["test"], listing.classes),
        flip=True,
        told="; ".join([listing.told, *notes]),
        watched=parts.get("validation"),
    )


def _size(number: int) -> str:
    """So many bytes, in kB, MB or GB."""
    unit, name = next((pair for pair in ((1e9, "GB"), (1e6, "MB")) if number >= pair[0]), (1e3, "kB"))
    return f"{number / unit:.3g} {name}"


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


def _part(files: Files, size: int, fit: Fit, stream: bool) -> tuple[Split, list[Problem]]:
    """The images of a part and their targets, without those that cannot be used, and these.

    What is streamed is read here too: a file that is broken is better known before a training than in it.
    """
    x_BCHW = np.empty((0 if stream else len(files), 3, size, size), np.uint8)

    def fill(start: int) -> list[AnyArray | Problem]:
        out_CHW = np.empty((3, size, size), np.uint8)
        indices = range(start, min(start + PART, len(files)))
        return [filled(out_CHW if stream else x_BCHW[i], files, i, fit) for i in indices]

    # Pillow decodes outside Python's lock, so threads share the work without copying pixels between processes.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = [one for part in pool.map(fill, range(0, len(files), PART)) for one in part]
    problems = [one for one in found if isinstance(one, Problem)]
    whole = [i for i, one in enumerate(found) if not isinstance(one, Problem)]
    y_B = torch.from_numpy(files.targets.together([one for one in found if not isinstance(one, Problem)]))
    if stream:
        # It has all that is asked of the tensor.
        x = cast("Tensor", ImageFiles([files.paths[i] for i in whole], size, fit))
    else:
        x = torch.from_numpy(x_BCHW[whole] if problems else x_BCHW)
    return Split(x, y_B), problems
