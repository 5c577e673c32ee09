"""Networks as microcontrollers run them, drawn of shapes alone, each with widths of one's own choice.

A family is a function of a share of its usual widths, and of how a width is rounded: `make(draw, width)`, where `width`
maps the usual number of channels to the one that is drawn.
"""

from collections.abc import Callable, Mapping
from typing import Final

from prunit.mcu.layers import Drawing, LayerKind, LayerShape, Pair

Width = Callable[[int], int]
"""From the channels that a network usually has at a place to those drawn; asked once a place, in order."""


class _Net:
    """A drawing whose layers know their shapes by what they read."""

    def __init__(self, name: str, size: Pair, channels: int) -> None:
        self.drawing = Drawing(name)
        self.end = self.drawing.input(*size, channels, name="image")
        self._made = 0

    def _layer(
        self,
        kind: LayerKind,
        *read: str,
        outputs: int = 0,
        kernel: Pair = (1, 1),
        stride: Pair = (1, 1),
    ) -> str:
        shape = self.drawing.shape_of(read[0])
        h, w = shape[1:3] if len(shape) == 4 else (1, 1)
        made = LayerShape(kind, h, w, shape[-1], outputs or shape[-1], kernel, stride, first=not self.drawing.layers)
        self.end = self.drawing.layer(made, *read, name=f"{kind}{self._made}")
        self._made += 1
        return self.end

    def conv(self, outputs: int, kernel: int | Pair = 3, stride: int = 1, *, of: str = "") -> str:
        k = (kernel, kernel) if isinstance(kernel, int) else kernel
        return self._layer("conv", of or self.end, outputs=outputs, kernel=k, stride=(stride, stride))

    def depthwise(self, stride: int = 1) -> str:
        return self._layer("depthwise", self.end, kernel=(3, 3), stride=(stride, stride))

    def add(self, one: str, other: str) -> str:
        return self._layer("add", one, other)

    def max_pool(self) -> str:
        return self._layer("max_pool", self.end, kernel=(2, 2), stride=(2, 2))

    def head(self, classes: int) -> Drawing:
        """The mean over all positions and a linear layer."""
        self._layer("mean", self.end)
        self._layer("linear", self.end, outputs=classes)
        return self.drawing


def _resnet(blocks: int, width: Width) -> Drawing:
    net = _Net(f"resnet{6 * blocks + 2}", (32, 32), 3)
    stream = net.conv(width(16))
    for stage, usual in enumerate((16, 32, 64)):
        channels = width(usual) if stage else net.drawing.shape_of(stream)[-1]
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            net.conv(width(usual), stride=stride, of=stream)
            inner = net.conv(channels)
            skip = net.conv(channels, 1, 2, of=stream) if stride == 2 else stream
            stream = net.add(inner, skip)
    return net.head(10)


def resnet20(width: Width) -> Drawing:
    return _resnet(3, width)


def resnet8(width: Width) -> Drawing:
    return _resnet(1, width)


def mobilenetv1(width: Width) -> Drawing:
    """0.25 at 96 pixels, as in MLPerf Tiny's visual wake words."""
    net = _Net("mobilenetv1", (96, 96), 3)
    net.conv(width(8), stride=2)
    strided = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *((128, 1),) * 5, (256, 2), (256, 1))
    for usual, stride in strided:
        net.depthwise(stride)
        net.conv(width(usual), 1)
    return net.head(2)


def ds_cnn(width: Width) -> Drawing:
    """Key words, as in MLPerf Tiny: 49 frames of 10 coefficients."""
    net = _Net("ds_cnn", (49, 10), 1)
    net.conv(width(64), (10, 4), 2)
    for _ in range(4):
        net.depthwise()
        net.conv(width(64), 1)
    return net.head(12)


def vgg(width: Width) -> Drawing:
    net = _Net("vgg", (32, 32), 3)
    for usual, layers in ((32, 2), (64, 2), (128, 2)):
        for _ in range(layers):
            net.conv(width(usual))
        net.max_pool()
    return net.head(10)


def mobilenetv2(width: Width) -> Drawing:
    net = _Net("mobilenetv2", (32, 32), 3)
    stream = net.conv(width(16))
    for usual, stride, blocks in ((16, 1, 1), (24, 2, 2), (32, 2, 3)):
        channels = width(usual)
        for block in range(blocks):
            net.conv(width(6 * usual), 1, of=stream)
            net.depthwise(1 if block else stride)
            inner = net.conv(channels, 1)
            stream = net.add(inner, stream) if block else inner
    net.conv(width(128), 1, of=stream)
    return net.head(10)


FAMILIES: Final[Mapping[str, Callable[[Width], Drawing]]] = {
    "resnet20": resnet20,
    "resnet8": resnet8,
    "mobilenetv1": mobilenetv1,
    "ds_cnn": ds_cnn,
    "vgg": vgg,
    "mobilenetv2": mobilenetv2,
}
