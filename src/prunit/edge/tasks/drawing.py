"""Answers drawn on a photo by Pillow: a colour for each class, boxes with their labels."""

import colorsys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prunit.errors import MissingExtraError

Colour = tuple[int, int, int]

_TOLD_APART: Final[tuple[Colour, ...]] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Also by people who do not see all colours (Okabe and Ito, 2008)."""
_GOLDEN: Final = 0.618034


def colour_of(label: int) -> Colour:
    """The colour of a class by its index, always the same."""
    if label < len(_TOLD_APART):
        return _TOLD_APART[label]
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN % 1.0, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is read better on it."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def draw_boxes(
    photo_HWC: npt.NDArray[np.uint8], boxes_N4: npt.NDArray[Any], labels: Sequence[int], texts: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """A copy of the photo with boxes x1, y1, x2, y2 in its pixels, each with a text at its upper left corner.

    The last ones are drawn first, so that those with the highest scores lie on top. `MissingExtraError` without Pillow.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise MissingExtraError("drawing boxes", "pillow", "evaluate") from error
    picture = Image.fromarray(photo_HWC).convert("RGB")
    pencil = ImageDraw.Draw(picture)
    height, width = photo_HWC.shape[:2]
    font = ImageFont.load_default(max(10, round(min(height, width) / 30)))
    line = max(1, round(min(height, width) / 200))
    for box_4, label, text in reversed(list(zip(boxes_N4.tolist(), labels, texts, strict=True))):
        colour = colour_of(label)
        x1, y1, x2, y2 = box_4
        pencil.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=line)
        left, top, right, bottom = pencil.textbbox((0, 0), text, font=font)
        # Above the box where there is room, and never outside of the photo.
        x = max(0.0, min(x1, width - (right - left) - 4))
        y = y1 - (bottom - top) - 4 if y1 >= bottom - top + 4 else y1
        pencil.rectangle((x, y, x + right - left + 4, y + bottom - top + 4), fill=colour)
        pencil.text((x + 2 - left, y + 2 - top), text, fill=ink_on(colour), font=font)
    return np.asarray(picture, dtype=np.uint8)
