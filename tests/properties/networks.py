"""Random small CNNs: a Hypothesis strategy over lists of blocks, and the network that such a list describes."""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.nets import conv_bn


class Block(nn.Module):
    """A block of `channels` in; `out` is how many it makes, `forward` may use `parts`."""

    def __init__(self, out: int, parts: list[nn.Module], step: Callable[[list[nn.Module], Tensor], Tensor]) -> None:
        super().__init__()
        self.out, self.parts, self.step = out, nn.ModuleList(parts), step

    def forward(self, x: Tensor) -> Tensor:
        return self.step(list(self.parts), x)


ACTS = (nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Identity)


def plain(c: int, n: int) -> Block:
    return Block(n, [nn.Conv2d(c, n, 3, padding=1), ACTS[n % 5]()], lambda p, x: p[1](p[0](x)))


def normed(c: int, n: int) -> Block:
    return Block(n, [conv_bn(c, n, 1 + n % 2 * 2, act=ACTS[c % 5]())], lambda p, x: p[0](x))


def residual(c: int, n: int) -> Block:
    parts: list[nn.Module] = [conv_bn(c, n), conv_bn(n, c, 1, act=nn.Identity())]
    return Block(c, parts, lambda p, x: F.relu(x + p[1](p[0](x))))


def projected(c: int, n: int) -> Block:
    return Block(n, [conv_bn(c, n), nn.Conv2d(c, n, 1)], lambda p, x: F.silu(p[0](x).add_(p[1](x))))


def dense(c: int, n: int) -> Block:
    return Block(c + n, [conv_bn(c, n)], lambda p, x: torch.cat([x, p[0](x)], 1))


def joined(c: int, n: int) -> Block:
    parts: list[nn.Module] = [nn.Conv2d(c, n, 1), conv_bn(c, 3), nn.Conv2d(c, n + 3, 1)]
    return Block(n + 3, parts, lambda p, x: torch.cat([p[0](x), p[1](x)], 1) * p[2](x))


def depthwise(c: int, n: int) -> Block:
    times = 1 + n % 2
    return Block(c * times, [conv_bn(c, c * times, groups=c)], lambda p, x: p[0](x))


def grouped(c: int, n: int) -> Block:
    parts: list[nn.Module] = [nn.Conv2d(c, 6, 1), conv_bn(6, 2 * n, groups=2)]
    return Block(2 * n, parts, lambda p, x: p[1](p[0](x)))


def gated(c: int, n: int) -> Block:
    parts: list[nn.Module] = [nn.Linear(c, n), nn.Linear(n, c)]
    return Block(c, parts, lambda p, x: x * p[1](p[0](x.mean((2, 3))).relu()).sigmoid()[:, :, None, None])


def twice(c: int, n: int) -> Block:
    again = nn.Conv2d(c, c, 3, padding=1)
    return Block(c, [again], lambda p, x: p[0](torch.tanh(p[0](x))))


def pixelwise(c: int, n: int) -> Block:
    parts: list[nn.Module] = [nn.Linear(c, n), nn.PReLU(n)]
    return Block(n, parts, lambda p, x: p[1](p[0](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))


def resized(c: int, n: int) -> Block:
    parts: list[nn.Module] = [nn.ConvTranspose2d(c, n, 2, stride=2), nn.MaxPool2d(2)]
    return Block(n, parts, lambda p, x: p[1](p[0](x)))


def padded(c: int, n: int) -> Block:
    return Block(c + 3, [nn.BatchNorm2d(c + 3)], lambda p, x: p[0](F.pad(x, (0, 0, 0, 0, 1, 2))))


def stuck(c: int, n: int) -> Block:
    return Block(c, [nn.GroupNorm(1, c)], lambda p, x: p[0](x).relu())


def halved(c: int, n: int) -> Block:
    half = c // 2
    return Block(c, [conv_bn(half, half)], lambda p, x: torch.cat([p[0](x[:, :half]), x[:, half:]], 1))


BLOCKS = (plain, normed, residual, projected, dense, joined, depthwise, grouped, gated)
BLOCKS += (twice, pixelwise, resized, padded, stuck, halved)


class Network(nn.Module):
    """A stem, the blocks, and a classifier on flattened or averaged features, with the features' map where asked."""

    def __init__(self, recipe: list[tuple[int, int]], flat: bool, maps: bool) -> None:
        super().__init__()
        self.stem = conv_bn(3, 4)
        channels, blocks = 4, []
        for which, n in recipe:
            block = BLOCKS[which](channels, n)
            blocks.append(block)
            channels = block.out
        self.blocks = nn.Sequential(*blocks)
        self.reduce = nn.Conv2d(channels, 5, 1)
        self.fc = nn.Linear(80 if flat else 5, 3)
        self.flat = flat
        self.map = nn.Conv2d(channels, 2, 3) if maps else None

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.blocks(self.stem(x))
        y = F.relu(self.reduce(x))
        y = self.fc(y.flatten(1) if self.flat else y.mean((2, 3)))
        return [y] if self.map is None else [y, self.map(x)]


def networks() -> st.SearchStrategy[Network]:
    """Networks of one to four blocks for images of 3 x 4 x 4."""
    block = st.tuples(st.integers(0, len(BLOCKS) - 1), st.integers(2, 6))
    return st.builds(Network, st.lists(block, min_size=1, max_size=4), st.booleans(), st.booleans())
