"""Images that are read when they are asked for: a batch ahead, and errors are the caller's."""

import threading
from collections.abc import Generator
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from prunit.batches import Batch, Dataset
from prunit.errors import DataError
from prunit.train import TrainConfig, recalibrate, train
from prunit.train.augment import Feed, feed
from tests.train.toys import assert_same, small, stripes

CPU = torch.device("cpu")
CONFIG = TrainConfig(epochs=2, batch_size=16, device="cpu")


class Lazy:
    """Images as a data set that is read from disk has them: no tensor, decoded when indexed."""

    def __init__(self, x_BCHW: Tensor, *, broken: int | None = None) -> None:
        self.x_BCHW, self.broken = x_BCHW, broken
        self.shape, self.nbytes = x_BCHW.shape, 0
        self.threads: list[str] = []
        self.read = threading.Semaphore(0)

    def __len__(self) -> int:
        return len(self.x_BCHW)

    def __getitem__(self, index: Tensor) -> Tensor:
        self.threads.append(threading.current_thread().name)
        self.read.release()
        if self.broken in index.tolist():
            raise DataError(f"broken image: {self.broken}")
        return self.x_BCHW[index]

    def to(self, device: torch.device | str) -> "Lazy":
        return self


def lazily(dataset: Dataset, broken: int | None = None) -> tuple[Dataset, Lazy]:
    images = Lazy(dataset.train.x_BCHW, broken=broken)
    return replace(dataset, train=replace(dataset.train, x_BCHW=cast("Any", images))), images


def feed_of(dataset: Dataset) -> Feed:
    return feed(dataset, CPU, augment=True, channels_last=True)


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prunit-images")]


def test_a_training_is_the_same_to_the_bit() -> None:
    dataset, images = lazily(stripes())
    model, plain = small(), small()
    list(train(model, dataset, CONFIG))
    list(train(plain, stripes(), CONFIG))
    assert_same(model, plain)
    assert len(images.threads) == 6
    assert all(name.startswith("prunit-images") for name in images.threads)
    assert readers() == []


def started(dataset: Dataset) -> Generator[Batch]:
    """The five batches of an epoch, of which the first is taken."""
    source = feed_of(dataset)
    draws = source.draws(seed=0, epoch=0)
    batches = source.batches([draws.part(slice(i, i + 10)) for i in range(0, 50, 10)])
    next(batches)
    return batches


def test_the_next_batch_is_read_without_anybody_asking_for_it() -> None:
    dataset, images = lazily(stripes())
    batches = started(dataset)
    for _ in range(2):
        assert images.read.acquire(timeout=60)
    assert len(list(batches)) == 4
    assert len(images.threads) == 5


def test_who_stops_early_has_read_no_more_than_one_ahead_and_leaves_no_thread() -> None:
    dataset, images = lazily(stripes())
    started(dataset).close()
    assert len(images.threads) == 2
    assert readers() == []


def test_no_parts_are_no_batches() -> None:
    dataset, _ = lazily(stripes())
    assert list(feed_of(dataset).batches([])) == []


def test_what_cannot_be_read_is_the_caller_s_error() -> None:
    dataset, _ = lazily(stripes(), broken=7)
    with pytest.raises(DataError, match="broken image: 7"):
        list(train(small(), dataset, CONFIG))
    assert readers() == []


def test_statistics_are_estimated_from_them_too() -> None:
    dataset, images = lazily(stripes())
    model, plain = small(), small()
    recalibrate(model, dataset, batch_size=10, device="cpu")
    recalibrate(plain, stripes(), batch_size=10, device="cpu")
    assert_same(model, plain)
    assert len(images.threads) == 5
