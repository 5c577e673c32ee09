"""Choices of a training that mean nothing for a task are refused in a line; all of them can be resumed to the bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prunit.batches import Dataset
from prunit.errors import ConfigError, FileError
from prunit.tasks import Classification, task_named
from prunit.train import Epoch, TrainConfig, fitted_to, train
from prunit.train.checkpoint import fingerprint
from tests.train.toys import assert_same, small, stripes

CHOICES: dict[str, dict[str, object]] = {
    "adamw": {"optimizer": "adamw"},
    "adamw by steps": {"optimizer": "adamw", "schedule": "step", "clip": 0.5},
    "cosine": {"schedule": "cosine", "warmup_epochs": 1},
    "average": {"ema": 0.9},
    "average of adamw": {"ema": 0.9, "optimizer": "adamw", "clip": 1.0},
    "mixed": {"mixup": 0.4, "cutmix": 1.0},
    "jitter": {"jitter": 0.4, "flip": False},
    "weights": {"balance": "weights"},
    "sampler": {"balance": "sampler"},
}


def config_of(choice: dict[str, object]) -> TrainConfig:
    return TrainConfig.model_validate({"epochs": 3, "batch_size": 16, "device": "cpu", **choice})


def timeless(epochs: list[Epoch]) -> list[Epoch]:
    return [replace(epoch, seconds=0.0) for epoch in epochs]


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_a_training_that_was_stopped_ends_the_same(choice: dict[str, object], tmp_path: Path) -> None:
    config, whole, plain = config_of(choice), tmp_path / "whole", small()
    expected = list(train(plain, stripes(), config, checkpoint=whole))
    for stop in (1, 2):
        path, resumed = tmp_path / f"stopped-{stop}", small(seed=9)
        epochs = train(small(), stripes(), config, checkpoint=path)
        for _ in range(stop):
            next(epochs)
        del epochs
        torch.rand(stop)
        assert timeless(list(train(resumed, stripes(), config, checkpoint=path))) == timeless(expected)
        assert_same(resumed, plain)
        ours, theirs = load_file(path), load_file(whole)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_each_choice_is_another_training(choice: dict[str, object], tmp_path: Path) -> None:
    path, plain, other = tmp_path / "run", small(), small()
    list(train(plain, stripes(49), config_of({}), checkpoint=path))
    with pytest.raises(FileError, match="belongs to another training: setting"):
        next(train(small(), stripes(49), config_of(choice), checkpoint=path))
    list(train(other, stripes(49), config_of(choice)))
    assert not torch.equal(plain.fc.weight, other.fc.weight)


def test_choices_that_are_not_made_leave_a_training_what_it_was_before() -> None:
    settings = fingerprint(small(), stripes(), fitted_to(config_of({}), stripes()))["setting"]
    assert not {"optimizer", "clip", "ema", "balance", "flip", "jitter", "mixup", "cutmix"} & settings.keys()


def segmented() -> Dataset:
    dataset = stripes()
    train_, test = (
        replace(split, y_B=torch.zeros(len(split), 8, 8, dtype=torch.uint8)) for split in (dataset.train, dataset.test)
    )
    return replace(dataset, train=train_, test=test, task=task_named("segmentation"))


def estimated() -> Dataset:
    dataset = stripes()
    train_, test = (replace(split, y_B=split.y_B.float()[:, None]) for split in (dataset.train, dataset.test))
    return replace(dataset, train=train_, test=test, classes=("value",), task=task_named("regression"))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"mixup": 0.2}, "'mixup' = 0.2 mixes images of two classes; the task of data set 'stripes' is segmentation"),
        ({"cutmix": 1}, "'cutmix' = 1 mixes images of two classes"),
        ({"balance": "weights"}, "'balance' = 'weights' is of the cross-entropy .* is segmentation: use 'sampler'"),
        ({"balance": "sampler"}, "segmentation tells all training images .* to be of one kind: leave it 'none'"),
    ],
)
def test_what_means_nothing_for_a_task_is_refused(choice: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        fitted_to(config_of(choice), segmented())
    assert "\n" not in str(caught.value)


def test_a_sampler_serves_other_tasks_that_have_kinds_of_images() -> None:
    fitted_to(config_of({"balance": "sampler"}), estimated())
    with pytest.raises(ConfigError, match="'weights' is of the cross-entropy"):
        fitted_to(config_of({"balance": "weights"}), estimated())


class Other(Classification):
    """Classes with a loss of their own."""

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, *, smoothing: float) -> torch.Tensor:
        return super().loss(outputs, targets, smoothing=0.0)


def test_weights_do_not_replace_a_loss_of_one_s_own() -> None:
    with pytest.raises(ConfigError, match="weigh in the task's own loss"):
        fitted_to(config_of({"balance": "weights"}), replace(stripes(), task=Other()))


def test_a_teacher_of_classes_teaches_nothing_else() -> None:
    with pytest.raises(ConfigError, match=r"'distill' = 0\.5 compares a teacher's scores of classes"):
        fitted_to(TrainConfig(distill=0.5), segmented())
