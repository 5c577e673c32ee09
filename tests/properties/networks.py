"""Random small networks: a Hypothesis strategy over lists of blocks, and the network that such a list describes."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.nets import conv_bn
from tests.properties import blocks as written

Made = tuple[nn.Module, int]
"""A block, and how many channels it makes."""


class Step(nn.Module):
    """A block whose `forward` is a function of its parts and its input."""

    def __init__(self, parts: list[nn.Module], step: Callable[[list[nn.Module], Tensor], Tensor]) -> None:
        super().__init__()
        self.parts, self.step = nn.ModuleList(parts), step

    def forward(self, x: Tensor) -> Tensor:
        return self.step(list(self.parts), x)


ACTS = (nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Identity)


def plain(c: int, n: int) -> Made:
    return Step([nn.Conv2d(c, n, 3, padding=1), ACTS[n % 5]()], lambda p, x: p[1](p[0](x))), n


def normed(c: int, n: int) -> Made:
    return Step([conv_bn(c, n, 1 + n % 2 * 2, act=ACTS[c % 5]())], lambda p, x: p[0](x)), n


def residual(c: int, n: int) -> Made:
    parts: list[nn.Module] = [conv_bn(c, n), conv_bn(n, c, 1, act=nn.Identity())]
    return Step(parts, lambda p, x: F.relu(x + p[1](p[0](x)))), c


def projected(c: int, n: int) -> Made:
    return Step([conv_bn(c, n), nn.Conv2d(c, n, 1)], lambda p, x: F.silu(p[1](x).add_(p[0](x)))), n


def dense(c: int, n: int) -> Made:
    return Step([conv_bn(c, n)], lambda p, x: torch.cat([x, p[0](x)], 1)), c + n


def joined(c: int, n: int) -> Made:
    parts: list[nn.Module] = [nn.Conv2d(c, n, 1), conv_bn(c, 3), nn.Conv2d(c, n + 3, 1)]
    return Step(parts, lambda p, x: torch.cat([p[0](x), p[1](x)], 1) * p[2](x)), n + 3


def depthwise(c: int, n: int) -> Made:
    times = 1 + n % 2
    return Step([conv_bn(c, c * times, groups=c)], lambda p, x: p[0](x)), c * times


def grouped(c: int, n: int) -> Made:
    parts: list[nn.Module] = [nn.Conv2d(c, 6, 1), conv_bn(6, 2 * n, groups=2)]
    return Step(parts, lambda p, x: p[1](p[0](x))), 2 * n


def gated(c: int, n: int) -> Made:
    parts: list[nn.Module] = [nn.Linear(c, n), nn.Linear(n, c)]
    return Step(parts, lambda p, x: x * p[1](p[0](x.mean((2, 3))).relu()).sigmoid()[:, :, None, None]), c


def twice(c: int, n: int) -> Made:
    return Step([nn.Conv2d(c, c, 3, padding=1)], lambda p, x: p[0](torch.tanh(p[0](x)))), c


def pixelwise(c: int, n: int) -> Made:
    parts: list[nn.Module] = [nn.Linear(c, n), nn.PReLU(n)]
    return Step(parts, lambda p, x: p[1](p[0](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))), n


def resized(c: int, n: int) -> Made:
    parts: list[nn.Module] = [nn.ConvTranspose2d(c, n, 2, stride=2), nn.MaxPool2d(2)]
    return Step(parts, lambda p, x: p[1](p[0](x))), n


def padded(c: int, n: int) -> Made:
    return Step([nn.BatchNorm2d(c + 3)], lambda p, x: p[0](F.pad(x, (0, 0, 0, 0, 1, 2)))), c + 3


def normalised(c: int, n: int) -> Made:
    return Step([nn.GroupNorm(1, c, eps=0.01)], lambda p, x: p[0](x).relu()), c


def halved(c: int, n: int) -> Made:
    half = c // 2  # written out: the code does not follow
    return Step([conv_bn(half, half)], lambda p, x: torch.cat([p[0](x[:, :half]), x[:, half:]], 1)), c


Builder = Callable[[int, int], Made]
"""A block for so many channels, with a number from 2 to 6 that says how large it is."""


def block(kind: Callable[..., nn.Module], out: Callable[[int, int], int], *options: str) -> Builder:
    """The builder of one of the blocks of `tests.properties.blocks`, which makes `out(c, n)` channels."""

    def build(c: int, n: int) -> Made:
        return kind(c, n, *options), out(c, n)

    build.__name__ = "-".join([kind.__name__, *options])
    return build


def named(build: Builder) -> str:
    """The builder's name."""
    return build.__name__  # pyright: ignore[reportFunctionMemberAccess]


STEPS: tuple[Builder, ...] = (plain, normed, residual, projected, dense, joined, depthwise, grouped, gated)
STEPS += (twice, pixelwise, resized, padded, normalised, halved)
BLOCKS: tuple[Builder, ...] = (
    *STEPS,
    block(written.Chunked, lambda c, n: n),
    block(written.Cascade, lambda c, n: n),
    block(written.Uneven, lambda c, n: 3),
    block(written.DualPath, lambda c, n: n + 9),
    block(written.Shuffled, lambda c, n: 2 * n),
    block(written.Interleaved, lambda c, n: 2 * n),
    block(written.Squeezed, lambda c, n: c),
    block(written.Spatial, lambda c, n: c),
    block(written.Selected, lambda c, n: n),
    block(written.LayerNormed, lambda c, n: c),
    block(written.FunctionallyNormed, lambda c, n: n),
    block(written.GroupNormed, lambda c, n: 2 * n),
    block(written.HandNormed, lambda c, n: n),
    block(written.Reparametrised, lambda c, n: n),
    block(written.SubPixel, lambda c, n: n),
    block(written.Blurred, lambda c, n: c),
    block(written.Fused, lambda c, n: n),
    block(written.Placed, lambda c, n: n),
    block(written.PixelsMixed, lambda c, n: c),
    block(written.Attention, lambda c, n: c, "fused"),
    block(written.Attention, lambda c, n: c, "written out"),
    block(written.Separate, lambda c, n: c),
)
"""Blocks that treat all channels of a group alike."""
TABLES = BLOCKS[-4:]
"""Those whose activations have channels along two dimensions: heads, or maps from pixels to pixels."""
ORDERED: tuple[Builder, ...] = (block(written.Efficient, lambda c, n: c),)
"""Blocks for which it matters which channels are neighbours."""


class Network(nn.Module):
    """A stem, the blocks, and a classifier on flattened or averaged features.

    `returns` is what comes back: the classes alone in a list, or with the features' map in a list, tuple or dict.
    """

    def __init__(self, recipe: list[tuple[Builder, int]], flat: bool, returns: str) -> None:
        super().__init__()
        self.stem = conv_bn(3, 4)
        channels, blocks = 4, []
        for build, n in recipe:
            made, channels = build(channels, n)
            blocks.append(made)
        self.blocks = nn.Sequential(*blocks)
        self.reduce = nn.Conv2d(channels, 5, 1)
        self.fc = nn.Linear(80 if flat else 5, 3)
        self.flat, self.returns = flat, returns
        self.map = None if returns == "classes" else nn.Conv2d(channels, 2, 3)
        self.recipe = ", ".join(f"{named(build)}({n})" for build, n in recipe)

    def extra_repr(self) -> str:
        return f"{self.recipe}; {'flat' if self.flat else 'averaged'}; {self.returns}"

    def forward(self, x: Tensor) -> Any:
        x = self.blocks(self.stem(x))
        y = F.relu(self.reduce(x))
        y = self.fc(y.flatten(1) if self.flat else y.mean((2, 3)))
        if self.map is None:
            return [y]
        found = {"classes": y, "levels": [self.map(x)]}
        return {"list": list(found.values()), "tuple": tuple(found.values()), "dict": found}[self.returns]


def networks(alphabet: tuple[Builder, ...] = BLOCKS + ORDERED) -> st.SearchStrategy[Network]:
    """Networks of one to four blocks for images of 3 x 4 x 4."""
    recipe = st.lists(st.tuples(st.sampled_from(alphabet), st.integers(2, 6)), min_size=1, max_size=4)
    return st.builds(Network, recipe, st.booleans(), st.sampled_from(("classes", "list", "tuple", "dict")))
