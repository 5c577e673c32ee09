"""SGD and AdamW: the steps of torch's own, which parameters decay, gradients clipped to a norm."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from prunit.errors import TrainingError
from prunit.train import TrainConfig, fitted, train
from prunit.train.augment import feed
from prunit.train.optimizers import optimizer_for, put_state, state_of
from prunit.train.schedule import lr_at
from tests.train.toys import small, stripes


def linear() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


def decays(settings: dict[str, object]) -> dict[str, float]:
    """By how much each parameter of the small network decays."""
    model, config = small(), fitted(TrainConfig.model_validate(settings), 50)
    groups = optimizer_for(model, config, "32-true").param_groups
    of = {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}
    return {name: of[parameter] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("settings", "kernels", "others"),
    [
        ({}, 5e-4, 0.0),
        ({"schedule": "cosine"}, 5e-4, 0.0),
        ({"schedule": "step"}, 1e-4, 1e-4),
        ({"optimizer": "adamw"}, 0.05, 0.0),
        ({"optimizer": "adamw", "schedule": "step"}, 0.05, 0.0),
        ({"optimizer": "adamw", "weight_decay": 0.01}, 0.01, 0.0),
    ],
)
def test_which_parameters_decay(settings: dict[str, object], kernels: float, others: float) -> None:
    found = decays(settings)
    assert {found[name] for name in ("conv1.weight", "conv2.weight", "fc.weight")} == {kernels}
    assert {found[name] for name in ("norm.weight", "norm.bias", "conv2.bias", "fc.bias")} == {others}


def test_adamw_steps_as_its_paper_says() -> None:
    config = TrainConfig(epochs=2, batch_size=16, optimizer="adamw", device="cpu", augment=False, momentum=0.8)
    model, dataset = linear(), stripes(32)
    numbers = fitted(config, 32)
    source = feed(dataset, torch.device("cpu"), augment=False, channels_last=False)
    by_hand = linear()
    weight, bias = by_hand.parameters()
    means: list[Tensor] = [torch.zeros_like(p) for p in (weight, bias)]
    squares: list[Tensor] = [torch.zeros_like(p) for p in (weight, bias)]
    for step in range(4):
        draws = source.draws(seed=0, epoch=step // 2).part(slice(16 * (step % 2), 16 * (step % 2 + 1)))
        x_BCHW, y_B = source.batch(draws)
        loss = cross_entropy(by_hand(x_BCHW), y_B, label_smoothing=0.1)
        gradients = torch.autograd.grad(loss, [weight, bias])
        lr = lr_at(numbers, step, 2)
        with torch.no_grad():
            for i, (parameter, gradient) in enumerate(zip((weight, bias), gradients, strict=True)):
                means[i] = 0.8 * means[i] + 0.2 * gradient
                squares[i] = 0.999 * squares[i] + 0.001 * gradient**2
                parameter.mul_(1 - lr * (0.05 if parameter.ndim > 1 else 0.0))
                way = means[i] / (1 - 0.8 ** (step + 1))
                parameter.sub_(lr * way / ((squares[i] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8))
    list(train(model, dataset, config))
    for one, other in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("schedule", "nesterov"), [("onecycle", True), ("cosine", True), ("step", False)])
def test_nesterov_is_of_the_modern_schedules(schedule: str, nesterov: bool) -> None:
    config = fitted(TrainConfig.model_validate({"schedule": schedule}), 50)
    assert optimizer_for(small(), config, "32-true").param_groups[0]["nesterov"] == nesterov


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_state_goes_out_and_in(optimizer: str) -> None:
    config = fitted(TrainConfig.model_validate({"optimizer": optimizer}), 50)
    model, other = small(), small()
    ours, theirs = (optimizer_for(m, config, "32-true") for m in (model, other))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    ours.step()
    ours.step()
    kept = {name: tensor.clone() for name, tensor in state_of(model, ours).items()}
    assert len(kept) == len(list(model.parameters())) * (3 if optimizer == "adamw" else 1)
    put_state(other, theirs, kept)
    again = state_of(other, theirs)
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[name], kept[name]) for name in kept)
    assert all(again[name].data_ptr() != kept[name].data_ptr() for name in kept)


def length_of_a_step(clip: float) -> float:
    """How far the weights move in the only step of a training, as a multiple of the learning rate."""
    model, start = linear(), linear()
    plain = {"epochs": 1, "batch_size": 32, "schedule": "step", "momentum": 0, "weight_decay": 0, "device": "cpu"}
    config = TrainConfig.model_validate({**plain, "clip": clip})
    list(train(model, stripes(32), config))
    moved = [(one - other).detach() for one, other in zip(model.parameters(), start.parameters(), strict=True)]
    return float(torch.cat([part.flatten() for part in moved]).norm() / 0.1)


def test_gradients_are_clipped_to_a_norm_and_shorter_ones_left() -> None:
    whole = length_of_a_step(0.0)
    assert whole > 0.05
    assert length_of_a_step(0.01) == pytest.approx(0.01, rel=1e-3)
    assert length_of_a_step(100.0) == pytest.approx(whole)


def test_a_training_that_diverges_says_so_with_clipping_too() -> None:
    config = TrainConfig(epochs=2, batch_size=16, device="cpu", lr=1e30, clip=1.0)
    with pytest.raises(TrainingError, match="no longer finite in epoch"):
        list(train(small(), stripes(), config))


def test_half_precision_that_is_clipped_takes_an_optimiser_that_leaves_the_loss_scale_to_others() -> None:
    clipped = fitted(TrainConfig(clip=1.0), 50)
    assert not optimizer_for(small(), clipped, "16-mixed").defaults["fused"]
    assert optimizer_for(small(), clipped, "bf16-mixed").defaults["fused"]
    assert optimizer_for(small(), fitted(TrainConfig(), 50), "16-mixed").defaults["fused"]
