"""What training does to a model: it learns, in the way that a hand-written SGD does, and hands back a plain model."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from prunit.batches import Dataset, Split
from prunit.errors import DataError, ModelError, TrainingError
from prunit.train import TrainConfig, evaluate, fitted_to, train
from prunit.train.config import final_accuracy, is_evaluated
from prunit.train.schedule import lr_at
from tests.train.toys import assert_same, small, stripes, tensors

CONFIG = TrainConfig(epochs=2, batch_size=16, device="cpu")


def changed(settings: dict[str, object]) -> TrainConfig:
    return TrainConfig.model_validate(CONFIG.model_dump() | settings)


def digits() -> Dataset:
    """scikit-learn's 8x8 scans of handwritten digits: 1,500 to train on, 297 to test on."""
    from sklearn.datasets import load_digits

    x_NHW, y_N = load_digits().images, load_digits().target
    x_BCHW, y_B = torch.from_numpy(x_NHW * 15.9).to(torch.uint8)[:, None], torch.from_numpy(y_N).long()
    train_split, test_split = Split(x_BCHW[:1500], y_B[:1500]), Split(x_BCHW[1500:], y_B[1500:])
    return Dataset("digits", train_split, test_split, tuple("0123456789"), (0.3,), (0.37,), flip=False)


def convnet() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 10),
        )


@pytest.mark.parametrize("schedule", ["onecycle", "step"])
def test_it_learns_digits(schedule: str) -> None:
    dataset, model = digits(), convnet()
    config = TrainConfig.model_validate({"schedule": schedule, "epochs": 4, "batch_size": 64, "device": "cpu"})
    epochs = list(train(model, dataset, config))
    assert [epoch.index for epoch in epochs] == [1, 2, 3, 4]
    assert epochs[-1].loss < epochs[0].loss
    assert epochs[-1].train_accuracy > 0.85
    assert final_accuracy(epochs) > 0.85
    assert evaluate(model, dataset, device="cpu") == pytest.approx(final_accuracy(epochs), abs=1 / 297)


def by_hand(model: nn.Module, dataset: Dataset, config: TrainConfig) -> None:
    """Full-batch SGD as the formulas have it; norms and biases do not decay in `onecycle`."""
    x_BCHW, y_B = dataset.normalise(dataset.train.x_BCHW), dataset.train.y_B
    modern = config.schedule == "onecycle"
    velocity: dict[str, Tensor] = {}
    model.train()
    for step in range(4):
        lr = lr_at(fitted_to(config, dataset), step, 1)
        model.zero_grad()
        cross_entropy(model(x_BCHW), y_B, label_smoothing=0.1 if modern else 0.0).backward()
        with torch.no_grad():
            for name, w in model.named_parameters():
                assert w.grad is not None
                decay = config.decay if w.ndim > 1 or not modern else 0.0
                g = w.grad + decay * w
                velocity[name] = 0.9 * velocity[name] + g if name in velocity else g
                w -= lr * (g + 0.9 * velocity[name] if modern else velocity[name])


@pytest.mark.parametrize("schedule", ["onecycle", "step"])
def test_it_is_the_sgd_of_the_formulas(schedule: str) -> None:
    dataset = stripes(20)
    # A decay as large as this makes a parameter that decays by mistake visible.
    config = changed({"schedule": schedule, "epochs": 4, "batch_size": 20, "augment": False, "weight_decay": 0.1})
    ours, theirs = small(), small()
    ours.drop.p = theirs.drop.p = 0.0
    list(train(ours, dataset, config))
    by_hand(theirs, dataset, config)
    for name, tensor in tensors(theirs).items():
        torch.testing.assert_close(tensors(ours)[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_the_model_comes_back_plain() -> None:
    model = small()
    parameters = list(model.parameters())
    model.requires_grad_(True)
    list(train(model, stripes(), CONFIG))
    assert not any(module.training for module in model.modules())
    assert all(ours is theirs for ours, theirs in zip(model.parameters(), parameters, strict=True))
    assert all(p.is_contiguous() and p.device.type == "cpu" and p.grad is None for p in model.parameters())


def test_leaving_early_hands_the_model_back_too() -> None:
    model = small()
    epochs = train(model, stripes(), CONFIG)
    next(epochs)
    del epochs
    assert not model.training
    assert all(p.is_contiguous() and p.grad is None for p in model.parameters())


def test_the_same_seed_gives_the_same_weights_whatever_the_global_one() -> None:
    models = []
    for seed in (0, 0, 1):
        torch.rand(5)
        before = torch.get_rng_state()
        models.append(small())
        list(train(models[-1], stripes(), changed({"seed": seed})))
        assert torch.equal(before, torch.get_rng_state())
    assert_same(models[0], models[1])
    assert not torch.equal(models[0].fc.weight, models[2].fc.weight)


def test_steps_and_epochs_are_counted() -> None:
    steps: list[tuple[int, int]] = []
    epochs = list(train(small(), stripes(50), CONFIG, on_step=lambda done, of: steps.append((done, of))))
    assert steps == [(i, 6) for i in range(1, 7)]  # 50 images make 3 batches of 16
    assert [epoch.lr for epoch in epochs] == [lr_at(fitted_to(CONFIG, stripes(50)), step, 3) for step in (2, 5)]
    assert all(epoch.epochs == 2 and epoch.seconds > 0 for epoch in epochs)


@pytest.mark.parametrize(("images", "calls"), [(2, 1), (15, 1), (16, 1), (17, 1), (31, 1), (32, 2), (33, 2)])
def test_the_odd_rest_is_left_out_unless_it_is_all_there_is(images: int, calls: int) -> None:
    model = small()
    (epoch,) = train(model, stripes(images), changed({"epochs": 1}))
    assert model.calls == model.norm.num_batches_tracked == calls
    assert 0 <= epoch.train_accuracy <= 1


def test_one_image_is_too_few() -> None:
    with pytest.raises(DataError, match="'stripes' has 1 training images; training on 1 device needs 2 or more"):
        train(small(), stripes(1), CONFIG)


def test_images_without_a_label_are_an_error() -> None:
    dataset = stripes()
    short = replace(dataset, train=Split(dataset.train.x_BCHW, dataset.train.y_B[:-1]))
    with pytest.raises(DataError, match="50 train images but 49 labels"):
        train(small(), short, CONFIG)


def test_frozen_parameters_stay() -> None:
    model = small()
    model.conv1.requires_grad_(False)
    before = model.conv1.weight.clone()
    list(train(model, stripes(), CONFIG))
    assert torch.equal(before, model.conv1.weight)
    with pytest.raises(ModelError, match="no parameters to train"):
        train(model.requires_grad_(False), stripes(), CONFIG)


def test_divergence_is_an_error_that_says_what_to_try() -> None:
    with pytest.raises(
        TrainingError, match=r"no longer finite in epoch 1 of 2 \(learning rate .*highest 1e\+30\): try train.lr=1e\+29"
    ):
        list(train(small(), stripes(), changed({"lr": 1e30})))


def test_bfloat16_trains_too() -> None:
    model = small()
    epochs = list(train(model, stripes(), changed({"precision": "bf16-mixed"})))
    assert len(epochs) == 2
    assert model.fc.weight.dtype == torch.float32


class Watched(nn.Module):
    """Writes down in which type its classifier answers when it is evaluated on more than one image."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.types = small(), list[torch.dtype]()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits_BK = self.inner(x_BCHW)
        if not self.training and len(x_BCHW) > 1:
            self.types.append(logits_BK.dtype)
        return logits_BK


def test_only_the_last_epoch_is_tested_in_float32() -> None:
    model = Watched()
    list(train(model, stripes(), changed({"precision": "bf16-mixed", "epochs": 3})))
    assert model.types == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_a_long_training_is_not_tested_after_every_epoch() -> None:
    model = Watched()
    epochs = list(train(model, stripes(16), changed({"epochs": 120})))
    tested = [epoch.index for epoch in epochs if epoch.test_accuracy is not None]
    assert len(tested) == len(model.types) == 50
    assert tested[-1] == 120
    assert {later - sooner for sooner, later in pairwise(tested)} == {2, 3}


@pytest.mark.parametrize("epochs", [1, 2, 49, 50, 51, 99, 100, 1000])
def test_epochs_that_are_tested_are_evenly_spread_and_end_with_the_last(epochs: int) -> None:
    tested = [index for index in range(1, epochs + 1) if is_evaluated(index, epochs)]
    assert len(tested) == min(epochs, 50)
    assert tested[-1] == epochs
    steps = {later - sooner for sooner, later in pairwise([0, *tested])}
    assert max(steps) - min(steps) <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["auto", "32-true", "16-mixed"])
def test_it_learns_digits_on_a_gpu(precision: str) -> None:
    model = convnet()
    config = TrainConfig.model_validate({"epochs": 4, "batch_size": 64, "device": "cuda", "precision": precision})
    epochs = list(train(model, digits(), config))
    assert final_accuracy(epochs) > 0.85
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert evaluate(model, digits(), device="cuda") == pytest.approx(final_accuracy(epochs), abs=2 / 297)
