"""Paddings that become part of a kernel, where an arena is smaller for it.

PyTorch pads a convolution of stride 2 on both sides, TensorFlow Lite by its rule SAME on the far side first. So what
comes from PyTorch has an operator PAD there, and an image and its padded copy lie in the arena at once. With a row and
a column of zeros behind the kernel the rule pads on both sides, and the sums are the same to the bit.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from prunit.mcu.memory import ALIGNED, lives, most_at_once
from prunit.mcu.network import IntegerNetwork, Operator, Tensor

_WINDOWS: Final = ("CONV_2D", "DEPTHWISE_CONV_2D")
_ROWS: Final = 1
"""Where the weights of either have the rows of the kernel; the columns follow."""
_MOST: Final = 2
"""Zeros that a kernel gets on a side, at the most."""


def unpadded(network: IntegerNetwork) -> IntegerNetwork:
    """The network without those paddings whose copies are in the way when the most bytes are needed at once.

    The others stay: a larger kernel takes more multiplications. The answers are the same to the bit.
    """
    needed = _needed(network)
    while True:
        tried = [found for place in range(len(network.operators)) if (found := _without(network, place)) is not None]
        best = min(tried, key=_needed, default=None)
        if best is None or _needed(best) >= needed:
            return network
        network, needed = best, _needed(best)


def _needed(network: IntegerNetwork) -> int:
    return most_at_once(lives(network).values(), aligned=ALIGNED)


def _without(network: IntegerNetwork, place: int) -> IntegerNetwork | None:
    """The network without the operator at this place, None where it is no padding of zeros that a kernel can take."""
    pad = network.operators[place]
    if pad.code != "PAD":
        return None
    wide, around = pad.outputs[0], network.by_name[pad.inputs[1]].values
    readers = [operator for operator in network.operators if wide in operator.inputs]
    if around is None or len(readers) != 1 or wide in network.outputs or np.any(around[[0, 3]]):
        return None
    layer = readers[0]
    if layer.code not in _WINDOWS or layer.options["padding"] != "VALID" or layer.inputs[0] != wide:
        return None
    zeros = [_zeros(network, pad, layer, around, axis) for axis in (0, 1)]
    if None in zeros:
        return None
    weight = network.by_name[layer.inputs[1]]
    assert weight.values is not None
    grown = np.pad(weight.values, [(0, 0), *((z or (0, 0)) for z in zeros), (0, 0)])
    made = replace(weight, name=f"{weight.name}/{layer.layer}/unpadded", shape=grown.shape, values=grown)
    taken = replace(
        layer,
        inputs=(pad.inputs[0], made.name, *layer.inputs[2:]),
        options={**layer.options, "padding": "SAME"},
    )
    operators = [taken if operator is layer else operator for operator in network.operators if operator is not pad]
    return replace(network, tensors=_read(network, made, weight.name, operators), operators=operators)


def _zeros(
    network: IntegerNetwork, pad: Operator, layer: Operator, around: "np.ndarray", axis: int
) -> tuple[int, int] | None:
    """The fewest rows (axis 0) or columns of zeros before and behind the kernel with which SAME pads as `pad` does."""
    options, letter = layer.options, "HW"[axis]
    stride, dilation = options[f"stride{letter}"], options[f"dilation{letter}Factor"]
    size = network.by_name[pad.inputs[0]].shape[axis + 1]
    kernel = network.by_name[layer.inputs[1]].shape[_ROWS + axis]
    places, before = network.by_name[layer.outputs[0]].shape[axis + 1], int(around[axis + 1][0])
    if places != -(-size // stride):
        return None
    pairs = [(first, last) for first in range(_MOST + 1) for last in range(_MOST + 1)]
    for first, last in sorted(pairs, key=sum):
        reach = (kernel + first + last - 1) * dilation + 1
        overhang = max((places - 1) * stride + reach - size, 0)
        if overhang // 2 == before + first * dilation:
            return first, last
    return None


def _read(network: IntegerNetwork, made: Tensor, before: str, operators: Sequence[Operator]) -> list[Tensor]:
    """The tensors that are still read or made, the new weights in the place of the old ones."""
    used = {name for operator in operators for name in (*operator.inputs, *operator.outputs)}
    used |= {*network.inputs, *network.outputs}
    found: list[Tensor] = []
    for tensor in network.tensors:
        if tensor.name == before:
            found.append(made)
        if tensor.name in used:
            found.append(tensor)
    return found
