"""Networks with code under test between two convolutions, and what may be cut of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunit.cut.plans import Plan, keep_all
from prunit.cut.surgery import check_runs, compact, mask
from prunit.graph import ChannelGraph, trace
from prunit.graph.sizes import noted_sizes
from tests.nets import conv_bn, furthest, images, lived_in, random_plan

Code = Callable[[Any, Tensor], Tensor]


class Inner(nn.Module):
    """Runs `code`, which sees all that is given here as attributes."""

    def __init__(self, code: Code, attributes: dict[str, Any]) -> None:
        super().__init__()
        self.code = code
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, x)


class Net(nn.Module):
    """`code` on `c` channels, of which it makes `out`."""

    def __init__(self, code: Code, c: int = 12, out: int | None = None, **attributes: Any) -> None:
        super().__init__()
        self.stem, self.inner = conv_bn(3, c), Inner(code, attributes)
        self.out = nn.Conv2d(out or c, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(self.stem(x)))


def read(model: nn.Module, *, seeds: int = 3) -> ChannelGraph:
    """The model's graph, once every cut that it allows was right."""
    lived_in(model)
    graph = trace(model, images())
    for seed in range(seeds):
        plan = random_plan(graph, seed=seed)
        small, twin = compact(model, graph, plan), mask(model, graph, plan)
        check_runs(model, small, images())
        for training in (False, True):
            assert furthest(twin.train(training), small.train(training), images()) < 1e-12
    return graph


def free(graph: ChannelGraph) -> dict[str, int]:
    return {g.name: g.size for g in graph.groups if not g.pinned}


def sizes_at(model: nn.Module, graph: ChannelGraph, **widths: int) -> dict[str, dict[str, Any]]:
    """The attributes that change when the first so many channels of these groups stay; `inner_q` is for 'inner.q'."""
    keep = {name.replace("_", "."): tuple(range(width)) for name, width in widths.items()}
    return noted_sizes(compact(model, graph, Plan(keep, keep_all(graph).dense)))


def shuffled(x: Tensor, groups: int, each: int) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, each, h, w).transpose(1, 2).reshape(b, c, h, w)


def attention(m: Any, x: Tensor, heads: int, each: int) -> Tensor:
    b, _, h, w = x.shape
    q, k, v = (f(x).view(b, heads, each, h * w).transpose(2, 3) for f in (m.q, m.k, m.v))
    y = F.scaled_dot_product_attention(q, k, v) if m.fused else (q @ k.mT * m.scale).softmax(-1) @ v
    return m.project(y.transpose(2, 3).reshape(b, -1, h, w))


def attending(code: Code, heads: int = 4, each: int = 5, *, fused: bool = True, **attributes: Any) -> Net:
    inner = heads * each
    maps = {name: nn.Conv2d(12, inner, 1) for name in "qkv"}
    attributes = {"heads": heads, "scale": each**-0.5, "fused": fused} | maps | attributes
    return Net(code, **attributes, project=nn.Conv2d(inner, 12, 1))


def joined(m: Any, parts: Any) -> Tensor:
    """The first part through a convolution, the others beside it."""
    first, *rest = parts
    return torch.cat([m.conv(first), *rest], 1)
