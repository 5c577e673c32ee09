"""The learning rate at chosen steps, worked out by hand."""

import math

import pytest

from prunit.train import Fitted, TrainConfig, fitted
from prunit.train.schedule import lr_at


def numbers(config: TrainConfig) -> Fitted:
    """The settings on a data set of CIFAR-10's size."""
    return fitted(config, 50_000)


@pytest.mark.parametrize(
    ("step", "lr"),
    [
        (0, 0.2 / 25),
        (10, (0.2 + 0.2 / 25) / 2),  # half-way up: 20 % of 10 epochs of 10 steps are 20 steps
        (20, 0.2),
        (60, 0.1),  # 40 of the 80 steps down
        (99, 0.2 / 80),
    ],
)
def test_onecycle_goes_up_and_down(step: int, lr: float) -> None:
    assert lr_at(numbers(TrainConfig(epochs=10)), step, 10) == pytest.approx(lr)


def test_onecycle_without_a_ramp_starts_at_its_highest() -> None:
    assert lr_at(numbers(TrainConfig(epochs=10, warmup_epochs=0, lr=0.4)), 0, 10) == 0.4


@pytest.mark.parametrize(("epoch", "lr"), [(0, 0.1), (79, 0.1), (80, 0.01), (119, 0.01), (120, 0.001), (159, 0.001)])
def test_step_drops_at_80_and_120_of_160(epoch: int, lr: float) -> None:
    config = numbers(TrainConfig.full())
    assert lr_at(config, epoch * 390, 390) == pytest.approx(lr)
    assert lr_at(config, epoch * 390 + 389, 390) == pytest.approx(lr)


def test_step_drops_inside_an_epoch_where_half_of_them_is_no_whole_number() -> None:
    config = numbers(TrainConfig.full(5))  # 20 steps: half at 10, three quarters at 15
    assert [lr_at(config, step, 4) for step in (9, 10, 14, 15)] == pytest.approx([0.1, 0.01, 0.01, 0.001])


def test_step_warms_up_linearly() -> None:
    config = numbers(TrainConfig(schedule="step", epochs=20, lr=0.2, warmup_epochs=5))
    assert [lr_at(config, step, 2) for step in (0, 4, 9, 10)] == pytest.approx([0.02, 0.1, 0.2, 0.2])


@pytest.mark.parametrize(
    ("step", "lr"),
    [
        (0, 0.02),  # 5 % of 10 epochs of 10 steps are 5 steps
        (4, 0.1),
        (5, 0.1),
        (5 + 95 / 3, 0.075),  # cos 60 degrees is a half
        (52.5, 0.05),
        (99, 0.05 * (1 + math.cos(math.pi * 94 / 95))),
    ],
)
def test_cosine_goes_up_in_a_line_and_down_in_half_a_wave(step: float, lr: float) -> None:
    assert lr_at(numbers(TrainConfig(epochs=10, schedule="cosine")), step, 10) == pytest.approx(lr)  # pyright: ignore[reportArgumentType]


def test_cosine_warms_up_for_as_long_as_it_is_told() -> None:
    config = numbers(TrainConfig(epochs=10, schedule="cosine", warmup_epochs=2, lr=0.4))
    assert [lr_at(config, step, 10) for step in (0, 9, 19, 20, 60)] == pytest.approx([0.02, 0.2, 0.4, 0.4, 0.2])
    assert lr_at(config.model_copy(update={"warmup_epochs": 0.0}), 0, 10) == 0.4


@pytest.mark.parametrize("schedule", ["onecycle", "step", "cosine"])
@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 2), (2, 1), (3, 7)])
def test_it_stays_above_zero_and_below_the_peak(schedule: str, epochs: int, steps: int) -> None:
    config = numbers(TrainConfig.model_validate({"schedule": schedule, "epochs": epochs}))
    rates = [lr_at(config, step, steps) for step in range(epochs * steps)]
    assert min(rates) > 0
    assert max(rates) <= config.lr
