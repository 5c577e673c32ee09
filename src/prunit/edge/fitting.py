"""An image file's pixels as a model's input has them: in training and on the device by the same function."""

from typing import Any

import numpy as np
import numpy.typing as npt


def too_deep(image: Any) -> bool:
    """Whether an image of Pillow has more than 8 bits per pixel and channel, which `fitted` would cut off."""
    return image.mode.startswith(("I", "F"))


def fitted(image: Any, size: tuple[int, int], mode: str = "RGB") -> npt.NDArray[np.uint8]:
    """x_CHW of an opened image of Pillow: made as small as covers `size` (height, width), centre cut out."""
    from PIL import Image

    height, width = size
    # A JPEG of a camera is decoded at a fraction of its size, never below twice the wanted one.
    image.draft(mode, (2 * width, 2 * height))
    scale = max(width / image.width, height / image.height)
    covering = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    resized = image.convert(mode).resize(covering, Image.Resampling.BILINEAR)
    left, top = (covering[0] - width) // 2, (covering[1] - height) // 2
    pixels = np.asarray(resized.crop((left, top, left + width, top + height)), dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
