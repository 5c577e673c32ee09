"""Small members of the families that people prune: what is free in them, and that what is cut still works.

That so much is free is itself tested, group by group: a rule that pins where another one did not is seen here.
"""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import prunit
from prunit.cut.surgery import check_runs, compact, cut_tensors, mask, mask_
from prunit.graph import ChannelGraph, trace
from prunit.zoo.external import imported
from tests.architectures import CONVOLUTIONAL, Family
from tests.hybrids import HYBRID
from tests.nets import furthest, images, lived_in, random_plan, run

EXAMPLE = images(size=16)
FAMILIES: dict[str, Family] = {**CONVOLUTIONAL, **HYBRID}
FREE = {
    "unet": "inc.0.0=6 inc.1.0=6 down1.0.0=8 down1.1.0=8 down2.0.0=10 down2.1.0=10"
    " up1=7 conv1.0.0=8 conv1.1.0=8 up2=5 conv2.0.0=6 conv2.1.0=6",
    "detector": "c2.0=6 c3.0=8 c4.0=10 lateral.0=7 smooth.0=8 tower.0=4",
    "hrnet": "stem.0=5 start.0.0=4 start.1.0=6 start.2.0=8",
    "convnext": "stem.0=6 stages.0.pwconv1=18 stages.2=8 stages.3.pwconv1=24 stages.4.pwconv1=24",
    "shufflenetv2": "0.0=6 1.branch1.1.0=4 1.branch2.0.0=8 2.branch2.0.0=8",
    "res2net": "0.0=9 1.conv1.0=5 1.convs.2.0=5 2.conv1.0=6 2.convs.1.0=6",
    "sknet": "0.0=8 1.paths.0.0=10 1.fc_reduce=6",
    "resnest": "0.0=8 1.conv.0=16 1.fc1=12",
    "resnest, 2 groups": "0.0=4 1.conv.0=8 1.fc1=6",
    "csp": "stem.0=6 cv1.0=7 m.0.0.0=5 m.1.0.0=5 cv2.0=9",
    "dpn": "stem.0=6 one.proj=9 one.proj#2=8 one.c1.0=8 one.c3=4 two.c1.0=8 two.c3=4",
    "ghostnet": "0.0=6 1.primary_conv.0=5 2.primary_conv.0=6",
    "tied autoencoder": "stem.0=6 encode=9 middle.0=7",
    "vision transformer": "embed=10 blocks.0.attn.qkv=4 blocks.0.mlp.fc1=21 blocks.1.attn.qkv=3 blocks.1.mlp.fc1=21",
    "mobilevit": "stem.0=7 conv_kxk.0=7 conv_1x1=9 transformer.0.attn.qkv=5 transformer.0.mlp.fc1=19 conv_proj.0=7"
    " conv_fusion.0=7",
    "mobilevit v2": "stem.0=7 expand=8 transformer.0.attn.qkv_proj#2=8",
    "coatnet": "stem.0=10 attn.qkv=6",
    "efficientvit": "stem.0=8",
    "swin": "embed=9 stages.0.attn.qkv=3 stages.1.attn.qkv=3 stages.2.reduction=11 stages.3.attn.qkv=5",
    "edgenext": "mlp.fc1=25",
}
"""Groups that may shrink and their channels; what attention makes shrinks by heads."""
PINNED = {
    "mobilevit v2": {"transformer.0.attn.qkv_proj": "takes one channel"},  # the query
    "efficientvit": {"context.qkv": "one channel", "context.aggreg.1": "one channel"},  # groups across heads
    "edgenext": {"stem.0": r"depends on its size at .*hybrids.py:\d+ `qkv = self.qkv", "xca.qkv": "view splits"},
}
"""Why others stay whole, but for the outputs."""
each = pytest.mark.parametrize("name", FAMILIES)


def traced(name: str) -> tuple[nn.Module, ChannelGraph]:
    model = lived_in(FAMILIES[name]())
    return model, trace(model, EXAMPLE)


@each
def test_what_may_shrink(name: str) -> None:
    _, graph = traced(name)
    assert " ".join(f"{g.name}={g.size}" for g in graph.groups if not g.pinned) == FREE[name]
    whole = {g.name: g.pinned for g in graph.groups if g.pinned not in ("", "the model's output")}
    expected = PINNED.get(name, {})
    assert whole.keys() == expected.keys()
    assert all(re.search(why, whole[group]) for group, why in expected.items())


@each
def test_compact_and_mask_compute_the_same(name: str) -> None:
    model, graph = traced(name)
    check(model, graph, EXAMPLE)


def check(model: nn.Module, graph: ChannelGraph, example: Tensor, *, seeds: int = 2) -> None:
    for seed in range(seeds):
        plan = random_plan(graph, seed=seed)
        small, twin = compact(model, graph, plan), mask(model, graph, plan)
        check_runs(model, small, example)
        for training in (False, True, False):
            assert furthest(twin.train(training), small.train(training), example) < 1e-12
        assert furthest(twin, model.eval(), example) > 1e-4  # the cut was felt


@each
def test_they_train_alike(name: str) -> None:
    model, graph = traced(name)
    plan = random_plan(graph, seed=3)
    small, twin = compact(model.train(), graph, plan), mask(model, graph, plan)
    optimisers = [torch.optim.SGD(net.parameters(), lr=1e-2, momentum=0.9, weight_decay=1e-2) for net in (small, twin)]
    losses: list[float] = []
    for _ in range(3):
        for net in (small, twin):
            net.zero_grad()
            loss = torch.stack([y.square().mean().log1p() for y in run(net, EXAMPLE)]).sum()
            loss.backward()
            losses.append(float(loss.detach()))
        assert all(p.grad is not None and p.grad.isfinite().all() for p in small.parameters())
        for optimiser in optimisers:
            optimiser.step()
        mask_(twin, graph, plan)
        assert losses[-2] == pytest.approx(losses[-1], rel=1e-9)
    assert losses[-1] < losses[0]
    assert furthest(twin.eval(), small.eval(), EXAMPLE) < 1e-9
    cut = cut_tensors(graph, graph.flat_keep(plan.keep), dict(twin.named_parameters()))
    assert all(torch.allclose(cut[n], p, rtol=1e-9, atol=1e-12) for n, p in small.named_parameters())


@each
def test_the_compact_model_is_a_model_like_any_other(name: str, tmp_path: Path) -> None:
    """It is stored and loaded, and torch.export takes it."""
    model, graph = traced(name)
    plan = random_plan(graph, seed=4)
    small = compact(model, graph, plan).eval()
    prunit.save(small, plan, tmp_path / "small.safetensors")
    loaded = prunit.load(tmp_path / "small.safetensors", lambda: FAMILIES[name]().double())
    exported = torch.export.export(small, (EXAMPLE,)).module()
    for other in (loaded, exported):
        assert all(torch.equal(a, b) for a, b in zip(run(other, EXAMPLE), run(small, EXAMPLE), strict=True))


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="not installed (prunit[zoo]): torchvision")
@pytest.mark.parametrize(
    ("name", "free", "whole"),
    [
        ("resnet18", 12, {}),
        ("lraspp_mobilenet_v3_large", 30, {}),  # segmentation: a dict
        ("shufflenet_v2_x0_5", 20, {"stage3.0.branch1.2": 1, "stage3.7.branch2.5": 48}),  # shuffles
    ],
)
def test_networks_of_torchvision(name: str, free: int, whole: dict[str, int]) -> None:
    vision = imported("torchvision", needed_by="this test")
    options = {"weights_backbone": None} if name.startswith("lraspp") else {}
    torch.manual_seed(0)
    model = vision.models.get_model(name, weights=None, num_classes=4, **options).double()
    example = images(size=32)
    graph = trace(model, example)
    assert sum(not g.pinned for g in graph.groups) == free
    assert {g.name: g.size for g in graph.groups if g.pinned not in ("", "the model's output")} == whole
    check(model, graph, example, seeds=1)
