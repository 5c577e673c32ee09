"""Classes that come unequally often: weights by hand, draws counted, and the loss of guessing that goes with them."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from prunit.batches import Dataset, Split
from prunit.train import TrainConfig, train
from prunit.train.augment import feed
from prunit.train.balancing import balanced_order, class_weights, guessing_loss
from tests.train.toys import stripes

CPU = torch.device("cpu")


def uneven() -> Dataset:
    """30 images of class 0, 6 of class 1, 4 of class 3, none of class 2."""
    dataset = stripes(160)
    parts = [(dataset.train.y_B == label).nonzero().flatten()[:count] for label, count in ((0, 30), (1, 6), (3, 4))]
    index = torch.cat(parts)
    return replace(dataset, train=Split(dataset.train.x_BCHW[index], dataset.train.y_B[index]))


def counts(order_N: Tensor, dataset: Dataset) -> list[int]:
    return dataset.train.y_B[order_N].bincount(minlength=4).tolist()


def test_weights_are_inverse_frequencies_and_one_in_the_mean() -> None:
    y_B = uneven().train.y_B
    weights_K = class_weights(y_B, 4)
    assert weights_K.tolist() == pytest.approx([40 / 90, 40 / 18, 1.0, 40 / 12])
    assert float(weights_K[y_B].mean()) == pytest.approx(1.0)


def test_a_balanced_epoch_has_as_many_of_each_class() -> None:
    dataset = uneven()
    seen = [counts(balanced_order(dataset.train.y_B, seed=seed), dataset) for seed in range(20)]
    assert all(sum(each) == 40 and each[2] == 0 and {each[0], each[1], each[3]} == {13, 14} for each in seen)
    assert len({tuple(each) for each in seen}) == 3  # who gets the fourteenth changes


def test_each_image_comes_once_before_one_comes_twice() -> None:
    dataset = uneven()
    times_N = balanced_order(dataset.train.y_B, seed=0).bincount(minlength=40)
    by_class = {label: times_N[dataset.train.y_B == label] for label in (0, 1, 3)}
    assert by_class[0].max() == 1
    for label in (1, 3):
        assert by_class[label].max() - by_class[label].min() <= 1


def test_the_order_is_mixed_and_depends_on_the_seed_alone() -> None:
    y_B = uneven().train.y_B
    order_N = balanced_order(y_B, seed=3)
    assert torch.equal(order_N, balanced_order(y_B, seed=3))
    assert not torch.equal(order_N, balanced_order(y_B, seed=4))
    assert len(y_B[order_N][:20].unique()) == 3


def test_a_training_draws_so() -> None:
    dataset = uneven()
    balanced = feed(dataset, CPU, augment=False, channels_last=False, balanced=True)
    plain = feed(dataset, CPU, augment=False, channels_last=False)
    assert counts(plain.draws(seed=0, epoch=0).order_N, dataset) == [30, 6, 0, 4]
    first, again, next_ = (balanced.draws(seed=0, epoch=epoch).order_N for epoch in (0, 0, 1))
    assert max(counts(first, dataset)) == 14
    assert torch.equal(first, again)
    assert not torch.equal(first, next_)
    losses = [
        next(train(linear(), dataset, TrainConfig(epochs=1, batch_size=40, device="cpu", balance=balance))).loss
        for balance in ("none", "sampler")
    ]
    assert losses[0] != losses[1]


def linear() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


def test_weights_are_those_of_the_loss() -> None:
    dataset, model = uneven(), linear()
    config = TrainConfig(epochs=1, batch_size=40, device="cpu", augment=False, balance="weights", label_smoothing=0)
    source = feed(dataset, CPU, augment=False, channels_last=True)
    x_BCHW, y_B = source.batch(source.draws(seed=0, epoch=0))
    with torch.no_grad():
        each_B = cross_entropy(model(x_BCHW), y_B, reduction="none")
    weights_B = torch.tensor([40 / 90, 40 / 18, 1.0, 40 / 12])[y_B]
    assert next(train(model, dataset, config)).loss == pytest.approx(float((weights_B * each_B).mean()), rel=1e-5)


@pytest.mark.parametrize("balance", ["weights", "sampler"])
def test_guessing_is_harder_where_classes_are_balanced(balance: str) -> None:
    config = TrainConfig.model_validate({"balance": balance, "label_smoothing": 0})
    found, plain = guessing_loss(uneven(), config), guessing_loss(uneven(), TrainConfig(label_smoothing=0))
    assert found == pytest.approx(math.log(3), abs=0.01)
    shares = (30 / 40, 6 / 40, 4 / 40)
    assert plain == pytest.approx(-sum(share * math.log(share) for share in shares))
