"""evaluate() on a model whose answers are known, and data or models that do not fit."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from prunit.batches import Dataset, Split
from prunit.errors import DataError, ModelError
from prunit.train import evaluate
from tests.train.toys import small, stripes


class Brightness(nn.Module):
    """Class 1 where the image's mean, after normalising, is above 0."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        bright_B = x_BCHW.mean((1, 2, 3))
        return torch.stack([-bright_B, bright_B], dim=1)


def two_shades(labels: list[int]) -> Dataset:
    """Dark images of class 0 and bright ones of class 1 in turn, said to be of `labels`."""
    x_BCHW = torch.tensor([50, 200], dtype=torch.uint8).repeat(len(labels))[: len(labels)].view(-1, 1, 1, 1)
    split = Split(x_BCHW.expand(-1, 1, 4, 4), torch.tensor(labels))
    return Dataset("shades", split, split, ("dark", "bright"), (0.5,), (0.25,))


@pytest.mark.parametrize("batch_size", [1, 2, 512])
@pytest.mark.parametrize(("labels", "share"), [([0, 1, 0, 1], 1.0), ([0, 1, 1, 1], 0.75), ([1, 0, 1], 0.0)])
def test_it_is_the_share_of_right_answers(labels: list[int], share: float, batch_size: int) -> None:
    assert evaluate(Brightness(), two_shades(labels), device="cpu", batch_size=batch_size) == share


def test_modes_gradients_and_statistics_stay() -> None:
    model = small()
    model.norm.eval()
    before = model.norm.running_mean.clone() if model.norm.running_mean is not None else None
    evaluate(model, stripes(), device="cpu")
    assert model.training
    assert model.drop.training
    assert not model.norm.training
    assert before is not None
    assert torch.equal(before, model.norm.running_mean)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.calls == 0


def test_no_images_is_an_error() -> None:
    dataset = replace(stripes(), test=Split(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0).long()))
    with pytest.raises(DataError, match="data set 'stripes' has no test images"):
        evaluate(small(), dataset, device="cpu")


def test_labels_without_a_class_are_an_error() -> None:
    with pytest.raises(DataError, match="test labels from 0 to 3, but 2 classes: labels go from 0 to 1"):
        evaluate(small(), replace(stripes(), classes=("a", "b")), device="cpu")


def test_a_model_for_fewer_classes_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"gives \(1, 4\) .* \(1, 5\) numbers.*num_classes=5"):
        evaluate(small(), replace(stripes(), classes=tuple("abcde")), device="cpu")


def test_a_model_for_other_images_is_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(
        ModelError, match=r"cannot be called on images of shape \(1, 8, 8\) .*RuntimeError: .*3"
    ) as found:
        evaluate(model, stripes(), device="cpu")
    assert "\n" not in str(found.value)
