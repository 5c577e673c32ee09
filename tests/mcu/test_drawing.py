"""Layers by their shapes, and networks drawn of them."""

import numpy as np
import pytest

from prunit.errors import ModelError
from prunit.mcu.layers import Drawing, LayerShape


def test_sizes_follow_from_stride_and_padding() -> None:
    assert LayerShape("conv", 49, 10, 1, 64, (10, 4), (2, 2)).size == (25, 5)
    assert LayerShape("conv", 9, 8, 3, 4, (3, 3), (2, 2), "VALID").size == (4, 3)
    assert LayerShape("mean", 9, 8, 3, 3).size == (1, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LayerShape("conv", 0, 8, 3, 4), "at least 1"),
        (lambda: LayerShape("depthwise", 8, 8, 3, 4, (3, 3)), "as many channels as it reads; got 3 and 4"),
        (lambda: LayerShape("conv", 2, 8, 3, 4, (3, 3), padding="VALID"), r"larger than the image of 2x8"),
    ],
)
def test_shapes_that_cannot_be_are_refused(make, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make()


def test_a_drawing_is_a_network_with_its_layers() -> None:
    drawing = Drawing("net")
    x = drawing.input(8, 8, 3)
    a = drawing.layer(LayerShape("conv", 8, 8, 3, 5, (3, 3), (2, 2)), x, name="a")
    b = drawing.layer(LayerShape("depthwise", 4, 4, 5, 5, (3, 3)), a, name="b")
    c = drawing.layer(LayerShape("add", 4, 4, 5, 5), a, b, name="c")
    d = drawing.layer(LayerShape("max_pool", 4, 4, 5, 5, (2, 2), (2, 2)), c, name="d")
    e = drawing.layer(LayerShape("average_pool", 2, 2, 5, 5, (2, 2), padding="VALID"), d, name="e")
    f = drawing.layer(LayerShape("mean", 1, 1, 5, 5), e, name="f")
    g = drawing.layer(LayerShape("linear", 1, 1, 5, 7), f, name="g")
    network = drawing.network(g)
    assert [operator.layer for operator in network.operators] == list(drawing.layers) == list("abcdefg")
    assert network.by_name["g"].shape == (1, 7)
    weight = network.by_name["a.weight"]
    assert weight.values is not None
    assert (np.abs(weight.values).max(axis=(1, 2, 3)) == 127).all()


def test_layers_that_do_not_fit_are_refused() -> None:
    drawing = Drawing("net")
    x = drawing.input(8, 8, 3)
    with pytest.raises(ModelError, match=r"'a' takes \(1, 8, 8, 4\), but 'x0' is \(1, 8, 8, 3\)"):
        drawing.layer(LayerShape("conv", 8, 8, 4, 5), x, name="a")
    drawing.layer(LayerShape("conv", 8, 8, 3, 5), x, name="a")
    with pytest.raises(ModelError, match="called 'a' already"):
        drawing.layer(LayerShape("conv", 8, 8, 3, 5), x, name="a")
