"""TrainConfig: what the schedules' recipes say, and settings refused in one line."""

from dataclasses import replace

import pytest
from pydantic import BaseModel, ValidationError

from prunit.errors import ConfigError, UnknownNameError
from prunit.tasks import Classification
from prunit.train import TrainConfig, fitted, fitted_to
from tests.train.toys import stripes


def test_step_is_the_papers_recipe() -> None:
    config = fitted(TrainConfig.full(), 50_000)
    assert (config.epochs, config.batch_size, config.momentum) == (160, 128, 0.9)
    assert (config.lr, config.decay, config.smoothing, config.ramp_epochs) == (0.1, 1e-4, 0.0, 0.0)


def test_onecycle_is_the_short_default() -> None:
    assert TrainConfig() == TrainConfig.quick()
    config = fitted(TrainConfig.quick(10), 50_000)
    assert (config.lr, config.decay, config.smoothing, config.ramp_epochs) == (0.2, 5e-4, 0.1, 2.0)


def test_cosine_is_the_common_one() -> None:
    config = fitted(TrainConfig(schedule="cosine", epochs=20), 50_000)
    assert (config.lr, config.decay, config.smoothing, config.ramp_epochs) == (0.1, 5e-4, 0.1, 1.0)


def test_given_values_win_even_if_they_are_zero() -> None:
    config = fitted(TrainConfig(lr=0.05, weight_decay=0, label_smoothing=0, warmup_epochs=0), 50_000)
    assert (config.lr, config.decay, config.smoothing, config.ramp_epochs) == (0.05, 0, 0, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, r"'epochs' = 0: .*greater than or equal to 1"),
        ({"batch_size": 1}, r"'batch_size' = 1: .*greater than or equal to 2"),
        ({"lr": float("inf")}, r"'lr' = inf: .*finite"),
        ({"schedule": "linear"}, r"'schedule' = 'linear': .*'onecycle', 'step' or 'cosine'"),
        ({"optimizer": "adam"}, r"'optimizer' = 'adam': .*'sgd' or 'adamw'"),
        ({"clip": -1}, r"'clip' = -1: .*greater than or equal to 0"),
        ({"ema": 1}, r"'ema' = 1: .*less than 1"),
        ({"jitter": 1.5}, r"'jitter' = 1.5: .*less than or equal to 1"),
        ({"mixup": -0.2}, r"'mixup' = -0.2: .*greater than or equal to 0"),
        ({"flip": "sideways"}, r"'flip' = 'sideways': .*'auto'"),
        ({"balance": "yes"}, r"'balance' = 'yes': .*'none', 'weights' or 'sampler'"),
        ({"device": "gpu"}, r"'device' = 'gpu': use auto, cpu, cuda or cuda:N"),
        ({"device": "cpu:1"}, r"'device' = 'cpu:1': use auto"),
        ({"device": "cuda:1", "devices": 2}, r"'devices' = 2, but 'device' = 'cuda:1' names one"),
        ({"batch_size": 6, "devices": 4}, r"'batch_size' = 6 leaves 4 devices .* use 8 or more"),
        ({"epochs": 3, "warmup_epochs": 3}, r"'warmup_epochs' = 3 leaves nothing of 'epochs' = 3"),
    ],
)
def test_a_bad_setting_is_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        TrainConfig.model_validate(settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="training setting 'batchsize'; did you mean 'batch_size'"):
        TrainConfig.model_validate({"batchsize": 64})


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrainConfig().epochs = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_it_nests_and_may_be_left_out() -> None:
    class Outer(BaseModel):
        train: TrainConfig | None = TrainConfig()

    assert Outer.model_validate({"train": None}).train is None
    assert Outer.model_validate({"train": {"epochs": "3"}}).train == TrainConfig(epochs=3)
    assert Outer.model_validate_json('{"train": {"lr": 0.3}}').train == TrainConfig(lr=0.3)


def test_every_setting_is_documented() -> None:
    assert [name for name, field in TrainConfig.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("images", "batch_size", "lr"),
    [
        (1, 32, 0.1),
        (1_034, 32, 0.1),
        (1_919, 32, 0.1),
        (1_920, 64, 0.1 * 2**0.5),
        (3_840, 128, 0.2),
        (50_000, 128, 0.2),
    ],
)
def test_few_images_are_trained_in_smaller_batches(images: int, batch_size: int, lr: float) -> None:
    found = fitted(TrainConfig(), images)
    assert (found.epochs, found.batch_size) == (30, batch_size)
    assert found.lr == pytest.approx(lr)
    assert fitted(found, 10) is found


@pytest.mark.parametrize(
    ("images", "batch_size"), [(50_000, 128), (2_559, 64), (640, 32), (639, 16), (205, 8), (24, 4), (1, 4)]
)
def test_another_task_has_smaller_batches_still(images: int, batch_size: int) -> None:
    found = fitted(TrainConfig(), images, classifies=False)
    assert (found.epochs, found.batch_size) == (60, batch_size)
    assert found.lr == pytest.approx(0.2 * (batch_size / 128) ** 0.5)
    assert fitted(TrainConfig(), images, classifies=False, task_lr=0.04).lr == pytest.approx(
        0.04 * (batch_size / 16) ** 0.5
    )


def test_adamw_has_one_rate_for_every_batch_and_task() -> None:
    for images in (24, 1_000, 50_000):
        assert fitted(TrainConfig(optimizer="adamw"), images).lr == 3e-3
        assert fitted(TrainConfig(optimizer="adamw"), images, classifies=False, task_lr=0.04).lr == 3e-3
    assert fitted(TrainConfig(optimizer="adamw", lr=0.01), 1_000).lr == 0.01


def test_the_rate_of_a_task_follows_a_batch_size_that_was_given() -> None:
    assert fitted(TrainConfig(batch_size=64), 900, classifies=False, task_lr=0.04).lr == pytest.approx(0.08)
    assert fitted(TrainConfig(batch_size=64, lr=0.3), 900, classifies=False, task_lr=0.04).lr == 0.3


def test_the_data_set_s_task_says_what_suits_it() -> None:
    class Slow(Classification):
        name = "slow"
        lr = 0.01

    assert fitted_to(TrainConfig(), stripes()) == fitted(TrainConfig(), 50)
    assert fitted_to(TrainConfig(), replace(stripes(), task=Slow())) == fitted(
        TrainConfig(), 50, classifies=False, task_lr=0.01
    )


def test_what_is_given_stays_as_it_is() -> None:
    assert fitted(TrainConfig(batch_size=32), 1_000).lr == 0.2
    assert fitted(TrainConfig(lr=0.05), 1_000).lr == 0.05
    assert fitted(TrainConfig(schedule="step"), 1_000).lr == pytest.approx(0.05)
    assert fitted(TrainConfig(devices=32), 100).batch_size == 64
    with pytest.raises(ConfigError, match=r"'warmup_epochs' = 30 leaves nothing of 'epochs' = 30"):
        fitted(TrainConfig(warmup_epochs=30), 1_000)
