"""Layers with weights: convolutions, transposed ones and linear layers, with int8 weights by output channel."""

from typing import Final

import numpy as np

from prunit.export.quantising.network import WEIGHTED
from prunit.export.quantising.writing import LARGEST_BIAS
from prunit.export.tflite.building import Building, Figures
from prunit.export.tflite.padding import window_of
from prunit.export.tflite.reading import Step, float_constant
from prunit.export.tflite.spans import Quant

_LEAST: Final = 2.0**-30
"""Of a step of products, in steps of the answer. A kernel's multiplier of less than 2 ** -31 is taken for 0."""
_SILENT: Final = 2.0**-20
"""The same where all weights are 0: steps in which the bias, of at most 255 of the answer's, is exact."""

_PLAIN: Final = {"padding": "VALID", "strideH": 1, "strideW": 1, "dilationWFactor": 1, "dilationHFactor": 1}
"""A window of one pixel."""

_GROUPED: Final = 6
"""The version of CONV_2D that knows groups."""


def conv(building: Building, step: Step) -> None:
    """CONV_2D, with groups of channels too, or DEPTHWISE_CONV_2D where each channel is a group."""
    x, weight_OIHW = step.input(0), _weight(building, step, rank=4)
    groups, inputs, outputs = step.attributes.get("group", 1), building.graph.shape(x)[1], len(weight_OIHW)
    window = window_of(building.graph, step, weight_OIHW.shape[2:])
    padded, padding = window.padded(building, step, x)
    options = {
        **window.options(padding),
        "dilationWFactor": window.dilations[1],
        "dilationHFactor": window.dilations[0],
        "fusedActivationFunction": building.flag(step),
    }
    bias = _bias(building, step, outputs)
    if groups == inputs > 1:
        weight_HWO = weight_OIHW[:, 0].transpose(1, 2, 0)
        names = weights(building, step, weight_HWO[None], bias, axis=3)
        options["depthMultiplier"] = outputs // inputs
        building.emit("DEPTHWISE_CONV_2D", step, [padded, *names], step.output, options)
    else:
        names = weights(building, step, weight_OIHW.transpose(0, 2, 3, 1), bias, axis=0)
        version = None if groups == 1 else _GROUPED
        building.emit("CONV_2D", step, [padded, *names], step.output, options, version=version)


def conv_transpose(building: Building, step: Step) -> None:
    """TRANSPOSE_CONV, where TensorFlow Lite's rule gives the very paddings that the layer has."""
    weight_IOHW = _weight(building, step, rank=4)
    kernel = weight_IOHW.shape[2:]
    window = window_of(building.graph, step, kernel, transposed=True)
    rule, what = window.rule, "TRANSPOSE_CONV knows no groups and no dilation"
    if step.attributes.get("group", 1) != 1 or window.dilations != (1, 1) or rule is None:
        if rule is None:
            what = f"TRANSPOSE_CONV cannot place a kernel {kernel} at strides {window.strides} {window.before} outside"
        instead = "use nn.ConvTranspose2d(…, 2, stride=2) or (…, 4, stride=2, padding=1), or nn.Upsample and nn.Conv2d"
        raise building.graph.refused(step, what, instead)
    bias = _bias(building, step, weight_IOHW.shape[1])
    names = weights(building, step, weight_IOHW.transpose(1, 2, 3, 0), bias, axis=0)
    answer, x = building.activation(step.output), building.activation(step.input(0))
    shape = building.constant(f"{answer}/shape", np.array(building.shape(answer), np.int32))
    building.emit("TRANSPOSE_CONV", step, [shape, names[0], x, names[1]], answer, window.options(rule))


def linear(building: Building, step: Step) -> None:
    """A 1x1 convolution for Gemm and for MatMul with a constant, the weight's inputs in the order of what flows in.

    FULLY_CONNECTED would be the obvious one. But its kernels round otherwise here than there: LiteRT's once, those of
    TensorFlow Lite Micro twice, which is a step at some answers in ten thousand. Those of CONV_2D agree.
    """
    x, graph = step.input(0), building.graph
    if len(graph.shape(x)) != 2:
        raise graph.refused(
            step, "a linear layer takes one row of values", "flatten the image before it, or use a 1x1 convolution"
        )
    weight = _weight(building, step, rank=2)
    attributes = step.attributes if step.operator == "Gemm" else {}
    if attributes.get("transA", 0):
        raise graph.refused(step, "its input is transposed", "write it as nn.Linear")
    weight_OI = weight if attributes.get("transB", 0) else weight.T
    weight_OI = weight_OI * attributes.get("alpha", 1.0)
    order = building.orders.get(x)
    if order is not None:
        weight_OI = weight_OI.reshape(-1, *order).transpose(0, 2, 3, 1).reshape(len(weight_OI), -1)
    bias = _bias(building, step, len(weight_OI))
    bias = None if bias is None else bias * attributes.get("beta", 1.0)
    names = weights(building, step, weight_OI[:, None, None], bias, axis=0)
    pixel = building.pixel(step, x)
    answer = building.row(step, step.output, size=len(weight_OI))
    building.emit("CONV_2D", step, [pixel, *names], answer, {**_PLAIN, "fusedActivationFunction": building.flag(step)})


def affine(building: Building, step: Step, x: str, factor_C: Figures, offset_C: Figures) -> None:
    """x times a factor plus an offset, each channel its own, as a depthwise 1x1 convolution: exact to a rounding."""
    names = weights(building, step, factor_C[None, None, None], offset_C, axis=3, of=x)
    options = {**_PLAIN, "depthMultiplier": 1, "fusedActivationFunction": building.flag(step)}
    building.emit("DEPTHWISE_CONV_2D", step, [building.activation(x), *names], step.output, options)


def batch_norm(building: Building, step: Step) -> None:
    """A batch norm that no convolution took up."""
    gain, offset, mean, variance = (float_constant(building.graph, step.input(i)) for i in range(1, 5))
    if (
        gain is None
        or offset is None
        or mean is None
        or variance is None
        or len(building.graph.shape(step.input(0))) != 4
    ):
        raise building.graph.refused(
            step, "it is no batch norm of images with constant statistics", "export the model in eval mode"
        )
    factor_C = gain / np.sqrt(variance + step.attributes.get("epsilon", 1e-5))
    affine(building, step, step.input(0), factor_C, offset - mean * factor_C)


def hard_sigmoid(building: Building, step: Step) -> None:
    """alpha * x + beta, cut off at 0 and 1 by the range of the answer."""
    shape = building.graph.shape(step.input(0))
    if len(shape) != 4:
        raise building.graph.refused(step, "only images (1, C, H, W) are supported", "apply it before the flattening")
    alpha, beta = step.attributes.get("alpha", 0.2), step.attributes.get("beta", 0.5)
    affine(building, step, step.input(0), np.full(shape[1], alpha), np.full(shape[1], beta))


def weights(
    building: Building, step: Step, weight: Figures, bias: Figures | None, *, axis: int, of: str | None = None
) -> list[str]:
    """The names of weight and bias as integers, a scale for each index of `axis`.

    A channel whose bias would not fit into int32 beside its products gets larger steps: with weights of 0 nothing else
    says what its steps are.
    """
    into = building.quants[step.input(0) if of is None else of]
    scales = _scales(weight, bias, into, building.quants[step.output], axis=axis)
    shape = [1] * weight.ndim
    shape[axis] = -1
    steps = np.clip(np.rint(weight / scales.reshape(shape)), -127, 127).astype(np.int8)
    name = step.input(1) if step.operator in WEIGHTED else f"{step.layer}.weight"
    found = [building.constant(name, steps, tuple(scales.tolist()), axis=axis)]
    offsets = np.zeros(len(scales)) if bias is None else bias
    fine = (np.float32(into.scale) * scales.astype(np.float32)).astype(np.float64)
    values = np.rint(offsets / fine).astype(np.int32)
    return [*found, building.constant(f"{step.layer}.bias", values, tuple(fine.tolist()))]


def _scales(weight: Figures, bias: Figures | None, into: Quant, out: Quant, *, axis: int) -> Figures:
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    least = np.where(largest > 0, _LEAST, _SILENT) * out.scale / into.scale
    if bias is not None:
        least = np.maximum(least, np.abs(bias) / LARGEST_BIAS / into.scale)
    return np.maximum(largest / 127, least).astype(np.float32).astype(np.float64)


def _weight(building: Building, step: Step, *, rank: int) -> Figures:
    values = float_constant(building.graph, step.input(1))
    if values is None:
        raise building.graph.refused(step, "its weight is computed as the network runs", "make the weight a parameter")
    if values.ndim != rank:
        raise building.graph.refused(
            step, f"its weight has shape {values.shape}, not {rank} dimensions", "use layers on images (1, C, H, W)"
        )
    return values


def _bias(building: Building, step: Step, outputs: int) -> Figures | None:
    name = step.input(2)
    values = float_constant(building.graph, name)
    if values is None and not name:
        return None
    if values is None or values.size not in (1, outputs):
        raise building.graph.refused(step, "its bias is not a constant for each output", "make the bias a parameter")
    return np.broadcast_to(values.reshape(-1), (outputs,)).astype(np.float64)
