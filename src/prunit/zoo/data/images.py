"""Image files as uint8 tensors: short side to the wanted size, centre cut out."""

import importlib.util
import os
import statistics
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunit.batches import Split
from prunit.edge.pixels import fitted, opened
from prunit.errors import DataError, MissingExtraError
from prunit.zoo.data.raw import AnyArray, Listing, Raw, refuse_too_large

HEADERS = 1000
"""Files whose size is looked up to settle the common one; spread over the whole list."""
PART = 256
"""Files per task of a decoding thread."""


def decode(listing: Listing, *, name: str, image_size: int | None) -> Raw:
    """The images of `listing` (what a subset needs is cut from the listing, before anything is decoded)."""
    if importlib.util.find_spec("PIL") is None:
        raise MissingExtraError(f"reading the images of '{name}'", "pillow", "train")
    paths = (*listing.train.paths, *listing.test.paths)
    with warnings.catch_warnings():
        # Pillow's remarks on odd files (palettes with transparency, extra bytes in tags) change no pixel.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        size = image_size or common_size(paths)
        refuse_too_large(name, (len(listing.train.paths), len(listing.test.paths)), (3, size, size))
        x_BCHW = _pixels(paths, size)
    cut = len(listing.train.paths)
    return Raw(
        Split(x_BCHW[:cut], listing.train.y_B), Split(x_BCHW[cut:], listing.test.y_B), listing.classes, flip=True
    )


def common_size(paths: Sequence[Path]) -> int:
    """The side of the images if they are squares of one size, else 64 or 224, whichever is nearer to their use."""
    sizes: list[tuple[int, int]] = []
    for path in paths[:: max(1, len(paths) // HEADERS)]:
        try:
            with opened(path) as image:
                sizes.append(image.size)
        except Exception:  # a broken image is named when it is decoded
            continue
    if len(set(sizes)) == 1 and sizes[0][0] == sizes[0][1]:
        return sizes[0][0]
    return 64 if not sizes or statistics.median(min(size) for size in sizes) <= 64 else 224


def _pixels(paths: Sequence[Path], size: int) -> Tensor:
    """x_BCHW (uint8). Broken files are all found before the first ones are named."""
    x_BCHW = np.empty((len(paths), 3, size, size), np.uint8)

    def fill(start: int) -> list[str]:
        problems = (_fill(x_BCHW[i], paths[i], size) for i in range(start, min(start + PART, len(paths))))
        return [problem for problem in problems if problem]

    # Pillow decodes outside Python's lock, so threads share the work without copying pixels between processes.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        broken = [problem for part in pool.map(fill, range(0, len(paths), PART)) for problem in part]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise DataError(f"broken image{'s' if len(broken) > 1 else ''}: {'; '.join(broken[:3])}{more}")
    return torch.from_numpy(x_BCHW)


def _fill(out_CHW: AnyArray, path: Path, size: int) -> str | None:
    """Write one image to `out_CHW`; what is wrong with it, if anything."""
    from PIL import UnidentifiedImageError

    try:
        with opened(path) as image:
            out_CHW[:] = fitted(image, (size, size))
    except UnidentifiedImageError:
        return f"'{path}' (not an image of a known format, {path.stat().st_size} bytes)"
    except Exception as cause:  # decoders fail in many ways
        return f"'{path}' ({' '.join(str(cause).split()) or type(cause).__name__})"
    return None
