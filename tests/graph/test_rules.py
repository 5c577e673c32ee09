"""Each family of operators between two convolutions: what may shrink, what is pinned and why, and never a wrong cut.

Every case runs `stem` (8 channels), then the code under test, then `out`. Whatever may shrink is cut at random and the
compact model compared with the masked one, in evaluation and in training mode.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from prunit.cut.plans import from_zeros
from prunit.cut.surgery import check_runs, compact, mask
from prunit.graph import ChannelGraph, trace
from tests.nets import conv_bn, furthest, images, lived_in, random_plan

Between = Callable[[Any, Tensor], Tensor]


class Sandwich(nn.Module):
    """stem, the code under test (it sees the parts as `net.a`, `net.b`, … in their order), out."""

    def __init__(self, between: Between, out: int, parts: tuple[Any, ...]) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.out = nn.Conv2d(out, 4, 1)
        for name, part in zip("abc", parts, strict=False):
            setattr(self, name, nn.Parameter(torch.empty(part)) if isinstance(part, tuple) else part)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.between(self, self.stem(x)))


def case(name: str, between: Between, *parts: Any, out: int = 8, pinned: str = "") -> Any:
    """`parts` are modules or shapes of parameters; `pinned` is what the reason for the stem's pin must say."""
    return pytest.param(between, out, parts, pinned, id=name)


def sequence(x: Tensor) -> Tensor:
    """x_BCHW as x_BNC."""
    return x.flatten(2).transpose(1, 2)


def picture(x: Tensor) -> Tensor:
    """x_BNC as x_BCHW."""
    return x.transpose(1, 2).unflatten(2, (8, 8))


def column(x: Tensor) -> Tensor:
    """x_BC as x_BC11."""
    return x[:, :, None, None]


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def overwritten(x: Tensor, index: Any) -> Tensor:
    x[index] = 0.0
    return x


def transposed(inputs: int, outputs: int, *, groups: int) -> nn.Module:
    return nn.ConvTranspose2d(inputs, outputs, 2, stride=2, groups=groups)


def sampled(x: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(x, grid, align_corners=False)


def firsts(x: Tensor) -> Tensor:
    """Places of three pixels, by the mean of all channels."""
    return x.flatten(2).mean(1, keepdim=True).argsort(2)[..., :3]


def places(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, return_indices=True)[1]


def eight(x: Tensor) -> Tensor:
    """Places of five pixels for each of eight channels."""
    return torch.zeros(2, 8, 5, dtype=torch.int64, device=x.device)


def zero(x: Tensor) -> Tensor:
    return torch.zeros((), dtype=x.dtype, device=x.device)


def attention(m: nn.Module, x: Tensor) -> Tensor:
    q = sequence(x)
    return picture(m(q, key=q, value=q)[0])


FREE = [
    case("norm of each channel bounded", lambda n, x: x.renorm(2, 1, 0.5)),
    case("norm of each image bounded", lambda n, x: x.renorm(2, 0, 3.0)),
    case("weight of bounded norm", lambda n, x: F.conv2d(x, n.a.renorm(2, 0, 0.3)), (8, 8, 1, 1)),
    case("transposed in place", lambda n, x: x.clone().transpose_(1, 3).relu().transpose_(3, 1)),
    case("relu_ and +=", lambda n, x: x.relu_().add_(n.a(x)), conv_bn(8, 8)),
    case("where", lambda n, x: torch.where(x > 0, x, 0.1 * x)),
    case("zeros_like", lambda n, x: torch.maximum(torch.zeros_like(x), x)),
    case("per-channel parameters", lambda n, x: x * n.a[:, None, None] + n.b.view(1, -1, 1, 1), (8,), (8,)),
    case("prelu", lambda n, x: n.a(x), nn.PReLU(8)),
    case("position", lambda n, x: x + n.a, (1, 8, 8, 8)),
    case("linear on a sequence", lambda n, x: picture(n.a(sequence(x))), nn.Linear(8, 8)),
    case("linear on pixels", lambda n, x: n.a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.Linear(8, 8)),
    case("functional convolution", lambda n, x: F.conv2d(x, n.a, padding=1), (8, 8, 3, 3)),
    case("weight times gains", lambda n, x: F.conv2d(x, n.b * (n.a * n.c)), (8, 8, 1, 1), (8, 1, 1, 1), (1, 8, 1, 1)),
    case("einsum", lambda n, x: torch.einsum("bchw,co->bohw", x, n.a), (8, 8)),
    case("matmul from the left", lambda n, x: (n.a @ x.flatten(2)).unflatten(2, (8, 8)), (8, 8)),
    case("vector", lambda n, x: (x.permute(0, 2, 3, 1) @ n.a)[:, None] * x, (8,)),
    case("tied both ways", lambda n, x: column(F.linear(F.linear(pooled(x), n.a), n.a.t())), (5, 8)),
    case("cat with a constant", lambda n, x: torch.cat([x.new_ones(2, 2, 8, 8), x], 1), out=10),
    case("cat twice", lambda n, x: torch.cat([x, x.repeat(1, 2, 1, 1)], 1), out=24),
    case("cat along width", lambda n, x: torch.cat([x, n.a(x)], 3), conv_bn(8, 8)),
    case("stack", lambda n, x: torch.stack([x, n.a(x)]).sum(0), conv_bn(8, 8)),
    case("zero channels", lambda n, x: F.pad(x, (0, 0, 0, 0, 1, 2)), out=11),
    case("slice of everything", lambda n, x: x[:, :100]),
    case("roll and flip in space", lambda n, x: x.roll(1, 2).flip(3)),
    case("flip", lambda n, x: x.flip(1)),
    case("flip of channels and space", lambda n, x: x.flip(1, 3) + x),
    case("best two pixels", lambda n, x: x.flatten(2).topk(2, 2)[0][..., None]),
    case("logsumexp in space", lambda n, x: x.logsumexp((2, 3), keepdim=True)),
    case("batch norm on features", lambda n, x: n.a(x.flatten(1)).view(2, -1, 8, 8), nn.BatchNorm1d(512)),
    case("instance norm", lambda n, x: n.a(x), nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
    case("reflecting border", lambda n, x: n.a(x), nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")),
    case("blurred and resized", lambda n, x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")),
    case("adaptive poolings", lambda n, x: F.adaptive_max_pool2d(x, 4) + F.adaptive_avg_pool2d(x, 4)),
    case("checkpoint", lambda n, x: torch.utils.checkpoint.checkpoint(n.a, x, use_reentrant=False), conv_bn(8, 8)),
    case("sum", lambda n, x: x.sum(1, keepdim=True) * x),
    case("mean of all", lambda n, x: x / x.mean()),
    case("softmax", lambda n, x: x.softmax(1)),
    case("normalize", lambda n, x: F.normalize(x, dim=1)),
    case("chunk", lambda n, x: torch.mul(*x.chunk(2, 1)), out=4),
    case("pixel shuffle", lambda n, x: F.pixel_shuffle(x, 2), out=2),
    case("batch norm over pixels", lambda n, x: picture(n.a(sequence(x))), nn.BatchNorm1d(64)),
    case("divided by a weight", lambda n, x: F.conv2d(x, n.b / n.a), (8, 8, 1, 1), (8, 1, 1, 1)),
    case("group norm", lambda n, x: n.a(x), nn.GroupNorm(2, 8)),
    case("layer norm", lambda n, x: n.a(x.mT).mT, nn.LayerNorm(8)),
    case(
        "efficient channel attention",
        lambda n, x: column(n.a(pooled(x)[:, None])[:, 0]),
        nn.Conv1d(1, 1, 3, padding=1),
    ),
    case(
        "mixing pixels",
        lambda n, x: n.a(x.flatten(2)).unflatten(2, (8, 8)),
        nn.Linear(64, 64),
    ),
    case(
        "standardised weight",
        lambda n, x: F.conv2d(x, n.a - n.a.mean((1, 2, 3), keepdim=True)),
        (8, 8, 1, 1),
    ),
    case(
        "part of a weight",
        lambda n, x: F.conv2d(x, n.a[:, :, :1, :1]),
        (8, 8, 3, 3),
    ),
    case("unfold", lambda n, x: F.unfold(x, 1).unflatten(2, (8, 8))),
    case(
        "weight norm",
        lambda n, x: n.a(x),
        parametrizations.weight_norm(nn.Conv2d(8, 8, 1)),
    ),
    case("spectral norm", lambda n, x: n.a(x), parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))),
    case("spectral norm, transposed", lambda n, x: n.a(x), parametrizations.spectral_norm(nn.ConvTranspose2d(8, 8, 1))),
    case("spectral norm, linear", lambda n, x: column(n.a(pooled(x))), parametrizations.spectral_norm(nn.Linear(8, 8))),
    case("spectral norm, old form", lambda n, x: n.a(x), nn.utils.spectral_norm(nn.Conv2d(8, 8, 3, padding=1))),
    case("grouped transposed", lambda n, x: n.b(n.a(x)), transposed(8, 12, groups=4), nn.BatchNorm2d(12), out=12),
    case("one output per group, transposed", lambda n, x: n.b(n.a(x)), transposed(8, 4, groups=4), nn.PReLU(4), out=4),
    case("depthwise transposed", lambda n, x: n.b(n.a(x)), transposed(8, 8, groups=8), nn.BatchNorm2d(8)),
    case("depthwise transposed times two", lambda n, x: n.a(x), transposed(8, 16, groups=8), out=16),
    case("depthwise transposed function", lambda n, x: F.conv_transpose2d(x, n.a, groups=x.shape[1]), (8, 1, 2, 2)),
    case("depthwise transposed 1d", lambda n, x: n.a(x.flatten(2))[..., None], nn.ConvTranspose1d(8, 8, 2, groups=8)),
    case("group norm of each channel", lambda n, x: n.a(x), nn.GroupNorm(8, 8)),
    case("group norm of each channel without gains", lambda n, x: n.a(x), nn.GroupNorm(8, 8, affine=False)),
    case("group norm function of each channel", lambda n, x: F.group_norm(x, x.shape[1])),
    case("gated linear unit", lambda n, x: F.glu(x, 1), out=4),
    case("gated linear unit after a layer", lambda n, x: nn.GLU(1)(n.a(x)), conv_bn(8, 16)),
    case("gated linear unit in space", lambda n, x: F.glu(x, 3)),
    case("sampled on a grid", lambda n, x: sampled(x, n.a.tanh().expand(len(x), -1, -1, -1)), (1, 4, 4, 2)),
    case("sampled where it says itself", lambda n, x: sampled(x, n.a(x).permute(0, 2, 3, 1)), nn.Conv2d(8, 2, 1)),
    case("turned", lambda n, x: sampled(x, F.affine_grid(n.a.expand(2, 2, 3), x.shape, False)), (1, 2, 3)),
    case("gathered pixels", lambda n, x: x.flatten(2).gather(2, x.flatten(2).topk(3, 2)[1])[..., None]),
    case(
        "pixels gathered for all", lambda n, x: x.flatten(2).gather(2, firsts(x).expand(-1, x.shape[1], -1))[..., None]
    ),
    case("local response norm", lambda n, x: F.local_response_norm(x, 3)),
    case("local response norm, even", lambda n, x: n.a(x), nn.LocalResponseNorm(4)),
    case("largest of all channels", lambda n, x: x - x.max(1, keepdim=True)[0]),
    case("smallest of all channels", lambda n, x: x - torch.min(x, 1).values[:, None]),
    case("largest, and where in space", lambda n, x: x - x.max(3, keepdim=True)[1]),
    case("median of channels", lambda n, x: x - x.median(1, keepdim=True).values),
    case("median of all", lambda n, x: x - x.median()),
    case("median in space", lambda n, x: x - x.flatten(2).nanmedian(2)[0][..., None, None]),
    case("least of channels", lambda n, x: x - x.kthvalue(1, 1, keepdim=True)[0]),
    case("third in space", lambda n, x: x - x.kthvalue(3, 3, keepdim=True)[0]),
    case("best channel", lambda n, x: x - x.topk(1, 1)[0]),
    case("cumprod in space", lambda n, x: x.cumprod(3) + x.cummax(2)[0]),
    case("max unpooling", lambda n, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
    case("max unpooling of others", lambda n, x: F.max_unpool2d(n.a(x[:, :, ::2, ::2]), places(x), 2), conv_bn(8, 8)),
    case("channels repeated", lambda n, x: x.repeat_interleave(2, 1), out=16),
    case("pixels repeated", lambda n, x: torch.repeat_interleave(x.repeat_interleave(2, 2), 2, dim=3)),
    case("write to a row", lambda n, x: overwritten(x, (slice(None), slice(None), 0))),
    case("write to some rows", lambda n, x: overwritten(x, (slice(None), slice(None), [0, 3]))),
    case("write where it is negative", lambda n, x: overwritten(x, x < 0)),
    case("a number as large as x", lambda n, x: torch.where(x > 0, zero(x).expand_as(x), x)),
    case("a parameter as large as x", lambda n, x: torch.where(x > 0, x, n.a.expand_as(x)), (1,)),
    case("a sum as large as x", lambda n, x: x + torch.broadcast_to(n.a.sum(), x.shape), (3,)),
    case("masked_fill", lambda n, x: x.masked_fill(x < 0, zero(x))),
    case("full_like", lambda n, x: torch.maximum(x, torch.full_like(x, 0.1))),
    case("new_full", lambda n, x: torch.maximum(x, x.new_full(x.shape, 0.1)) + x.new_zeros(x.shape)),
    case("a value of its own", lambda n, x: n.b(x) if n.a.item() < 9 else x, (1,), conv_bn(8, 8)),
]


@pytest.mark.parametrize(("between", "out", "parts", "pinned"), FREE)
def test_channels_that_can_be_followed_may_shrink(between: Between, out: int, parts: Any, pinned: str) -> None:
    graph = check_every_cut(Sandwich(between, out, parts))
    assert graph.group("stem.0").pinned == pinned == ""


FIXED = "with a tensor whose size is fixed"
PINNED = [
    case("argmax", lambda n, x: x * x.argmax(1, keepdim=True), pinned="argmax counts channels"),
    case("topk", lambda n, x: x.topk(2, 1)[0], out=2, pinned="topk runs over channels"),
    case("sort", lambda n, x: x.sort(1)[0], pinned="sort runs over channels"),
    case("stable sort", lambda n, x: x.sort(dim=1, stable=True)[0], pinned="sort runs over channels"),
    case("roll", lambda n, x: x.roll(2, 1), pinned="roll runs over channels"),
    case("roll of all elements", lambda n, x: x.roll(2), pinned="roll runs over channels"),
    case("cumsum", lambda n, x: x.cumsum(1), pinned="cumsum runs over channels"),
    case("slice", lambda n, x: x[:, :3], out=3, pinned="slice takes channels by number"),
    case("one channel", lambda n, x: x[:, 3][:, None] * x, pinned="select takes channels by number"),
    case("write to a channel", lambda n, x: overwritten(x, (slice(None), 0)), pinned="select takes channels by number"),
    case("permutation", lambda n, x: x.index_select(1, torch.arange(8).flip(0).to(x.device)), pinned="index_select"),
    case("permutation by list", lambda n, x: x[:, [1, 0, 2, 3, 4, 5, 7, 6]], pinned="index takes channels by number"),
    case("crop", lambda n, x: F.pad(x, (0, 0, 0, 0, -1, 0)), out=7, pinned="crops channels"),
    case("constant of eight", lambda n, x: x * torch.arange(8.0).view(8, 1, 1), pinned=f"mul {FIXED}"),
    case("plain attribute", lambda n, x: x + n.a, torch.ones(8, 1, 1, dtype=torch.float64), pinned=f"add {FIXED}"),
    case("buffer of zeros", lambda n, x: torch.zeros(2, 8, 8, 8).double().add_(x), pinned=f"add_ {FIXED}"),
    case(
        "channel shuffle", lambda n, x: x.view(2, 2, 4, 8, 8).transpose(1, 2).flatten(1, 2), pinned="splits the channel"
    ),
    case(
        "split", lambda n, x: (x.view(2, 2, 4, 64) * n.a[..., None]).view(2, 8, 8, 8), (2, 4), pinned="splits the chan"
    ),
    case(
        "multihead",
        lambda n, x: attention(n.a, x),
        nn.MultiheadAttention(8, 2, batch_first=True),
        pinned="MultiheadAttention fixes",
    ),
    case(
        "lstm",
        lambda n, x: column(n.a(pooled(x)[:, None])[0][:, 0]),
        nn.LSTM(8, 8, batch_first=True),
        pinned="LSTM fixes its sizes in 'a'",
    ),
    case(
        "attention",
        lambda n, x: picture(F.scaled_dot_product_attention(*[sequence(x)] * 3)),
        pinned="code depends on its size at .*test_rules",
    ),
    case("gram matrix", lambda n, x: (sequence(x).mT @ sequence(x))[..., None], pinned="the model's output"),
    case(
        "channels as batch",
        lambda n, x: n.a(x.view(16, 1, 8, 8)).view(2, 8, 8, 8),
        nn.Conv2d(1, 1, 1),
        pinned="code depends on its size at .*test_rules",
    ),
    case("pool over channels", lambda n, x: picture(F.max_pool1d(sequence(x), 2)), out=4, pinned="resamples a channel"),
    case(
        "low-rank weight",
        lambda n, x: F.conv2d(x, (n.a @ n.b).view(8, 8, 1, 1)),
        (8, 2),
        (2, 8),
        pinned="code depends on its size at .*test_rules",
    ),
    case(
        "bilinear",
        lambda n, x: column(n.a(pooled(x), pooled(x))),
        nn.Bilinear(8, 8, 8),
        pinned="operator aten._trilinear",
    ),
    case("largest, and which", lambda n, x: x * x.max(1, keepdim=True)[1], pinned="max counts channels"),
    case("which, as a number", lambda n, x: x * x.min(1)[1].clone().to(x)[:, None], pinned="min counts channels"),
    case("where the median is", lambda n, x: x * x.median(1, keepdim=True)[1], pinned="median counts channels"),
    case(
        "third channel", lambda n, x: x - x.kthvalue(3, 1, keepdim=True)[0], pinned="kthvalue asks for a channel by it"
    ),
    case("cumprod", lambda n, x: x.cumprod(1), pinned="cumprod runs over channels"),
    case("eight groups", lambda n, x: F.group_norm(x, 8), pinned="code depends on its size at .*test_rules"),
    case("gathered channels", lambda n, x: x.gather(1, (x > 0).long()), pinned="gather takes channels by number"),
    case("gathered for eight", lambda n, x: x.flatten(2).gather(2, eight(x))[..., None], pinned="for fixed channels"),
    case("eight zeros", lambda n, x: torch.where(x > 0, x, zero(x).expand(2, 8, 8, 8)), pinned=f"where {FIXED}"),
    case("value of a sum", lambda n, x: -x if x.sum().item() > 0 else x, pinned="sum over channels"),
    case("comparison", lambda n, x: -x if torch.equal(x, x.abs()) else x, pinned="equal looks at values"),
]


@pytest.mark.parametrize(("between", "out", "parts", "pinned"), PINNED)
def test_channels_that_cannot_be_followed_are_pinned_with_a_reason(
    between: Between, out: int, parts: Any, pinned: str
) -> None:
    graph = check_every_cut(Sandwich(between, out, parts))
    reasons = [g.pinned for g in graph.groups if g.name.startswith("stem.0")]
    assert reasons
    assert all(re.search(pinned, reason) for reason in reasons), reasons


def check_every_cut(model: nn.Module) -> ChannelGraph:
    """The model's graph, once cutting all that it lets go has left the masked model's outputs."""
    lived_in(model)
    example = images()
    graph = trace(model, example)
    for seed in range(2):
        plan = random_plan(graph, seed=seed)
        small, twin = compact(model, graph, plan), mask(model, graph, plan)
        check_runs(model, small, example)
        for training in (False, True):
            assert furthest(twin.train(training), small.train(training), example) < 1e-12
        zeros = from_zeros(twin, graph)
        assert all(zeros.keep[g.name] == plan.keep[g.name] for g in graph.groups if not g.mixed)
    return graph


def test_only_the_parts_that_meet_something_fixed_are_pinned() -> None:
    graph = trace(Sandwich(lambda n, x: torch.cat([x, n.a(x[:, :3])], 1), 12, (nn.Conv2d(3, 4, 1),)), images().float())
    assert {g.name: bool(g.pinned) for g in graph.groups} == {"stem.0": True, "a": False, "out": True}


def test_grouped_convolutions_keep_the_same_positions_in_every_group() -> None:
    model = Sandwich(lambda n, x: n.a(x), 12, (nn.Conv2d(8, 12, 3, padding=1, groups=4),))
    graph = trace(model, images().float())
    assert {g.name: g.size for g in graph.groups} == {"stem.0": 2, "a": 3, "out": 4}
    assert graph.axes_of("a", "out")[0].where.tolist() == [2, 3, 4] * 4
    assert graph.axes_of("stem.0", "in")[0].where.tolist() == [0, 1]
    assert graph.axes_of("stem.0", "out")[0].where.tolist() == [0, 1] * 4


def test_one_output_per_group_pins_it() -> None:
    graph = trace(Sandwich(lambda n, x: n.a(x), 4, (nn.Conv2d(8, 4, 1, groups=4),)), images().float())
    assert graph.group("a").pinned == "a grouped convolution with one output per group in 'a'"
    assert graph.group("stem.0").pinned == ""


@pytest.mark.parametrize(
    "between",
    [
        lambda n, x: F.dropout(x, 0.5, training=True),
        lambda n, x: x * torch.bernoulli(torch.full_like(x, 0.5)),
        lambda n, x: x * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.5),
    ],
    ids=["dropout", "bernoulli", "in place"],
)
def test_noise_that_is_always_on_follows_the_channels(between: Between) -> None:
    graph = trace(Sandwich(between, 8, ()), images().float())
    assert graph.group("stem.0").pinned == ""
    assert graph.notes == ()


def test_attention_as_one_operator_mixes_what_it_multiplies() -> None:
    """On real tensors, where a masked model is traced, PyTorch does not take it apart."""

    def between(n: Any, x: Tensor) -> Tensor:
        q = n.a(sequence(x))[:, None].contiguous()
        return picture(F.scaled_dot_product_attention(q, q, q, scale=0.3)[:, 0])

    graph = check_every_cut(Sandwich(between, 8, (nn.LayerNorm(8),)))
    assert graph.group("stem.0").pinned == ""


def test_operators_without_a_rule_are_noted_for_the_user() -> None:
    graph = trace(Sandwich(lambda n, x: torch.logcumsumexp(x, 1), 8, ()), images().float())
    assert graph.notes == ("operator aten.logcumsumexp.default has no rule",)
    assert trace(Sandwich(lambda n, x: x, 8, ()), images().float()).notes == ()
