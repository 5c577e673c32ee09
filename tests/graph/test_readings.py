"""What the code leaves open, and which reading of it is taken: never one that cuts wrongly.

The code under test stands in `inner`, between a convolution `stem` and another one, `out`. Each network is cut at
random and compared with its masked twin, whichever reading was taken.
"""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunit.cut.plans import Plan, keep_all
from prunit.cut.surgery import compact
from prunit.graph import trace
from tests.graph.reading import Code, Net, attending, attention, free, joined, read, shuffled, sizes_at
from tests.nets import conv_bn, images, random_plan

# ── views: groups, heads, radix ──


@pytest.mark.parametrize(
    "code",
    [
        lambda m, x: shuffled(x, 3, x.shape[1] // 3),
        lambda m, x: shuffled(x, m.groups, x.shape[1] // m.groups),
        lambda m, x: shuffled(x, m.groups, m.each),
        lambda m, x: x.unflatten(1, (m.groups, -1)).transpose(1, 2).flatten(1, 2),
    ],
    ids=["literal", "attribute", "both attributes", "unflatten"],
)
def test_groups_of_a_shuffle_lose_the_same_channels(code: Code) -> None:
    model = Net(code, groups=3, each=4)
    graph = read(model)
    assert free(graph) == {"stem.0": 4}
    assert graph.choices == ()
    (axis,) = graph.axes_of("stem.0", "out")
    assert axis.where.tolist() == [0, 1, 2, 3] * 3
    assert sizes_at(model, graph, stem_0=2).get("inner", {}) in ({}, {"each": 2})


def test_where_the_code_fixes_the_channels_of_a_group_whole_groups_go() -> None:
    graph = read(Net(lambda m, x: shuffled(x, x.shape[1] // 3, 3)))
    assert free(graph) == {"stem.0": 4}
    assert graph.choices == (("inner", "view", 1),)
    assert graph.axes_of("stem.0", "out")[0].where.tolist() == [c for c in range(4) for _ in range(3)]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("code", "set_to"),
    [
        (lambda m, x: attention(m, x, m.heads, -1), {"heads": 2}),
        (lambda m, x: attention(m, x, -1, 5), None),
        (lambda m, x: attention(m, x, m.q.out_channels // 5, 5), None),
    ],
    ids=["attribute", "rest", "of a layer"],
)
def test_heads_go_whole(code: Code, set_to: dict[str, int] | None, fused: bool) -> None:
    model = attending(code, fused=fused)
    if set_to is None:
        del model.inner.heads
    graph = read(model)
    assert free(graph) == {"stem.0": 12, "inner.q": 4, "inner.project": 12}
    assert graph.group("inner.q").producers == ("inner.q", "inner.k", "inner.v")
    assert graph.axes_of("inner.q", "out")[0].where.tolist() == [12 + head for head in range(4) for _ in range(5)]
    assert graph.choices == (("inner", "view", 1),)
    assert sizes_at(model, graph, inner_q=2) == ({} if set_to is None else {"inner": set_to})


def test_heads_that_are_written_out_stay() -> None:
    graph = read(attending(lambda m, x: attention(m, x, 4, -1)))
    assert free(graph) == {"stem.0": 12, "inner.project": 12}
    assert graph.group("inner.q").pinned == "operator view splits the channel dimension in 'inner'"


def test_heads_as_many_as_they_are_wide() -> None:
    model = attending(lambda m, x: attention(m, x, m.heads, m.each), 4, 4)
    model.inner.each = 4
    graph = read(model)
    assert free(graph).keys() >= {"stem.0", "inner.project"}


@pytest.mark.xfail(strict=True, reason="the narrower run has one head, and a dimension of 1 takes other operators")
def test_two_heads() -> None:
    assert free(read(attending(lambda m, x: attention(m, x, m.heads, -1), 2, 5)))["inner.q"] == 2


def test_radix_is_a_group_too() -> None:
    def code(m: Any, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        parts = x.reshape((b, m.radix, c // m.radix, h, w))
        weights = m.fc(parts.sum(1).mean((2, 3))).view(b, m.radix, -1).softmax(1)
        return (parts * weights[..., None, None]).sum(1)

    graph = read(Net(code, out=6, radix=2, fc=nn.Linear(6, 12)))
    assert free(graph) == {"stem.0": 6}
    assert graph.group("stem.0").producers == ("stem.0", "inner.fc")


def test_whole_heads_of_the_input_go_where_their_width_is_a_share_of_it() -> None:
    """`C // heads` with C of the input: the stream would have to lose whole heads, which is not tried."""

    def code(m: Any, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = m.qkv(x.flatten(2).mT).reshape(b, -1, 3, m.heads, c // m.heads).permute(2, 0, 3, 1, 4)
        return (q @ k.mT * 0.1).softmax(-1).matmul(v).transpose(1, 2).reshape(b, -1, c).mT.unflatten(2, (h, w))

    graph = read(Net(code, heads=3, qkv=nn.Linear(12, 36)))
    assert free(graph) == {}
    assert re.search(r"depends on its size at .*test_readings.py:\d+ `q, k, v = m.qkv", graph.group("stem.0").pinned)


# ── parts ──


def test_parts_by_an_attribute() -> None:
    model = Net(lambda m, x: joined(m, x.split(m.width, 1)), width=4, conv=nn.Conv2d(4, 4, 1))
    graph = read(model)
    assert free(graph) == {"stem.0": 4, "inner.conv": 4}
    assert sizes_at(model, graph, stem_0=3) == {"inner": {"width": 3}}


@pytest.mark.parametrize("kind", [tuple, list])
def test_parts_by_entries_of_a_list(kind: type) -> None:
    model = Net(lambda m, x: joined(m, x.split(m.sizes, 1)), sizes=kind((5, 7)), conv=nn.Conv2d(5, 2, 1), out=9)
    graph = read(model)
    assert free(graph) == {"stem.0": 5, "stem.0#2": 7, "inner.conv": 2}
    small: Any = compact(model, graph, Plan({"stem.0": (0, 4), "stem.0#2": (1, 2, 6)}, keep_all(graph).dense))
    assert small.inner.sizes == kind((2, 3))
    assert model.inner.sizes == kind((5, 7))
    assert torch.equal(small.stem[0].weight, model.stem[0].weight[[0, 4, 6, 7, 11]])


def test_two_attributes_of_the_same_value() -> None:
    code = lambda m, x: joined(m, x.split([m.left, m.right], 1))  # noqa: E731
    model = Net(code, c=10, left=5, right=5, conv=nn.Conv2d(5, 2, 1), out=7)
    graph = read(model)
    assert free(graph) == {"stem.0": 5, "inner.conv": 2}  # both parts lose the same ones
    assert sizes_at(model, graph, stem_0=3) == {"inner": {"left": 3, "right": 3}}


def test_a_slice_by_an_attribute_leaves_the_rest_alone() -> None:
    model = Net(lambda m, x: joined(m, (x[:, : m.part], x[:, m.part :])), part=4, conv=nn.Conv2d(4, 4, 1))
    graph = read(model)
    assert free(graph) == {"stem.0": 4, "stem.0#2": 8, "inner.conv": 4}
    assert sizes_at(model, graph, stem_0=3) == {"inner": {"part": 3}}


@pytest.mark.parametrize(
    "attributes",
    [{"config": {"part": 4}}, {"config": type("Config", (), {"part": 4})()}, {"config": None}],
    ids=["in a dict", "of an object", "written out"],
)
def test_sizes_that_no_attribute_holds_stay(attributes: dict[str, Any]) -> None:
    def code(m: Any, x: Tensor) -> Tensor:
        part = 4 if m.config is None else m.config["part"] if isinstance(m.config, dict) else m.config.part
        return joined(m, (x[:, :part], x[:, part:]))

    graph = read(Net(code, conv=nn.Conv2d(4, 4, 1), **attributes))
    assert graph.group("stem.0").pinned == "slice takes channels by number in 'inner'"
    assert free(graph) == {"inner.conv": 4}


@pytest.mark.parametrize(
    "code",
    [
        lambda m, x: joined(m, [torch.cat(part.chunk(2, 1)[::-1], 1) for part in x.chunk(2, 1)]),
        lambda m, x: joined(m, [torch.cat(part.split(m.quarter, 1)[::-1], 1) for part in x.split(m.half, 1)]),
    ],
    ids=["chunks", "attributes"],
)
def test_parts_of_parts(code: Code) -> None:
    model = Net(code, half=6, quarter=3, conv=nn.Conv2d(6, 6, 1))
    graph = read(model)
    assert free(graph) == {"stem.0": 3, "inner.conv": 6}
    assert sizes_at(model, graph, stem_0=2).get("inner", {}) in ({}, {"half": 4, "quarter": 2})


def shares(x: Tensor, how: str, by: int) -> list[Tensor]:
    c, n = x.shape[1], x.shape[1] // by
    match how:
        case "slices":
            return [x[:, :n], x[:, n:]]
        case "from behind":
            return [x[:, :-n], x[:, -n:]]
        case "first":
            return [x[:, :n]]
        case "list":
            return list(x.split([n, c - n], 1))
        case "split":
            return list(x.split(n, 1))
        case "narrow":
            return [x.narrow(1, 0, n), x.narrow(1, n, c - n)]
        case "tensor_split":
            return list(x.tensor_split(by, 1))
    return list(x.chunk(by, 1))


class Shares(nn.Module):
    """Parts whose sizes are a share of the width, each through a convolution of its own."""

    def __init__(self, c: int, how: str, by: int) -> None:
        super().__init__()
        self.stem, self.how, self.by = conv_bn(3, c), how, str(by)
        self.convs = nn.ModuleList(nn.Conv2d(p.shape[1], 3, 1) for p in shares(torch.empty(1, c, 1, 1), how, by))

    def forward(self, x: Tensor) -> Tensor:
        parts = shares(self.stem(x), self.how, int(self.by))
        return torch.stack([conv(part) for conv, part in zip(self.convs, parts, strict=True)]).sum(0)


@pytest.mark.parametrize("how", ["slices", "from behind", "first", "list", "split", "narrow", "chunk", "tensor_split"])
def test_parts_that_are_a_share_of_the_width_are_right_or_whole(how: str) -> None:
    for c in (7, 9, 11, 13, 14, 16, 17):
        for by in (2, 3, 4):
            read(Shares(c, how, by))


@pytest.mark.parametrize("how", ["slices", "list", "split", "narrow", "chunk"])
def test_halves_of_an_even_width_lose_the_same_channels(how: str) -> None:
    assert free(read(Shares(12, how, 2)))["stem.0"] == 6


@pytest.mark.parametrize(
    "empty",
    [
        lambda x: x[:, 4:4],
        lambda x: x[:, x.shape[1] :],
        lambda x: x[:, : -x.shape[1]],
        lambda x: x.narrow(1, 2, 0),
    ],
    ids=["inside", "behind", "before", "narrow"],
)
def test_an_empty_part_of_the_channels_stays_empty(empty: Any) -> None:
    graph = read(Net(lambda m, x: torch.cat([x, empty(x)], 1).relu()))
    assert free(graph) == {"stem.0": 12}


def test_parts_of_which_one_is_empty_are_right_or_whole() -> None:
    read(Net(lambda m, x: torch.cat(x.split([0, x.shape[1]], 1), 1)))
    read(Net(lambda m, x: torch.cat(x.tensor_split([0], 1), 1)))


# ── widths that are written out, and those of the input ──


def test_a_width_that_is_written_out_is_pinned_with_its_line() -> None:
    graph = read(Net(lambda m, x: x.view(x.shape[0], 12, 64).unflatten(2, (8, 8)), conv=conv_bn(12, 12)))
    why = graph.group("stem.0").pinned
    assert re.fullmatch(
        r"the model's code depends on its size at .*test_readings\.py:\d+ `graph = read\(Net\(.*`.* in 'inner'", why
    )
    assert graph.notes == (why,)


def through(m: Any, x: Tensor) -> Tensor:
    """A linear map on a sequence, which is then shaped like the input."""
    B, C, H, W = x.shape
    y = m.fc(x.flatten(2).transpose(1, 2))
    return y.reshape(B, H * W, C).transpose(1, 2).reshape(B, C, H, W)


def test_a_view_to_the_width_of_the_input_ties_the_two() -> None:
    graph = read(Net(through, fc=nn.Linear(12, 12)))
    assert free(graph) == {"stem.0": 12}
    assert graph.group("stem.0").producers == ("stem.0", "inner.fc")
    assert graph.choices == (("inner", "number", 1),)


def test_a_view_to_the_width_of_what_is_viewed_ties_nothing() -> None:
    def code(m: Any, x: Tensor) -> Tensor:
        y = m.fc(x.flatten(2).transpose(1, 2))
        return y.reshape(*y.shape).transpose(1, 2).reshape(len(x), -1, 8, 8)

    assert free(read(Net(code, fc=nn.Linear(12, 12)))) == {"stem.0": 12, "inner.fc": 12}


# ── modules that are used again, that keep things, that look at values ──


class Shuffle(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return shuffled(x, self.groups, x.shape[1] // self.groups)


class Half(nn.Module):
    """The first `width` channels times the mean of the others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.width] * x[:, self.width :].mean(1, keepdim=True)


def test_a_module_that_is_used_with_different_inputs() -> None:
    def code(m: Any, x: Tensor) -> Tensor:
        return torch.cat([m.again(x), m.again(m.conv(x))], 1)

    graph = read(Net(code, again=Shuffle(3), conv=nn.Conv2d(12, 15, 1), out=27))
    assert free(graph) == {"stem.0": 4, "inner.conv": 5}
    graph = read(Net(code, again=Half(5), conv=nn.Conv2d(12, 15, 1), out=10))
    assert graph.group("stem.0").pinned  # one attribute cannot count two things
    assert graph.group("inner.conv").pinned


def test_instances_of_one_class_learn_from_each_other() -> None:
    passes: list[int] = []

    class Counted(Net):
        def forward(self, x: Tensor) -> Tensor:
            passes.append(1)
            return super().forward(x)

    def passes_of(blocks: int) -> int:
        parts = nn.Sequential(*(attending(lambda m, x: attention(m, x, m.heads, -1)).inner for _ in range(blocks)))
        model = Counted(lambda m, x: m.parts(x), parts=parts).double()
        passes.clear()
        graph = trace(model, images())
        assert graph.choices == tuple((f"inner.parts.{i}", "view", 1) for i in range(blocks))
        return len(passes)

    assert passes_of(1) == passes_of(5) == 5  # widths of heads are rejected, then heads hold in three narrower runs


def test_where_nothing_is_open_the_model_runs_once() -> None:
    passes: list[int] = []

    def code(m: Any, x: Tensor) -> Tensor:
        passes.append(1)
        return m.body(x) + x

    read(Net(code, body=conv_bn(12, 12)), seeds=0)
    assert len(passes) == 1


def test_what_a_forward_pass_keeps_is_forgotten() -> None:
    def code(m: Any, x: Tensor) -> Tensor:
        if tuple(x.shape) not in m.grids:
            m.grids[tuple(x.shape)] = x.new_ones(x.shape[1:])
            m.seen.append(str(x.shape))
        return shuffled(x * m.grids[tuple(x.shape)], 3, x.shape[1] // 3)

    model = Net(code, grids={}, seen=[])
    graph = read(model)
    assert graph.caches == (("inner", "grids"), ("inner", "seen"))
    assert free(graph) == {"stem.0": 4}
    assert (model.inner.grids, model.inner.seen) == ({}, [])
    model(images())
    small: Any = compact(model, graph, random_plan(graph))
    assert (small.inner.grids, small.inner.seen) == ({}, [])
    assert len(model.inner.grids) == 1  # the dense model keeps its own
    small(images())
    assert len(small.inner.grids) == 1


def test_a_pass_that_looks_at_values_leaves_nothing_open() -> None:
    def code(m: Any, x: Tensor) -> Tensor:
        x = m.conv(x) if m.gate.item() < 9 else x
        return shuffled(x, m.groups, x.shape[1] // m.groups)

    graph = read(Net(code, groups=3, conv=conv_bn(12, 12), gate=nn.Parameter(torch.zeros(()))))
    assert graph.group("inner.conv.0").pinned == "the model's code may depend on its size in 'inner'"
    assert free(graph) == {"stem.0": 12}
    assert graph.notes[-1].startswith("the forward pass looks at values")


def test_channels_that_only_tied_weights_make() -> None:
    def code(m: Any, x: Tensor) -> Tensor:
        return F.conv_transpose2d(torch.tanh(m.encode(x)), m.encode.weight)

    assert "inner.encode" in trace(Net(code, encode=nn.Conv2d(12, 9, 1)), images().float()).index
    graph = read(Net(code, encode=nn.Conv2d(12, 9, 1)))
    assert free(graph) == {"stem.0": 12, "inner.encode": 9}
    assert graph.group("stem.0").producers == ("stem.0", "inner.encode")
    assert graph.axes_of("inner.encode", "out") == graph.axes_of("inner.encode", "in") != []
