"""Multilabel on a device: metrics against scikit-learn's, answers."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from prunit.edge.pixels import Placing
from prunit.edge.tasks.multilabel import DeviceMultilabel, average_precision
from prunit.errors import DataError

TASK = DeviceMultilabel()
PLACING = Placing.of((8, 8), (8, 8), "crop")


@pytest.mark.parametrize("levels", [3, 1000])  # few levels: many images of one share
@pytest.mark.parametrize("seed", range(4))
def test_metrics_are_those_of_scikit_learn(seed: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    truth = (random.random((40, 5)) < [0.5, 0.3, 0.1, 0.5, 0.9]).astype(np.float32)
    outputs = (random.integers(0, levels, (40, 5)) / levels * 6 - 3 + truth).astype(np.float32)
    truth[0], truth[1] = 1, 0
    evidence = TASK.evidence([outputs], truth)
    ap_K = [average_precision_score(truth[:, k], evidence[:, k, 1]) for k in range(5)]
    found = TASK.metrics(evidence)
    assert found["mAP"] == pytest.approx(np.mean(ap_K))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, outputs >= 0, average="macro"))
    assert found["exact"] == pytest.approx(accuracy_score(truth, outputs >= 0))
    assert [one["ap"] for one in TASK.by_class(evidence, tuple("abcde")).values()] == pytest.approx(ap_K)


def test_precision_is_summed_where_recall_grows() -> None:
    truth, share = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])
    counts = np.array([[1, 1, 1, 1], [2, 1, 0, 0], [0, 1, 0, 3], [0, 2, 1, 0]], np.float64)
    found = average_precision(truth, share, counts)
    assert found.tolist() == pytest.approx([(1 + 2 / 3) / 2, 1, float("nan"), 1 / 3], nan_ok=True)


def test_a_class_without_images_has_no_average_precision() -> None:
    truth = np.array([[1, 0], [0, 0]], np.float32)
    evidence = TASK.evidence([np.array([[2, -1], [-2, -1]], np.float32)], truth)
    assert TASK.metrics(evidence) == {"mAP": 1, "macro_f1": 1, "exact": 1}
    assert list(TASK.by_class(evidence, ("a", "b"))) == ["a"]
    named = TASK.evidence([np.array([[2, 1], [-2, -1]], np.float32)], truth)
    assert math.isnan(TASK.by_class(named, ("a", "b"))["b"]["ap"])
    assert math.isnan(TASK.by_class(named, ("a", "b"))["b"]["recall"])
    assert TASK.metrics(named)["macro_f1"] == 0.5  # one that is named where it is not
    assert math.isnan(TASK.metrics(evidence[1:])["mAP"])
    assert all(map(math.isnan, TASK.metrics(evidence[:0]).values()))


def test_an_image_is_as_bad_as_its_worst_label() -> None:
    outputs = np.array([[30, -30], [30, 30], [30, 0]], np.float32)
    assert TASK.each(TASK.evidence([outputs], np.array([[1, 0]] * 3))).tolist() == pytest.approx([0, -1, -0.5])


def test_labels_from_one_half_on_and_at_least_the_best() -> None:
    found = TASK.answer([np.array([[-1, 3, 1]], np.float32)], ("a", "b"), PLACING)["labels"]
    assert [one["label"] for one in found] == ["b", "2"]
    assert [one["share"] for one in found] == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-1))])
    found = TASK.answer([np.array([[-9, -3, -1000]], np.float32)], ("a", "b", "c"), PLACING)["labels"]
    assert [one["label"] for one in found] == ["b"]


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"labels of shape \(2,\), but scores of shape \(2, 3\)"):
        TASK.evidence([np.zeros((2, 3), np.float32)], np.zeros(2))
