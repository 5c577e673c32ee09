"""The file of an untrained plan is the one that a real export of its compact model gives, but for the weights' values.

Whether it was derived from the dense model's translation or, where that does not do, translated for itself.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunit import zoo
from prunit.cut.surgery import compact, copied
from prunit.export import export_onnx
from prunit.export.untrained import Untrained, stir
from prunit.graph import trace
from tests import nets
from tests.export import toynets
from tests.export.structures import structure

IMAGES = {name: net for name, (net, example) in nets.NETS.items() if example.ndim == 4 and name != "unet"}
LARGE = ("timm:mobilenetv3_small_100", "timm:convnext_atto", "torchvision:shufflenet_v2_x0_5")
"""Gates, layer norms, shuffles: what the networks above do not have, or not so many of."""


def derived_plans(model: nn.Module, example: Tensor, folder: Path, *, plans: int = 1) -> int:
    """How many of some random plans had a derived file, after the check that every file is that of a real export."""
    model = copied(model).float().eval()
    stir(model)
    graph = trace(model, example)
    untrained, derived = Untrained(model, graph, example), 0
    for seed in range(plans):
        plan = nets.random_plan(graph, seed=seed)
        derived += untrained.write(plan, folder / "untrained.onnx")
        export_onnx(compact(model, graph, plan), example, folder, name="real")
        assert structure(folder / "untrained.onnx") == structure(folder / "real.onnx")
    return derived


@pytest.mark.parametrize("name", IMAGES)
def test_networks_of_all_ties(name: str, tmp_path: Path) -> None:
    assert derived_plans(IMAGES[name](), nets.images()[:1].float(), tmp_path) == 1


@pytest.mark.parametrize("name", toynets.NETS)
def test_networks_of_all_layers(name: str, tmp_path: Path) -> None:
    assert derived_plans(toynets.build(name), toynets.example(), tmp_path, plans=2) == 2


@pytest.mark.parametrize("name", ["vgg16", "mobilenetv2"])
def test_the_zoo(name: str, tmp_path: Path) -> None:
    assert derived_plans(zoo.load(name), torch.zeros(1, 3, 32, 32), tmp_path) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_networks_of_timm_and_torchvision(name: str, tmp_path: Path) -> None:
    assert derived_plans(zoo.load(name, image_size=96), torch.zeros(1, 3, 96, 96), tmp_path) == 1
