"""Which pixels a resized image is made of: by ONNX's rules, and by TensorFlow Lite's."""

from typing import Any

import numpy as np
import numpy.typing as npt

from prunit.export.tflite.reading import Step

Places = npt.NDArray[Any]


def places_of_onnx(step: Step, size: int, wanted: int, scale: float) -> Places | None:
    """For each new pixel the old one (of `nearest`), or the place between two (of `linear`); None for other rules."""
    mode = step.attributes.get("mode", b"nearest").decode()
    how = step.attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    i = np.arange(wanted)
    if how == "asymmetric":
        places = i / scale
    elif how == "half_pixel" or (how == "pytorch_half_pixel" and wanted > 1):
        places = (i + 0.5) / scale - 0.5
    elif how == "align_corners" and wanted > 1:
        places = i * ((size - 1) / (wanted - 1))
    elif how in ("align_corners", "pytorch_half_pixel"):
        places = np.zeros(wanted)
    else:
        return None
    if mode == "linear":
        return np.clip(places, 0, size - 1)
    if mode != "nearest":
        return None
    rounding = step.attributes.get("nearest_mode", b"round_prefer_floor").decode()
    rounded = {
        "floor": np.floor(places),
        "ceil": np.ceil(places),
        "round_prefer_floor": np.ceil(places - 0.5),
        "round_prefer_ceil": np.floor(places + 0.5),
    }[rounding]
    return np.clip(rounded, 0, size - 1)


def places_of_tflite(mode: str, size: int, wanted: int, *, align: bool, half: bool) -> Places:
    """The same as the reference kernels compute it, in float32 (nearest) and in 1024ths (linear)."""
    i = np.arange(wanted, dtype=np.float32)
    aligned = align and wanted > 1
    scale = np.float32(size - 1) / np.float32(wanted - 1) if aligned else np.float32(size) / np.float32(wanted)
    if mode == "nearest":
        places = (i + np.float32(0.5 if half else 0)) * scale
        # half away from zero, as C rounds, where numpy would take the even one
        return np.clip(np.floor(places + 0.5) if align else np.floor(places), 0, size - 1)
    places = (i + 0.5) * scale - 0.5 if half else i * scale
    return np.clip(places, 0, size - 1)
