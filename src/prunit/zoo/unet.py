"""U-Net (Ronneberger et al., 2015): a class for each pixel, from the features of several resolutions.

Against the paper: batch norm, padded convolutions, so that the output has the input's full size, and narrower. On the
way up a 1x1 convolution halves the channels and then pixels are repeated, where the paper has a transposed convolution:
a quarter of its weights, no checkerboards (Odena et al., 2016), and an operator less for engines to be good at.
"""

from typing import Final

from torch import Tensor, cat, nn
from torch.nn.functional import interpolate

from prunit.zoo.layers import conv_bn, he_normal_

_LEVELS: Final = 4
"""Of resolutions: whole, 1/2, 1/4, 1/8; the channels double at each."""


class UNet(nn.Module):
    """Two 3x3 convolutions at each level on the way down and up; on the way up beside what was there on the way down.

    Images of any size, from 8 pixels on; fastest and best in multiples of 8. `base` is the width of the first level.
    """

    def __init__(self, *, num_classes: int, in_channels: int, base: int) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(_LEVELS)]
        self.down = nn.ModuleList(_two(n, width) for n, width in zip([in_channels, *widths[:-1]], widths, strict=True))
        self.pool = nn.MaxPool2d(2)
        self.up, self.join = nn.ModuleList(), nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.up.append(conv_bn(2 * width, width, 1))
            self.join.append(_two(2 * width, width))
        self.head = nn.Conv2d(base, num_classes, 1)
        he_normal_(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Class scores of each pixel, (B, num_classes, H, W)."""
        skips: list[Tensor] = []
        for level, down in enumerate(self.down):
            x_BCHW = down(self.pool(x_BCHW) if level else x_BCHW)
            skips.append(x_BCHW)
        for up, join, skip_BCHW in zip(self.up, self.join, reversed(skips[:-1]), strict=True):
            x_BCHW = interpolate(up(x_BCHW), size=skip_BCHW.shape[2:], mode="nearest")
            x_BCHW = join(cat([skip_BCHW, x_BCHW], dim=1))
        return self.head(x_BCHW)


def _two(in_channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(conv_bn(in_channels, width, 3), nn.ReLU(), conv_bn(width, width, 3), nn.ReLU())


def unet(*, num_classes: int = 10, in_channels: int = 3, base: int = 32) -> nn.Module:
    """U-Net of widths 32, 64, 128 and 256, or of as many times another `base`."""
    return UNet(num_classes=num_classes, in_channels=in_channels, base=base)


def unet_tiny(*, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """U-Net of widths 8, 16, 32 and 64: for a few dozen images, trained in minutes without a GPU."""
    return UNet(num_classes=num_classes, in_channels=in_channels, base=8)
