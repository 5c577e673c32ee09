"""Windows that slide over an image: where ONNX places them, and by which of TensorFlow Lite's two rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunit.export.tflite.building import Building
from prunit.export.tflite.reading import FloatGraph, Step
from prunit.export.tflite.spans import LEAST

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A kernel of rows and columns on an image of `size`, that comes to rest `places` times in each direction.

    It begins `before` rows and columns outside of the image.
    """

    kernel: Pair
    strides: Pair
    dilations: Pair
    before: Pair
    size: Pair
    places: Pair

    @property
    def after(self) -> Pair:
        """The rows and columns behind the image that it reaches."""
        return self._each(lambda i: max(self._end(i) - self.size[i] - self.before[i], 0))

    @property
    def rule(self) -> str | None:
        """SAME or VALID where TensorFlow Lite places it by that rule just so, None where by neither."""
        if self.before == (0, 0) and self.places == self._each(
            lambda i: (self.size[i] - self._reach(i)) // self.strides[i] + 1
        ):
            return "VALID"
        return self._same

    def options(self, padding: str) -> dict[str, Any]:
        """The schema's fields for strides and rule, of every kind of window."""
        return {"padding": padding, "strideH": self.strides[0], "strideW": self.strides[1]}

    def padded(self, building: Building, step: Step, x: str, *, least: bool = False) -> tuple[str, str]:
        """The tensor to slide over and the rule: the image itself, or one that an operator has padded before.

        With `least` the padding is less than anything in the image, as a maximum needs it, and else 0.
        """
        building.activation(x)
        if self.rule is not None:
            return x, self.rule
        (top, left), (bottom, right) = self.before, self.after
        wide = pad(building, step, x, ((0, 0), (top, bottom), (left, right), (0, 0)), least=least)
        return wide, "VALID"

    @property
    def _same(self) -> str | None:
        overhang = self._each(lambda i: max(self._end(i) - self.size[i], 0))
        same = self.places == self._each(lambda i: -(-self.size[i] // self.strides[i]))
        return "SAME" if same and self.before == self._each(lambda i: overhang[i] // 2) else None

    def _reach(self, i: int) -> int:
        return (self.kernel[i] - 1) * self.dilations[i] + 1

    def _end(self, i: int) -> int:
        return (self.places[i] - 1) * self.strides[i] + self._reach(i)

    @staticmethod
    def _each(of: Any) -> Pair:
        return of(0), of(1)


def window_of(graph: FloatGraph, step: Step, kernel: Sequence[int], *, transposed: bool = False) -> Window:
    """The window of a convolution or a pool; of a transposed convolution that from its answer to its input."""
    attributes = step.attributes
    size, places = graph.shape(step.input(0))[2:], graph.shape(step.output)[2:]
    if len(size) != 2 or len(kernel) != 2:
        raise graph.refused(step, "only images (1, C, H, W) are supported", "use layers of two dimensions")
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or "output_shape" in attributes:
        raise graph.refused(step, "its paddings are not numbers", "export it by prunit, with paddings as numbers")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if min(top, left, bottom, right) < 0:
        raise graph.refused(step, "its paddings are negative", "crop the image in a layer of its own")
    strides, dilations = attributes.get("strides", (1, 1)), attributes.get("dilations", (1, 1))
    starts = ((places[0] - 1) * strides[0] - top, (places[1] - 1) * strides[1] - left)
    if attributes.get("ceil_mode", 0) and (starts[0] >= size[0] or starts[1] >= size[1]):
        # onnx 1.23 infers a place for such a window, torch and ONNX Runtime leave it out
        raise graph.refused(step, "its last window begins behind the image", "use ceil_mode=False")
    if transposed:
        size, places = places, size
    return Window(
        (kernel[0], kernel[1]),
        (strides[0], strides[1]),
        (dilations[0], dilations[1]),
        (top, left),
        (size[0], size[1]),
        (places[0], places[1]),
    )


def pad(building: Building, step: Step, x: str, around: Sequence[Pair], *, least: bool = False, into: str = "") -> str:
    """The name of the padded tensor, `into` or a new one. `around` counts what comes before and after, as in NHWC."""
    quant = building.quants[x]
    shape = tuple(size + sum(pair) for size, pair in zip(building.shape(building.activation(x)), around, strict=True))
    wide = into or building.between(f"{x}/padded", shape, quant)
    counts = building.constant(f"{wide}/paddings", np.array(around, np.int32))
    if least and quant.zero_point != LEAST:  # PAD pads with what stands for 0
        value = building.constant(
            f"{wide}/value", np.array([LEAST], np.int8), (quant.scale,), zero_point=quant.zero_point
        )
        building.emit("PADV2", step, [x, counts, value], wide)
    else:
        building.emit("PAD", step, [x, counts], wide)
    return wide
