"""The file that a trained variant gets from the dense model's translation is, byte for byte, that of its own export.

But where code computes sizes as it runs: of a graph from a template ONNX finds more of them out beforehand than torch
notes down, and less is left to compute. Such files have fewer nodes, and give the same answers to the last bit.
"""

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from prunit import zoo
from prunit.cut.surgery import compact, copied
from prunit.edge.runtimes import runtime
from prunit.export import export_onnx
from prunit.export.images import seeded_input
from prunit.export.template import Template
from prunit.export.translation import Translation
from prunit.graph import trace
from tests import nets
from tests.export import toynets

IMAGES = {name: net for name, (net, example) in nets.NETS.items() if example.ndim == 4 and name != "unet"}
LARGE = {
    "timm:mobilenetv3_small_100": 1,  # gates
    "timm:convnext_atto": 0,  # layer norms, whose numbers may follow one of two groups that are cut alike
    "torchvision:densenet121": 1,  # concatenations
    "torchvision:shufflenet_v2_x0_5": 0,  # which of many equal widths its numbers follow is in doubt
}
"""Of one plan each, how many get their file from the template."""


def retrained(model: nn.Module) -> nn.Module:
    """The model with other weights and batch statistics, as after some training."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1 + torch.rand(tensor.shape, generator=generator) / 10)
    return model


def carried(
    model: nn.Module,
    example: Tensor,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    plans: int = 1,
    sizes_computed: bool = False,
) -> int:
    """How many of some random plans got their files from the template, after the check that all files are the same."""
    model = copied(model).float().eval()
    graph, found = trace(model, example), list[Translation]()
    export_onnx(model, example, folder, name="dense", on_translated=found.append)
    template = Template.from_bytes(Template.of(model, graph, found[0]).to_bytes())
    assert template is not None
    caplog.set_level(logging.INFO, "prunit.export.onnx")
    for seed in range(plans):
        small = retrained(compact(model, graph, nets.random_plan(graph, seed=seed, least=2)))
        records = [export_onnx(small, example, folder, name=n, template=t) for n, t in (("a", template), ("b", None))]
        assert (folder / "a.selftest.npz").read_bytes() == (folder / "b.selftest.npz").read_bytes()
        if sizes_computed:
            check_smaller(folder / "a.onnx", folder / "b.onnx", example)
        else:
            assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()
            assert records[0].sha256 == records[1].sha256
    return plans - sum("translated for itself" in record.message for record in caplog.records)


def check_smaller(carried: Path, own: Path, example: Tensor) -> None:
    """The first file has fewer nodes than the second, and the same answers."""
    assert len(onnx.load(carried).graph.node) <= len(onnx.load(own).graph.node)
    x_BCHW = seeded_input(2, tuple(example.shape[1:]))
    answers = []
    for file in (carried, own):
        session = runtime().open(file)
        answers.append(session.run(x_BCHW))
        session.close()
    assert np.array_equal(*answers)


@pytest.mark.parametrize("name", IMAGES)
def test_networks_of_all_ties(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert carried(IMAGES[name](), nets.images()[:1].float(), tmp_path, caplog) == 1


@pytest.mark.parametrize("name", toynets.NETS)
def test_networks_of_all_layers(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert carried(toynets.build(name), toynets.example(), tmp_path, caplog, plans=2) == 2


@pytest.mark.parametrize("name", ["vgg16", "mobilenetv2", "resnet20"])
def test_the_zoo(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert carried(zoo.load(name), torch.zeros(1, 3, 32, 32), tmp_path, caplog) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "from_template"), LARGE.items())
def test_networks_of_timm_and_torchvision(
    name: str, from_template: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = carried(zoo.load(name, image_size=96), torch.zeros(1, 3, 96, 96), tmp_path, caplog)
    assert found == from_template


@pytest.mark.slow
def test_attention(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = zoo.load("timm:vit_tiny_patch16_224", image_size=96)
    model.blocks = model.blocks[:2]
    assert carried(model, torch.zeros(1, 3, 96, 96), tmp_path, caplog, sizes_computed=True) == 1
