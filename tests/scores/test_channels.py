"""From scores of weights to scores of channels, by hand and by what removing channels does to the network."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunit.cut.plans import Plan
from prunit.cut.surgery import compact
from prunit.graph import ChannelGraph, trace
from prunit.scores import per_channel, score_weights
from tests.allocate.graphs import chain
from tests.nets import (
    Concatenated,
    ConcatenatedSum,
    Flattened,
    Grouped,
    Head,
    Inverted,
    Multiplier,
    Plain,
    Residual,
    conv_bn,
    images,
)

Weights = dict[str, Tensor]


def scored(net: Callable[[], nn.Module]) -> tuple[ChannelGraph, Weights]:
    """A network's graph and a random score for each of its convolution and linear weights."""
    model = net()
    graph = trace(model, images().float())
    return graph, dict(score_weights(model, graph, "random", []))


def largest(*parts: Tensor) -> Tensor:
    """The largest entry on dimension 0 of all tensors together, flattened behind it."""
    return torch.cat([p.flatten(1) for p in parts], 1).amax(1).double()


def total(*parts: Tensor) -> Tensor:
    return torch.cat([p.flatten(1).double() for p in parts], 1).sum(1)


def test_a_row() -> None:
    graph, w = scored(Plain)
    first, second, fc = w["first.0.weight"], w["second.weight"], w["head.fc.weight"]
    found = per_channel(graph, w, "sum")
    torch.testing.assert_close(found["first.0"], total(first))
    torch.testing.assert_close(found["second"], total(second))
    torch.testing.assert_close(found["head.fc"], total(fc))
    found = per_channel(graph, w, "last")
    torch.testing.assert_close(found["first.0"], torch.minimum(largest(first), largest(second.transpose(0, 1))))
    torch.testing.assert_close(found["second"], torch.minimum(largest(second), largest(fc.T)))
    torch.testing.assert_close(found["head.fc"], largest(fc))  # nobody reads the output
    assert all(s.dtype == torch.float64 for s in found.values())


def test_numbers_that_can_be_redone_in_the_head() -> None:
    graph = chain(2, 3)  # layer0.weight (2, 3, 9), layer1.weight (3, 2, 9)
    w = {"layer0.weight": torch.zeros(2, 3, 9), "layer1.weight": torch.zeros(3, 2, 9)}
    w["layer0.weight"][0, 0, 0], w["layer0.weight"][1, 2, 3], w["layer0.weight"][1, 1, 8] = 5.0, 2.0, 1.0
    w["layer1.weight"][0, 0, 0], w["layer1.weight"][2, 0, 1], w["layer1.weight"][2, 1, 1] = 3.0, 4.0, 9.0
    assert per_channel(graph, w, "sum")["g0"].tolist() == [5, 3]
    assert per_channel(graph, w, "sum")["g1"].tolist() == [3, 0, 13]
    assert per_channel(graph, w, "last")["g0"].tolist() == [4, 2]
    assert per_channel(graph, w, "last")["g1"].tolist() == [3, 0, 9]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_many_scores_add_up_exactly_enough(dtype: torch.dtype) -> None:
    graph = chain(2, 2)
    w = torch.rand(2, 3, 99_991, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = per_channel(graph, {"layer0.weight": w}, "sum")["g0"]
    torch.testing.assert_close(found, total(w.double()), rtol=1e-6, atol=0)


def test_a_residual_stream_counts_all_its_makers_and_readers() -> None:
    graph, w = scored(Residual)
    stem, a1, a2 = w["stem.0.weight"], w["a1.0.weight"], w["a2.0.weight"]
    b1, b2, project, fc = w["b1.0.weight"], w["b2.0.weight"], w["project.0.weight"], w["head.fc.weight"]
    found = per_channel(graph, w, "sum")
    torch.testing.assert_close(found["stem.0"], total(stem, a2))
    torch.testing.assert_close(found[graph.groups[graph.index["b1.0"]].name], total(b1))
    found = per_channel(graph, w, "last")
    read = largest(*(r.transpose(0, 1) for r in (a1, b1, project)))
    torch.testing.assert_close(found["stem.0"], torch.minimum(largest(stem, a2), read))
    end = next(g for g in graph.groups if "project.0" in g.producers)
    torch.testing.assert_close(found[end.name], torch.minimum(largest(b2, project), largest(fc.T)))


def test_a_depthwise_filter_stands_in_the_way_of_its_channel() -> None:
    graph, w = scored(Inverted)
    stem, expand, depth, project = (w[f"{n}.0.weight"] for n in ("stem", "expand", "depth", "project"))
    found = per_channel(graph, w, "sum")
    torch.testing.assert_close(found["expand.0"], total(expand, depth))
    torch.testing.assert_close(found["stem.0"], total(stem, project))
    found = per_channel(graph, w, "last")
    wanted = torch.stack([largest(expand), largest(depth), largest(project.transpose(0, 1))]).amin(0)
    torch.testing.assert_close(found["expand.0"], wanted)


def test_of_several_depthwise_filters_the_last_one_counts() -> None:
    graph, w = scored(Multiplier)
    stem, depth, fc = w["stem.0.weight"], w["depth.weight"].view(4, 27), w["head.fc.weight"]
    torch.testing.assert_close(per_channel(graph, w, "sum")["stem.0"], total(stem, depth))
    wanted = torch.stack([largest(stem), largest(depth), largest(fc.view(5, 4, 3).transpose(0, 1))]).amin(0)
    torch.testing.assert_close(per_channel(graph, w, "last")["stem.0"], wanted)


def test_of_two_depthwise_layers_the_first_to_be_empty_counts() -> None:
    def net() -> nn.Module:
        return nn.Sequential(conv_bn(3, 6), conv_bn(6, 6, groups=6), conv_bn(6, 6, groups=6), Head(6))

    graph, w = scored(net)
    one, two = w["1.0.weight"], w["2.0.weight"]
    wanted = torch.stack([largest(x) for x in (w["0.0.weight"], one, two, w["3.fc.weight"].T)]).amin(0)
    torch.testing.assert_close(per_channel(graph, w, "last")["0.0"], wanted)


def test_a_depthwise_filter_on_one_branch_leaves_the_stream_alone() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = conv_bn(3, 6), Head(6)
            self.depth, self.point = conv_bn(6, 6, groups=6), conv_bn(6, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(x + self.point(self.depth(x)))

    graph, w = scored(Net)
    w["depth.0.weight"][:3] = 0
    stem, point = w["stem.0.weight"], w["point.0.weight"]
    read = largest(point.transpose(0, 1), w["head.fc.weight"].T)
    torch.testing.assert_close(per_channel(graph, w, "last")["stem.0"], torch.minimum(largest(stem, point), read))


def test_features_side_by_side_are_read_at_their_places() -> None:
    graph, w = scored(Concatenated)
    a, b, c = w["a.0.weight"], w["b.0.weight"], w["c.weight"]
    found = per_channel(graph, w, "last")
    read = largest(b[:, 3:7].transpose(0, 1), c[:, 3:7].transpose(0, 1))
    torch.testing.assert_close(found["a.0"], torch.minimum(largest(a), read))
    torch.testing.assert_close(found["b.0"], torch.minimum(largest(b), largest(c[:, 7:].transpose(0, 1))))
    torch.testing.assert_close(per_channel(graph, w, "sum")["b.0"], total(b))


def test_a_wide_maker_counts_in_each_group_with_its_own_filters() -> None:
    graph, w = scored(ConcatenatedSum)
    a, b, c = (w[f"{n}.0.weight"] for n in "abc")
    found = per_channel(graph, w, "sum")
    torch.testing.assert_close(found["a.0"], total(a, c[:4]))
    torch.testing.assert_close(found["b.0"], total(b, c[4:]))


def test_a_flattened_channel_feeds_many_inputs() -> None:
    graph, w = scored(Flattened)
    conv, fc = w["features.2.weight"], w["classifier.0.weight"]
    torch.testing.assert_close(per_channel(graph, w, "sum")["features.2"], total(conv))
    read = largest(fc.view(7, 5, 16).transpose(0, 1))
    torch.testing.assert_close(per_channel(graph, w, "last")["features.2"], torch.minimum(largest(conv), read))


def test_the_groups_of_a_grouped_convolution_add_up() -> None:
    graph, w = scored(Grouped)
    a, b, c = w["a.0.weight"], w["b.0.weight"], w["c.0.weight"]
    found = per_channel(graph, w, "sum")
    torch.testing.assert_close(found["a.0"], total(*(x.view(4, 2, -1).transpose(0, 1) for x in (a, c))))
    torch.testing.assert_close(found["b.0"], total(b.view(4, 3, -1).transpose(0, 1)))


def test_what_has_no_score_never_goes() -> None:
    graph, w = scored(Plain)
    del w["second.weight"]  # the only one that reads the first convolution and makes the second's channels
    found = per_channel(graph, w, "last")
    torch.testing.assert_close(found["first.0"], largest(w["first.0.weight"]))
    torch.testing.assert_close(found["second"], largest(w["head.fc.weight"].T))
    assert not per_channel(graph, w, "sum")["second"].any()


def test_scores_that_need_gradients_are_taken_as_they_are() -> None:
    graph, w = scored(Plain)
    for how in ("sum", "last"):
        found = per_channel(graph, {n: s.requires_grad_() for n, s in w.items()}, how)
        assert not any(s.requires_grad for s in found.values())


# ── 'last' against the network itself ──


def silent(net: Callable[[], nn.Module]) -> nn.Module:
    """In float64, with statistics as new, and no bias: a channel without input is 0 everywhere."""
    torch.manual_seed(0)
    model = net().double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.zero_()
    return model


def row() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 16), nn.Conv2d(16, 24, 1, bias=False), nn.ReLU(), conv_bn(24, 24, groups=24), Head(24)
    )


NETS = {"row": row, "residual": Residual, "inverted": Inverted, "concatenated": Concatenated, "flattened": Flattened}


@pytest.mark.parametrize("net", sorted(NETS))
@pytest.mark.parametrize("seed", range(4))
def test_last_removes_what_a_mask_leaves_without_input_or_output(net: str, seed: int) -> None:
    """Nothing that works goes, and nothing stays that has no weight to make it or none to read it."""
    model = silent(NETS[net])
    graph = trace(model, images())
    scores = score_weights(model, graph, "random", [], seed=seed)
    found = per_channel(graph, scores, "last")
    # The highest threshold that empties no group, so that there is a network left.
    threshold = min(float(found[g.name].max()) for g in graph.groups if not g.pinned) - 1e-6
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, s in scores.items():
            named[name].mul_(s > threshold)
    keep = {g.name: found[g.name] > threshold for g in graph.groups}
    keep |= {g.name: torch.ones(g.size, dtype=torch.bool) for g in graph.groups if g.pinned}
    plan = Plan(
        {n: tuple(k.nonzero().flatten().tolist()) for n, k in keep.items()}, {n: len(k) for n, k in keep.items()}
    )
    assert sum(map(len, plan.keep.values())) < sum(plan.dense.values())
    small = compact(model, graph, plan)
    torch.testing.assert_close(small(images()), model(images()), rtol=1e-12, atol=1e-12)
    for name, s in keep.items():
        for role in ("out", "in"):
            axes = graph.axes_of(name, role)
            alive = torch.zeros(len(s), dtype=torch.bool)
            for axis in axes:
                mine = torch.from_numpy(axis.where) - int(graph.offsets[graph.index[name]])
                used = named[axis.tensor].detach().movedim(axis.dim, 0).flatten(1).any(1)
                inside = (mine >= 0) & (mine < len(s))
                alive[mine[inside & used]] = True
            assert not axes or alive[s].all() or graph.group(name).pinned


class Tied(nn.Module):
    """A decoder with the weights of its encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.out = nn.Conv2d(3, 7, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.conv_transpose2d(self.encode(x).tanh(), self.encode.weight))


def test_weights_that_make_and_read_a_channel() -> None:
    graph, scores = scored(Tied)
    w_OI = scores["encode.weight"].flatten(1).double()
    assert torch.allclose(per_channel(graph, scores, "sum")["encode"], w_OI.sum(1))
    assert torch.equal(per_channel(graph, scores, "last")["encode"], w_OI.amax(1))
