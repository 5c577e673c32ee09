"""Image files as the model's input, as they were prepared for its training."""

import io
import warnings

from prunit.edge.fitting import fitted, too_deep
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
                if too_deep(image):
                    raise Refusal(415, "the image has more than 8 bits per pixel: convert it")
                mode = "L" if preprocessing.channels == "L" else "RGB"
                pixels = fitted(image, preprocessing.size, mode)
    except Refusal:
        raise
    except Exception:  # decoders fail in many ways
        raise Refusal(415, f"the body is no readable image: {' or '.join(FORMATS)} files are read") from None
    return preprocessing.normalise(pixels[None])
