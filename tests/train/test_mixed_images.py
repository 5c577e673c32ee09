"""Mixup and CutMix: images and losses as in the papers, drawn from (seed, epoch) alone, for classifiers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from prunit.train import TrainConfig, train
from prunit.train.augment import feed
from prunit.train.mixing import Mix, dominant, mixed, mixed_loss, mixes
from tests.train.toys import small, stripes


def images() -> Tensor:
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def config_of(mixup: float = 0.0, cutmix: float = 0.0, seed: int = 0) -> TrainConfig:
    return TrainConfig(epochs=1, batch_size=16, device="cpu", mixup=mixup, cutmix=cutmix, seed=seed)


def test_mixup_blends_each_image_with_the_one_before() -> None:
    x_BCHW, mix = mixed(images(), Mix(0.7))
    plain = images()
    torch.testing.assert_close(x_BCHW, 0.7 * plain + 0.3 * plain[[4, 0, 1, 2, 3]])
    assert mix == Mix(0.7)


@pytest.mark.parametrize(
    ("mix", "rows", "columns"),
    [
        (Mix(0.75, (0.5, 0.5)), slice(2, 6), slice(2, 6)),  # a quarter: sides of half
        (Mix(0.75, (0.0, 0.99)), slice(0, 2), slice(5, 8)),  # cut off at the edges
        (Mix(1.0, (0.3, 0.3)), slice(0, 0), slice(0, 0)),
    ],
)
def test_cutmix_takes_a_box_of_the_image_before_and_counts_what_is_left(mix: Mix, rows: slice, columns: slice) -> None:
    x_BCHW, found = mixed(images(), mix)
    expected = images()
    expected[:, :, rows, columns] = images()[[4, 0, 1, 2, 3]][:, :, rows, columns]
    assert torch.equal(x_BCHW, expected)
    inside = torch.zeros(8, 8)
    inside[rows, columns] = 1
    assert found.share == pytest.approx(1 - float(inside.mean()))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_soft_targets(smoothing: float) -> None:
    logits_BK, y_B = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 3, 1, 1, 2])
    soft_BK = 0.7 * one_hot(y_B, 4) + 0.3 * one_hot(y_B[[4, 0, 1, 2, 3]], 4)
    found = mixed_loss(lambda y: cross_entropy(logits_BK, y, label_smoothing=smoothing), y_B, Mix(0.7))
    torch.testing.assert_close(found, cross_entropy(logits_BK, soft_BK, label_smoothing=smoothing))


def test_the_dominant_class_is_that_of_the_larger_share() -> None:
    y_B = torch.tensor([0, 3, 1])
    assert dominant(y_B, None).tolist() == dominant(y_B, Mix(0.5)).tolist() == [0, 3, 1]
    assert dominant(y_B, Mix(0.49)).tolist() == [1, 0, 3]


def test_draws_come_from_seed_and_epoch_alone() -> None:
    def drawn(seed: int, epoch: int) -> str:
        torch.rand(3)
        return str(mixes(config_of(1.0, 1.0, seed), 20, epoch=epoch))

    assert drawn(0, 1) == drawn(0, 1)
    assert len({drawn(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9


def test_each_batch_gets_what_was_asked_for_one_of_both_by_chance() -> None:
    assert mixes(config_of(), 3, epoch=0) == [None] * 3
    kinds = {
        name: {mix.centre is None for mix in mixes(config_of(*alphas), 50, epoch=0) if mix}
        for name, alphas in {"mixup": (0.2, 0.0), "cutmix": (0.0, 1.0), "both": (0.2, 1.0)}.items()
    }
    assert kinds == {"mixup": {True}, "cutmix": {False}, "both": {True, False}}


def test_a_small_alpha_mixes_little_and_a_large_one_halves() -> None:
    little = [min(mix.share, 1 - mix.share) for mix in mixes(config_of(0.05), 200, epoch=0) if mix]
    halves = [min(mix.share, 1 - mix.share) for mix in mixes(config_of(100.0), 200, epoch=0) if mix]
    assert sum(little) / 200 < 0.1
    assert sum(halves) / 200 > 0.4


@pytest.mark.parametrize("alphas", [(0.4, 0.0), (0.0, 1.0)])
def test_a_training_mixes_images_and_losses(alphas: tuple[float, float]) -> None:
    config = config_of(*alphas)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    source = feed(stripes(16), torch.device("cpu"), augment=True, channels_last=True)
    x_BCHW, y_B = source.batch(source.draws(seed=0, epoch=0))
    (mix,) = mixes(config, 1, epoch=0)
    assert mix is not None
    x_BCHW, mix = mixed(x_BCHW, mix)
    with torch.no_grad():
        logits_BK = model(x_BCHW)
    soft_BK = mix.share * one_hot(y_B, 4) + (1 - mix.share) * one_hot(y_B.roll(1), 4)
    expected = float(cross_entropy(logits_BK, soft_BK, label_smoothing=0.1))
    hits = int((logits_BK.argmax(1) == dominant(y_B, mix)).sum())
    epoch = next(train(model, stripes(16), config))
    assert epoch.loss == pytest.approx(expected, rel=1e-5)
    assert epoch.train_accuracy == hits / 16


def test_a_training_with_it_is_another_one() -> None:
    losses = {
        next(train(small(), stripes(), config_of(*alphas))).loss for alphas in ((0, 0), (0.4, 0), (0, 1.0), (0.4, 1))
    }
    assert len(losses) == 4
