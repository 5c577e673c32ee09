"""Multilabel in training: its loss, strata, what is refused."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from prunit.errors import DataError, ModelError
from prunit.tasks import Multilabel

TASK = Multilabel()
NAMES = ("cat", "dog", "owl")
LABELS = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0]])


def test_the_loss_is_binary_cross_entropy_and_smoothing_pulls_to_the_middle() -> None:
    scores = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(TASK.loss(scores, LABELS, smoothing=0), binary_cross_entropy_with_logits(scores, LABELS))
    smooth = binary_cross_entropy_with_logits(scores, torch.where(LABELS > 0, 0.95, 0.05))
    assert float(TASK.loss(scores, LABELS, smoothing=0.1)) == pytest.approx(float(smooth))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_guessing_is_that_of_the_frequencies(smoothing: float) -> None:
    wanted = LABELS * (1 - smoothing) + smoothing / 2
    scores = torch.logit(wanted.mean(0)).expand(5, 3)
    expected = float(TASK.loss(scores, LABELS, smoothing=smoothing))
    assert TASK.guessing_loss(LABELS, 3, smoothing=smoothing) == pytest.approx(expected)


def test_a_class_that_all_images_have_costs_nothing_to_guess() -> None:
    assert TASK.guessing_loss(torch.ones(4, 2), 2, smoothing=0) == 0


def test_hits_are_images_with_exactly_the_right_labels() -> None:
    scores = 2 * LABELS - 1
    scores[0, 2] = 3
    assert int(TASK.hits(scores, LABELS)) == 4


def test_it_is_judged_as_on_a_device() -> None:
    scores = torch.randn(5, 3)
    assert np.array_equal(TASK.judged(scores, LABELS), TASK.evidence([scores.numpy()], LABELS.numpy()))


def test_strata_are_the_rarest_label_and_one_for_none() -> None:
    assert TASK.strata(LABELS).tolist() == [0, 1, 3, 2, 0]


def test_targets_stay_where_images_move() -> None:
    assert TASK.moved(LABELS, torch.ones(5, 2), torch.ones(5).bool(), padding=1, size=8) is LABELS


def test_labels_that_fit_are_taken() -> None:
    TASK.check_targets(LABELS, NAMES, 8, what="test")
    TASK.check_outputs(torch.zeros(3, 3), 3, NAMES, 8, where="on images")
    TASK.check_training_outputs(torch.zeros(3, 3), 3, NAMES, 8, where="in training mode")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            torch.zeros(3, dtype=torch.int64),
            "test labels (3,) of int64; needed are float (3, 3), 0 or 1 for each class",
        ),
        (torch.zeros(3, 2), "test labels (3, 2) of float32"),
        (torch.tensor([[0, 1, 0], [0, 0, 0.5]]), "test image 1 has 0.5 as label of 'owl': labels are 0 or 1"),
        (torch.tensor([[0, float("nan"), 0]]), "test image 0 has nan as label of 'dog'"),
    ],
)
def test_labels_that_do_not_fit(targets: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        TASK.check_targets(targets, NAMES, 8, what="test")


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            torch.zeros(3, 5),
            "the model gives (3, 5) on images; needed are (3, 3) numbers, one per class: build it with",
        ),
        (torch.zeros(3, 3, 4, 4), "the model gives a map (3, 3, 4, 4), a score for each pixel or place"),
        ((torch.zeros(3, 3),), "the model gives a tuple of 1"),
    ],
)
def test_outputs_that_do_not_fit(outputs: Any, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        TASK.check_outputs(outputs, 3, NAMES, 8, where="on images")
