"""Targets of images as files hold them, and how they are brought to the input of a model: `Targets.of`.

The same functions do it in training and on a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from prunit.edge.pixels import Placing, opened
from prunit.errors import DataError

Array = npt.NDArray[Any]
IGNORED: Final = 255
"""The class of a pixel that counts neither way."""
NO_BOX: Final = -1.0
"""The label of rows that only fill up a batch of boxes."""
_BINS: Final = 10


class Misfit(DataError):
    """A target that does not fit its image: boxes or a mask made for another size."""


class Targets(Protocol):
    """The targets of so many images, in the units of the photos."""

    def __len__(self) -> int: ...

    def taken(self, index: Sequence[int]) -> Self:
        """Those of some images."""
        ...

    def of(self, i: int, placing: Placing) -> Array:
        """The target of image i in pixels of the input in which the photo lies so; `Misfit` where it cannot be."""
        ...

    def together(self, found: Sequence[Array]) -> Array:
        """Several of these as one array (N, …), as tasks take them."""
        ...

    def strata(self) -> npt.NDArray[np.int64]:
        """A number from 0 for each image (N,): splits take images of each as evenly as they can."""
        ...


@dataclass(frozen=True, eq=False)
class Values:
    """Numbers that do not move with the photo: classes (N,), int64; labels (N, K) or values (N, D), float32."""

    values: Array
    several: bool = False
    """Each column is a label of its own: 0 or 1."""

    def __len__(self) -> int:
        return len(self.values)

    def taken(self, index: Sequence[int]) -> "Values":
        return Values(self.values[np.asarray(index, np.int64)], self.several)

    def of(self, i: int, placing: Placing) -> Array:
        return self.values[i]

    def together(self, found: Sequence[Array]) -> Array:
        return np.stack(found) if len(found) else self.values[:0]

    def strata(self) -> npt.NDArray[np.int64]:
        """The class; the rarest label (0 without any); for values the tenth in which the first one lies."""
        if self.values.ndim == 1:
            return self.values.astype(np.int64)
        if self.several:
            return _rarest([np.flatnonzero(row) for row in self.values], self.values.shape[1])
        first, bins = self.values[:, 0], max(1, min(_BINS, len(self.values) // 5))
        edges = np.quantile(first, np.arange(1, bins) / bins) if len(first) else np.zeros(0)
        return np.searchsorted(edges, first, side="right").astype(np.int64)


@dataclass(frozen=True, eq=False)
class Boxes:
    """For each image boxes (M, 6): x1, y1, x2, y2, label, and 1 where the object is not to count (crowd, difficult)."""

    boxes: tuple[npt.NDArray[np.float64], ...]
    frames: tuple[tuple[int, int], ...]
    """Height and width of the photo in whose pixels the boxes are; (1, 1): shares of it; (0, 0): it was not said."""

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def number(self) -> int:
        """Of all boxes."""
        return sum(len(boxes) for boxes in self.boxes)

    def taken(self, index: Sequence[int]) -> "Boxes":
        return Boxes(tuple(self.boxes[i] for i in index), tuple(self.frames[i] for i in index))

    def of(self, i: int, placing: Placing) -> Array:
        """(M, 6), float32; what a crop leaves nothing of is not there."""
        boxes_M6, (high, wide) = self.boxes[i].copy(), self.frames[i]
        photo_h, photo_w = placing.photo
        if (high, wide) == (1, 1):
            boxes_M6[:, :4] *= [photo_w, photo_h, photo_w, photo_h]
        elif (high, wide) not in ((0, 0), placing.photo):
            raise Misfit(
                f"its boxes are for {wide}x{high}, the photo, turned as its file says, has {photo_w}x{photo_h};"
                " annotate this photo anew, or put the one back for which they were made"
            )
        boxes_M6[:, :4] = clipped(boxes_M6[:, :4], placing.photo)
        height, width = placing.size
        boxes_M6[:, :4] = clipped(placing.to_input(boxes_M6[:, :4]), (height, width))
        return boxes_M6[has_area(boxes_M6)].astype(np.float32)

    def together(self, found: Sequence[Array]) -> Array:
        """(N, M, 6), float32, M of the image with most boxes; rows that fill up have label -1."""
        most = max((len(boxes) for boxes in found), default=0)
        all_NM6 = np.zeros((len(found), most, 6), np.float32)
        all_NM6[:, :, 4] = NO_BOX
        for row, boxes in zip(all_NM6, found, strict=True):
            row[: len(boxes)] = boxes
        return all_NM6

    def strata(self) -> npt.NDArray[np.int64]:
        """One more than the class with fewest boxes of those in the image; 0 without boxes."""
        labels = [boxes[:, 4].astype(np.int64) for boxes in self.boxes]
        return _rarest(labels, 1 + max((int(one.max()) for one in labels if len(one)), default=-1))


@dataclass(frozen=True, eq=False)
class Masks:
    """For each image the file of its mask; `classes` (256,) holds the class of each value that a mask may have."""

    paths: tuple[Path, ...]
    classes: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.paths)

    def taken(self, index: Sequence[int]) -> "Masks":
        return Masks(tuple(self.paths[i] for i in index), self.classes)

    def of(self, i: int, placing: Placing) -> Array:
        """(H, W), uint8: the nearest pixel's class; bars around the photo are not to count."""
        from PIL import Image

        try:
            values = mask_values(self.paths[i])
        except Exception as cause:  # decoders fail in many ways
            reason = " ".join(str(cause).split()) or type(cause).__name__
            raise Misfit(f"its mask '{self.paths[i]}' cannot be used: {reason}") from cause
        if values.shape != placing.photo:
            (high, wide), (photo_h, photo_w) = values.shape, placing.photo
            raise Misfit(
                f"its mask '{self.paths[i]}' has {wide}x{high} pixels, the photo, turned as its file says,"
                f" {photo_w}x{photo_h}; make both of one size"
            )
        resized_h, resized_w = placing.resized
        mask = Image.fromarray(self.classes[values]).resize((resized_w, resized_h), Image.Resampling.NEAREST)
        height, width = placing.size
        framed = Image.new("L", (width, height), IGNORED)
        framed.paste(mask, (int(placing.left), int(placing.top)))
        return np.asarray(framed, np.uint8)

    def together(self, found: Sequence[Array]) -> Array:
        return np.stack(found) if len(found) else np.zeros((0, 0, 0), np.uint8)

    def strata(self) -> npt.NDArray[np.int64]:
        return np.zeros(len(self.paths), np.int64)


def mask_values(path: Path) -> npt.NDArray[np.uint8]:
    """(H, W): the palette's indices of an indexed image, the levels of a grey one; black is 0 and white 255.

    `DataError` for colours and for more than 8 bits that are in use; it does not name the file.
    """
    with opened(path) as image:
        image.load()
        if image.mode in ("P", "L"):
            return np.asarray(image, np.uint8)
        if image.mode == "1":
            return np.asarray(image.convert("L"), np.uint8)
        values = np.asarray(image)
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise DataError(
                "it holds colours, not classes: write the number of each pixel's class, as indexed or grey PNG"
            )
        values = colours[..., 0]
    if values.dtype.kind not in "iub" or values.min() < 0 or values.max() > IGNORED:
        raise DataError(
            f"it holds values from {values.min()} to {values.max()}: classes are 0 to 254, and 255 is left out"
        )
    return values.astype(np.uint8)


def clipped(boxes_M4: Array, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Boxes cut at the border of a photo of (height, width)."""
    high, wide = size
    return np.clip(boxes_M4, 0, np.array([wide, high, wide, high], np.float64))


def has_area(boxes_MX: Array) -> npt.NDArray[np.bool_]:
    """For each box whether there is anything in it."""
    return (boxes_MX[:, 2] > boxes_MX[:, 0]) & (boxes_MX[:, 3] > boxes_MX[:, 1])


def _rarest(labels: Sequence[npt.NDArray[Any]], number: int) -> npt.NDArray[np.int64]:
    """One more than the rarest of each image's labels, 0 where it has none."""
    if not number:
        return np.zeros(len(labels), np.int64)
    counts = np.bincount(np.concatenate([one.astype(np.int64) for one in labels]), minlength=number)
    found = [1 + int(one[np.argmin(counts[one])]) if len(one) else 0 for one in labels]
    return np.array(found, np.int64)
