"""What the lowering of each operator writes with: tensors, constants and operators of the network of integers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prunit.errors import ModelError
from prunit.export.tflite.reading import FLAGS, FloatGraph, Shape, Step, Values
from prunit.export.tflite.spans import LEAST, Quant, quant_of
from prunit.mcu.network import IntegerNetwork, Operator, Tensor

LARGEST: Final = 127
_HAIR: Final = 1 + 1e-6

Figures = npt.NDArray[np.float64]

VERSIONS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "CONCATENATION", "MEAN", "PAD", "PADV2", "SOFTMAX", "LOGISTIC", "TANH"), 2),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D", "RELU", "RELU6", "LEAKY_RELU", "QUANTIZE", "STRIDED_SLICE"), 2),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"), 3),
    **dict.fromkeys(("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"), 3),
    "FULLY_CONNECTED": 4,
}
"""The first version of an operator that computes on int8, after TensorFlow's `op_version.cc`."""


def channels_last(shape: Shape) -> Shape:
    """The shape of an image as kernels have it; others stay."""
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


class Building:
    """A network of integers as far as it is written, beside the float graph that it is made of."""

    def __init__(self, graph: FloatGraph, quants: Mapping[str, Quant]) -> None:
        self.graph, self.quants = graph, quants
        self.orders: dict[str, Shape] = {}
        """Rows that were an image (C, H, W): their values lie in the order H, W, C."""
        self._rows: dict[str, tuple[str, Step]] = {}
        self._tensors: dict[str, Tensor] = {}
        self._operators: list[Operator] = []

    def network(self, name: str) -> IntegerNetwork:
        """What was written."""
        for output in self.graph.outputs:
            if output in self.orders:
                raise ModelError(
                    f"cannot lower output '{output}' to integers: it is an image {self.orders[output]} laid flat, "
                    "whose values microcontrollers hold in another order; return the image itself"
                )
        if not self._operators:
            raise ModelError(f"cannot lower '{name}' to integers: it computes nothing; export a model with layers")
        for output in self.graph.outputs:
            self.activation(output)
        return IntegerNetwork(
            name,
            list(self._tensors.values()),
            self._operators,
            self.graph.inputs,
            tuple(dict.fromkeys(self.graph.outputs)),
        )

    def activation(self, name: str) -> str:
        """The tensor of that name, declared now where it was not; its name."""
        if name in self._rows and name not in self._tensors:
            pixel, step = self._rows[name]
            self._declare(name)
            self._lay(step, pixel, name)
        return self._declare(name)

    def _declare(self, name: str) -> str:
        if name not in self._tensors:
            shape, quant = channels_last(self.graph.shape(name)), self.quants[name]
            self._tensors[name] = Tensor(name, shape, scales=(quant.scale,), zero_point=quant.zero_point)
        return name

    def pixel(self, step: Step, name: str) -> str:
        """A row of values (1, N) as an image of one pixel (1, 1, 1, N), on which convolutions work."""
        if name not in self._rows:
            row = self.activation(name)
            self._rows[name] = self.between(f"{name}/pixel", (1, 1, 1, self.shape(row)[-1]), self.quants[name]), step
            self._lay(step, row, self._rows[name][0])
        return self._rows[name][0]

    def is_pixel(self, name: str) -> bool:
        """A row that stands in an image of one pixel so far, and in no tensor of its own."""
        return name in self._rows

    def row(self, step: Step, name: str, pixel: str = "", *, size: int = 0) -> str:
        """Says that the row `name` stands in an image of one pixel: in that, or in a new one of `size` channels.

        The row itself is written where something other than a convolution reads it.
        """
        pixel = pixel or self.between(f"{name}/pixel", (1, 1, 1, size), self.quants[name])
        self._rows[name] = pixel, step
        return pixel

    def _lay(self, step: Step, before: str, after: str) -> None:
        shape = np.array(self.shape(after), np.int32)
        named = self.constant(f"{after}/shape", shape)
        self.emit("RESHAPE", step, [before, named], after, {"newShape": shape.tolist()})

    def flag(self, step: Step) -> str:
        """The activation that a kernel has to do by itself: none where the steps of its answer end there anyway.

        A flag that changes nothing is not free: Vela 5.2 makes an operator of its own of a ReLU on few channels.
        """
        flag, quant = FLAGS.get(step.cut, "NONE"), self.quants[step.output]
        ends = quant.scale * (LARGEST - LEAST) <= step.cut[1] * _HAIR
        return "NONE" if quant.zero_point == LEAST and ends else flag

    def between(self, near: str, shape: Shape, quant: Quant) -> str:
        """The name of a tensor that the float graph does not have; `near` is one that it belongs to."""
        name = self._fresh(near)
        self._tensors[name] = Tensor(name, shape, scales=(quant.scale,), zero_point=quant.zero_point)
        return name

    def constant(
        self, near: str, values: Values, scales: Sequence[float] = (), *, zero_point: int = 0, axis: int = 0
    ) -> str:
        """The name of a constant; one that is there already with the same values and scales is taken again."""
        made = Tensor(
            near, values.shape, "int32" if values.dtype == np.int32 else "int8", tuple(scales), zero_point, axis, values
        )
        for name, tensor in self._tensors.items():
            if name.startswith(near) and tensor.values is not None and _alike(tensor, made):
                return name
        name = self._fresh(near)
        self._tensors[name] = Tensor(name, made.shape, made.kind, made.scales, zero_point, axis, values)
        return name

    def flowing(self, name: str, rank: int) -> str:
        """An input of an operator on two tensors: an activation, or a constant as int8 in steps of its own."""
        values = self.graph.constants.get(name)
        return self.activation(name) if values is None else self.figures(name, values.astype(np.float64), rank)

    def figures(self, name: str, figures: Figures, rank: int) -> str:
        """A constant as int8 in steps of its own; an image's, of rank 4, is laid channels last."""
        quant = quant_of((float(figures.min(initial=0.0)), float(figures.max(initial=0.0))))
        return self.constant(name, self.as_int8(figures, quant, rank), (quant.scale,), zero_point=quant.zero_point)

    def as_int8(self, figures: Figures, quant: Quant, rank: int) -> Values:
        """A constant in steps, channels last, with as many dimensions as what it meets has, if that is an image."""
        if rank == 4:
            figures = figures.reshape((1,) * (4 - figures.ndim) + figures.shape).transpose(0, 2, 3, 1)
        return np.clip(np.rint(figures / quant.scale) + quant.zero_point, -128, 127).astype(np.int8)

    def requantised(self, step: Step, name: str, quant: Quant) -> str:
        """An activation in other steps, by an operator of its own where they differ."""
        tensor = self._tensors[self.activation(name)]
        if (tensor.scales, tensor.zero_point) == ((quant.scale,), quant.zero_point):
            return name
        other = self.between(name, tensor.shape, quant)
        self.emit("QUANTIZE", step, [name], other)
        return other

    def emit(
        self,
        code: str,
        step: Step,
        inputs: Sequence[str],
        output: str,
        options: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
    ) -> None:
        """Append an operator; `output` is an activation of the float graph or one from `between`.

        `version` is that of the operator where it is another than the first one for int8.
        """
        made = output if output in self._tensors else self.activation(output)
        version = version or VERSIONS.get(code, 1)
        self._operators.append(Operator(code, step.layer, tuple(inputs), (made,), version, options or {}))

    def shape(self, name: str) -> Shape:
        """The shape of a tensor that was written, channels last."""
        return self._tensors[name].shape

    def _fresh(self, near: str) -> str:
        taken = {*self._tensors, *self.quants}
        names = (near, *(f"{near}_{number}" for number in range(1, len(taken) + 2)))
        return next(name for name in names if name not in taken)


def _alike(one: Tensor, other: Tensor) -> bool:
    if (one.shape, one.kind, one.scales, one.zero_point, one.axis) != (
        *(other.shape, other.kind, other.scales, other.zero_point, other.axis),
    ):
        return False
    return np.array_equal(np.asarray(one.values), np.asarray(other.values))
