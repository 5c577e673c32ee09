"""Classes of which a part of a data set has no example."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prunit.batches import Split
from prunit.edge.reading import Boxes, Masks, Values
from prunit.edge.reading.absent import absent, absent_in
from prunit.errors import DataError
from prunit.zoo.data.absent import note_of_absent
from prunit.zoo.data.raw import Raw


def raw(train: torch.Tensor, test: torch.Tensor) -> Raw:
    images = torch.zeros(len(train), 3, 2, 2, dtype=torch.uint8)
    return Raw(Split(images, train), Split(images[: len(test)], test), ("a", "b", "c"))


def boxes(*labels: int) -> torch.Tensor:
    rows = torch.zeros(len(labels), 2, 6)
    rows[:, 0, 4], rows[:, 1, 4] = torch.tensor(labels).float(), -1
    return rows


MASKS = torch.tensor([[[0, 1], [255, 255]], [[0, 2], [2, 2]]], dtype=torch.uint8)


@pytest.mark.parametrize(
    ("task", "targets", "found"),
    [
        ("segmentation", MASKS, []),
        ("segmentation", MASKS[:1], [2]),
        ("detection", boxes(0, 2), [1]),
        ("detection", boxes(0, 1, 2), []),
        ("multilabel", torch.tensor([[1.0, 0, 0], [1, 0, 1]]), [1]),
    ],
)
def test_those_that_no_target_shows(task: str, targets: torch.Tensor, found: list[int]) -> None:
    assert absent(task, targets.numpy(), 3) == found


def test_files_say_the_same_before_a_photo_is_opened() -> None:
    rows = boxes(0, 2).numpy().astype(np.float64)
    assert absent_in("detection", Boxes(tuple(row[:1] for row in rows), ((8, 8),) * 2), 3) == [1]
    assert absent_in("detection", Boxes((), ()), 3) == [0, 1, 2]
    assert absent_in("multilabel", Values(np.array([[1.0, 0, 0], [1, 0, 1]], np.float32), several=True), 3) == [1]
    assert absent_in("classification", Values(np.array([2, 0])), 3) == [1]
    assert absent_in("regression", Values(np.array([[0.5], [1.5]], np.float32)), 3) == []
    assert absent_in("segmentation", Masks((Path("not-opened.png"),), np.arange(256, dtype=np.uint8)), 3) == []


def test_what_cannot_be_learnt_is_an_error_and_what_cannot_be_judged_is_told() -> None:
    assert note_of_absent("x", "detection", raw(boxes(0, 1, 2), boxes(0, 1, 2)), may_lack=False) == ""
    some = raw(boxes(0, 1, 2), boxes(0, 2))
    assert note_of_absent("x", "detection", some, may_lack=False) == "none of the images to judge by shows b"
    watched = replace(some, watched=Split(some.test.x_BCHW[:1], boxes(1)))
    assert note_of_absent("x", "detection", watched, may_lack=False) == (
        "none of the images to watch by shows a, c; none of the images to judge by shows b"
    )
    with pytest.raises(DataError, match="'x': no training image shows b, of its 3 classes: take it out"):
        note_of_absent("x", "detection", raw(boxes(0, 2), boxes(1)), may_lack=False)
    told = note_of_absent("x", "detection", raw(boxes(0, 2), boxes(0, 1, 2)), may_lack=True)
    assert told == "none of the images to train on shows b"
    assert note_of_absent("x", "classification", raw(torch.tensor([0]), torch.tensor([0])), may_lack=False) == ""
