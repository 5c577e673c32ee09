"""Image files as the model's input, as they were prepared for its training."""

import io
import warnings
from typing import Any

import numpy as np

from prunit.edge.portfolio import Preprocessing
from prunit.edge.serve.settings import Refusal
from prunit.edge.session import Array
from prunit.errors import MissingExtraError

FORMATS = ("JPEG", "PNG")


def decode(data: bytes | bytearray, preprocessing: Preprocessing, max_pixels: int) -> Array:
    """x_BCHW (float32, normalised) of one JPEG or PNG file: short side to the wanted size, centre cut out.

    The size that the file claims is checked before any pixel is decoded. Raises `Refusal` for what is no such image.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("reading image files", "pillow", "serve") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd files change no pixel
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise Refusal(413, f"the image has {image.width}x{image.height} pixels: {max_pixels} are allowed")
                if image.mode.startswith(("I", "F")):
                    raise Refusal(415, "the image has more than 8 bits per pixel: convert it")
                pixels = _fitted(image, preprocessing)
    except Refusal:
        raise
    except Exception:  # decoders fail in many ways
        raise Refusal(415, f"the body is no readable image: {' or '.join(FORMATS)} files are read") from None
    return preprocessing.normalise(pixels)


def _fitted(image: Any, preprocessing: Preprocessing) -> Any:
    from PIL import Image

    height, width = preprocessing.size
    mode = "L" if preprocessing.channels == "L" else "RGB"
    # A JPEG of a camera is decoded at a fraction of its size, never below twice the wanted one.
    image.draft(mode, (2 * width, 2 * height))
    scale = max(width / image.width, height / image.height)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    resized = image.convert(mode).resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    pixels = np.asarray(resized.crop((left, top, left + width, top + height)), dtype=np.uint8)
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))[None]
