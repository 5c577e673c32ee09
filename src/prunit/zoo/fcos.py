"""Detectors without anchors, after FCOS (Tian et al., 2019): every point of three feature maps says what lies there.

Maps at strides 8, 16 and 32 come from one of the zoo's own networks and are joined from the top down (feature pyramid,
Lin et al., 2017). One head reads all of them: its convolutions are shared, each map has batch norms of its own, where
FCOS has group norms, which leave groups of channels that cannot be cut one by one.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu, softplus

from prunit.zoo.layers import conv_bn, he_normal_
from prunit.zoo.mobilenetv2 import STAGES, MobileNetV2
from prunit.zoo.resnet import Basic, ResNet

STRIDES = (8, 16, 32)
LEAST = -10.0
"""The logit below which scores are alike: of one in twenty thousand."""
PRIOR = 0.01
"""The score that every class starts with (Lin et al., 2017, focal loss): else background drowns the first steps."""
REACH = 3.0
"""The distance to each side, in strides, that every point starts with."""


class Backbone(nn.Module):
    """A network's rows of layers, each of which ends at one of the strides; its maps are what the pyramid takes."""

    def __init__(self, rows: Sequence[nn.Module]) -> None:
        super().__init__()
        self.rows = nn.ModuleList(rows)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        maps = []
        for row in self.rows:
            x_BCHW = row(x_BCHW)
            maps.append(x_BCHW)
        return maps


class Pyramid(nn.Module):
    """Maps of one width: each is the backbone's own plus the next smaller one, enlarged."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.sides = nn.ModuleList(conv_bn(number, width, 1) for number in channels)
        self.smooth = nn.ModuleList(conv_bn(width, width, 3) for _ in channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        joined: list[Tensor] = []
        for side, x_BCHW in zip(reversed(self.sides), reversed(maps), strict=True):
            y_BCHW = side(x_BCHW)
            if joined:
                y_BCHW = y_BCHW + interpolate(joined[-1], size=y_BCHW.shape[2:])
            joined.append(y_BCHW)
        return [relu(smooth(y_BCHW)) for smooth, y_BCHW in zip(self.smooth, reversed(joined), strict=True)]


class Tower(nn.Module):
    """3x3 convolutions in a row, shared by the maps; batch norms are each map's own."""

    def __init__(self, width: int, depth: int, maps: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(depth))
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(width) for _ in range(depth)) for _ in range(maps))

    def forward(self, x_BCHW: Tensor, index: int) -> Tensor:
        norms = cast("nn.ModuleList", self.norms[index])
        for conv, norm in zip(self.convs, norms, strict=True):
            x_BCHW = relu(norm(conv(x_BCHW)))
        return x_BCHW


class FCOS(nn.Module):
    """Boxes and scores of every point of the maps; how many points there are follows from the size of the images.

    In training mode raw_BNC and points_N3. C is a logit for each class, the distances to left, top, right and bottom
    in strides (at least 0), and a logit for how well the box will fit. A point is x, y and its stride in pixels. In
    evaluation mode (B, N, 4 + K): x1, y1, x2, y2 as shares of the images' width and height, then for each class the
    root of its probability times that of the fit, 0 to 1 (as in the authors' later code).
    """

    def __init__(
        self, backbone: Backbone, channels: Sequence[int], *, num_classes: int, width: int, depth: int
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = backbone
        self.pyramid = Pyramid(channels, width)
        self.of_class = Tower(width, depth, len(channels))
        self.of_box = Tower(width, depth, len(channels))
        self.classes = nn.Conv2d(width, num_classes, 3, padding=1)
        self.box = nn.Conv2d(width, 4, 3, padding=1)
        self.fit = nn.Conv2d(width, 1, 3, padding=1)
        he_normal_(self)
        for last in (self.classes, self.box, self.fit):
            nn.init.normal_(last.weight, std=0.01)
            assert last.bias is not None
            nn.init.zeros_(last.bias)
        nn.init.constant_(self.classes.bias, -math.log((1 - PRIOR) / PRIOR))  # pyright: ignore[reportArgumentType]
        nn.init.constant_(self.box.bias, math.log(math.expm1(REACH)))  # pyright: ignore[reportArgumentType]

    def forward(self, x_BCHW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """In training mode raw_BNC and points_N3, else (B, N, 4 + num_classes)."""
        classes, sides, fits, points = [], [], [], []
        for index, (stride, y_BCHW) in enumerate(zip(STRIDES, self.pyramid(self.backbone(x_BCHW)), strict=True)):
            box_BCHW = self.of_box(y_BCHW, index)
            classes.append(self.classes(self.of_class(y_BCHW, index)).flatten(2))
            sides.append(softplus(self.box(box_BCHW)).flatten(2))
            fits.append(self.fit(box_BCHW).flatten(2))
            points.append(_points(y_BCHW, stride))
        logits_BNK = torch.cat(classes, 2).transpose(1, 2)
        sides_BN4 = torch.cat(sides, 2).transpose(1, 2)
        fit_BN1 = torch.cat(fits, 2).transpose(1, 2)
        points_N3 = torch.cat(points)
        if self.training:
            return torch.cat([logits_BNK, sides_BN4, fit_BN1], 2), points_N3
        # Of nearly nothing a root makes much of an engine's rounding: ONNX Runtime gives 0 where torch gives 4e-8.
        scores_BNK = (logits_BNK.clamp(min=LEAST).sigmoid() * fit_BN1.clamp(min=LEAST).sigmoid()).sqrt()
        reach_BN4 = sides_BN4 * points_N3[:, 2:]
        at_N2 = points_N3[:, :2]
        height, width = x_BCHW.shape[2:]
        size_2 = torch.tensor([width, height], dtype=at_N2.dtype, device=at_N2.device)
        first_BN2, last_BN2 = (at_N2 - reach_BN4[..., :2]) / size_2, (at_N2 + reach_BN4[..., 2:]) / size_2
        return torch.cat([first_BN2, last_BN2, scores_BNK], 2)


def _points(y_BCHW: Tensor, stride: int) -> Tensor:
    """(N, 3): x and y of the middle of each of the map's places, row by row, and the stride, in pixels."""
    height, width = y_BCHW.shape[2:]
    rows_H = (torch.arange(height, device=y_BCHW.device, dtype=torch.float32) + 0.5) * stride
    columns_W = (torch.arange(width, device=y_BCHW.device, dtype=torch.float32) + 0.5) * stride
    y_HW, x_HW = torch.meshgrid(rows_H, columns_W, indexing="ij")
    return torch.stack([x_HW, y_HW, torch.full_like(x_HW, stride)], 2).flatten(0, 1)


def _of_resnet(stages: tuple[tuple[int, int], ...], in_channels: int) -> tuple[Backbone, list[int]]:
    """The network's stem and stages, up to each stride, and the widths there."""
    net = ResNet(Basic, stages, stem="large", num_classes=1, in_channels=in_channels)
    first, second, third, fourth = net.stages
    return Backbone([nn.Sequential(net.stem, first, second), third, fourth]), [width for width, _ in stages[1:]]


def fcos_resnet18(*, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """On ResNet-18."""
    backbone, channels = _of_resnet(((64, 2), (128, 2), (256, 2), (512, 2)), in_channels)
    return FCOS(backbone, channels, num_classes=num_classes, width=64, depth=2)


def fcos_tiny(*, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """On a residual network of a quarter of ResNet-18's width and half its depth: trains on a CPU."""
    backbone, channels = _of_resnet(((16, 1), (32, 1), (64, 1), (128, 1)), in_channels)
    return FCOS(backbone, channels, num_classes=num_classes, width=48, depth=1)


def fcos_mobilenetv2(*, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """On MobileNetV2, whose depthwise convolutions are cheap where memory is fast."""
    net = MobileNetV2(num_classes=1, in_channels=in_channels, image_size=224)
    blocks = list(net.blocks)
    ends = [sum(number for _, _, number, _ in STAGES[: stage + 1]) for stage in (2, 4, 6)]
    rows = [nn.Sequential(net.stem, *blocks[: ends[0]])]
    rows += [nn.Sequential(*blocks[start:end]) for start, end in pairwise(ends)]
    return FCOS(Backbone(rows), [STAGES[stage][1] for stage in (2, 4, 6)], num_classes=num_classes, width=64, depth=2)
