"""Real numbers as int8 and back: what goes into a network of integers, and what its answers mean."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from prunit.errors import DataError, ModelError
from prunit.mcu.network import Tensor

Int8 = npt.NDArray[np.int8]
Float32 = npt.NDArray[np.float32]
Layout = Literal["NCHW", "NHWC"]


def quantised(x: npt.NDArray[Any], tensor: Tensor, *, layout: Layout = "NHWC") -> Int8:
    """The values as the tensor holds them, (B, H, W, C) or (B, N), halves rounded away from 0 and ends cut off.

    `layout` is that of `x` where it is of images; any number of them. In float32, as TensorFlow Lite's `AffineQuantize`
    computes it. Raises `DataError` for other shapes than the tensor's, and for NaN.
    """
    scale = _scale(tensor)
    values = np.asarray(x, np.float32)
    values = values.transpose(0, 2, 3, 1) if values.ndim == 4 and layout == "NCHW" else values
    if values.shape[1:] != tensor.shape[1:]:
        raise DataError(
            f"'{tensor.name}' holds {tensor.shape} for one image, got {np.shape(x)} as {layout}: "
            "give images of that size"
        )
    if np.isnan(values).any():
        raise DataError(
            f"cannot round {np.shape(x)} for '{tensor.name}' to int8: it holds NaN; look where it comes from"
        )
    steps = values / scale
    rounded = np.trunc(steps + np.copysign(np.float32(0.5), steps))
    return np.clip(rounded + np.float32(tensor.zero_point), -128, 127).astype(np.int8)


def real(q: npt.NDArray[Any], tensor: Tensor, *, layout: Layout = "NHWC") -> Float32:
    """What the tensor's values mean; `layout` is that of the answer where it is of images, (B, C, H, W) if NCHW."""
    scale = _scale(tensor)
    if q.shape[1:] != tensor.shape[1:]:
        raise DataError(
            f"'{tensor.name}' holds {tensor.shape} for one image, got {q.shape}: pass what the network gave"
        )
    values = (q.astype(np.float32) - np.float32(tensor.zero_point)) * scale
    return values.transpose(0, 3, 1, 2) if values.ndim == 4 and layout == "NCHW" else values


def _scale(tensor: Tensor) -> np.float32:
    if len(tensor.scales) != 1 or tensor.kind != "int8":
        raise ModelError(
            f"'{tensor.name}' is {tensor.kind} with {len(tensor.scales)} scales, not an int8 activation with one"
        )
    return np.float32(tensor.scales[0])
