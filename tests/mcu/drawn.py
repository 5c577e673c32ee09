"""Small networks for the tests of parts."""

from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.layers import Drawing, LayerShape
from prunit.mcu.network import IntegerNetwork, Operator, Tensor


def residual(channels: int = 9, size: int = 12) -> IntegerNetwork:
    """A stem, a residual block with a depthwise layer, and a convolution of stride 2: no linear layer."""
    drawing = Drawing("residual")
    image = drawing.input(size, size, 3)
    stem = drawing.layer(LayerShape("conv", size, size, 3, channels, (3, 3)), image, name="stem")
    deep = drawing.layer(LayerShape("depthwise", size, size, channels, channels, (3, 3)), stem, name="deep")
    point = drawing.layer(LayerShape("conv", size, size, channels, channels), deep, name="point")
    both = drawing.layer(LayerShape("add", size, size, channels, channels), point, stem, name="both")
    end = drawing.layer(LayerShape("conv", size, size, channels, 6, (3, 3), (2, 2)), both, name="end")
    return drawing.network(end)


def unary(code: str) -> bytes:
    """The flatbuffer of one operator from an int8 tensor to another, its layer's output called 'made'."""
    tensors = [Tensor("x", (1, 4, 4, 4), scales=(0.1,)), Tensor("made", (1, 4, 4, 4), scales=(0.1,))]
    operator = Operator(code, "odd", ("x",), ("made",))
    return flatbuffer_of(IntegerNetwork("unary", tensors, [operator], ("x",), ("made",)))
