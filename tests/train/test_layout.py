"""In which memory format networks are trained; formats are only asked for, no unsafe kernel runs."""

import pytest
import torch
from torch import nn

from prunit.train import TrainConfig, fitted_to
from prunit.train.layout import layout_for
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


DATA = stripes(60, tests=20)
