"""The moving average of the weights: as it is defined, evaluated and delivered, and zero where a mask says so."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from prunit.train import TrainConfig, evaluate, train
from prunit.train.config import final_accuracy
from tests.train.toys import Small, assert_same, small, stripes, tensors

CONFIG = TrainConfig(epochs=2, batch_size=16, device="cpu", ema=0.6)


def copies(model: Small) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors(model).items()}


def test_it_is_the_average_of_what_the_weights_were_after_each_step() -> None:
    model = small()
    expected, steps = copies(model), 0

    def on_step(done: int, total: int) -> None:
        nonlocal steps
        steps = done
        decay = min(0.6, (1 + done) / (10 + done))
        for name, tensor in copies(model).items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor if tensor.is_floating_point() else tensor

    epochs = train(model, stripes(), CONFIG, on_step=on_step)
    for index in (1, 2):
        next(epochs)
        assert steps == 3 * index
        for name, tensor in tensors(model).items():
            torch.testing.assert_close(tensor, expected[name], msg=name)
    assert expected["calls"] == 6


def test_the_optimiser_goes_on_from_its_own_weights() -> None:
    plain, averaged = small(), small()
    losses = [epoch.loss for epoch in train(plain, stripes(), CONFIG.model_copy(update={"ema": 0.0}))]
    assert [epoch.loss for epoch in train(averaged, stripes(), CONFIG)] == losses
    assert not torch.equal(plain.fc.weight, averaged.fc.weight)


def test_what_is_evaluated_is_delivered_and_kept(tmp_path: Path) -> None:
    model, path = small(), tmp_path / "run"
    for epoch in train(model, stripes(), CONFIG, checkpoint=path):
        assert evaluate(model, stripes(), device="cpu") == pytest.approx(epoch.test_accuracy)
        kept = load_file(path)
        assert all(torch.equal(kept[f"model.{name}"], tensor) for name, tensor in tensors(model).items())
        assert not torch.equal(kept["live.fc.weight"], kept["model.fc.weight"])
    read = small(seed=9)
    list(train(read, stripes(), CONFIG, checkpoint=path))
    assert_same(read, model)


def test_weights_that_are_masked_stay_zero() -> None:
    model, mask = small(), torch.rand(6, 1, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    list(train(model, stripes(), CONFIG, masks={"conv1.weight": mask}))
    assert torch.equal(model.conv1.weight != 0, mask)


def test_epochs_that_are_left_out_do_not_count() -> None:
    model, seen = small(), list[Tensor]()
    start = model.fc.bias.detach().clone()
    config = CONFIG.model_copy(update={"ema": 0.99})
    first = next(
        train(model, stripes(), config, first=1, on_step=lambda *_: seen.append(model.fc.bias.detach().clone()))
    )
    assert first.index == 2
    expected = start
    for done, bias in enumerate(seen, 1):
        decay = (1 + done) / (10 + done)
        expected = decay * expected + (1 - decay) * bias
    torch.testing.assert_close(model.fc.bias.detach(), expected)


@pytest.mark.slow
def test_several_devices_deliver_the_average_too() -> None:
    together, alone = small(), small()
    for model in (together, alone):
        model.drop.p = 0.0
        model.norm = torch.nn.GroupNorm(1, 6)  # pyright: ignore[reportAttributeAccessIssue]
    config = CONFIG.model_copy(update={"augment": False, "clip": 0.5})
    epochs = list(train(together, stripes(), config.model_copy(update={"devices": 2})))
    list(train(alone, stripes(), config))
    for name, tensor in tensors(alone).items():
        torch.testing.assert_close(tensors(together)[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    assert evaluate(together, stripes(), device="cpu") == pytest.approx(final_accuracy(epochs))
    assert not torch.equal(alone.fc.weight, small().fc.weight)
