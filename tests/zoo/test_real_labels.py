"""Real boxes and real masks, as their authors publish them."""

from pathlib import Path

import pytest
import torch

from prunit.tasks import Classification
from prunit.zoo import data
from tests.conftest import PACKED

pytestmark = pytest.mark.data


class Letterboxed(Classification):
    """A task as far as reading asks it."""

    fit = "letterbox"

    def __init__(self, name: str) -> None:
        self.name = name


def real(name: str) -> Path:
    """The folder of a real data set beside the checkout, or the test is skipped."""
    if not (PACKED / name).is_dir():
        pytest.skip(f"no real data: there is no {PACKED / name}")
    return PACKED / name


def test_blood_cells_with_boxes_and_the_two_without_area() -> None:
    found = data.load(str(real("bccd")), task=Letterboxed("detection"), image_size=64)
    assert found.told.startswith(
        "364 photos with 4,886 boxes of 3 classes (Platelets, RBC, WBC; VOC): train 205, val 87 (watched in training),"
        " test 72 (judged by); 2 boxes without area left out: BloodImage_00"
    )
    boxes_N6 = found.train.y_B[found.train.y_B[:, :, 4] >= 0]
    assert (boxes_N6[:, 2:4] > boxes_N6[:, :2]).all()
    assert (boxes_N6[:, [0, 2]] >= 0).all()
    assert (boxes_N6[:, [0, 2]] <= 64).all()
    assert (boxes_N6[:, [1, 3]] >= 8).all()  # photos of 4:3 lie between bars
    assert (boxes_N6[:, [1, 3]] <= 56).all()
    assert boxes_N6[:, 4].long().bincount().argmax() == 1


def test_membranes_with_masks_of_two_values() -> None:
    found = data.load(str(real("membrane")), task=Letterboxed("segmentation"))
    assert found.told == (
        "30 images of 2 classes (background, foreground; masks): train 24, val 6 (20% held out, drawn with a fixed"
        " seed); 256x256 px, long side fitted, bars beside; 7.86 MB in memory"
    )
    assert found.train.y_B.unique().tolist() == [0, 1]
    # Membranes are black in the masks, and darker than cells in the photos.
    grey = found.train.x_BCHW[:, 0].float()
    assert grey[found.train.y_B == 0].mean() < grey[found.train.y_B == 1].mean() - 20
    assert torch.equal(found.train.y_B, data.load(str(real("membrane")), task=found.task).train.y_B)
