"""Small networks for 1x8x8 images, in the three styles that recipes treat differently."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prunit.batches import Batch
from prunit.zoo.layers import GlobalAverage, conv_bn, he_normal_
from prunit.zoo.mobilenetv2 import InvertedResidual
from prunit.zoo.resnet import Basic, ResNet


def seeded(build: Callable[[], nn.Module], *, seed: int = 0) -> nn.Module:
    """What `build` returns with weights drawn from `seed`; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


class Plain(nn.Module):
    """VGG's style: three convolutions in a row."""

    def __init__(self, widths: tuple[int, int, int] = (16, 24, 32), classes: int = 10) -> None:
        super().__init__()
        a, b, c = widths
        self.first, self.second, self.third = conv_bn(1, a, 3), conv_bn(a, b, 3), conv_bn(b, c, 3)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(c, classes)
        he_normal_(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.pool(self.first(x_BCHW).relu())
        x_BCHW = self.third(self.second(x_BCHW).relu()).relu()
        return self.head(x_BCHW.mean((2, 3)))


def residual(stages: tuple[tuple[int, int], ...] = ((8, 2), (16, 2))) -> nn.Module:
    """ResNet-20's style: two stages of two blocks with streams of 8 and 16 channels, or others."""
    return ResNet(Basic, stages, stem="small", num_classes=10, in_channels=1)


class Inverted(nn.Module):
    """MobileNetV2's style: depthwise convolutions between narrow streams."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(1, 8, 3), nn.ReLU6())
        self.blocks = nn.Sequential(
            InvertedResidual(8, 8, expansion=1, stride=1),
            InvertedResidual(8, 12, expansion=4, stride=2),
            InvertedResidual(12, 12, expansion=4, stride=1),
        )
        self.head = nn.Sequential(conv_bn(12, 48, 1), nn.ReLU6(), GlobalAverage())
        self.classifier = nn.Linear(48, 10)
        he_normal_(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.classifier(self.head(self.blocks(self.stem(x_BCHW))))


STYLES: dict[str, Callable[[], nn.Module]] = {"plain": Plain, "residual": residual, "inverted": Inverted}


def batch() -> Batch:
    """Twenty noise images, two of each class."""
    return torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 10
