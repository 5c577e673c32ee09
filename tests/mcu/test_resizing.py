"""A network at other widths: made-up weights as a trained network's are."""

import numpy as np

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
