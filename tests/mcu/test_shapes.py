"""From a network to the shapes of its layers."""

from dataclasses import replace

import numpy as np
import pytest

from prunit.errors import ModelError
from prunit.mcu.layers import Drawing, LayerShape
from prunit.mcu.network import IntegerNetwork, Operator, Tensor
from prunit.mcu.shapes import layers_of


def drawn() -> tuple[IntegerNetwork, Drawing]:
    drawing = Drawing("net")
    x = drawing.input(9, 8, 3)
    a = drawing.layer(LayerShape("conv", 9, 8, 3, 5, (3, 3), (2, 2), first=True), x, name="a")
    b = drawing.layer(LayerShape("depthwise", 5, 4, 5, 5, (3, 2)), a, name="b")
    c = drawing.layer(LayerShape("add", 5, 4, 5, 5), b, a, name="c")
    d = drawing.layer(LayerShape("max_pool", 5, 4, 5, 5, (2, 2), (2, 2), "VALID"), c, name="d")
    e = drawing.layer(LayerShape("average_pool", 2, 2, 5, 5, (2, 2)), d, name="e")
    f = drawing.layer(LayerShape("mean", 2, 2, 5, 5), e, name="f")
    drawing.layer(LayerShape("linear", 1, 1, 5, 7), f, name="g")
    return drawing.network("g"), drawing


def test_the_layers_are_those_that_were_drawn() -> None:
    network, drawing = drawn()
    assert layers_of(network) == drawing.layers


def padded(by: int, stride: int) -> IntegerNetwork:
    """A convolution of padding VALID on what was padded by as much on all sides."""
    size = 8 + 2 * by
    out = (size - 3) // stride + 1
    pads = np.array([[0, 0], [by, by], [by, by], [0, 0]], np.int32)
    weight = np.ones((6, 3, 3, 4), np.int8)
    tensors = [
        Tensor("x", (1, 8, 8, 4), scales=(0.1,)),
        Tensor("pads", (4, 2), "int32", values=pads),
        Tensor("p", (1, size, size, 4), scales=(0.1,)),
        Tensor("w", weight.shape, scales=(0.1,) * 6, values=weight),
        Tensor("y", (1, out, out, 6), scales=(0.1,)),
    ]
    options = {"padding": "VALID", "strideH": stride, "strideW": stride}
    operators = [
        Operator("PAD", "pad", ("x", "pads"), ("p",)),
        Operator("CONV_2D", "conv", ("p", "w", ""), ("y",), 3, options),
    ]
    return IntegerNetwork("padded", tensors, operators, ("x",), ("y",))


@pytest.mark.parametrize("stride", [1, 2])
def test_padding_before_a_convolution_is_its_own(stride: int) -> None:
    expected = LayerShape("conv", 8, 8, 4, 6, (3, 3), (stride, stride), first=True)
    assert layers_of(padded(1, stride)) == {"y": expected}


def test_what_no_table_knows_is_named() -> None:
    with pytest.raises(ModelError, match="'conv', whose output of 10x10 comes of another padding"):
        layers_of(padded(2, 1))
    network, _ = drawn()
    first = replace(network.operators[0], code="SOFTMAX", layer="soft")
    with pytest.raises(ModelError, match="no table knows the cycles of SOFTMAX of 'soft'"):
        layers_of(replace(network, operators=[first, *network.operators[1:]]))
    grouped = np.ones((6, 3, 3, 2), np.int8)
    wide = padded(1, 1)
    tensors = [
        Tensor("w", grouped.shape, scales=(0.1,) * 6, values=grouped) if each.name == "w" else each
        for each in wide.tensors
    ]
    with pytest.raises(ModelError, match=r"grouped convolution 'conv' \(2 of 4 inputs a group\)"):
        layers_of(replace(wide, tensors=tensors))
