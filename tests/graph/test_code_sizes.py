"""Attributes and numbers that follow a width: which become what, and which only look like it.

Networks as in `test_readings`.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.reading import Code, Net, attending, attention, free, joined, read, shuffled, sizes_at

# ── attributes ──


def test_a_size_that_a_helper_holds() -> None:
    """A table of biases is asked by a method: it does not run as a module does."""

    class Bias(nn.Module):
        def __init__(self, heads: int) -> None:
            super().__init__()
            self.num_heads, self.table = heads, nn.Parameter(torch.zeros(64 * 64, heads))

        def of_all(self) -> Tensor:
            return self.table[torch.arange(64 * 64)].view(64, 64, self.num_heads).permute(2, 0, 1)

    def code(m: Any, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        q, k, v = (f(x).view(b, m.heads, -1, h * w).transpose(2, 3) for f in (m.q, m.k, m.v))
        y = (q @ k.mT * m.scale + m.bias.of_all()).softmax(-1) @ v
        return m.project(y.transpose(2, 3).reshape(b, -1, h, w))

    model = attending(code, bias=Bias(4))
    graph = read(model)
    assert free(graph)["inner.q"] == 4
    assert sizes_at(model, graph, inner_q=3) == {"inner": {"heads": 3}, "inner.bias": {"num_heads": 3}}


def test_a_child_that_counts_other_channels_with_the_same_number() -> None:
    class Child(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.up, self.down = 12, nn.Conv2d(12, 24, 1), nn.Conv2d(12, 12, 1)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.up(x).split([self.width, self.width], 1)
            return self.down(a * b.sigmoid())

    graph = read(Net(lambda m, x: m.child(x.flatten(1).view(x.shape)), child=Child()))
    assert free(graph) == {"stem.0": 12, "inner.child.up": 12, "inner.child.down": 12}


def test_an_attribute_that_is_a_scale_too() -> None:
    code = lambda m, x: joined(m, (x[:, : m.part] * m.part**-0.5, x[:, m.part :]))  # noqa: E731
    graph = read(Net(code, part=4, conv=nn.Conv2d(4, 4, 1)))
    assert graph.group("stem.0").pinned


def test_an_attribute_that_is_the_shape_of_a_norm_and_a_scale() -> None:
    code = lambda m, x: F.layer_norm(x.movedim(1, -1), (m.dim,)).movedim(-1, 1) * m.dim**-0.5  # noqa: E731
    read(Net(code, dim=12))


def pooled(m: Any, x: Tensor) -> Tensor:
    return m.pool(attention(m, x, m.heads, -1))


NOT_SIZES = [
    ("kernel of a pooling", pooled, 3, {"pool": nn.MaxPool2d(3, 1, 1)}),
    ("stride", pooled, 3, {"pool": nn.AvgPool2d(3, 1, 1)}),
    ("dim of a softmax", lambda m, x: m.soft(pooled(m, x)), 3, {"pool": nn.Identity(), "soft": nn.Softmax(3)}),
    ("roll", lambda m, x: attention(m, x, m.heads, -1).roll(m.shift, 2), 4, {"shift": 4}),
    ("power", lambda m, x: attention(m, x, m.heads, -1) ** m.power, 3, {"power": 3}),
    ("limit", pooled, 3, {"pool": nn.Hardtanh(-3, 3)}),
    ("divisor", lambda m, x: attention(m, x, m.heads, -1) / m.divisor, 3, {"divisor": 3}),
]


@pytest.mark.parametrize(
    ("code", "heads", "attributes"),
    [pytest.param(*case, id=name) for name, *case in NOT_SIZES],
)
def test_an_attribute_that_only_looks_like_a_size(code: Code, heads: int, attributes: dict[str, Any]) -> None:
    assert free(read(attending(code, heads, 5, **attributes)))


# ── numbers taken from a width ──


NUMBERS = [
    ("a factor", lambda m, x: x * x.shape[1] ** -0.5),
    ("a count", lambda m, x: x.sum(1, keepdim=True) / x.shape[1] * x),
    ("a keyword", lambda m, x: torch.add(x, x, alpha=1 / x.shape[1])),
    ("a limit", lambda m, x: x.clamp(max=x.shape[1] / 20)),
    ("a tensor of it", lambda m, x: x * torch.tensor(1 / x.shape[1], dtype=x.dtype, device=x.device)),
    ("a tensor filled with it", lambda m, x: x * x.new_full((1,), 1 / x.shape[1])),
    ("an array of it", lambda m, x: x * torch.from_numpy(np.full(3, x.shape[1] ** -0.5))[0].to(x)),
    ("a list of it", lambda m, x: x * x.new_tensor([1 / x.shape[1]])),
    ("how many groups to normalise", lambda m, x: F.group_norm(x, x.shape[1] // 4)),
    ("a branch", lambda m, x: x.relu() if x.shape[1] > 10 else x),
    ("frequencies", lambda m, x: x + torch.arange(x.shape[1], device=x.device).to(x)[:, None, None].sin()),
]
"""Code that computes something else on fewer channels."""


@pytest.mark.parametrize(
    "code",
    [pytest.param(code, id=name) for name, code in NUMBERS],
)
def test_a_number_that_follows_a_width_is_noticed(code: Code) -> None:
    """The compact model would compute with the smaller number, the masked one with the old one."""
    read(Net(lambda m, x: code(m, x.reshape(len(x), -1, 8, 8))))


@pytest.mark.parametrize("code", [code for _, code in NUMBERS], ids=[name for name, _ in NUMBERS])
def test_also_where_nothing_else_is_open(code: Code) -> None:
    read(Net(code))


@pytest.mark.parametrize(
    "code",
    [
        lambda m, x: F.layer_norm(x.movedim(1, -1), (12,)).movedim(-1, 1),
        lambda m, x: F.conv2d(x, m.kernel, padding=1, groups=12),
    ],
    ids=["layer norm", "depthwise"],
)
def test_widths_that_are_written_out_elsewhere(code: Code) -> None:
    read(Net(code, kernel=nn.Parameter(torch.ones(12, 1, 3, 3))))


def test_a_size_that_the_pass_itself_notes_is_no_size_of_the_code() -> None:
    def code(m: Any, x: Tensor) -> Tensor:
        m.width = x.shape[1]
        return shuffled(x, 3, m.width // 3).flatten(1).view(len(x), m.width, 8, 8)

    model = Net(code)
    model.inner.width = None
    assert free(read(model)) == {"stem.0": 4}


def test_nor_is_it_where_the_attribute_is_new() -> None:
    def code(m: Any, x: Tensor) -> Tensor:
        m.width = x.shape[1]
        return shuffled(x, 3, m.width // 3).flatten(1).view(len(x), m.width, 8, 8)

    assert free(read(Net(code))) == {"stem.0": 4}
