"""What a network of integers holds at once while it runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from prunit.mcu.network import IntegerNetwork, Tensor

ALIGNED: Final = 16
"""Bytes that TensorFlow Lite Micro aligns tensors to."""
_IMAGE: Final = 4
"""Dimensions of what has channels last: (1, height, width, channels)."""


@dataclass(frozen=True)
class Life:
    """The operators from the one that makes a tensor to the last that reads it, by their places in the network.

    An input of the network is there from the first operator on; an output beyond the last.
    """

    first: int
    last: int
    bytes: int

    def meets(self, other: "Life") -> bool:
        """Both are needed at once at some time."""
        return self.first <= other.last and other.first <= self.last


def lives(network: IntegerNetwork, *, brick: int = 1) -> Mapping[str, Life]:
    """By name when each tensor that is no constant is needed; images in whole bricks of so many channels."""
    constants = {tensor.name for tensor in network.tensors if tensor.values is not None}
    born = dict.fromkeys(network.inputs, 0)
    dies = dict.fromkeys(network.outputs, len(network.operators))
    for step, operator in enumerate(network.operators):
        for name in operator.outputs:
            born.setdefault(name, step)
        for name in operator.inputs:
            if name and name not in constants:
                dies[name] = max(dies.get(name, 0), step)
    return {
        name: Life(first, dies.get(name, first), _bytes(network.by_name[name], brick)) for name, first in born.items()
    }


def live_bytes(network: IntegerNetwork, *, brick: int = 1) -> int:
    """The most bytes of tensors that are needed at once, an operator's inputs and outputs among them.

    Images take whole bricks of so many channels, as in the layout of an NPU.
    """
    return most_at_once(lives(network, brick=brick).values())


def most_at_once(lives: Iterable[Life], *, aligned: int = 1) -> int:
    """The most bytes of tensors that are needed at once, each rounded up to a multiple of `aligned`."""
    some = list(lives)
    held = np.zeros(max((life.last for life in some), default=0) + 1, np.int64)
    for life in some:
        held[life.first : life.last + 1] += -(-life.bytes // aligned) * aligned
    return int(held.max(initial=0))


def _bytes(tensor: Tensor, brick: int) -> int:
    if len(tensor.shape) != _IMAGE:
        return tensor.bytes
    channels = tensor.shape[-1]
    return tensor.bytes // channels * (-(-channels // brick) * brick)
