"""What a network of integers holds at once while it runs."""

from typing import Final

import numpy as np

from prunit.mcu.network import IntegerNetwork, Tensor

_IMAGE: Final = 4
"""Dimensions of what has channels last: (1, height, width, channels)."""


def live_bytes(network: IntegerNetwork, *, brick: int = 1) -> int:
    """The most bytes of tensors that are needed at once, an operator's inputs and outputs among them.

    Images take whole bricks of so many channels, as in the layout of an NPU.
    """
    constants = {tensor.name for tensor in network.tensors if tensor.values is not None}
    born = dict.fromkeys(network.inputs, 0)
    dies = dict.fromkeys(network.outputs, len(network.operators))
    for step, operator in enumerate(network.operators):
        for name in operator.outputs:
            born.setdefault(name, step)
        for name in operator.inputs:
            if name and name not in constants:
                dies[name] = max(dies.get(name, 0), step)
    held = np.zeros(len(network.operators) + 1, np.int64)
    for name, first in born.items():
        held[first : dies.get(name, first) + 1] += _bytes(network.by_name[name], brick)
    return int(held.max(initial=0))


def _bytes(tensor: Tensor, brick: int) -> int:
    if len(tensor.shape) != _IMAGE:
        return tensor.bytes
    channels = tensor.shape[-1]
    return tensor.bytes // channels * (-(-channels // brick) * brick)
