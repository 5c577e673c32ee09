"""Intervals by resampling: they cover what is true, are paired, and fast paths give what the slow one does."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from prunit.edge.answers import Pairs
from prunit.edge.comparing.paired import difference, wilson
from prunit.edge.comparing.resampling import interval, paired_difference
from prunit.edge.tasks import DEVICE_TASKS, DeviceTask, Evidence
from prunit.errors import DataError


class Slow:
    """A task that is asked for its metrics of each resample."""

    def __init__(self, task: DeviceTask) -> None:
        self.metric = task.metric
        self.metrics = task.metrics


def evidence_of(name: str, images: int = 40, *, noise: float = 1.0, seed: int = 0) -> tuple[DeviceTask, Evidence]:
    """A task and what it says of made-up outputs: the same truths for the same number of images."""
    task = DEVICE_TASKS[name]()
    truths, random = np.random.default_rng(images), np.random.default_rng(seed)
    y: np.ndarray[Any, Any]
    if name == "segmentation":
        y = truths.integers(0, 3, (images, 4, 4)).astype(np.uint8)
        right = (y[:, None] == np.arange(3)[:, None, None]).astype(np.float32)
    elif name == "classification":
        y = truths.integers(0, 3, images)
        right = np.eye(3, dtype=np.float32)[y]
    elif name == "regression":
        y = truths.normal(7, 2, (images, 2)).astype(np.float32)
        right = y
    else:
        y = (truths.random((images, 3)) < 0.3).astype(np.float32)
        right = 2 * y - 1
    return task, task.evidence([right + random.normal(0, noise, right.shape).astype(np.float32)], y)


@pytest.mark.parametrize("name", ["segmentation", "classification", "regression", "multilabel"])
def test_the_fast_path_gives_what_metrics_of_each_resample_do(name: str) -> None:
    task, mine = evidence_of(name)
    _, theirs = evidence_of(name, noise=2, seed=1)
    slow: Any = Slow(task)
    assert interval(task, mine, resamples=50) == pytest.approx(interval(slow, mine, resamples=50))
    fast = paired_difference(task, mine, theirs, resamples=50)
    assert fast == pytest.approx(paired_difference(slow, mine, theirs, resamples=50))
    low, high = interval(task, mine) or (math.nan, math.nan)
    assert low < task.metrics(mine)[task.metric] < high


def test_a_seed_decides_the_interval() -> None:
    task, evidence = evidence_of("segmentation")
    assert interval(task, evidence, seed=3) == interval(task, evidence, seed=3) != interval(task, evidence, seed=4)


def test_an_interval_of_a_lower_level_is_narrower() -> None:
    task, evidence = evidence_of("segmentation")
    (low, high), (inner_low, inner_high) = (
        interval(task, evidence) or (0, 0),
        interval(task, evidence, level=0.5) or (0, 0),
    )
    assert low < inner_low < inner_high < high


def test_of_an_accuracy_it_is_nearly_that_of_counts() -> None:
    task, mine = evidence_of("classification", 3000)
    _, theirs = evidence_of("classification", 3000, noise=1.5, seed=1)
    one, two = (found[:, 0] == found[:, 1] for found in (mine, theirs))
    assert interval(task, mine, resamples=4000) == pytest.approx(wilson(int(one.sum()), 3000), abs=0.002)
    counts = Pairs(*(int(part.sum()) for part in (one & two, one & ~two, ~one & two, ~one & ~two)))
    exact = difference(counts)
    found = paired_difference(task, mine, theirs, resamples=4000)
    assert found == pytest.approx((exact.value, exact.low, exact.high), abs=0.002)


@pytest.mark.parametrize("name", ["segmentation", "regression"])
def test_intervals_cover_what_is_true_about_as_often_as_they_say(name: str) -> None:
    task, population = evidence_of(name, 200_000 if name == "regression" else 20_000)
    truth = task.metrics(population)[task.metric]
    random, covered, trials = np.random.default_rng(0), 0, 300
    for trial in range(trials):
        sample = population[random.integers(len(population), size=80)]
        low, high = interval(task, sample, resamples=400, seed=trial) or (math.nan, math.nan)
        covered += low <= truth <= high
    # Of 300 trials at 95 % about 285 cover it, give or take 4 (a deviation).
    assert 0.91 <= covered / trials <= 0.98


def test_they_do_so_nearly_with_few_images_too() -> None:
    random, images = np.random.default_rng(0), 20_000
    # Two classes of 10,000 pixels; images differ in how much there is of each, and in how well it is found.
    true = (np.clip(random.normal(0.25, 0.08, images), 0.02, 0.6) * 10_000).astype(np.int64)
    said = (true * np.clip(random.normal(1, 0.15, images), 0.6, 1.5)).astype(np.int64)
    right = np.minimum((true * np.clip(random.normal(0.75, 0.12, images), 0.05, 0.99)).astype(np.int64), said)
    other = 10_000 - true - said + right, 10_000 - said, 10_000 - true
    population = np.stack([np.stack(other, axis=1), np.stack([right, said, true], axis=1)], axis=1)
    task = DEVICE_TASKS["segmentation"]()
    truth, covered, trials = task.metrics(population)["mIoU"], 0, 600
    for trial in range(trials):
        sample = population[random.integers(images, size=10)]
        low, high = interval(task, sample, resamples=500, seed=trial) or (math.nan, math.nan)
        covered += low <= truth <= high
    assert covered / trials > 0.90  # plain percentiles: 0.88


def test_a_paired_difference_is_narrower_than_one_of_two_samples() -> None:
    task, mine = evidence_of("segmentation")
    theirs = mine.copy()
    theirs[:, :, 0] -= mine[:, :, 0] > 2  # a pixel less in every class, in every image
    value, low, high = paired_difference(task, mine, theirs) or (0, 0, 0)
    alone = interval(task, mine) or (0, 0)
    assert 0 < low < value < high
    assert high - low < (alone[1] - alone[0]) / 2
    assert paired_difference(task, theirs, mine) == pytest.approx((-value, -high, -low))
    assert paired_difference(task, mine, mine) == (0, 0, 0)


class FirstOnly:
    """Its metric is the first image's number, which only resamples with image 0 have."""

    metric = "first"

    def metrics(self, evidence: Evidence) -> Mapping[str, float]:
        first = evidence[evidence[:, 0] == 0]
        return {"first": float(first[0, 1]) if len(first) else math.nan}


def test_resamples_that_tell_nothing_are_left_out() -> None:
    task: Any = FirstOnly()
    evidence = np.array([[0, 5.0], [1, 0], [2, 0]])
    assert interval(task, evidence) == (5, 5)
    assert interval(task, evidence[1:]) is None
    assert paired_difference(task, evidence, evidence + np.array([0, 1])) == (-1, -1, -1)
    assert paired_difference(task, evidence, evidence[[1, 1, 1]]) is None


def test_fewer_than_two_images_have_no_interval() -> None:
    task, evidence = evidence_of("segmentation")
    assert interval(task, evidence[:1]) is interval(task, evidence[:0]) is None
    assert paired_difference(task, evidence[:1], evidence[:1]) is None


def test_evidence_of_other_images_is_refused() -> None:
    task, evidence = evidence_of("segmentation")
    with pytest.raises(DataError, match="evidence of 40 images beside that of 39"):
        paired_difference(task, evidence, evidence[1:])
