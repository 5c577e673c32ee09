"""Regression on a device: metrics against scikit-learn's, units, answers."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from prunit.edge.pixels import Placing
from prunit.edge.tasks import DEVICE_TASKS
from prunit.edge.tasks.regression import DeviceRegression
from prunit.errors import ConfigError, DataError

PLACING = Placing.of((8, 8), (8, 8), "crop")


def test_metrics_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(50, [1, 20], (30, 2))
    guess = truth + random.normal(0, [0.5, 30], (30, 2))
    task = DeviceRegression()
    evidence = task.evidence([guess.astype(np.float32)], truth.astype(np.float32))
    truth, guess = evidence[:, :, 0], evidence[:, :, 1]
    assert dict(task.metrics(evidence)) == {
        "r2": pytest.approx(r2_score(truth, guess)),
        "mae": pytest.approx(mean_absolute_error(truth, guess)),
        "rmse": pytest.approx(root_mean_squared_error(truth, guess)),
    }
    r2_D = r2_score(truth, guess, multioutput="raw_values")
    assert [found["r2"] for found in task.by_class(evidence, ("age", "weight")).values()] == pytest.approx(r2_D)


def test_outputs_are_brought_to_the_users_units() -> None:
    task = DeviceRegression(mean=(10, 100), std=(2, 50))
    outputs = np.array([[0, 1], [-1, 0.5]], np.float32)
    evidence = task.evidence([outputs], np.array([[10, 160], [9, 125]], np.float32))
    assert evidence.tolist() == [[[10, 10], [160, 150]], [[9, 8], [125, 125]]]
    assert task.each(evidence).tolist() == pytest.approx([-0.1, -0.25])  # in deviations: 0 and 0.2; 0.5 and 0
    assert task.answer([outputs[:1]], ("age",), PLACING) == {"values": {"age": 10, "1": 150}}
    assert DeviceRegression().answer([outputs[:1]], ("age",), PLACING) == {"values": {"age": 0, "1": 1}}


def test_a_value_that_never_changes_has_no_r2() -> None:
    task = DeviceRegression()
    truth = np.array([[0.1, 1], [0.1, 2], [0.1, 3]])
    evidence = task.evidence([truth + 0.5], truth)
    assert math.isnan(task.by_class(evidence, ("a", "b"))["a"]["r2"])
    assert task.metrics(evidence)["r2"] == pytest.approx(1 - 0.75 / 2)  # of the other alone
    assert math.isnan(task.metrics(evidence[:1])["r2"])
    assert task.metrics(evidence[:1])["mae"] == pytest.approx(0.5)
    assert all(map(math.isnan, task.metrics(evidence[:0]).values()))


def test_settings_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 means and 1 deviations"):
        DeviceRegression(mean=(1, 2), std=(1,))
    for std in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="deviations above 0"):
            DeviceRegression(mean=(1,), std=(std,))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"values of shape \(4, 1\), but estimates of shape \(4, 2\)"):
        DeviceRegression().evidence([np.zeros((4, 2), np.float32)], np.zeros((4, 1)))
    with pytest.raises(DataError, match=r"outputs of shape \(4, 2\), but means of 1 values"):
        DeviceRegression((0,), (1,)).evidence([np.zeros((4, 2), np.float32)], np.zeros((4, 1)))


def test_the_manifests_settings_make_the_same_task() -> None:
    settings = json.loads(json.dumps(DeviceRegression(mean=(1.5,), std=(2.5,)).settings()))
    again = DEVICE_TASKS["regression"](**settings)
    assert again.settings() == {"mean": (1.5,), "std": (2.5,)}
    assert DEVICE_TASKS["regression"]().settings() == {"mean": (), "std": ()}
