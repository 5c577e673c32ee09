"""MobileNetV2 (Sandler et al., 2018): inverted residuals around depthwise convolutions."""

from torch import Tensor, nn

from prunit.zoo.layers import GlobalAverage, conv_bn, he_normal_

# (expansion, width, blocks, stride) of each stage, the paper's table 2.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM_WIDTH, HEAD_WIDTH = 32, 1280


class InvertedResidual(nn.Module):
    """Widen with 1x1, filter each channel with 3x3, narrow with 1x1 (no ReLU); added to its input where it fits."""

    def __init__(self, in_channels: int, out_channels: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        width = in_channels * expansion
        widen = [conv_bn(in_channels, width, 1), nn.ReLU6()] if expansion > 1 else []
        self.residual = nn.Sequential(
            *widen,
            conv_bn(width, width, 3, stride=stride, groups=width),
            nn.ReLU6(),
            conv_bn(width, out_channels, 1),
        )
        self.add = stride == 1 and in_channels == out_channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.residual(x_BCHW)
        return x_BCHW + y_BCHW if self.add else y_BCHW


class MobileNetV2(nn.Module):
    """Images of up to 64 pixels keep their size in the stem and the second stage (88 M macs at 32x32).

    `width` is the paper's multiplier, at most 1: of the channels of all layers but the last convolution, in eights.
    """

    def __init__(self, *, num_classes: int, in_channels: int, image_size: int, width: float = 1.0) -> None:
        super().__init__()
        small = image_size <= 64
        channels = _in_eights(STEM_WIDTH * width)
        self.stem = nn.Sequential(conv_bn(in_channels, channels, 3, stride=1 if small else 2), nn.ReLU6())
        self.blocks = nn.Sequential()
        for stage, (expansion, full, blocks, stride) in enumerate(STAGES):
            narrow = _in_eights(full * width)
            for index in range(blocks):
                step = 1 if index > 0 or (small and stage == 1) else stride
                self.blocks.append(InvertedResidual(channels, narrow, expansion=expansion, stride=step))
                channels = narrow
        self.head = nn.Sequential(conv_bn(channels, HEAD_WIDTH, 1), nn.ReLU6())
        self.pool = GlobalAverage()
        # Dropout is the ImageNet recipe's; the CIFAR form is usually trained without.
        linear = nn.Linear(HEAD_WIDTH, num_classes)
        self.classifier = nn.Sequential(linear) if small else nn.Sequential(nn.Dropout(0.2), linear)
        he_normal_(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Class scores, (B, num_classes)."""
        return self.classifier(self.pool(self.head(self.blocks(self.stem(x_BCHW)))))


def _in_eights(channels: float) -> int:
    """The nearest multiple of 8 that is at least 8 and at least nine tenths of it, as in the authors' code."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8


def mobilenetv2(*, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """MobileNetV2 at width 1.0."""
    return MobileNetV2(num_classes=num_classes, in_channels=in_channels, image_size=image_size)
