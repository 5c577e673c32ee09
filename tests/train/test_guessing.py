"""The loss of guessing, and when a training is said to be no better."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from prunit.tasks.classification import guessing_loss
from prunit.train import Epoch
from prunit.train.guessing import stuck


def epoch(index: int, epochs: int, loss: float) -> Epoch:
    return Epoch(index, epochs, loss, 0.1, 0.1, 0.01, 1.0)


def test_the_loss_of_guessing_is_that_of_the_best_constant_answer() -> None:
    assert guessing_loss([5, 5, 5, 5]) == pytest.approx(math.log(4))
    assert guessing_loss([7, 0]) == 0
    counts, smoothing = [6, 3, 1], 0.1
    labels_B = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    logits_K = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    step = torch.optim.LBFGS([logits_K], max_iter=200)

    def loss() -> torch.Tensor:
        step.zero_grad()
        value = cross_entropy(logits_K.expand(10, 3), labels_B, label_smoothing=smoothing)
        value.backward()
        return value

    step.step(loss)
    assert guessing_loss(counts, smoothing) == pytest.approx(float(loss().detach()), abs=1e-6)


@pytest.mark.parametrize(
    ("index", "epochs", "loss", "told"),
    [(10, 30, 2.3, True), (30, 30, 2.31, True), (11, 30, 2.5, False), (10, 30, 2.29, False), (1, 1, 9.0, False)],
)
def test_it_is_told_after_a_third_and_at_the_end(index: int, epochs: int, loss: float, told: bool) -> None:
    assert bool(stuck(epoch(index, epochs, loss), 2.3)) is told
    if told:
        assert f"epoch {index} of {epochs}" in stuck(epoch(index, epochs, loss), 2.3)
