"""Residual networks (He et al., 2016): ResNet-20 and -56 for CIFAR, ResNet-18 and -50 in a small and a large form.

Where a stage changes width, the shortcut is a 1x1 convolution with batch norm ("option B"). The zero-padded shortcut
of the original CIFAR networks would tie a stage's channels to the positions of those of the stage before.
"""

from typing import Literal

from torch import Tensor, nn

from prunit.zoo.layers import GlobalAverage, conv_bn, he_normal_


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_bn(in_channels, width, 3, stride=stride),
            nn.ReLU(),
            conv_bn(width, width, 3),
        )
        self.shortcut = _shortcut(in_channels, width, stride)
        self.relu = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.relu(self.residual(x_BCHW) + self.shortcut(x_BCHW))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride, as everyone has it since 2017) and 1x1 convolution, and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_bn(in_channels, width, 1),
            nn.ReLU(),
            conv_bn(width, width, 3, stride=stride),
            nn.ReLU(),
            conv_bn(width, width * self.expansion, 1),
        )
        self.shortcut = _shortcut(in_channels, width * self.expansion, stride)
        self.relu = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.relu(self.residual(x_BCHW) + self.shortcut(x_BCHW))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return conv_bn(in_channels, out_channels, 1, stride=stride)


class ResNet(nn.Module):
    """A stem, stages of blocks that halve the image from the second on, global average pooling, one linear layer."""

    def __init__(
        self,
        block: type[Basic] | type[Bottleneck],
        stages: tuple[tuple[int, int], ...],
        *,
        stem: Literal["small", "large"],
        num_classes: int,
        in_channels: int,
    ) -> None:
        """`stages` holds (width, blocks); `stem` is one 3x3 convolution or 7x7 with stride 2 and a max-pool."""
        super().__init__()
        channels = stages[0][0]
        if stem == "small":
            self.stem = nn.Sequential(conv_bn(in_channels, channels, 3), nn.ReLU())
        else:
            first = conv_bn(in_channels, channels, 7, stride=2)
            self.stem = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))
        self.stages = nn.Sequential()
        for stage, (width, blocks) in enumerate(stages):
            row = nn.Sequential()
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                row.append(block(channels, width, stride))
                channels = width * (Bottleneck.expansion if block is Bottleneck else 1)
            self.stages.append(row)
        self.pool = GlobalAverage()
        self.classifier = nn.Linear(channels, num_classes)
        he_normal_(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Class scores, (B, num_classes)."""
        return self.classifier(self.pool(self.stages(self.stem(x_BCHW))))


def _cifar(blocks: int, num_classes: int, in_channels: int) -> nn.Module:
    stages = ((16, blocks), (32, blocks), (64, blocks))
    return ResNet(Basic, stages, stem="small", num_classes=num_classes, in_channels=in_channels)


def _stem(image_size: int) -> Literal["small", "large"]:
    return "small" if image_size <= 64 else "large"


def resnet20(*, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-20, the same at every image size."""
    return _cifar(3, num_classes, in_channels)


def resnet56(*, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-56, the same at every image size."""
    return _cifar(9, num_classes, in_channels)


def resnet18(*, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """ResNet-18."""
    stages = ((64, 2), (128, 2), (256, 2), (512, 2))
    return ResNet(Basic, stages, stem=_stem(image_size), num_classes=num_classes, in_channels=in_channels)


def resnet50(*, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """ResNet-50."""
    stages = ((64, 3), (128, 4), (256, 6), (512, 3))
    return ResNet(Bottleneck, stages, stem=_stem(image_size), num_classes=num_classes, in_channels=in_channels)
