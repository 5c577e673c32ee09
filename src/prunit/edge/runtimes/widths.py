"""Which numbers of channels an engine likes, by the kind of layer: measured by `bench/engine_widths.py`.

Engines compute on blocks of channels. A number that fits no `step` falls off the blocked kernels and costs more than
the next larger one that does; between two multiples of `block` no time is won. docs/benchmarks.md has the measurement.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prunit.errors import unknown

Kind = Literal["conv", "pointwise", "depthwise", "grouped", "linear"]
"""A convolution with a kernel over several positions, or over one; one that reads a single channel for each that it
makes; one that reads a part of them; a linear map, and what like it works on one position only.
"""


@dataclass(frozen=True)
class Liking:
    """Channels that a kind of layer is fast with: multiples of `step`, and of `block` the fastest for their number.

    Fewer than `least` save no time. All are powers of two, and of a grouped convolution they count in each part.
    """

    step: int
    block: int
    least: int = 1


ENGINES: Final[Mapping[str, Mapping[Kind, Liking]]] = {
    # The blocked convolution takes multiples of 4, of inputs below 16 any number, and works on 16 at a time; of a
    # grouped one every part must be whole blocks. What else there is gets a plain kernel and two changes of layout,
    # which a pointwise convolution of few inputs does not earn back.
    "onnxruntime": {
        "conv": Liking(4, 16),
        "pointwise": Liking(4, 16, least=16),
        "depthwise": Liking(4, 16),
        "grouped": Liking(16, 16),
        "linear": Liking(1, 1),
    },
    "openvino": {
        "conv": Liking(1, 16),
        "pointwise": Liking(1, 16),
        "depthwise": Liking(8, 16),
        "grouped": Liking(1, 16),
        "linear": Liking(1, 1),
    },
}


def liking(engine: str) -> Mapping[Kind, Liking]:
    """What this engine likes; `UnknownNameError` for one that was not measured."""
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES, "prune.round_to=8 suits most engines.")
    return ENGINES[engine]


def step_of(like: Liking, channels: int) -> int:
    """The step in which a layer of so many channels should be narrowed: a power of two, 1 where it makes no difference.

    Whole blocks where at least four of them are there, half a block where one is: a layer that is narrower has too few
    widths left to be cut where it bears it.
    """
    if channels >= 4 * like.block:
        return like.block
    if channels >= like.block:
        return max(like.block // 2, min(like.step, like.block))
    return like.step if channels >= 2 * like.step else 1
