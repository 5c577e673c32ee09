"""Precisions of variants: what numbers an exported model computes with, and how one of fewer bits came about."""

from typing import Literal

from pydantic import Field, NonNegativeInt

from prunit.edge.records import Record

Precision = Literal["fp32", "bf16", "int8"]
"""`fp32` as trained; `bf16` the same file, computed by an engine that rounds to 8 bits of mantissa; `int8` a file of
its own whose weights and activations are integers."""


class Comparison(Record):
    """The main metric less that of another variant on the same images, with its 95 % interval."""

    of: str
    difference: float
    low: float
    high: float


class Lowered(Record):
    """How a variant of fewer bits was made of its float `twin`, and what that costs on the test images.

    `method` says how the ranges of activations were found, from `images` training images drawn with `seed`, by
    `library` (name and version); `tuned` for how many epochs the weights were trained for it, 0 where they are the
    twin's. `float_layers` are those left in float. `agreement` is the share of test images of a classifier that get
    the twin's answer. `against` is the paired difference to the twin, of outputs that the engine gave.
    """

    twin: str
    method: str = ""
    images: NonNegativeInt = 0
    seed: int = 0
    library: str = ""
    tuned: NonNegativeInt = 0
    float_layers: tuple[str, ...] = ()
    agreement: float | None = Field(default=None, ge=0, le=1)
    against: Comparison | None = None


class LeftOut(Record):
    """A variant of fewer bits that was made and not kept, with the reason in one line."""

    name: str
    precision: Precision
    why: str


def name_in(twin: str, precision: Precision) -> str:
    """What the variant of a float twin is called in a precision: `macs-1-4` in int8 is `macs-1-4-int8`."""
    return twin if precision == "fp32" else f"{twin}-{precision}"
