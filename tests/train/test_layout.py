"""In which memory format networks are trained; formats are only asked for, no unsafe kernel runs."""

import pytest
import torch
from torch import Tensor, nn

from prunit.graph import trace
from prunit.scores.network import Network
from prunit.train import TrainConfig, fitted_to
from prunit.train.layout import layout_for
from prunit.train.place import moved
from prunit.train.run import Job, start
from tests.train.toys import small, stripes

CPU = torch.device("cpu")
SAFE = (
    nn.Conv2d(16, 4, 1, stride=2),
    nn.Conv2d(4, 16, 3, stride=2),
    nn.Conv2d(4, 16, 1),
    nn.Conv2d(64, 64, 1, stride=2, groups=4),
    nn.ConvTranspose2d(4, 16, 1, stride=2),
)
UNSAFE = (
    nn.Conv2d(15, 64, 1, stride=2),
    nn.Conv2d(3, 8, 1, stride=(1, 2)),
    nn.Conv2d(64, 64, 1, stride=2, groups=8),
    nn.ConvTranspose2d(64, 4, 1, stride=2),
)


@pytest.mark.parametrize("layer", SAFE, ids=str)
def test_channels_last_where_it_is_safe(layer: nn.Module) -> None:
    assert layout_for(nn.Sequential(layer), CPU, channels_last=True) == torch.channels_last
    assert layout_for(nn.Sequential(layer), CPU, channels_last=False) == torch.contiguous_format


@pytest.mark.parametrize("layer", UNSAFE, ids=str)
def test_not_with_narrow_strided_projections_on_a_cpu(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3), layer)
    assert layout_for(model, CPU, channels_last=True) == torch.contiguous_format
    assert layout_for(model, torch.device("cuda"), channels_last=True) == torch.channels_last


def test_a_training_lays_out_model_and_images_alike() -> None:
    config = fitted_to(TrainConfig(epochs=1, batch_size=10, device="cpu"), DATA)
    for projection, expected in ((False, torch.channels_last), (True, torch.contiguous_format)):
        model = small(12)
        if projection:
            model.add_module("unused", nn.Conv2d(12, 12, 1, stride=2))
        run = start(Job(model, DATA, config, None, precision="32-true"))
        x_BCHW, _ = run.feed.batch(run.feed.draws(seed=0, epoch=0).part(slice(0, 10)))
        assert x_BCHW.is_contiguous(memory_format=expected)
        assert model.conv1.weight.is_contiguous(memory_format=expected)


def test_kernels_of_one_pixel_leave_channels_last_too() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 1, stride=2)).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportArgumentType]
    conv = model[0]
    assert isinstance(conv, nn.Conv2d)
    values = conv.weight.detach().clone()
    assert conv.weight.stride() != (4, 1, 1, 1)
    moved(model, CPU)
    assert conv.weight.stride() == (4, 1, 1, 1)
    assert torch.equal(conv.weight, values)


def test_scores_run_in_plain_order() -> None:
    """Of a model that is laid out channels last, whose weights stay as they are."""
    seen: list[tuple[tuple[int, ...], ...]] = []

    class Strided(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            seen.append((self.weight.stride(), input.stride()))
            return super().forward(input)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Strided(4, 8, 1, stride=2), nn.Flatten(), nn.Linear(72, 2))
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportArgumentType]
    before = {name: tensor.stride() for name, tensor in model.named_parameters()}
    graph = trace(model, torch.randn(1, 3, 8, 8))
    network = Network(model, graph)
    seen.clear()
    network.forward(network.weights, torch.randn(2, 3, 8, 8))
    assert seen == [((4, 1, 1, 1), (144, 36, 6, 1))]
    assert {name: tensor.stride() for name, tensor in model.named_parameters()} == before


DATA = stripes(60, tests=20)
