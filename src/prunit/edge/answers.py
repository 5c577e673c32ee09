"""Which test images a variant ranked correctly, one by one: what it takes to compare two variants in pairs."""

import base64
import binascii
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt, model_validator

from prunit.edge.records import Record
from prunit.shown import Table

_PER_BYTE: Final = 8


class Answers(Record):
    """Right or wrong for each of `images` test images, in their order.

    `right` are bits in base64, the first image in the highest bit of the first byte: 1.7 KB for 10,000 images.
    `commonest` counts the images of the class that has most of them: what naming that class every time gets right.
    `test_set` (16 hex digits) is the same for the same images in the same order.
    """

    images: PositiveInt
    commonest: PositiveInt
    test_set: str = Field(pattern="^[0-9a-f]{16}$")
    right: str

    @model_validator(mode="after")
    def _fit(self) -> Self:
        try:
            packed = base64.b64decode(self.right, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("right: it is not base64") from None
        needed = -(-self.images // _PER_BYTE)
        if len(packed) != needed:
            raise ValueError(f"right: {len(packed)} bytes; {self.images} images need {needed}")
        if int.from_bytes(packed) % (1 << (_PER_BYTE * needed - self.images)):
            raise ValueError(f"right: bits beyond the {self.images} images are set")
        if self.commonest > self.images:
            raise ValueError(f"commonest: {self.commonest} of {self.images} images")
        return self

    @classmethod
    def of(cls, right_N: npt.NDArray[np.bool_], *, commonest: int, test_set: str) -> Self:
        """The record of bools, one for each image."""
        packed = base64.b64encode(np.packbits(right_N).tobytes()).decode("ascii")
        return cls(images=len(right_N), commonest=commonest, test_set=test_set, right=packed)

    @property
    def right_N(self) -> npt.NDArray[np.bool_]:
        """For each image whether it was right."""
        packed = np.frombuffer(base64.b64decode(self.right), np.uint8)
        return np.unpackbits(packed, count=self.images).astype(np.bool_)

    @property
    def accuracy(self) -> float:
        """Share (0 to 1) of the images that were right."""
        return self.bits().bit_count() / self.images

    def bits(self) -> int:
        """The answers as the bits of one number, with which counting is quick."""
        return int.from_bytes(base64.b64decode(self.right))

    def _table(self) -> Table:
        share = f"{self.accuracy:.1%} of {self.images:,} test images right"
        return Table(f"Answers: {share}; the commonest class has {self.commonest / self.images:.1%}")


@dataclass(frozen=True)
class Pairs:
    """How many images two variants both ranked correctly, only the first one, only the second one, or neither."""

    both: int
    first: int
    second: int
    neither: int

    @property
    def images(self) -> int:
        return self.both + self.first + self.second + self.neither


def pairs(first: Answers | None, second: Answers | None) -> Pairs | None:
    """The answers of two variants side by side; None where one is missing, or the images were not the same."""
    if first is None or second is None:
        return None
    if (first.images, first.test_set) != (second.images, second.test_set):
        return None
    one, two = first.bits(), second.bits()
    both, either = (one & two).bit_count(), (one | two).bit_count()
    return Pairs(both, one.bit_count() - both, two.bit_count() - both, first.images - either)
