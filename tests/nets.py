"""Toy networks, one for each way in which channels can be tied, and what the oracle tests need to use them.

Every network takes images x_BCHW of shape (2, 3, 8, 8) unless its example says otherwise.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunit.cut.plans import Plan
from prunit.graph import ChannelGraph
from prunit.graph.running import tensors_in


def images(*, batch: int = 2, channels: int = 3, size: int = 8, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal noise x_BCHW, always the same."""
    return torch.randn(batch, channels, size, size, dtype=dtype, generator=torch.Generator().manual_seed(0))


def lived_in(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """The model in float64 with parameters and statistics as after some training: nothing is 0 or 1 any more."""
    generator = torch.Generator().manual_seed(seed)
    model.double()
    with torch.no_grad():
        for tensor in model.parameters():
            fan_in = max(1, tensor[0].numel()) if tensor.ndim > 1 else 1
            tensor.normal_(0.1, fan_in**-0.5, generator=generator)
        for name, tensor in model.named_buffers():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5, generator=generator) if "var" in name else tensor.normal_(generator=generator)
    return model


def random_plan(graph: ChannelGraph, *, seed: int = 0, least: int = 1) -> Plan:
    """A plan that keeps between `least` and all-but-one channels, at random, of every group that may shrink."""
    rng = np.random.default_rng(seed)
    keep = {}
    for g in graph.groups:
        if not g.pinned and g.size > least:
            width = int(rng.integers(least, g.size))
            keep[g.name] = tuple(sorted(rng.choice(g.size, width, replace=False).tolist()))
    return Plan(keep, {g.name: g.size for g in graph.groups})


def without(model: nn.Module, graph: ChannelGraph, plan: Plan) -> nn.Module:
    """The dense model, in place, with the weights that make pruned channels at zero, so that these emit zeros.

    That holds where an activation of zero is zero, and nothing adds a constant to all channels.

    Other weights than the ones that `mask` writes to, which are those that read the channels.
    """
    keep, parameters = graph.flat_keep(plan.keep), dict(model.named_parameters())
    with torch.no_grad():
        for axis in graph.axes:
            if axis.tensor in parameters and (axis.makes or axis.role == "along"):
                gone = torch.from_numpy((~keep[axis.where]).nonzero()[0])
                parameters[axis.tensor].index_fill_(axis.dim, gone, 0)
    return model


def run(model: nn.Module, example: object) -> list[Tensor]:
    """The tensors that the model returns for an example given as `trace` takes it."""
    if isinstance(example, dict):
        return tensors_in(model(**example))
    return tensors_in(model(*example) if isinstance(example, tuple) else model(example))


def furthest(a: nn.Module, b: nn.Module, example: object) -> float:
    """The largest difference between outputs of two models, relative to the size of the outputs."""
    with torch.no_grad():
        pairs = list(zip(run(a, example), run(b, example), strict=True))
    assert all(x.shape == y.shape for x, y in pairs)
    return max(float((x - y).abs().max() / (1 + x.abs().max())) for x, y in pairs)


def conv_bn(i: int, o: int, k: int = 3, *, act: nn.Module | None = None, **options: int) -> nn.Sequential:
    """Convolution without bias, batch norm, activation."""
    conv = nn.Conv2d(i, o, k, padding=k // 2, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(o), act or nn.ReLU())


class Head(nn.Module):
    """Global average pool and a classifier."""

    def __init__(self, channels: int, classes: int = 5) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


class Plain(nn.Module):
    """Two convolutions, one of them without batch norm."""

    def __init__(self, act: nn.Module | None = None) -> None:
        super().__init__()
        self.act: nn.Module = act or nn.ReLU()
        self.first = conv_bn(3, 6, act=self.act)
        self.second = nn.Conv2d(6, 8, 3)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.second(self.first(x))))


class Residual(nn.Module):
    """A stem, a block with identity shortcut and one with a projection and stride."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 6)
        self.a1, self.a2 = conv_bn(6, 4), conv_bn(4, 6, act=nn.Identity())
        self.b1, self.b2 = conv_bn(6, 5, stride=2), conv_bn(5, 8, act=nn.Identity())
        self.project = conv_bn(6, 8, 1, act=nn.Identity(), stride=2)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.a2(self.a1(x)))
        x = F.relu(self.b2(self.b1(x)) + self.project(x))
        return self.head(x)


class PaddedShortcut(nn.Module):
    """The parameter-free shortcut of the first ResNets: every second pixel, zero channels on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = conv_bn(3, 4), conv_bn(4, 8, stride=2), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(F.relu(self.body(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))))


class Concatenated(nn.Module):
    """Dense connections: each layer reads all features so far, the image among them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv_bn(3, 4), conv_bn(7, 5)
        self.norm = nn.BatchNorm2d(12)
        self.c = nn.Conv2d(12, 6, 1)
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.a(x)], 1)
        x = torch.cat([x, self.b(x)], 1)
        return self.head(F.silu(self.c(F.relu(self.norm(x)))))


class ConcatenatedSum(nn.Module):
    """Two narrow branches side by side plus a wide one: the wide one's halves belong to different groups."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv_bn(3, 4), conv_bn(3, 3), conv_bn(3, 7)
        self.d = conv_bn(7, 4)
        self.head = Head(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.d(torch.cat([self.a(x), self.b(x)], 1) + self.c(x)))


class Inverted(nn.Module):
    """MobileNetV2's block: expand, depthwise, project, add."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 4)
        self.expand, self.depth = conv_bn(4, 12, 1, act=nn.ReLU6()), conv_bn(12, 12, groups=12, act=nn.ReLU6())
        self.project = conv_bn(12, 4, 1, act=nn.Identity())
        self.head = Head(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.project(self.depth(self.expand(x))))


class Multiplier(nn.Module):
    """A depthwise convolution that makes three channels from each, on features; and one on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Conv2d(3, 6, 3, groups=3)
        self.stem, self.depth = conv_bn(6, 4), nn.Conv2d(4, 12, 3, padding=1, groups=4)
        self.head = Head(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(self.depth(self.stem(self.lift(x)))))


class Grouped(nn.Module):
    """ResNeXt's block: a grouped convolution between two 1x1."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv_bn(3, 8), conv_bn(8, 12, groups=4), conv_bn(12, 8, 1, act=nn.Identity())
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.head(F.relu(x + self.c(self.b(x))))


class Flattened(nn.Module):
    """VGG's head: every channel feeds 16 inputs of a linear layer; then batch norm and another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv_bn(3, 6), nn.MaxPool2d(2), nn.Conv2d(6, 5, 1, bias=False), nn.ReLU())
        self.classifier = nn.Sequential(nn.Linear(80, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class Gated(nn.Module):
    """Squeeze and excitation, and a spatial gate of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.squeeze, self.excite = nn.Conv2d(8, 3, 1), nn.Conv2d(3, 8, 1)
        self.where = nn.Conv2d(8, 1, 3, padding=1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x * self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))).sigmoid()
        return self.head(x * self.where(x).sigmoid())


class Recurrent(nn.Module):
    """One module called twice, and one weight that two modules share."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again = conv_bn(3, 6), nn.Conv2d(6, 6, 3, padding=1)
        self.left, self.right = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)
        self.right.weight = self.left.weight
        self.head = Head(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.again(torch.relu(self.again(x)))
        return self.head(self.left(x) * self.right(x))


class Perceptron(nn.Module):
    """Linear layers over a sequence (2, 4, 6), with a batch of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.mix, self.down = nn.Linear(6, 9), nn.Linear(9, 7, bias=False), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.mix(F.gelu(self.up(x)))))


class UNet(nn.Module):
    """Down, up by a transposed convolution and by interpolation, skip connections; returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.outer, self.inner = conv_bn(3, 4), conv_bn(4, 6, stride=2)
        self.up, self.norm = nn.ConvTranspose2d(6, 5, 2, stride=2), nn.BatchNorm2d(5)
        self.join, self.coarse = nn.Conv2d(9, 2, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.outer(x)
        y = self.inner(x)
        fine = self.join(torch.cat([F.relu(self.norm(self.up(y))), x], 1))
        return {"fine": fine, "coarse": F.interpolate(self.coarse(y), scale_factor=2, mode="nearest")}


class Parameters(nn.Module):
    """Channels that also meet plain parameters: PReLU, layer scale, a learned position, a fixed depthwise blur."""

    blur: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 6, act=nn.PReLU(6))
        self.scale, self.position = nn.Parameter(torch.ones(6, 1, 1)), nn.Parameter(torch.zeros(1, 6, 8, 8))
        self.register_buffer("blur", torch.full((6, 1, 3, 3), 1 / 9), persistent=False)
        self.body, self.head = conv_bn(6, 6, act=nn.PReLU()), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) + self.position
        x = x + self.scale * self.body(x)
        return self.head(F.conv2d(x, self.blur, groups=x.shape[1]))


class Scaled(nn.Module):
    """A weight with a learned gain, and linear maps written as einsum and matmul."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.weight = conv_bn(3, 6), nn.Parameter(torch.randn(5, 6, 3, 3))
        self.gain, self.point = nn.Parameter(torch.ones(5, 1, 1, 1)), nn.Parameter(torch.randn(7, 5))
        self.out = nn.Parameter(torch.randn(3, 7))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(self.stem(x), self.gain * self.weight))
        x = torch.einsum("bchw,oc->bohw", x, self.point).relu()
        return torch.matmul(self.out, x.flatten(2))


class Volume(nn.Module):
    """One and three dimensions of space."""

    def __init__(self) -> None:
        super().__init__()
        self.deep, self.norm3 = nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4)
        self.line, self.norm1 = nn.Conv1d(4, 5, 3), nn.BatchNorm1d(5)
        self.fc = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(F.relu(self.norm3(self.deep(x.unsqueeze(1)))), (1, 2, 2))
        x = self.line(x.flatten(2))
        return self.fc(F.adaptive_avg_pool1d(F.elu(self.norm1(x)), 1).squeeze(-1))


NETS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "plain": (Plain, images()),
    "residual": (Residual, images()),
    "padded shortcut": (PaddedShortcut, images()),
    "concatenated": (Concatenated, images()),
    "concatenated sum": (ConcatenatedSum, images()),
    "inverted": (Inverted, images()),
    "multiplier": (Multiplier, images()),
    "grouped": (Grouped, images()),
    "flattened": (Flattened, images()),
    "gated": (Gated, images()),
    "recurrent": (Recurrent, images()),
    "perceptron": (Perceptron, images(size=6)[:, 0, :4]),
    "unet": (UNet, images()),
    "parameters": (Parameters, images()),
    "scaled": (Scaled, images()),
    "volume": (Volume, images()),
}
"""Networks whose every group but the output's may shrink (and parts that meet something fixed), by name."""
