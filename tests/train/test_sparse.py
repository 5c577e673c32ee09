"""Weights that are zero and stay zero, and a training that begins in the middle."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunit.errors import ConfigError, FileError, ModelError, UnknownNameError
from prunit.train import TrainConfig, train
from prunit.train.sparse import KeptZero, zeroed
from tests.train.toys import assert_same, small, stripes

CONFIG = TrainConfig(epochs=3, batch_size=16, device="cpu", precision="32-true")


def masks() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    named = dict(small().named_parameters())
    return {n: torch.rand(named[n].shape, generator=generator) > 0.5 for n in ("conv1.weight", "conv2.weight")}


def test_masks_stay_through_momentum_and_decay() -> None:
    model = nn.Linear(4, 4, bias=False)
    mask = ~torch.eye(4, dtype=torch.bool)  # every output keeps some weights, or its gradient would be zero
    zeroed(model, {"weight": mask})
    kept = KeptZero(model, {"weight": mask})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not model.weight.detach()[~mask].any()
    assert model.weight.detach()[mask].all()
    kept.end()
    model(torch.randn(8, 4)).square().mean().backward()
    assert model.weight.grad is not None
    assert model.weight.grad.all()


@pytest.mark.parametrize("devices", [1, 2])
def test_a_sparse_training_keeps_its_zeros(devices: int) -> None:
    model, config = small(), CONFIG.model_copy(update={"devices": devices})
    epochs = list(train(model, stripes(), config, masks=masks()))
    assert len(epochs) == 3
    named = dict(model.named_parameters())
    for name, mask in masks().items():
        assert not named[name].detach()[~mask].any()
        assert named[name].detach()[mask].all()
    assert named["fc.weight"].detach().all()


def test_a_sparse_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    whole, stopped = small(), small()
    list(train(whole, stripes(), CONFIG, masks=masks()))
    for _ in train(stopped, stripes(), CONFIG, masks=masks(), checkpoint=tmp_path / "one"):
        break
    resumed = small()
    assert len(list(train(resumed, stripes(), CONFIG, masks=masks(), checkpoint=tmp_path / "one"))) == 3
    assert_same(whole, resumed)
    other = {name: ~mask for name, mask in masks().items()}
    with pytest.raises(FileError, match="digest of the masks"):
        list(train(small(), stripes(), CONFIG, masks=other, checkpoint=tmp_path / "one"))


def test_a_training_that_begins_in_the_middle_is_the_rest_of_a_whole_one() -> None:
    """Without momentum nothing but the weights passes from one epoch to the next."""
    config = CONFIG.model_copy(update={"momentum": 0.0})
    whole, rest = small(), small()
    for epoch in train(whole, stripes(), config):
        if epoch.index == 1:
            rest.load_state_dict(whole.state_dict())
            rest.calls.copy_(whole.calls)
    epochs = list(train(rest, stripes(), config, first=1))
    assert [epoch.index for epoch in epochs] == [2, 3]
    assert_same(whole, rest)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'conv1\.weight'"):
        train(small(), stripes(), CONFIG, masks={"conv1.weigh": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(ModelError, match=r"the mask of 'fc.weight' has shape \(2,\), the parameter \(4, 8\)"):
        train(small(), stripes(), CONFIG, masks={"fc.weight": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(ConfigError, match="a training of 3 epochs cannot begin after 3 of them"):
        train(small(), stripes(), CONFIG, first=3)
