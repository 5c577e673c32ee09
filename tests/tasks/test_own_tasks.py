"""Tasks of the user's own: inherited from one that is there, checked before anything is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunit.batches import Dataset, Split
from prunit.errors import ConfigError, DataError, ModelError, TrainingError
from prunit.recipe import build
from prunit.recipe.source import check_trains, task_of
from prunit.tasks import Regression
from prunit.tasks.task import guess_of
from prunit.train.accuracy import evaluate


class Absolute(Regression):
    def loss(self, outputs: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        return (outputs - targets).abs().mean()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))


def brightness(task: Any, *, values: Tensor | None = None) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (48, 3, 8, 8), dtype=torch.uint8, generator=generator)
    x = (x * torch.linspace(0.2, 1, 48)[torch.randperm(48, generator=generator), None, None, None]).to(torch.uint8)
    y = x.float().mean((1, 2, 3))[:, None] if values is None else values
    return Dataset(
        "noise", Split(x[:32], y[:32]), Split(x[32:], y[32:]), ("brightness",), (0.4,) * 3, (0.3,) * 3, task=task
    )


def test_a_loss_of_ones_own_is_what_is_lowered(tmp_path: Path) -> None:
    config = {"budgets": ["macs=1/2"], "train": {"epochs": 3, "batch_size": 8}, "probe": {"seconds": 0.05}}
    portfolio = build(Net(), brightness(Absolute()), tmp_path / "out", config=config)
    assert (portfolio.task.name, portfolio.task.metric) == ("regression", "r2")
    assert portfolio.task.settings["mean"]
    for variant in portfolio.variants:
        assert variant.metrics.scores.keys() == {"r2", "mae", "rmse"}
        assert variant.metrics.accuracy == variant.metrics.scores["r2"]
        assert variant.metrics.answers is None
    pruned = portfolio.variant("macs-1-2").metrics.against
    assert pruned is not None
    assert pruned.of == "dense"
    assert pruned.low <= pruned.difference <= pruned.high


def test_the_guess_of_another_loss_is_not_taken_for_its_own() -> None:
    targets = torch.arange(8.0)[:, None]
    assert guess_of(Regression(), targets, 1, smoothing=0.0) is not None
    assert guess_of(Absolute(), targets, 1, smoothing=0.0) is None


class Several(Absolute):
    def loss(self, outputs: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        return (outputs - targets).abs()


class Infinite(Absolute):
    def loss(self, outputs: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        return super().loss(outputs, targets, smoothing=smoothing) / 0


class Detached(Absolute):
    def loss(self, outputs: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        return super().loss(outputs, targets, smoothing=smoothing).detach()


class Failing(Absolute):
    def loss(self, outputs: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        return outputs["boxes"]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Several(), r"is torch\.float32 \(2, 1\): it must be one floating-point number"),
        (Infinite(), r"is inf before any training"),
        (Detached(), r"does not depend on the model's weights"),
        (Failing(), r"fails: "),
    ],
)
def test_a_loss_that_cannot_be_lowered_is_refused_before_training(task: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_trains(Net(), brightness(task))


def test_targets_that_do_not_fit_are_named(tmp_path: Path) -> None:
    data = brightness(Regression(), values=torch.zeros(48, 2))
    with pytest.raises(DataError, match=r"'noise' has train values \(32, 2\)"):
        build(Net(), data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_outputs_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    with pytest.raises(ModelError, match=r"the model gives \(1, 4, 4, 4\) .*needed are \(1, 1\) numbers"):
        build(model, brightness(Regression()), tmp_path / "out")


def test_a_metric_that_is_no_number_is_an_error() -> None:
    same = torch.full((48, 1), 3.0)
    with pytest.raises(TrainingError, match="the metric 'r2' of the regression is nan on 16 test images"):
        evaluate(Net(), brightness(Regression(), values=same))


def test_a_task_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from prunit.tasks import Regression\nclass Mine(Regression):\n    pass\ndef none():\n    return 3\n"
    )
    assert type(task_of(f"{file}:Mine")).__name__ == "Mine"
    with pytest.raises(ConfigError, match=r"is an object of type int without .*loss"):
        task_of(f"{file}:none")
