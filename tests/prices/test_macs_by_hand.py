"""Multiply-adds held to arithmetic, in both modes: where other counters read nothing, or count several times."""

from collections.abc import Callable
from typing import Final

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunit.graph import trace
from prunit.prices.costs import cost_of

LENGTH: Final = 10
WIDTH: Final = 8
HIDDEN: Final = 6
SEQUENCE: Final = torch.zeros(1, LENGTH, WIDTH)
IMAGE: Final = torch.zeros(1, 3, 8, 8)
ATTENTION: Final = 4 * LENGTH * WIDTH * WIDTH + 2 * LENGTH * LENGTH * WIDTH
"""Four maps of the width, and the products with keys and with values."""
LAYER: Final = ATTENTION + 2 * LENGTH * WIDTH * 16


class Functional(nn.Module):
    """A convolution with a parameter of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, stride=2, padding=1)


class Itself(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self, *, need_weights: bool) -> None:
        super().__init__()
        self.attention, self.need_weights = nn.MultiheadAttention(WIDTH, 2, batch_first=True), need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


class First(nn.Module):
    """A recurrent layer's outputs without its last state."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def encoder_layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True)


def recurrent(gates: int) -> int:
    return LENGTH * gates * HIDDEN * (WIDTH + HIDDEN)


CASES: dict[str, tuple[Callable[[], nn.Module], Tensor, int]] = {
    # Each of 8x8 inputs is multiplied with every weight of the kernel, whatever the stride.
    "transposed convolution": (lambda: nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1), IMAGE, 64 * 3 * 5 * 16),
    "transposed, stride 1": (lambda: nn.ConvTranspose2d(3, 5, 3, padding=1), IMAGE, 64 * 3 * 5 * 9),
    "transposed, in groups": (lambda: nn.ConvTranspose2d(3, 6, 2, stride=2, groups=3), IMAGE, 64 * 3 * 2 * 4),
    "transposed, 1D": (lambda: nn.ConvTranspose1d(LENGTH, 4, 3, stride=3), SEQUENCE, WIDTH * LENGTH * 4 * 3),
    "F.conv2d with a parameter": (Functional, IMAGE, 16 * 5 * 3 * 9),
    "attention": (lambda: Itself(need_weights=False), SEQUENCE, ATTENTION),
    "attention with its weights": (lambda: Itself(need_weights=True), SEQUENCE, ATTENTION),
    "attention, a batch": (lambda: Itself(need_weights=False), SEQUENCE.repeat(3, 1, 1), ATTENTION),
    "encoder layer": (encoder_layer, SEQUENCE, LAYER),
    "encoder of two": (lambda: nn.TransformerEncoder(encoder_layer(), 2), SEQUENCE, 2 * LAYER),
    "GRU": (lambda: First(nn.GRU(WIDTH, HIDDEN, batch_first=True)), SEQUENCE, recurrent(3)),
    "LSTM": (lambda: First(nn.LSTM(WIDTH, HIDDEN, batch_first=True)), SEQUENCE, recurrent(4)),
    "RNN": (lambda: First(nn.RNN(WIDTH, HIDDEN, batch_first=True)), SEQUENCE, recurrent(1)),
    "GRU both ways": (
        lambda: First(nn.GRU(WIDTH, HIDDEN, batch_first=True, bidirectional=True)),
        SEQUENCE,
        2 * recurrent(3),
    ),
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("case", CASES)
def test_macs_are_those_of_arithmetic(case: str, training: bool) -> None:
    make, example, macs = CASES[case]
    with torch.no_grad():
        assert cost_of(trace(make().train(training), example)).macs == macs
    assert cost_of(trace(make().train(training), example)).macs == macs
