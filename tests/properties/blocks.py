"""Blocks written as in published networks, with the sizes that their code reads in attributes: for random networks.

Each is built from `c`, the channels that it reads, and `n`, a number from 2 to 6; `out` is how many it makes, by `c`
and `n` too. It stands outside of the modules, whose attributes are part of what is tested.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.nets import conv_bn

# ── parts of the channels ──


class Chunked(nn.Module):
    """CSP: half of the channels take the long way."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.first, self.long, self.last = conv_bn(c, 2 * n, 1), conv_bn(n, n), conv_bn(2 * n, n, 1)

    def forward(self, x: Tensor) -> Tensor:
        short, long = self.first(x).chunk(2, dim=1)
        return self.last(torch.cat([short, self.long(long)], 1))


class Cascade(nn.Module):
    """Res2Net: parts of `width` channels, each of which is added to the next."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.width, self.parts = n, 3
        self.first, self.last = conv_bn(c, n * self.parts, 1), conv_bn(n * self.parts, n, 1)
        self.convs = nn.ModuleList(conv_bn(n, n) for _ in range(self.parts - 1))

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = torch.split(self.first(x), self.width, 1)
        out = [first]
        for conv, part in zip(self.convs, rest, strict=True):
            out.append(conv(part + out[-1]))
        return self.last(torch.cat(out, 1))


class Uneven(nn.Module):
    """A split by a list of sizes, as in inception-like mixers."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.sizes = (n, n + 7)
        self.first, self.left, self.right = nn.Conv2d(c, 2 * n + 7, 1), conv_bn(n, 3), conv_bn(n + 7, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(self.first(x), self.sizes, dim=1)
        return self.left(left) * torch.sigmoid(self.right(right))


class DualPath(nn.Module):
    """DPN: the first channels are added to the input's first ones, the others are concatenated to it."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.stream = n
        self.project, self.body = nn.Conv2d(c, n, 1), conv_bn(c, n + 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return torch.cat([self.project(x) + y[:, : self.stream], y[:, self.stream :]], 1)


class Shuffled(nn.Module):
    """ShuffleNet: a grouped convolution, then the groups exchange their channels."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.groups = 2
        self.first, self.second = conv_bn(c, 2 * n, 1), conv_bn(2 * n, 2 * n, groups=self.groups)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        b, c, h, w = x.shape
        x = x.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.second(x)


class Interleaved(nn.Module):
    """ShuffleNetV2: half of the channels pass, the halves are shuffled into each other."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.first, self.branch, self.shuffle = conv_bn(c, 2 * n, 1), conv_bn(n, n), nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x).chunk(2, 1)
        return self.shuffle(torch.cat([a, self.branch(b)], 1))


# ── gates ──


class Squeezed(nn.Module):
    """Squeeze and excitation as first written, with views."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(c, n), nn.ReLU(), nn.Linear(n, c), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = F.adaptive_avg_pool2d(x, 1).view(b, c)
        return x * self.fc(y).view(b, c, 1, 1).expand_as(x)


class Efficient(nn.Module):
    """ECA: a gate from a convolution along the channels, which therefore have an order."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((2, 3)).view(x.shape[0], 1, -1)
        return x * self.conv(y).view(x.shape[0], -1, 1, 1).sigmoid()


class Spatial(nn.Module):
    """CBAM's spatial gate: the mean and the largest of the channels of each pixel."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()


class Selected(nn.Module):
    """SKNet: a softmax over branches for each channel."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(conv_bn(c, n, k) for k in (1, 3))
        self.fc = nn.ModuleList(nn.Linear(n, n) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.stack([branch(x) for branch in self.branches], 1)
        pooled = parts.sum(1).mean((2, 3))
        weights = torch.stack([fc(pooled) for fc in self.fc], 1).softmax(1)
        return (parts * weights[..., None, None]).sum(1)


# ── norms ──


class LayerNormed(nn.Module):
    """ConvNeXt: depthwise, then layer norm, an expansion and a scale for each channel, channels last."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.depth, self.norm = nn.Conv2d(c, c, 3, padding=1, groups=c), nn.LayerNorm(c, eps=1e-2)
        self.up, self.down, self.gamma = nn.Linear(c, 2 * n), nn.Linear(2 * n, c), nn.Parameter(torch.ones(c))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class FunctionallyNormed(nn.Module):
    """Layer norm by function, its sizes in a tuple, and RMS norm."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.shape = (c,)
        self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))
        self.rms, self.out = nn.RMSNorm(c, eps=1e-2), nn.Linear(c, n)

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.shape, self.weight, self.bias, 1e-2)
        y = self.out(self.rms(y + F.layer_norm(y, (y.shape[-1],), eps=1e-2)))
        return y.permute(0, 3, 1, 2)


class GroupNormed(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(c, 2 * n, 3, padding=1), nn.GroupNorm(2, 2 * n, eps=1e-2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


class HandNormed(nn.Module):
    """Statistics over channels written out, and vectors of length one."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, n, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-2).sqrt()
        return F.normalize(self.conv(x), dim=1, eps=1e-2)


class StandardisedConv(nn.Conv2d):
    """Weights of mean 0 and deviation 1 for each output."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-2)
        return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ScaledStandardisedConv(nn.Conv2d):
    """The same by way of a batch norm over the weights, as normaliser-free networks have it."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__(c, n, 3, padding=1)
        self.gain, self.scale = nn.Parameter(torch.ones(n, 1, 1, 1)), (9 * c) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        w = F.batch_norm(flat, None, None, (self.gain * self.scale).view(-1), training=True, momentum=0.0, eps=1e-2)
        return F.conv2d(x, w.reshape_as(self.weight), self.bias, 1, self.padding)


class Reparametrised(nn.Module):
    """Weights that are computed anew for every use."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.standard, self.scaled = StandardisedConv(c, n, 3, padding=1), ScaledStandardisedConv(n, n)
        self.normed = parametrizations.weight_norm(nn.Conv2d(n, n, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.normed(F.silu(self.scaled(F.silu(self.standard(x)))))


# ── space ──


class SubPixel(nn.Module):
    """Four channels become four pixels and, after a convolution, pixels become channels again."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.up, self.mid, self.down = nn.Conv2d(c, 4 * n, 1), nn.Conv2d(n, n, 3, padding=1), nn.Conv2d(4 * n, n, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.pixel_unshuffle(self.mid(F.pixel_shuffle(self.up(x), 2)).relu(), 2))


class Blurred(nn.Module):
    """A fixed kernel, once expanded to the channels there are, once kept for each channel."""

    one: Tensor
    each: Tensor

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.channels = c
        self.register_buffer("one", torch.ones(1, 1, 3, 3) / 9)
        self.register_buffer("each", torch.ones(c, 1, 3, 3) / 9)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.one.expand(x.shape[1], -1, -1, -1), padding=1, groups=x.shape[1])
        return F.conv2d(x, self.each, padding=1, groups=self.channels)


class Fused(nn.Module):
    """HRNet: two resolutions, each added to the other."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.fine, self.coarse = conv_bn(c, n), conv_bn(c, n + 1, stride=2)
        self.up, self.down = conv_bn(n + 1, n, 1), conv_bn(n, n + 1, stride=2)
        self.last = nn.Conv2d(2 * n + 1, n, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = self.fine(x), self.coarse(x)
        higher = fine + F.interpolate(self.up(coarse), size=fine.shape[-2:], mode="bilinear")
        lower = coarse + self.down(fine)
        return self.last(torch.cat([higher, F.interpolate(lower, scale_factor=2)], 1))


class Placed(nn.Module):
    """Plain parameters and a buffer beside the channels: a convolution by function, a position, a fixed mask."""

    allowed: Tensor

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(n, c, 3, 3)), nn.Parameter(torch.zeros(n))
        self.position = nn.Parameter(torch.zeros(1, n, 4, 4))
        self.register_buffer("allowed", torch.ones(1, n, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (F.conv2d(x, self.weight, self.bias, padding=1) + self.position) * self.allowed


class PixelsMixed(nn.Module):
    """MLP-Mixer: a map from pixels to pixels, then one from channels to channels."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.tokens, self.channels = nn.Linear(16, 16), nn.Linear(c, c)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = x.flatten(2).transpose(1, 2)
        y = y + self.tokens(y.transpose(1, 2)).transpose(1, 2)
        return (y + self.channels(F.gelu(y))).transpose(1, 2).reshape(b, c, h, w)


# ── attention ──


class Attention(nn.Module):
    """Attention over pixels as in timm, by PyTorch's function or written out."""

    def __init__(self, c: int, n: int, how: str) -> None:
        super().__init__()
        self.heads, self.width, self.fused = n + 1, 5, how == "fused"
        self.scale = self.width**-0.5
        inner = self.heads * self.width
        self.qkv, self.project = nn.Linear(c, 3 * inner), nn.Linear(inner, c)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(y).reshape(b, h * w, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        y = self.project(y.transpose(1, 2).flatten(2))
        return x + y.transpose(1, 2).reshape(b, c, h, w)


class Separate(nn.Module):
    """Attention from three maps, over channels as they lie."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.heads = 4
        self.q, self.k, self.v = (nn.Conv2d(c, 4 * n, 1) for _ in range(3))
        self.project = nn.Conv2d(4 * n, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        q, k, v = (f(x).view(b, self.heads, -1, h * w).transpose(2, 3) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.project(y.transpose(2, 3).reshape(b, -1, h, w))
