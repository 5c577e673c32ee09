"""The images that an export is tried on: noise, and the plain ones on which a lost epsilon shows.

On noise nearly nothing is exactly zero, so a network that divides by a norm gives the same with an epsilon and without.
On a black photo, or under a black bar, that norm is zero.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from prunit.edge.session import Array

STORED: Final = ("noise", "half-black", "black")
"""Those that a device tries too, in this order."""


def images(shape_CHW: tuple[int, int, int]) -> Mapping[str, Array]:
    """Images (C, H, W) by name, always the same, for a model that takes normalised pixels.

    Black is 0 for a model that takes pixels as they are and about -2 for one that takes them normalised, so there are
    both. All values are multiples of 1/32, of which sums and means are exact in float32 in whatever order they are
    added: what a model makes of a plain image is then no matter of rounding.
    """
    noise, other = seeded_input(2, shape_CHW)
    return {
        "noise": noise,
        "half-black": _half(noise, 0),
        "black": np.zeros_like(noise),
        "other noise": other,
        "half-dark": _half(other, -2),
        "dark": np.full_like(noise, -2),
        "grey": np.full_like(noise, 0.5),
        "white": np.full_like(noise, 2),
        "saturated": np.where(other < 0, np.float32(-2), np.float32(2)),
    }


def seeded_input(n: int, shape_CHW: tuple[int, int, int], *, seed: int = 0) -> Array:
    """`n` noise images between -2 and 2, about as spread as normalised pixels, always the same.

    They are multiples of 1/32, which zlib packs into a quarter of the bytes of full float32 noise.
    """
    steps = np.random.default_rng(seed).integers(-64, 65, (n, *shape_CHW))
    return (steps / 32).astype(np.float32)


def _half(image_CHW: Array, value: float) -> Array:
    """The image with its first half of pixels, row by row, in one value."""
    changed = image_CHW.reshape(len(image_CHW), -1).copy()
    changed[:, : changed.shape[1] // 2] = value
    return changed.reshape(image_CHW.shape)
