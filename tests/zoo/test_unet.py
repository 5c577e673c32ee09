"""The zoo's U-Nets: sizes, cutting, export."""

from pathlib import Path

import pytest
import torch
from torch import nn

from prunit import zoo
from prunit.cut.plans import Plan
from prunit.cut.surgery import compact, mask
from prunit.edge.runtimes import runtime
from prunit.export import export_onnx
from prunit.export.untrained import Untrained
from prunit.graph import trace
from prunit.zoo.unet import unet
from tests.nets import lived_in, random_plan

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def tiny(size: int = 32) -> nn.Module:
    return lived_in(zoo.load("unet-tiny", num_classes=3, image_size=size)).float().eval()


@pytest.mark.parametrize("size", [8, 28, 37, 64])
def test_scores_have_the_inputs_full_size(size: int) -> None:
    model = zoo.load("unet-tiny", num_classes=3, in_channels=1, image_size=size)
    assert model(torch.zeros(2, 1, size, size + 5)).shape == (2, 3, size, size + 5)


def test_channels_double_at_each_level_from_the_base_on() -> None:
    for base, model in ((32, zoo.load("unet")), (8, zoo.load("unet-tiny")), (12, unet(base=12))):
        widths = [down[0][0].out_channels for down in model.down]
        assert widths == [base, 2 * base, 4 * base, 8 * base]


def test_every_convolution_but_the_last_can_be_narrowed() -> None:
    graph = trace(tiny(), X)
    pinned = [group.name for group in graph.groups if group.pinned]
    assert pinned == ["head"]
    assert len(graph.groups) == 4 * 2 + 3 * 3 + 1
    assert graph.notes == ()


@pytest.mark.parametrize("seed", range(3))
def test_compact_and_mask_compute_the_same(seed: int) -> None:
    model = tiny().double()
    graph = trace(model, X.double())
    plan = random_plan(graph, seed=seed)
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    with torch.no_grad():
        assert torch.allclose(small(X.double()), twin(X.double()), atol=1e-10)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


def test_it_is_exported_with_a_free_batch(tmp_path: Path) -> None:
    model = tiny()
    graph = trace(model, X)
    small = compact(model, graph, random_plan(graph, seed=0))
    export_onnx(small, X, tmp_path, name="small")
    session = runtime("onnxruntime").open(tmp_path / "small.onnx")
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected = small(x)
        found = torch.from_numpy(session.run(x.numpy()))
        assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_files_of_untrained_plans_come_from_one_translation(tmp_path: Path) -> None:
    model = tiny()
    graph = trace(model, X)
    untrained = Untrained(model, graph, X)
    plans: list[Plan] = [random_plan(graph, seed=seed, least=2) for seed in range(2)]
    assert all(untrained.write(plan, tmp_path / "plan.onnx") for plan in plans)
