"""Distillation: the loss by hand, the teacher left as it was, and a training that belongs to its teacher."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softmax

from prunit.errors import ConfigError, FileError, ModelError
from prunit.train import TrainConfig, train
from prunit.train.augment import feed
from prunit.train.checkpoint import fingerprint
from tests.train.toys import assert_same, small, stripes

CONFIG = TrainConfig(epochs=2, batch_size=16, device="cpu", distill=0.75, temperature=2.0)


def linear(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


def by_hand(logits_BK: Tensor, taught_BK: Tensor, y_B: Tensor) -> float:
    ours_BK, theirs_BK = softmax(logits_BK / 2, 1), softmax(taught_BK / 2, 1)
    divergence = (theirs_BK * (theirs_BK / ours_BK).log()).sum(1).mean()
    return float(0.25 * cross_entropy(logits_BK, y_B, label_smoothing=0.1) + 0.75 * 4 * divergence)


def test_the_loss_is_the_paper_s() -> None:
    model, teacher, dataset = linear(0), linear(1), stripes(16)
    x_BCHW, y_B = (source := feed(dataset, torch.device("cpu"), augment=True, channels_last=True)).batch(
        source.draws(seed=0, epoch=0)
    )
    with torch.no_grad():
        expected = by_hand(model(x_BCHW), teacher(x_BCHW), y_B)
    epoch = next(train(model, dataset, CONFIG, teacher=teacher))
    assert epoch.loss == pytest.approx(expected, rel=1e-5)


def test_the_teacher_stays_as_it_was_and_is_learned_from() -> None:
    teacher, taught, alone = small(seed=5), small(), small()
    list(train(taught, stripes(), CONFIG, teacher=teacher))
    list(train(alone, stripes(), CONFIG.model_copy(update={"distill": 0.0}), teacher=teacher))
    assert_same(teacher, small(seed=5))
    assert teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not torch.equal(taught.fc.weight, alone.fc.weight)


def test_a_training_is_resumed_with_the_same_teacher_alone(tmp_path: Path) -> None:
    path, whole, resumed = tmp_path / "run", small(), small()
    list(train(whole, stripes(), CONFIG, teacher=small(seed=5)))
    next(train(small(), stripes(), CONFIG, checkpoint=path, teacher=small(seed=5)))
    with pytest.raises(FileError, match="digest of the teacher"):
        next(train(small(), stripes(), CONFIG, checkpoint=path, teacher=small(seed=6)))
    list(train(resumed, stripes(), CONFIG, checkpoint=path, teacher=small(seed=5)))
    assert_same(resumed, whole)


def test_without_a_teacher_a_training_is_what_it_was_before() -> None:
    settings = fingerprint(small(), stripes(), CONFIG.model_copy(update={"distill": 0.0}))["setting"]
    assert not {"distill", "temperature", "digest of the teacher"} & settings.keys()


def test_a_teacher_that_is_missing_or_does_not_fit_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"'distill' = 0.75 needs a teacher: give train\(teacher=\)"):
        train(small(), stripes(), CONFIG)
    with pytest.raises(ModelError, match="num_classes=4"):
        train(small(), stripes(), CONFIG, teacher=nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))
