"""evaluate() on a model whose answers are known, and data or models that do not fit."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from prunit.batches import Dataset, Split
from prunit.errors import DataError, ModelError
from prunit.train import evaluate
from prunit.train.accuracy import digest_of_images, judge
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


@pytest.mark.parametrize(("classes", "outputs"), [(4, 10), (3, 4), (2, 1000), (4, 1), (3, 1), (5, 4)])
def test_more_or_fewer_outputs_than_classes_are_an_error(classes: int, outputs: int) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))
    whole = stripes()
    splits = {n: replace(s, y_B=s.y_B % classes) for n, s in (("train", whole.train), ("test", whole.test))}
    dataset = replace(whole, classes=tuple(str(i) for i in range(classes)), **splits)
    with pytest.raises(
        ModelError, match=rf"gives \(1, {outputs}\) .* \(1, {classes}\) numbers.*num_classes={classes}$"
    ) as found:
        evaluate(model, dataset, device="cpu")
    assert ("a single score ranks no classes" in str(found.value)) == (outputs == 1)


class Gives(nn.Module):
    """A model whose output is what a function makes of a map of 4 channels."""

    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv, self.change = nn.Conv2d(1, 4, 3, padding=1), change

    def forward(self, x_BCHW: Tensor) -> object:
        return self.change(self.conv(x_BCHW))


@pytest.mark.parametrize(
    ("change", "told", "hint"),
    [
        (lambda y: y, r"a map \(1, 4, 8, 8\), a score for each pixel", r"\.mean\(\(2, 3\)\)"),
        (lambda y: y.flatten(2), r"\(1, 4, 64\), a score for each position", "a mean over the positions"),
        (lambda y: {"out": y, "aux": y}, "a dict of 'out', 'aux'", "returns the scores alone"),
        (lambda y: OrderedDict(logits=y), "an? OrderedDict of 'logits'", "returns the scores alone"),
        (lambda y: (y.mean((2, 3)), y), r"a tuple of 2: \(1, 4\), \(1, 4, 8, 8\)", "switch off its further outputs"),
        (lambda y: [y] * 6, r"a list of 6: (\(1, 4, 8, 8\), ){3}\(1, 4, 8, 8\) and 2 more", "the scores alone"),
        (lambda y: [{"boxes": y}], "a list of 1: dict", "a loop of your own"),
        (lambda y: y.mean((1, 2, 3)), r"one number for each image, \(1,\)", "an output for each class"),
        (lambda y: y.mean(), "one number", "the scores alone"),
        (lambda y: y.mean((2, 3)).argmax(1), r"int64 numbers \(1,\)", "return scores, not classes"),
        (lambda y: y.argmax(1), r"int64 numbers \(1, 8, 8\)", "return scores, not classes or masks"),
        (lambda y: y.mean((2, 3)).repeat(2, 1), r"a tensor \(2, 4\), whose first dimension is not the batch", "alone"),
        (lambda y: None, "a NoneType", "the scores alone"),
    ],
)
def test_what_is_no_classifier_is_told_what_it_is_and_what_to_do(
    change: Callable[[Tensor], object], told: str, hint: str
) -> None:
    with pytest.raises(ModelError, match=rf"the model gives {told}.*take a classifier.*\(1, 4\).*{hint}") as found:
        evaluate(Gives(change), stripes(), device="cpu")
    assert "\n" not in str(found.value)
    assert "num_classes" not in str(found.value)


def test_a_model_for_other_images_is_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(
        ModelError, match=r"cannot be called on images of shape \(1, 8, 8\) .*RuntimeError: .*3"
    ) as found:
        evaluate(model, stripes(), device="cpu")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("batch_size", [1, 2, 512])
def test_answers_say_which_images_were_right(batch_size: int) -> None:
    dataset = two_shades([0, 1, 1, 1, 0])
    found = judge(Brightness(), dataset, device="cpu", batch_size=batch_size).answers
    assert found.right_N.tolist() == [True, True, False, True, True]
    assert found.accuracy == evaluate(Brightness(), dataset, device="cpu")
    assert (found.images, found.commonest) == (5, 3)


def test_the_digest_tells_test_images_apart() -> None:
    dataset = two_shades([0, 1, 0, 1])
    same, brighter = digest_of_images(dataset.test), Split(dataset.test.x_BCHW + 1, dataset.test.y_B)
    assert same == digest_of_images(two_shades([0, 1, 0, 1]).test)
    others = (brighter, two_shades([0, 1, 1, 1]).test, two_shades([0, 1, 0]).test)
    assert same not in map(digest_of_images, others)
