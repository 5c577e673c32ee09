"""Layers by their shapes alone, and networks drawn of them with random weights: what compilers are asked about.

Cycles and arenas depend on shapes, hardly on values, so that a search can ask about networks that nobody has made yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from prunit.errors import ModelError
from prunit.mcu.network import IntegerNetwork, Operator, Tensor

LayerKind = Literal["conv", "depthwise", "linear", "add", "mean", "max_pool", "average_pool"]
"""What the parts' tables know. `mean` is over all positions; `add` is of two tensors of one shape."""

KINDS: Final[tuple[LayerKind, ...]] = ("conv", "depthwise", "linear", "add", "mean", "max_pool", "average_pool")
Padding = Literal["SAME", "VALID"]
Pair = tuple[int, int]

_SCALE: Final = 0.05
"""Real value of a step of every activation: figures of cycles and memory do not depend on it."""


@dataclass(frozen=True)
class LayerShape:
    """A layer as it costs: `height` and `width` of its input in pixels, channels, kernel and stride (height, width).

    `first` says that it reads the network's input, which lies in memory in another way than what a layer made before.
    A linear layer has height and width 1. A layer that makes as many channels as it reads, as a depthwise one of
    multiplier 1, has `outputs` = `inputs`.
    """

    kind: LayerKind
    height: int
    width: int
    inputs: int
    outputs: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Padding = "SAME"
    first: bool = False

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.inputs, self.outputs, *self.kernel, *self.stride) < 1:
            raise ModelError(f"a layer's sizes are at least 1; got {self}")
        if self.kind not in ("conv", "linear") and self.outputs != self.inputs:
            raise ModelError(f"{self.kind} makes as many channels as it reads; got {self.inputs} and {self.outputs}")
        if min(self.size) < 1:
            raise ModelError(f"the kernel {self.kernel} is larger than the image of {self.height}x{self.width}: {self}")

    @property
    def size(self) -> Pair:
        """Height and width of its output."""
        if self.kind in ("linear", "mean"):
            return 1, 1
        if self.padding == "SAME":
            return -(-self.height // self.stride[0]), -(-self.width // self.stride[1])
        return (
            (self.height - self.kernel[0]) // self.stride[0] + 1,
            (self.width - self.kernel[1]) // self.stride[1] + 1,
        )


class Drawing:
    """A network that grows by layers; each method gives the name of its output, which also names the layer.

    Every layer but a linear one ends in a ReLU. Weights are normal, the largest of a channel 127, as those of a network
    before it is trained and about as after: uniform ones, which no codec makes smaller, take 2 to 4 % more cycles of an
    Ethos-U, ones of half the range 2 to 10 % fewer.
    """

    def __init__(self, name: str, *, seed: int = 0) -> None:
        self._name = name
        self._noise = np.random.default_rng(seed)
        self._tensors: dict[str, Tensor] = {}
        self._operators: list[Operator] = []
        self._inputs: list[str] = []
        self._shapes: dict[str, LayerShape] = {}

    @property
    def layers(self) -> Mapping[str, LayerShape]:
        """The layers drawn so far, by name."""
        return self._shapes

    def input(self, height: int, width: int, channels: int, *, name: str = "") -> str:
        """An image."""
        made = self._activation(name or f"x{len(self._inputs)}", (1, height, width, channels))
        self._inputs.append(made)
        return made

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor: (1, height, width, channels), or (1, channels)."""
        return self._tensors[name].shape

    def layer(self, shape: LayerShape, *read: str, name: str) -> str:
        """The layer on what was drawn; `ModelError` where it reads another shape than it says."""
        found = self.shape_of(read[0])
        wanted = (1, shape.inputs) if len(found) == 2 else (1, shape.height, shape.width, shape.inputs)
        if found != wanted:
            raise ModelError(f"layer '{name}' takes {wanted}, but '{read[0]}' is {found}")
        self._shapes[name] = shape
        window = {
            "padding": shape.padding,
            "strideH": shape.stride[0],
            "strideW": shape.stride[1],
            "fusedActivationFunction": "NONE",
        }
        dilated = {**window, "dilationHFactor": 1, "dilationWFactor": 1}
        output = (1, *shape.size, shape.outputs)
        k = shape.kernel
        match shape.kind:
            case "conv":
                weights = self._weights(name, (shape.outputs, *k, shape.inputs), 0)
                return self._add("CONV_2D", name, (read[0], *weights), output, 3, dilated)
            case "depthwise":
                weights = self._weights(name, (1, *k, shape.inputs), 3)
                options = {**dilated, "depthMultiplier": 1}
                return self._add("DEPTHWISE_CONV_2D", name, (read[0], *weights), output, 3, options)
            case "linear":
                weights = self._weights(name, (shape.outputs, shape.inputs), 0)
                options = {"fusedActivationFunction": "NONE", "keepNumDims": False}
                return self._add("FULLY_CONNECTED", name, (read[0], *weights), (1, shape.outputs), 4, options)
            case "add":
                return self._add("ADD", name, (read[0], read[1]), output, 2, {"fusedActivationFunction": "NONE"})
            case "mean":
                axes = Tensor(f"{name}.axes", (2,), "int32", values=np.array([1, 2], np.int32))
                self._tensors[axes.name] = axes
                return self._add("MEAN", name, (read[0], axes.name), (1, shape.outputs), 2, {"keepDims": False})
            case "max_pool" | "average_pool":
                code = "MAX_POOL_2D" if shape.kind == "max_pool" else "AVERAGE_POOL_2D"
                options = {**window, "filterHeight": k[0], "filterWidth": k[1]}
                return self._add(code, name, (read[0],), output, 2, options)

    def network(self, *outputs: str) -> IntegerNetwork:
        """What was drawn, up to these tensors."""
        return IntegerNetwork(
            self._name, list(self._tensors.values()), self._operators, tuple(self._inputs), tuple(outputs)
        )

    def _activation(self, name: str, shape: Sequence[int], scale: float = _SCALE, zero_point: int = 0) -> str:
        if name in self._tensors:
            raise ModelError(f"network '{self._name}' has a layer called '{name}' already")
        self._tensors[name] = Tensor(name, tuple(shape), scales=(scale,), zero_point=zero_point)
        return name

    def _add(
        self, code: str, name: str, read: tuple[str, ...], shape: Sequence[int], version: int, options: dict[str, Any]
    ) -> str:
        # A zero point of -128 makes a ReLU of saturation. Vela 5.2 runs one that is asked for as an operator of its own
        # where there are fewer than 8 channels, for up to as many cycles as the convolution.
        if code.endswith("POOL_2D") or code == "MEAN":
            scale, zero_point = self._tensors[read[0]].scales[0], self._tensors[read[0]].zero_point
        else:
            scale, zero_point = _SCALE, 0 if code == "FULLY_CONNECTED" else -128
        made = self._activation(name, shape, scale, zero_point)
        self._operators.append(Operator(code, name, read, (made,), version, options))
        return made

    def _weights(self, name: str, shape: tuple[int, ...], axis: int) -> tuple[str, str]:
        channels = shape[axis]
        real = self._noise.standard_normal(shape)
        others = tuple(index for index in range(len(shape)) if index != axis)
        steps_per_unit = 127.0 / np.abs(real).max(axis=others, keepdims=True)
        values = np.rint(real * steps_per_unit).astype(np.int8)
        # by the rule of He: outputs vary about as inputs do, so that few are clipped and answers tell networks apart
        spread = (2.0 * channels / int(np.prod(shape))) ** 0.5
        scales = tuple(float(spread / steps) for steps in steps_per_unit.ravel())
        weights = Tensor(f"{name}.weight", shape, scales=scales, axis=axis, values=values)
        biases = np.zeros(channels, np.int32)
        bias = Tensor(f"{name}.bias", (channels,), "int32", scales=tuple(s * _SCALE for s in scales), values=biases)
        self._tensors[weights.name], self._tensors[bias.name] = weights, bias
        return weights.name, bias.name
