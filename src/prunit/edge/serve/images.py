"""Image files as the model's input, as they were prepared for its training."""

import importlib.util
import io
import warnings
from typing import Final

from prunit.edge.pixels import FORMATS, Placing, opened, placed
from prunit.edge.portfolio import Preprocessing
from prunit.edge.serve.settings import Refusal
from prunit.edge.session import Array
from prunit.errors import DataError, MissingExtraError

_READ: Final = (
    f"{', '.join(tuple(FORMATS)[:-1])} and {tuple(FORMATS)[-1]} files are read;"
    " curl sends a file as it is with --data-binary, not with -d"
)


def decode(data: bytes | bytearray, preprocessing: Preprocessing, max_pixels: int) -> tuple[Array, Placing]:
    """x_BCHW (float32, normalised) of one image file in the model's size as in training, and where it lies there.

    The formats are those of training. The size that the file claims is checked before any pixel is decoded. Raises
    `Refusal` for what is no such image.
    """
    if importlib.util.find_spec("PIL") is None:
        raise MissingExtraError("reading image files", "pillow", "serve")
    mode = preprocessing.channels
    if mode not in ("L", "RGB"):
        raise Refusal(415, f"the model takes channels '{mode}', which no image file holds: send tensors to /v2")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd files change no pixel
            with opened(io.BytesIO(data)) as image:
                if image.width * image.height > max_pixels:
                    raise Refusal(413, f"the image has {image.width}x{image.height} pixels: {max_pixels} are allowed")
                pixels, placing = placed(image, preprocessing.size, mode, preprocessing.fit)
    except Refusal:
        raise
    except DataError as error:
        raise Refusal(415, f"the image has {error}") from None
    except Exception:  # decoders fail in many ways
        raise Refusal(415, f"the body is no readable image: {_READ}") from None
    return preprocessing.normalise(pixels[None]), placing
