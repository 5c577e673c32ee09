"""Data sets and data loaders of torch that a user's factory returns."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prunit.errors import DataError
from prunit.zoo import data
from tests.zoo.test_data_tasks import DETECTION, SEGMENTATION

Write = Callable[[str], Path]
SETS = """
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

x = torch.arange(4 * 3 * 8 * 8).reshape(4, 3, 8, 8) % 256
y = torch.tensor([0, 1, 2, 0])

class Items(Dataset):
    classes = ["a", "b", "c"]
    def __init__(self, *items): self.items = items
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.items[i]

class Endless(IterableDataset):
    def __iter__(self): yield x[0], 0

def both(*items): return Items(*items), Items(*items)
def tensors(): return TensorDataset(x.byte(), y), TensorDataset(x.float()[:2] / 255, y[:2])
def loaders(): return tuple(DataLoader(one, batch_size=3, shuffle=True) for one in tensors())
def pictures(): return both(*((Image.fromarray(x[i].byte().permute(1, 2, 0).numpy()), int(y[i])) for i in range(4)))
def boxes(): return both((x[0].byte(), {"boxes": torch.tensor([[0.0, 1, 4, 5]]), "labels": torch.tensor([2])}),
    (x[1].byte(), {"boxes": np.zeros((0, 4)), "labels": np.zeros(0), "iscrowd": np.zeros(0)}))
def masks(): return both((x[0].byte(), torch.ones(1, 8, 8).byte()), (x[1].byte(), np.zeros((8, 8), np.uint8)))
def normalised(): return both((x[0] / 64 - 2, 0))
def alone(): return both(x[0])
def flat(): return both((x[0].flatten(), 0))
def whole(): return both((x[0], 0))
def sizes(): return both((x[0].byte(), 0), (x[0, :, :4, :4].byte(), 0))
def ragged(): return both((x[0].byte(), [0.0]), (x[0].byte(), [0.0, 1.0]))
def empty(): return both()
def endless(): return Endless(), Endless()
"""


@pytest.mark.parametrize("attribute", ["tensors", "loaders", "pictures"])
def test_images_and_classes_in_the_order_of_the_set(write_python: Write, attribute: str) -> None:
    found = data.load(f"{write_python(SETS)}:{attribute}")
    assert torch.equal(found.train.x_BCHW, (torch.arange(4 * 3 * 8 * 8).reshape(4, 3, 8, 8) % 256).byte())
    assert torch.equal(found.test.x_BCHW[:2], found.train.x_BCHW[:2])
    assert found.train.y_B.tolist() == [0, 1, 2, 0]
    assert found.classes == (("a", "b", "c") if attribute == "pictures" else ("0", "1", "2"))


def test_boxes_and_masks(write_python: Write) -> None:
    place = write_python(SETS)
    boxes = data.load(f"{place}:boxes", task=DETECTION).train.y_B
    assert boxes.tolist() == [[[0, 1, 4, 5, 2, 0]], [[0, 0, 0, 0, -1, 0]]]
    masks = data.load(f"{place}:masks", task=SEGMENTATION).train.y_B
    assert (masks.dtype, masks.flatten(1).float().mean(1).tolist()) == (torch.uint8, [1, 0])


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (
            "normalised",
            r"train\[0\]: the image has values from -2 to .*; give uint8, or floats from 0 to 1, without norm",
        ),
        ("alone", r"train\[0\] is a Tensor, not a pair \(image, target\)"),
        ("flat", r"train\[0\]: the image has shape \(192,\); give \(C, H, W\)"),
        ("whole", r"train\[0\]: the image is torch\.int64; give uint8"),
        ("sizes", r"train\[1\] has shape \(3, 4, 4\), the first image \(3, 8, 8\): make all alike"),
        ("ragged", r"train: targets have several shapes, \(1,\) and others"),
        ("empty", r"train: Items has no images that can be asked for by number"),
        ("endless", r"train: Endless has no images that can be asked for by number"),
    ],
)
def test_what_cannot_be_meant(write_python: Write, attribute: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.load(f"{write_python(SETS)}:{attribute}")


def test_boxes_that_are_none(write_python: Write) -> None:
    with pytest.raises(DataError, match=r"train\[0\]: for detection give a mapping with boxes \(M, 4\) in pixels"):
        data.load(f"{write_python(SETS)}:tensors", task=DETECTION)
