"""What a network's operators cost on an Ethos-U by a table of single layers, whatever its widths."""

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from prunit.mcu.layers import LayerShape
from prunit.mcu.network import IntegerNetwork, Operator
from prunit.mcu.shapes import FREE, shapes_of
from prunit.mcu.tables import CycleTable

_MOVES: Final = ("PADV2", "CONCATENATION", "STRIDED_SLICE", "QUANTIZE")
"""What the compiler does mostly by addresses."""
_IMAGE: Final = 4
"""Dimensions of what has channels last: (1, height, width, channels)."""


def priced(network: IntegerNetwork, table: CycleTable) -> npt.NDArray[np.float64]:
    """Cycles of each operator by the table; of operators that it does not know, those of the likest that it does.

    A sum of two such tensors for what works element by element, a dense convolution of as many multiply-adds for a
    grouped one: who goes by that lets the compiler correct it.
    """
    shapes = layers_priced(network)
    known = [shape for shape in shapes if shape is not None]
    cycles = iter(table.cycles_of(known).tolist() if known else [])
    return np.array([0.0 if shape is None else float(next(cycles)) for shape in shapes])


def layers_priced(network: IntegerNetwork) -> list[LayerShape | None]:
    """The layer of the table that each operator costs as much as; None where it costs nothing."""
    exact = shapes_of(network)
    return [exact.get(operator.outputs[0]) or _likest(network, operator) for operator in network.operators]


def grid(network: IntegerNetwork, step: int) -> list[LayerShape]:
    """The layers of the network at every multiple of `step` channels up to their own, each once."""
    found: dict[LayerShape, None] = {}
    for shape in layers_priced(network):
        if shape is None:
            continue
        inputs, outputs = (_multiples(count, step) for count in (shape.inputs, shape.outputs))
        if shape.kind in ("conv", "linear"):
            found.update((replace(shape, inputs=i, outputs=o), None) for i in inputs for o in outputs)
        else:
            found.update((replace(shape, inputs=o, outputs=o), None) for o in outputs)
    return list(found)


def _multiples(count: int, step: int) -> list[int]:
    return [*range(step, count, step), count]


def _likest(network: IntegerNetwork, operator: Operator) -> LayerShape | None:
    if operator.code in (*FREE, *_MOVES):
        return None
    tensors = network.by_name
    made = tensors[operator.outputs[0]].shape
    height, width = (made[1], made[2]) if len(made) == _IMAGE else (1, 1)
    if operator.code in ("CONV_2D", "TRANSPOSE_CONV"):
        outputs, *kernel, inputs = tensors[operator.inputs[1]].shape
        return LayerShape("conv", height, width, inputs, outputs, (kernel[0], kernel[1]))
    if operator.code == "DEPTHWISE_CONV_2D":
        _, *kernel, channels = tensors[operator.inputs[1]].shape
        return LayerShape("depthwise", height, width, channels, channels, (kernel[0], kernel[1]))
    return LayerShape("add", height, width, made[-1], made[-1])
