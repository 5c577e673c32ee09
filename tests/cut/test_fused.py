"""Fusing after a cut and cutting after fusing: batch norm folded, branches that become one convolution.

Each is held against the uncut, unfused network whose batch norms give zero at the channels that go.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from prunit import zoo
from prunit.cut.plans import Plan
from prunit.cut.store import load, save
from prunit.cut.surgery import compact
from prunit.cut.zeros import remove_zeros
from prunit.errors import MissingExtraError
from prunit.graph import ChannelGraph, trace
from prunit.zoo.external import imported
from tests.nets import Head, Inverted, Residual, conv_bn, furthest, images, lived_in

EXACT = 1e-11


def silent(model: nn.Module, width: int, channels: Sequence[int]) -> nn.Module:
    """In float64 and evaluation mode; every batch norm of that width gives zero at these channels."""
    model = lived_in(model).eval()
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm.num_features == width:
                norm.weight[list(channels)] = 0
                norm.bias[list(channels)] = 0
    return model


def without(graph: ChannelGraph, width: int, channels: Sequence[int]) -> Plan:
    """The plan that drops these channels of every group of that width that may shrink."""
    keep = {
        g.name: tuple(c for c in range(g.size) if g.pinned or g.size != width or c not in channels)
        for g in graph.groups
    }
    return Plan(keep, {g.name: g.size for g in graph.groups})


def folded(model: nn.Module) -> nn.Module:
    """In place: every batch norm that follows a convolution in a Sequential is folded into it, by torch's function."""
    for module in list(model.modules()):
        if isinstance(module, nn.Sequential) and len(module) > 1:
            conv, norm = module[0], module[1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0], module[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return model


class RepVGG(nn.Module):
    """A 3x3 and a 1x1 branch with a batch norm each, and the input's own; `fuse` makes one convolution of them."""

    def __init__(self, inputs: int, outputs: int, *, groups: int = 1) -> None:
        super().__init__()
        self.groups, self.in_channels = groups, inputs
        self.wide = conv_bn(inputs, outputs, act=nn.Identity(), groups=groups)
        self.point = conv_bn(inputs, outputs, 1, act=nn.Identity(), groups=groups)
        self.same = nn.BatchNorm2d(inputs) if inputs == outputs else None
        self.one: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.one is not None:
            return self.one(x).relu()
        y = self.wide(x) + self.point(x)
        return (y if self.same is None else y + self.same(x)).relu()

    def fuse(self) -> None:
        wide = fuse_conv_bn_eval(self.wide[0], self.wide[1])
        point = fuse_conv_bn_eval(self.point[0], self.point[1])
        with torch.no_grad():
            wide.weight += nn.functional.pad(point.weight, (1, 1, 1, 1))
            assert wide.bias is not None
            assert point.bias is not None
            wide.bias += point.bias
            if self.same is not None:
                gain = self.same.weight / (self.same.running_var + self.same.eps).sqrt()
                per_group = self.in_channels // self.groups  # as the class was told: a cut has to follow here
                for i in range(self.in_channels):
                    wide.weight[i, i % per_group, 1, 1] += gain[i]
                wide.bias += self.same.bias - gain * self.same.running_mean
        self.one = wide
        self.wide = self.point = nn.Sequential()
        self.same = None


def fused(model: nn.Module) -> nn.Module:
    """In place: all branches are one convolution."""
    for module in list(model.modules()):
        if isinstance(module, RepVGG):
            module.fuse()
    return model


class Reparameterised(nn.Module):
    """Blocks of RepVGG, or depthwise and pointwise ones as MobileOne has them."""

    def __init__(self, *, depthwise: bool) -> None:
        super().__init__()
        groups = 8 if depthwise else 1
        self.stem = conv_bn(3, 8)
        self.blocks = nn.Sequential(
            RepVGG(8, 8, groups=groups), RepVGG(8, 6), RepVGG(6, 6, groups=6 if depthwise else 1)
        )
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


Fuse = Callable[[nn.Module], nn.Module]
CASES: dict[str, tuple[Callable[[], nn.Module], int, Sequence[int], Fuse]] = {
    "batch norm of a residual network": (Residual, 6, (1, 4), folded),
    "batch norm of inverted residuals": (Inverted, 12, (0, 3, 7), folded),
    "batch norm of an inverted residual's stream": (Inverted, 4, (2,), folded),
    "branches of RepVGG": (lambda: Reparameterised(depthwise=False), 8, (0, 5, 6), fused),
    "branches of RepVGG, the second stage": (lambda: Reparameterised(depthwise=False), 6, (2,), fused),
    "branches of MobileOne": (lambda: Reparameterised(depthwise=True), 8, (0, 5, 6), fused),
    "branches of MobileOne, the second stage": (lambda: Reparameterised(depthwise=True), 6, (2, 3), fused),
}


@pytest.mark.parametrize("case", CASES)
def test_fused_after_the_cut(case: str) -> None:
    make, width, channels, fuse = CASES[case]
    model, x_BCHW = silent(make(), width, channels), images()
    graph = trace(model, x_BCHW)
    plan = without(graph, width, channels)
    assert plan.widths != dict(plan.dense)
    for small in (compact(model, graph, plan), remove_zeros(model, x_BCHW).model):
        before = sum(p.numel() for p in small.parameters())
        assert before < sum(p.numel() for p in model.parameters())
        assert furthest(fuse(small), model, x_BCHW) < EXACT


@pytest.mark.parametrize("case", CASES)
def test_cut_after_fusing(case: str) -> None:
    make, width, channels, fuse = CASES[case]
    model, whole, x_BCHW = silent(make(), width, channels), fuse(silent(make(), width, channels)), images()
    assert furthest(whole, model, x_BCHW) < EXACT
    graph = trace(whole, x_BCHW)
    plan = without(graph, width, channels)
    assert plan.widths != dict(plan.dense)
    assert furthest(compact(whole, graph, plan), model, x_BCHW) < EXACT
    removed = remove_zeros(whole, x_BCHW)
    assert sum(removed.plan.widths.values()) <= sum(plan.widths.values())
    assert furthest(removed.model, model, x_BCHW) < EXACT


@pytest.mark.parametrize(
    ("name", "width", "channels"), [("repvgg_a0", 48, range(0, 48, 2)), ("mobileone_s0", 48, range(40))]
)
@pytest.mark.parametrize("first", ["cut", "fused"])
def test_models_of_timm(name: str, width: int, channels: range, first: str) -> None:
    try:
        timm = imported("timm", needed_by=name)
    except MissingExtraError:
        pytest.skip("timm is not installed")
    fuse = timm.utils.model.reparameterize_model
    x_BCHW = images(batch=1, size=32)
    model = silent(zoo.load(f"timm:{name}", num_classes=5, image_size=32), width, channels)
    source = fuse(model) if first == "fused" else model
    assert furthest(source, model, x_BCHW) < 1e-9
    graph = trace(source, x_BCHW)
    plan = without(graph, width, channels)
    assert any(plan.widths[n] < plan.dense[n] == width for n in plan.dense)
    small = compact(source, graph, plan)
    assert furthest(small if first == "fused" else fuse(small), model, x_BCHW) < 1e-9


def test_a_stored_model_is_fused_alike(tmp_path: Path) -> None:
    def make() -> nn.Module:
        return Reparameterised(depthwise=True).double()

    model, x_BCHW = silent(make(), 8, (0, 5, 6)), images()
    graph = trace(model, x_BCHW)
    plan = without(graph, 8, (0, 5, 6))
    save(compact(model, graph, plan), plan, tmp_path / "small.safetensors")
    assert furthest(fused(load(tmp_path / "small.safetensors", make)), model, x_BCHW) < EXACT


def test_a_number_that_a_forward_computes_with_stays() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.in_channels, self.out_channels, self.groups, self.steps = 8, 6, 1, 8
            self.conv = nn.Conv2d(8, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) / self.in_channels**0.5

    model = silent(nn.Sequential(conv_bn(3, 8), Scaled(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 8, (2, 3))
    graph = trace(model, images())
    plan = without(graph, 8, (2, 3))
    small = compact(model, graph, plan)
    assert furthest(small, model, images()) < EXACT
    scaled = small.get_submodule("1")
    assert plan.widths["0.0"] == 6
    assert (scaled.in_channels, scaled.out_channels, scaled.groups, scaled.steps) == (8, 6, 1, 8)
