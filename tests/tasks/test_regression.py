"""Regression in training: its loss, units, strata, what is refused."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prunit.errors import DataError, ModelError
from prunit.tasks import Regression

TASK = Regression(mean=(10, 100), std=(2, 50))
NAMES = ("age", "weight")


def test_the_loss_is_that_of_standardised_values_and_bounded_in_its_pull() -> None:
    targets = torch.tensor([[12.0, 100.0], [10.0, 1100.0]])  # 1 and 0, 0 and 20 deviations
    outputs = torch.zeros(2, 2, requires_grad=True)
    loss = TASK.loss(outputs, targets, smoothing=0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx((0.5 + 0 + 0 + 19.5) / 4)
    assert outputs.grad is not None
    assert (4 * outputs.grad).tolist() == [[-1, 0], [0, -1]]
    assert float(Regression().loss(targets, targets, smoothing=0)) == 0


def test_the_loss_of_guessing_is_that_of_the_best_constants() -> None:
    values = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) ** 3
    targets = 10 * values + 3
    task = Regression(mean=(3, 3), std=(10, 10))
    best = float(task.guessing_loss(targets, 2, smoothing=0) or 0)
    grid = torch.linspace(-3, 3, 2001)
    each = [
        torch.nn.functional.smooth_l1_loss(
            grid[:, None].expand(-1, 50), values[:, d].expand(2001, -1), reduction="none"
        )
        for d in (0, 1)
    ]
    assert best == pytest.approx(float(sum(one.mean(1).min() for one in each)) / 2, abs=1e-5)


def test_values_are_learnt_in_the_users_units() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    targets = torch.stack([5000 + 300 * x[:, 0], 0.01 * x[:, 1] - 7], dim=1)
    task = Regression(mean=targets.mean(0).tolist(), std=targets.std(0).tolist())
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(60):
        optimizer.zero_grad()
        task.loss(model(x), targets, smoothing=0).backward()
        optimizer.step()
    assert task.metrics(task.judged(model(x), targets))["r2"] > 0.99


def test_it_is_judged_as_on_a_device() -> None:
    outputs, targets = torch.randn(5, 2), torch.randn(5, 2)
    assert np.array_equal(TASK.judged(outputs, targets), TASK.evidence([outputs.numpy()], targets.numpy()))
    assert TASK.hits(outputs, targets) is None


def test_targets_stay_where_images_move() -> None:
    targets = torch.randn(2, 2)
    assert TASK.moved(targets, torch.ones(2, 2), torch.ones(2).bool(), padding=1, size=8) is targets


def test_strata_are_tenths_by_the_first_value() -> None:
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    strata = TASK.strata(torch.stack([order.float(), -order.float()], dim=1))
    assert torch.equal(strata, order // 10)
    few = TASK.strata(torch.tensor([[1.0], [1], [1], [5]]))
    assert len(few[:3].unique()) == 1
    assert few[3] > few[0]
    assert (few < 10).all()


def test_values_that_fit_are_taken() -> None:
    TASK.check_targets(torch.zeros(3, 2), NAMES, 8, what="test")
    TASK.check_outputs(torch.zeros(3, 2), 3, NAMES, 8, where="on images")
    TASK.check_training_outputs(torch.zeros(3, 2), 3, NAMES, 8, where="in training mode")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(3), "test values (3,) of float32; needed are float (3, 2), one number for each of: age, weight"),
        (torch.zeros(3, 2, dtype=torch.int64), "test values (3, 2) of int64"),
        (torch.tensor([[0, 1], [0, float("nan")]]), "test image 1 has nan as 'weight'"),
    ],
)
def test_values_that_do_not_fit(targets: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        TASK.check_targets(targets, NAMES, 8, what="test")


def test_means_of_other_values_are_refused() -> None:
    with pytest.raises(DataError, match="values of 1 names, but the task has means of 2"):
        TASK.check_targets(torch.zeros(3, 1), ("age",), 8, what="test")


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            torch.zeros(3),
            "the model gives (3,) on images; needed are (3, 2) numbers, one per value: give it a dimension",
        ),
        (torch.zeros(3, 5), "build it with num_classes=2"),
        (torch.zeros(3, 2, 4, 4), "end it with a mean over height and width"),
        ((torch.zeros(3, 2), torch.zeros(3, 2)), "the model gives a tuple of 2"),
        (torch.zeros(3, 2, dtype=torch.int64), "the model gives int64 numbers (3, 2)"),
    ],
)
def test_outputs_that_do_not_fit(outputs: Any, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        TASK.check_outputs(outputs, 3, NAMES, 8, where="on images")
