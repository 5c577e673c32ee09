"""Your own model for prunit: a file with a callable that returns an `nn.Module`. Nothing in it knows of prunit.

    prunit build examples/my_model.py:make --data digits --budget params=1/4 --out my-portfolio

The factory is called with those of `num_classes`, `in_channels` and `image_size` that its signature names. It must
build the same architecture each time it is called: a compact model is rebuilt from this code, a plan and weights.
"""

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """Squeeze and excitation: each channel is scaled by a number between 0 and 1, computed from all channels' means."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(channels, reduced), nn.Linear(reduced, channels)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        # Sizes come from the tensor, never from a number in the code: so the cut model runs unchanged.
        return x * scale[:, :, None, None]


class Block(nn.Module):
    """Two convolutions, a gate, and a shortcut around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 2 * channels
        self.conv1, self.norm1 = nn.Conv2d(channels, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden)
        self.conv2, self.norm2 = nn.Conv2d(hidden, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.gate = Gate(channels, channels // 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.gate(self.norm2(self.conv2(y))))


class Net(nn.Module):
    """A stem, a residual block, a wider convolution and a classifier."""

    def __init__(self, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.block = Block(width)
        self.wide, self.wide_norm = nn.Conv2d(width, 2 * width, 3, stride=2, bias=False), nn.BatchNorm2d(2 * width)
        self.classifier = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(torch.relu(self.norm(self.stem(x))))
        x = torch.relu(self.wide_norm(self.wide(x)))
        return self.classifier(x.mean((2, 3)))


def make(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    """The network for a data set of that many classes and image channels."""
    return Net(num_classes, in_channels, width=16)
