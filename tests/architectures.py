"""Small members of published families, their forward passes as those are mostly written.

Every network takes images x_BCHW of shape (2, 3, 16, 16). Widths differ where the code does not ask for equal ones.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.nets import Head, conv_bn

# ── segmentation, detection, several resolutions ──


class UNet(nn.Module):
    """Ronneberger et al. 2015: transposed convolutions, and the encoder's features beside the decoder's."""

    def __init__(self) -> None:
        super().__init__()
        self.inc, self.down1, self.down2 = self.two_convs(3, 6), self.two_convs(6, 8), self.two_convs(8, 10)
        self.up1, self.conv1 = nn.ConvTranspose2d(10, 7, 2, stride=2), self.two_convs(15, 8)
        self.up2, self.conv2 = nn.ConvTranspose2d(8, 5, 2, stride=2), self.two_convs(11, 6)
        self.outc = nn.Conv2d(6, 3, 1)

    @staticmethod
    def two_convs(c: int, n: int) -> nn.Sequential:
        return nn.Sequential(conv_bn(c, n), conv_bn(n, n))

    @staticmethod
    def joined(skip: Tensor, x: Tensor) -> Tensor:
        dy, dx = skip.size(2) - x.size(2), skip.size(3) - x.size(3)
        return torch.cat([skip, F.pad(x, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.inc(x)
        two = self.down1(F.max_pool2d(one, 2))
        x = self.down2(F.max_pool2d(two, 2))
        x = self.conv1(self.joined(two, self.up1(x)))
        return self.outc(self.conv2(self.joined(one, self.up2(x))))


class Detector(nn.Module):
    """FPN and FCOS: levels added from the top down, one head for all of them; a dict of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.c2, self.c3, self.c4 = conv_bn(3, 6, stride=2), conv_bn(6, 8, stride=2), conv_bn(8, 10, stride=2)
        self.lateral = nn.ModuleList(nn.Conv2d(c, 7, 1) for c in (6, 8, 10))
        self.smooth = nn.ModuleList(nn.Conv2d(7, 8, 3, padding=1) for _ in range(3))
        self.tower = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU())
        self.classes, self.boxes, self.inside = nn.Conv2d(8, 5, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 1, 1)
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in range(3))

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        c2 = self.c2(x)
        c3 = self.c3(c2)
        levels = [f(c) for f, c in zip(self.lateral, (c2, c3, self.c4(c3)), strict=True)]
        for i in (1, 0):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], size=levels[i].shape[-2:], mode="nearest")
        out: dict[str, list[Tensor]] = {"classes": [], "boxes": [], "inside": []}
        for scale, smooth, level in zip(self.scales, self.smooth, levels, strict=True):
            y = self.tower(smooth(level))
            out["classes"].append(self.classes(y).permute(0, 2, 3, 1).reshape(len(x), -1, 5))
            out["boxes"].append((self.boxes(y) * scale).exp().permute(0, 2, 3, 1).reshape(len(x), -1, 4))
            out["inside"].append(self.inside(y))
        return out


class HighResolution(nn.Module):
    """HRNet: every branch is the sum of all branches, resized."""

    def __init__(self, widths: tuple[int, ...] = (4, 6, 8)) -> None:
        super().__init__()
        self.stem = conv_bn(3, 5)
        self.start = nn.ModuleList(conv_bn(5, w, stride=2**i) for i, w in enumerate(widths))
        self.fuse = nn.ModuleList(
            nn.ModuleList(self.between(i, j, widths[j], widths[i]) for j in range(len(widths)))
            for i in range(len(widths))
        )
        self.head = nn.Conv2d(sum(widths), 3, 1)

    @staticmethod
    def between(i: int, j: int, c: int, n: int) -> nn.Module:
        if j > i:
            return nn.Sequential(conv_bn(c, n, 1, act=nn.Identity()), nn.Upsample(scale_factor=2 ** (j - i)))
        return nn.Identity() if i == j else conv_bn(c, n, act=nn.Identity(), stride=2 ** (i - j))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        branches = [start(x) for start in self.start]
        fused: list[Tensor] = []
        for row in self.fuse:
            y = row[0](branches[0])
            for f, branch in zip(list(row)[1:], branches[1:], strict=True):
                y = y + f(branch)
            fused.append(F.relu(y))
        size = fused[0].shape[2:]
        return self.head(torch.cat([F.interpolate(y, size=size, mode="bilinear") for y in fused], 1))


# ── normalised over channels ──


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    """ConvNeXt V2's global response normalisation."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.zeros(1, 1, 1, c)), nn.Parameter(torch.zeros(1, 1, 1, c))

    def forward(self, x: Tensor) -> Tensor:
        g = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (g / (g.mean(dim=-1, keepdim=True) + 1e-2))) + self.beta + x


class NextBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.dwconv, self.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c, eps=1e-2)
        self.pwconv1, self.act, self.grn = nn.Linear(c, 3 * c), nn.GELU(), ResponseNorm(3 * c)
        self.pwconv2, self.gamma = nn.Linear(3 * c, c), nn.Parameter(torch.ones(c))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(self.grn(self.act(self.pwconv1(y))))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Liu et al. 2022 and the response norm of its second version."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 2, stride=2), LayerNorm2d(6, eps=1e-2))
        self.stages = nn.Sequential(
            NextBlock(6), LayerNorm2d(6, eps=1e-2), nn.Conv2d(6, 8, 2, stride=2), NextBlock(8), NextBlock(8)
        )
        self.norm, self.head = nn.LayerNorm(8, eps=1e-2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(self.stem(x)).mean([-2, -1])))


# ── channels split, shuffled, selected ──


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's, as torchvision writes it."""

    def __init__(self, c: int, n: int, stride: int) -> None:
        super().__init__()
        half, self.stride = n // 2, stride
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(conv_bn(c, c, groups=c, stride=2, act=nn.Identity()), conv_bn(c, half, 1))
        self.branch2 = nn.Sequential(
            conv_bn(c if stride > 1 else half, half, 1),
            conv_bn(half, half, groups=half, stride=stride, act=nn.Identity()),
            conv_bn(half, half, 1),
        )

    @staticmethod
    def shuffled(x: Tensor, groups: int) -> Tensor:
        batch, channels, height, width = x.size()
        x = x.view(batch, groups, channels // groups, height, width)
        return torch.transpose(x, 1, 2).contiguous().view(batch, channels, height, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch2(x2)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return self.shuffled(out, 2)


class ShuffleNetV2(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv_bn(3, 6), ShuffleUnit(6, 16, 2), ShuffleUnit(16, 16, 1), Head(16))


class Res2Block(nn.Module):
    """Gao et al. 2019, as its authors and timm write it."""

    def __init__(self, c: int, width: int, scale: int) -> None:
        super().__init__()
        self.width, self.scale, self.num_scales = width, scale, max(1, scale - 1)
        self.conv1, self.conv3 = conv_bn(c, width * scale, 1), conv_bn(width * scale, c, 1, act=nn.Identity())
        self.convs = nn.ModuleList(conv_bn(width, width) for _ in range(self.num_scales))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        spx = torch.split(self.conv1(x), self.width, 1)
        spo: list[Tensor] = []
        sp = spx[0]
        for i, conv in enumerate(self.convs):
            sp = spx[i] if i == 0 else sp + spx[i]
            sp = conv(sp)
            spo.append(sp)
        spo.append(spx[-1])
        return self.relu(self.conv3(torch.cat(spo, 1)) + x)


class Res2Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv_bn(3, 9), Res2Block(9, 5, 4), Res2Block(9, 6, 3), Head(9))


class SelectiveKernel(nn.Module):
    """SKNet: branches of several kernel sizes, weighed for each channel by a softmax over branches."""

    def __init__(self, c: int, n: int, attn: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList([conv_bn(c, n), conv_bn(c, n, 5)])
        self.num_paths = 2
        self.fc_reduce, self.bn, self.fc_select = nn.Conv2d(n, attn, 1), nn.BatchNorm2d(attn), nn.Conv2d(attn, 2 * n, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([op(x) for op in self.paths], dim=1)
        y = x.sum(1).mean((2, 3), keepdim=True)
        y = self.fc_select(F.relu(self.bn(self.fc_reduce(y))))
        b, c, h, w = y.shape
        y = torch.softmax(y.view(b, self.num_paths, c // self.num_paths, h, w), dim=1)
        return torch.sum(x * y, dim=1)


class SplitAttention(nn.Module):
    """ResNeSt's, as timm writes it."""

    def __init__(self, c: int, n: int, radix: int, groups: int, attn: int) -> None:
        super().__init__()
        self.radix, self.cardinality = radix, groups
        self.conv = conv_bn(c, n * radix, groups=groups * radix)
        self.fc1, self.bn1 = nn.Conv2d(n, attn, 1, groups=groups), nn.BatchNorm2d(attn)
        self.fc2 = nn.Conv2d(attn, n * radix, 1, groups=groups)

    def rsoftmax(self, x: Tensor) -> Tensor:
        batch = x.size(0)
        if self.radix > 1:
            x = x.view(batch, self.cardinality, self.radix, -1).transpose(1, 2)
            return F.softmax(x, dim=1).reshape(batch, -1)
        return torch.sigmoid(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        b, rc, h, w = x.shape
        x = x.reshape((b, self.radix, rc // self.radix, h, w))
        gap = x.sum(dim=1).mean((2, 3), keepdim=True)
        attn = self.fc2(F.relu(self.bn1(self.fc1(gap))))
        attn = self.rsoftmax(attn).view(b, -1, 1, 1)
        return (x * attn.reshape((b, self.radix, rc // self.radix, 1, 1))).sum(dim=1).contiguous()


class Selective(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv_bn(3, 8), SelectiveKernel(8, 10, 6), Head(10))


class ResNeSt(nn.Sequential):
    def __init__(self, groups: int = 1) -> None:
        super().__init__(conv_bn(3, 16), SplitAttention(16, 16, 2, groups, 12), Head(16))


class CrossStage(nn.Module):
    """CSPNet as in YOLO: halves of the channels, of which one passes through more and more blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.cv1 = conv_bn(3, 6), conv_bn(6, 2 * 7, 1)
        self.m = nn.ModuleList(nn.Sequential(conv_bn(7, 5), conv_bn(5, 7)) for _ in range(2))
        self.cv2, self.head = conv_bn(4 * 7, 9, 1), Head(9)

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(self.stem(x)).chunk(2, 1))
        y.extend(y[-1] + m(y[-1]) for m in self.m)
        return self.head(self.cv2(torch.cat(y, 1)))


class DualPathBlock(nn.Module):
    """DPN: of what the block makes, the first part is added to the stream, the rest put beside it."""

    def __init__(self, c: int, stream: int, more: int, *, first: bool = False) -> None:
        super().__init__()
        self.num_1x1_c, self.inc = stream, more
        self.proj = nn.Conv2d(c, stream + 2 * more, 1) if first else None
        self.c1, self.c3 = conv_bn(c, 8, 1), nn.Conv2d(8, stream + more, 1)

    def forward(self, x: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x_in = torch.cat(x, dim=1) if isinstance(x, tuple) else x
        if self.proj is not None:
            s = self.proj(x_in)
            s1, s2 = s[:, : self.num_1x1_c, :, :], s[:, self.num_1x1_c :, :, :]
        else:
            assert isinstance(x, tuple)
            s1, s2 = x
        y = self.c3(self.c1(x_in))
        out1, out2 = y[:, : self.num_1x1_c, :, :], y[:, self.num_1x1_c :, :, :]
        return s1 + out1, torch.cat([s2, out2], dim=1)


class DualPathNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 6)
        self.one, self.two = DualPathBlock(6, 9, 4, first=True), DualPathBlock(9 + 12, 9, 4)
        self.head = Head(9 + 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(torch.cat(self.two(self.one(self.stem(x))), dim=1)))


class Ghost(nn.Module):
    """GhostNet: cheap channels beside the others, and as many of both as were asked for."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        half = (n + 1) // 2
        self.oup = n
        self.primary_conv, self.cheap_operation = conv_bn(c, half, 1), conv_bn(half, half, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.primary_conv(x)
        x2 = self.cheap_operation(x1)
        return torch.cat([x1, x2], dim=1)[:, : self.oup, :, :]


class GhostNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv_bn(3, 6), Ghost(6, 10), Ghost(10, 12), Head(12))


class TiedAutoencoder(nn.Module):
    """The decoder has the encoder's weights; the code between them does not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.encode = conv_bn(3, 6), nn.Conv2d(6, 9, 2, stride=2)
        self.middle, self.back, self.out = conv_bn(9, 7, 1), conv_bn(7, 9, 1), nn.Conv2d(6, 3, 1)
        self.shift = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.back(self.middle(torch.tanh(self.encode(self.stem(x)))))
        return self.out(F.relu(F.conv_transpose2d(x, self.encode.weight, self.shift, stride=2)))


Family = Callable[[], nn.Module]
CONVOLUTIONAL: dict[str, Family] = {
    "unet": UNet,
    "detector": Detector,
    "hrnet": HighResolution,
    "convnext": ConvNeXt,
    "shufflenetv2": ShuffleNetV2,
    "res2net": Res2Net,
    "sknet": Selective,
    "resnest": ResNeSt,
    "resnest, 2 groups": lambda: ResNeSt(2),
    "csp": CrossStage,
    "dpn": DualPathNet,
    "ghostnet": GhostNet,
    "tied autoencoder": TiedAutoencoder,
}
