"""A network of integers with other numbers of channels: the same operators, shapes that follow, made-up values.

What an interpreter takes and a compiler reports goes by shapes. So one export tells all plans of a model apart.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np

from prunit.errors import ModelError
from prunit.mcu.network import IntegerNetwork, Integers, Operator, Tensor

Sides = Mapping[str, tuple[int, int]]
"""By layer the channels that it reads and those that it makes; of a grouped one those of all parts."""
Shape = tuple[int, ...]

_WEIGHTED: Final = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_STEPS: Final = 127
_WORSE: Final = 1.05
"""Trained networks took up to 0.2 % more cycles and 0.8 % more flash than with 1, bench/mcu.py; 5 % are as much."""


def resized(network: IntegerNetwork, sides: Sides, *, drawn: bool = True) -> IntegerNetwork:
    """The network where each layer has these channels; others keep what they have.

    Weights are made up, distributed as trained ones are: compilers compress them. Where they are not `drawn` they are
    zeros that take no memory, for what goes by shapes alone. Raises `ModelError` where shapes do
    not go together any more, and for an operator whose shapes are not known to follow.
    """
    before = network.by_name
    now = dict(before)
    for operator in network.operators:
        _follow(operator, before, now, sides)
    tensors = [now[tensor.name] for tensor in network.tensors]
    if drawn:
        alike = Counter[Shape]()
        for i, tensor in enumerate(tensors):
            if tensor.kind == "int8" and tensor.values is not None:
                axis = tensor.axis if len(tensor.scales) > 1 else None
                tensors[i] = replace(tensor, values=_drawn(tensor.shape, axis, alike[tensor.shape]))
                alike[tensor.shape] += 1
    return replace(network, tensors=tensors)


def _follow(operator: Operator, before: Mapping[str, Tensor], now: dict[str, Tensor], sides: Sides) -> None:
    """Puts the operator's constants and outputs as they are with the inputs that are there now."""
    if operator.code in _WEIGHTED:
        shape = _weighted(operator, before, now, sides)
    elif operator.code in _SHAPES:
        shape = _SHAPES[operator.code](operator, before, now)
    else:
        raise ModelError(
            f"{operator.code} of '{operator.layer}' is not known to follow other numbers of channels; limit macs or"
            " params instead"
        )
    (name,) = operator.outputs
    now[name] = _reshaped(before[name], shape)


def _weighted(operator: Operator, before: Mapping[str, Tensor], now: dict[str, Tensor], sides: Sides) -> Shape:
    transposed = operator.code == "TRANSPOSE_CONV"
    weight = operator.inputs[1]
    image = operator.inputs[2] if transposed else operator.inputs[0]
    old, reads = before[weight].shape, now[image].shape[-1]
    inputs, makes = before[image].shape[-1], before[operator.outputs[0]].shape[-1]
    if operator.layer in sides:
        inputs, makes = sides[operator.layer]
    elif operator.code == "DEPTHWISE_CONV_2D":  # what scales each channel is no layer of the model
        inputs, makes = reads, reads * (makes // inputs)
    if operator.code == "FULLY_CONNECTED":
        shape: Shape = (makes, reads)
        told = reads % inputs == 0  # an image that was laid flat has several values of each channel
    elif operator.code == "DEPTHWISE_CONV_2D":
        shape, told = (*old[:3], makes), True
    elif before[image].shape[1:3] == (1, 1) and old[-1] == before[image].shape[-1]:  # a linear layer, as a convolution
        shape, told = (makes, *old[1:3], reads), reads % inputs == 0
    else:
        parts = before[image].shape[-1] // old[-1]
        shape, told = (makes, *old[1:3], inputs // parts), reads == inputs
    if not told or min(shape) < 1:
        raise ModelError(f"layer '{operator.layer}' would read {inputs} channels, but gets {reads}")
    now[weight] = _reshaped(before[weight], shape)
    for bias in operator.inputs[2 + transposed : 3 + transposed]:
        if bias:
            now[bias] = _reshaped(before[bias], (makes,))
    out = (*before[operator.outputs[0]].shape[:-1], makes)
    if transposed:
        now[operator.inputs[0]] = _holding(before[operator.inputs[0]], out)
    return out


def _as_input(operator: Operator, before: Mapping[str, Tensor], now: dict[str, Tensor]) -> Shape:
    """As many channels as the input, over the positions that the output has."""
    return (*before[operator.outputs[0]].shape[:-1], now[operator.inputs[0]].shape[-1])


def _element_wise(operator: Operator, before: Mapping[str, Tensor], now: dict[str, Tensor]) -> Shape:
    channels = max(now[name].shape[-1] for name in operator.inputs if before[name].values is None)
    for name in operator.inputs:
        constant = before[name]
        if constant.values is not None and constant.shape and constant.shape[-1] > 1:
            now[name] = _reshaped(constant, (*constant.shape[:-1], channels))
    shapes = [now[name].shape for name in operator.inputs]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        found = " and ".join(map(str, shapes))
        raise ModelError(f"{operator.code} of '{operator.layer}' would get {found}, which do not go together") from None


def _joined(operator: Operator, before: Mapping[str, Tensor], now: dict[str, Tensor]) -> Shape:
    old = before[operator.outputs[0]].shape
    axis = int(operator.options.get("axis", -1)) % len(old)
    parts = [now[name].shape for name in operator.inputs]
    return tuple(sum(p[i] for p in parts) if i == axis else parts[0][i] for i in range(len(old)))


def _laid_flat(operator: Operator, before: Mapping[str, Tensor], now: dict[str, Tensor]) -> Shape:
    """Another shape of as many values: the last dimension takes what the others leave."""
    old = before[operator.outputs[0]].shape
    count, others = math.prod(now[operator.inputs[0]].shape), math.prod(old[:-1])
    if count % others:
        raise ModelError(f"RESHAPE of '{operator.layer}' would lay {count} values out in {others} rows")
    shape = (*old[:-1], count // others)
    for name in operator.inputs[1:]:
        now[name] = _holding(before[name], shape)
    return shape


_SHAPES: Final[Mapping[str, Callable[[Operator, Mapping[str, Tensor], dict[str, Tensor]], Shape]]] = {
    **dict.fromkeys(("ADD", "MUL", "SUB", "PRELU"), _element_wise),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "PAD", "PADV2"), _as_input),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "QUANTIZE"), _as_input),
    **dict.fromkeys(("RELU", "RELU6", "LEAKY_RELU", "HARD_SWISH", "LOGISTIC", "TANH", "SOFTMAX"), _as_input),
    "CONCATENATION": _joined,
    "RESHAPE": _laid_flat,
    "STRIDED_SLICE": _as_input,
}


def _holding(tensor: Tensor, shape: Shape) -> Tensor:
    """A constant that says a shape."""
    return replace(tensor, values=np.array(shape, np.int32)) if tensor.values is not None else tensor


def _reshaped(tensor: Tensor, shape: Shape) -> Tensor:
    if shape == tensor.shape:
        return tensor
    scales = tensor.scales
    if len(scales) > 1:
        count = shape[tensor.axis]
        scales = (scales * -(-count // len(scales)))[:count]
    values = None if tensor.values is None else np.broadcast_to(np.zeros((), tensor.values.dtype), shape)
    return replace(tensor, shape=shape, scales=scales, values=values)


@lru_cache(maxsize=512)
def _drawn(shape: Shape, axis: int | None, number: int) -> Integers:
    """int8 values of a normal distribution; the largest of each index of `axis`, or of all, is the largest step.

    So are a trained network's, whose scales are those of its largest weights. With one spread for all layers, trained
    networks took 0.7 % more cycles than was said of their plans. Values that are larger beside the largest compress
    worse: they are by `_WORSE`, so that what a compiler says of a plan is rarely less than what it says after training.

    Each of several of a shape has its own `number`, and values: what is the same twice a compiler keeps once.
    """
    normal = np.random.default_rng((math.prod(shape), number)).standard_normal(shape, np.float32)
    others = None if axis is None else tuple(i for i in range(len(shape)) if i != axis % len(shape))
    largest = np.abs(normal).max(axis=others, keepdims=True, initial=1e-6)
    return np.clip(np.rint(normal * (_WORSE * _STEPS / largest)), -_STEPS, _STEPS).astype(np.int8)
