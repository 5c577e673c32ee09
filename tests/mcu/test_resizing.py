"""A network at other widths: made-up weights as a trained network's are."""

import numpy as np

from prunit.mcu.layers import Drawing, LayerShape
from prunit.mcu.resizing import resized
from tests.mcu.drawn import residual


def test_the_largest_weight_of_each_channel_is_the_largest_step() -> None:
    sides = {"stem": (3, 5), "deep": (5, 5), "point": (5, 5), "end": (5, 6)}
    weights = [tensor for tensor in resized(residual(), sides).tensors if tensor.name.endswith(".weight")]
    assert [tensor.shape for tensor in weights] == [(5, 3, 3, 3), (1, 3, 3, 5), (5, 1, 1, 5), (6, 3, 3, 5)]
    for tensor in weights:
        assert tensor.values is not None
        others = tuple(i for i in range(4) if i != tensor.axis)
        assert (np.abs(tensor.values.astype(int)).max(axis=others) == 127).all()
        assert len(np.unique(tensor.values)) > 1


def test_no_two_layers_have_the_same_weights() -> None:
    """Vela keeps equal ones once, and a plan seemed to take little more than half of the flash."""
    drawing = Drawing("net")
    end = drawing.input(8, 8, 4)
    for name in "abc":
        end = drawing.layer(LayerShape("conv", 8, 8, 4, 4, (3, 3), first=name == "a"), end, name=name)
    network = resized(drawing.network(end), dict.fromkeys("abc", (4, 4)))
    weights = [t.values for t in network.tensors if t.name.endswith(".weight") and t.values is not None]
    assert len({values.tobytes() for values in weights}) == 3
    again = resized(drawing.network(end), dict.fromkeys("abc", (4, 4)))
    assert [t.values.tobytes() for t in again.tensors if t.values is not None] == [
        t.values.tobytes() for t in network.tensors if t.values is not None
    ]
