"""What a network's operators cost on an Ethos-U by a table of single layers, whatever its widths."""

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from prunit.mcu.layers import LayerKind, LayerShape, Padding
from prunit.mcu.network import IntegerNetwork, Operator
from prunit.mcu.tables import CycleTable

_FREE: Final = ("PAD", "PADV2", "RESHAPE", "CONCATENATION", "SPLIT", "STRIDED_SLICE", "QUANTIZE")
"""What the compiler merges into its neighbours, or does by addresses, as far as the table knows."""
_IMAGE: Final = 4
"""Dimensions of what has channels last: (1, height, width, channels)."""


def priced(network: IntegerNetwork, table: CycleTable) -> npt.NDArray[np.float64]:
    """Cycles of each operator by the table. Operators that it has no figures of count as a sum of two such tensors."""
    shapes = [shape_of(network, operator) for operator in network.operators]
    known = [shape for shape in shapes if shape is not None]
    cycles = iter(table.cycles_of(known).tolist()) if known else iter(())
    return np.array([0.0 if shape is None else float(next(cycles)) for shape in shapes])


def grid(network: IntegerNetwork, step: int) -> list[LayerShape]:
    """The layers of the network at every multiple of `step` channels up to their own, each once."""
    found: dict[LayerShape, None] = {}
    for operator in network.operators:
        shape = shape_of(network, operator)
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


def shape_of(network: IntegerNetwork, operator: Operator) -> LayerShape | None:
    """The layer of the table that an operator costs as much as; None where it costs nothing."""
    code, tensors = operator.code, network.by_name
    if code in _FREE:
        return None
    made = tensors[operator.outputs[0]].shape
    if code == "FULLY_CONNECTED":
        outputs, inputs = tensors[operator.inputs[1]].shape
        return LayerShape("linear", 1, 1, inputs, outputs)
    if code == "TRANSPOSE_CONV":  # the accelerator computes it as a convolution over the larger image
        outputs, *kernel, inputs = tensors[operator.inputs[1]].shape
        return LayerShape("conv", *_sides(made), inputs, outputs, (kernel[0], kernel[1]))
    read = tensors[operator.inputs[0]].shape
    stride = int(operator.options.get("strideH", 1)), int(operator.options.get("strideW", 1))
    padding: Padding = "SAME" if operator.options.get("padding") == "SAME" else "VALID"
    if code in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        weights = tensors[operator.inputs[1]].shape
        kind: LayerKind = "conv" if code == "CONV_2D" else "depthwise"
        inputs = weights[-1] if kind == "conv" else made[-1]
        dilated = [int(operator.options.get(f"dilation{axis}Factor", 1)) for axis in "HW"]
        kernel_hw = tuple((size - 1) * by + 1 for size, by in zip(weights[1:3], dilated, strict=True))
        return LayerShape(kind, *_sides(read), inputs, made[-1], (kernel_hw[0], kernel_hw[1]), stride, padding)
    if code == "MEAN":
        return LayerShape("mean", *_sides(read), read[-1], read[-1])
    if code in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        pool: LayerKind = "max_pool" if code == "MAX_POOL_2D" else "average_pool"
        window = int(operator.options["filterHeight"]), int(operator.options["filterWidth"])
        return LayerShape(pool, *_sides(read), read[-1], read[-1], window, stride, padding)
    return LayerShape("add", *_sides(made), made[-1], made[-1])


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width, 1 where there is none."""
    return (shape[1], shape[2]) if len(shape) == _IMAGE else (1, 1)
