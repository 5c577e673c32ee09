"""An image file's pixels as a model's input has them: in training and on the device by the same functions.

What counts is what a viewer shows: turned as the file says, on white where it is transparent, all of its depth.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt

from prunit.errors import DataError

FORMATS: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""What is read, in training and when served: Pillow's name of a format, and how the names of its files end."""
Fit = Literal["crop", "letterbox"]
"""How a photo is brought to a model's input: made to cover it, the centre cut out; or to fit in, with grey bars."""
BAR: Final = 114
"""The grey of the bars of a letterbox, as YOLO's trainers have it."""
_ORIENTATION: Final = 0x0112
_WHITE: Final = (255, 255, 255, 255)


@dataclass(frozen=True)
class Placing:
    """Where an upright photo lies in a model's input: pixel (x, y) of the photo at (x * scale_x + left, …)."""

    photo: tuple[int, int]
    """Height and width of the photo, turned as its EXIF orientation says."""
    size: tuple[int, int]
    """Height and width of the input."""
    scale_x: float
    scale_y: float
    left: float
    """Columns of the input left of the photo; negative where the photo is cut there."""
    top: float

    @staticmethod
    def of(photo: tuple[int, int], size: tuple[int, int], fit: Fit) -> "Placing":
        """Where `fitted` puts a photo of (height, width)."""
        (high, wide), (height, width) = photo, size
        if fit == "crop":
            scale = max(width / wide, height / high)
            new_w, new_h = max(width, round(wide * scale)), max(height, round(high * scale))
        else:
            scale = min(width / wide, height / high)
            new_w, new_h = max(1, min(width, round(wide * scale))), max(1, min(height, round(high * scale)))
        return Placing(photo, size, new_w / wide, new_h / high, (width - new_w) // 2, (height - new_h) // 2)

    @property
    def resized(self) -> tuple[int, int]:
        """Height and width of the whole photo in pixels of the input."""
        return round(self.photo[0] * self.scale_y), round(self.photo[1] * self.scale_x)

    def to_input(self, boxes_N4: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Boxes x1, y1, x2, y2 in pixels of the photo as pixels of the input; they may reach beyond it."""
        return boxes_N4 * self._scale_4() + self._offset_4()

    def to_photo(self, boxes_N4: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Boxes in pixels of the input as pixels of the photo, cut where they reach beyond it."""
        found = (boxes_N4 - self._offset_4()) / self._scale_4()
        high, wide = self.photo
        return np.clip(found, 0, np.array([wide, high, wide, high], np.float64))

    def _scale_4(self) -> npt.NDArray[np.float64]:
        return np.array([self.scale_x, self.scale_y] * 2, np.float64)

    def _offset_4(self) -> npt.NDArray[np.float64]:
        return np.array([self.left, self.top] * 2, np.float64)


def opened(file: Any) -> Any:
    """An image of Pillow of a path or a binary file in one of `FORMATS`; its pixels are not read yet."""
    from PIL import Image

    return Image.open(file, formats=tuple(FORMATS))


def fitted(image: Any, size: tuple[int, int], mode: str = "RGB") -> npt.NDArray[np.uint8]:
    """x_CHW of an opened image of Pillow: made as small as covers `size` (height, width), centre cut out.

    `mode` is RGB, or L for a model of one channel. The image is turned as its EXIF orientation says and composed on
    white where it is transparent; 16 bits become 8 by their scale. Of several frames the first is taken. Raises
    `DataError` where white is not known: floating-point pixels and more than 16 bits.
    """
    return placed(image, size, mode)[0]


def placed(
    image: Any, size: tuple[int, int], mode: str = "RGB", fit: Fit = "crop"
) -> tuple[npt.NDArray[np.uint8], Placing]:
    """x_CHW of an opened image of Pillow in the size (height, width) of a model's input, and where it lies there.

    As `fitted`, with a letterbox too. The photo of the placing has the size that the image has in its file, upright,
    though a JPEG may have been decoded at a fraction of it.
    """
    from PIL import Image

    height, width = size
    whole = image.size
    if image.format in ("JPEG", "MPO"):
        # One of a camera is decoded at a fraction of its size, never below twice the wanted one, however it lies.
        image.draft(mode, (2 * max(size), 2 * max(size)))
    key = _transparent(image)
    image.load()
    flat = _flat(image, mode, key)
    way = _turn(image)  # only now: Pillow turns a TIFF when it is loaded, and then takes its orientation away
    if way is not None:
        flat = flat.transpose(way)
    # The file's own size, which a draft divides; turned like the pixels.
    wide, high = whole if (whole[0] >= whole[1]) == (flat.width >= flat.height) else whole[::-1]
    placing = Placing.of((flat.height, flat.width), size, fit)
    resized = flat.resize(placing.resized[::-1], Image.Resampling.BILINEAR)
    left, top = int(placing.left), int(placing.top)
    if fit == "crop":
        pixels = np.asarray(resized.crop((-left, -top, width - left, height - top)), dtype=np.uint8)
    else:
        framed = Image.new(mode, (width, height), BAR if mode == "L" else (BAR,) * 3)
        framed.paste(resized, (left, top))
        pixels = np.asarray(framed, dtype=np.uint8)
    if (high, wide) != placing.photo:
        resized_h, resized_w = placing.resized
        placing = Placing((high, wide), size, resized_w / wide, resized_h / high, placing.left, placing.top)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), placing


def _turn(image: Any) -> Any:
    """How a loaded image is transposed to be seen as its EXIF orientation says; None: it stays, also if unreadable."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's readers fail in many ways; a viewer shows such an image as it is stored
        return None
    ways = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return ways.get(orientation) if isinstance(orientation, int) else None


def _transparent(image: Any) -> object:
    """The colour or palette entries that an image not yet loaded calls transparent, None without one.

    A PNG tells it in the depth of its file, and Pillow as it was told: here it is that of the loaded pixels.
    """
    key: object = image.info.get("transparency")
    depth = image.tile[0][3] if image.format == "PNG" and getattr(image, "tile", ()) else ""
    if isinstance(key, tuple):
        levels = cast("tuple[int, ...]", key)
        return tuple(level // 256 for level in levels) if depth == "RGB;16B" else levels
    if not isinstance(key, int):
        return key
    if image.mode == "1":
        return 255 if key else 0
    return key * {"L;2": 85, "L;4": 17}.get(depth, 1)


def _flat(image: Any, mode: str, key: object) -> Any:
    """A loaded image in `mode`, on white where it is transparent; `key` is the colour that is."""
    from PIL import Image

    if image.mode == "F":
        raise DataError("floating-point pixels, whose white is not known: convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        return _from_16_bits(image, key).convert(mode)
    if image.mode in ("L", "1", "RGB"):
        if not isinstance(key, int | tuple):
            return image.convert(mode)
        levels = np.asarray(image.convert("L" if image.mode == "1" else image.mode))
        clear = levels == np.asarray(key)
        clear = clear if clear.ndim == 2 else clear.all(axis=2, keepdims=True)
        return Image.fromarray(np.where(clear, np.uint8(255), levels)).convert(mode)
    if not (image.has_transparency_data or key is not None):
        # Not every mode knows the way to grey.
        return image.convert("RGB").convert(mode)
    shown = image.convert("LA") if image.mode == "La" else image
    above = shown.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", above.size, _WHITE), above).convert(mode)


def _from_16_bits(image: Any, key: object) -> Any:
    """Grey of 16 bits as grey of 8 bits: 65535 is white."""
    from PIL import Image

    levels = np.asarray(image)
    # Pillow has 32 signed bits where a PNG or PGM has 16; in a TIFF they are what they are called.
    if image.mode == "I" and (image.format == "TIFF" or levels.min() < 0 or levels.max() > 65535):
        raise DataError("whole numbers of more than 16 bits, whose white is not known: convert it to 8 or 16 bits")
    grey = ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if isinstance(key, int):
        grey[levels == key] = 255
    return Image.fromarray(grey)
