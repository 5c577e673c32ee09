"""Segmentation in training: its loss, masks that move with their images, what is refused."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from prunit import zoo
from prunit.errors import ConfigError, DataError, ModelError
from prunit.tasks import Segmentation, task_named
from prunit.train.augment import crop, mirror

TASK = Segmentation()
CLASSES = ("background", "cell", "wall")


def noise(images: int = 4, size: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Scores of three classes, and masks in which some pixels do not count."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 3, (images, size, size), generator=generator).to(torch.uint8)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = 255
    return torch.randn(images, 3, size, size, generator=generator), masks


# ── the loss ──


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_dice_it_is_torchs_cross_entropy(smoothing: float) -> None:
    scores, masks = noise()
    expected = cross_entropy(scores, masks.long(), ignore_index=255, label_smoothing=smoothing)
    assert float(Segmentation(dice=0).loss(scores, masks, smoothing=smoothing)) == pytest.approx(float(expected))


def test_dice_is_taken_over_the_batch_and_the_classes_that_it_has() -> None:
    scores, masks = noise()
    masks[masks == 2] = 1
    there = masks != 255
    share_PK = scores.softmax(1).permute(0, 2, 3, 1)[there]
    truth_PK = one_hot(masks[there].long(), 3)
    dice_K = 2 * (share_PK * truth_PK).sum(0) / (share_PK.sum(0) + truth_PK.sum(0))
    plain = Segmentation(dice=0).loss(scores, masks, smoothing=0)
    expected = float(plain + 0.5 * (1 - dice_K[:2].mean()))
    assert float(Segmentation(dice=0.5).loss(scores, masks, smoothing=0)) == pytest.approx(expected, abs=1e-5)


def test_right_scores_have_no_loss_and_pixels_that_do_not_count_no_gradient() -> None:
    _, masks = noise()
    index = masks.long().masked_fill(masks == 255, 0)
    right = 40 * one_hot(index, 3).permute(0, 3, 1, 2).float()
    assert float(TASK.loss(right, masks, smoothing=0)) == pytest.approx(0, abs=1e-5)
    scores = noise(seed=1)[0].requires_grad_()
    TASK.loss(scores, masks, smoothing=0.1).backward()
    gradient = scores.grad
    assert gradient is not None
    assert not gradient.permute(0, 2, 3, 1)[masks == 255].any()
    assert gradient.permute(0, 2, 3, 1)[masks != 255].any(1).all()


def test_a_batch_in_which_no_pixel_counts_has_a_loss_of_zero() -> None:
    scores = noise()[0].requires_grad_()
    loss = TASK.loss(scores, torch.full((4, 8, 8), 255, dtype=torch.uint8), smoothing=0.1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_further_maps_of_a_training_output_weigh_less() -> None:
    scores, masks = noise()
    aux, other = noise(seed=5)[0], noise(size=4, seed=6)[0]
    one, two = (float(TASK.loss(each, masks, smoothing=0)) for each in (scores, aux))
    for outputs in ({"out": scores, "aux": aux}, (scores, aux), [scores, torch.zeros(4), aux]):
        assert float(TASK.loss(outputs, masks, smoothing=0)) == pytest.approx(one + 0.4 * two)
    assert float(TASK.loss((scores, other), masks, smoothing=0)) > one  # at another resolution


def test_in_bfloat16_it_is_computed_in_float32() -> None:
    scores, masks = noise()
    loss = TASK.loss(scores.bfloat16(), masks, smoothing=0)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(TASK.loss(scores, masks, smoothing=0)), rel=0.01)


@pytest.mark.parametrize("dice", [0.0, 1.0])
def test_shapes_are_learnt_within_seconds(dice: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = 0.3 * torch.randn(16, 1, 32, 32, generator=generator)
    masks = torch.zeros(16, 32, 32, dtype=torch.uint8)
    for i in range(16):
        top, left = (int(n) for n in torch.randint(0, 20, (2,), generator=generator))
        masks[i, top : top + 9, left : left + 9] = 1 + i % 2
        x[i, 0, top : top + 9, left : left + 9] += 1 if i % 2 else -1
    task, model = Segmentation(dice), zoo.load("unet-tiny", num_classes=3, in_channels=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True)
    first = float(task.loss(model(x), masks, smoothing=0).detach())
    for _ in range(30):
        optimizer.zero_grad()
        loss = task.loss(model(x), masks, smoothing=0)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < first / 3
    model.eval()
    assert task.metrics(task.judged(model(x).detach(), masks))["mIoU"] > 0.8


# ── judging ──


@pytest.mark.parametrize("wrapped", [lambda scores: scores, lambda scores: {"out": scores}, lambda scores: [scores]])
def test_on_the_device_the_same_is_counted_as_with_numpy(wrapped: Any) -> None:
    scores, masks = noise()
    assert np.array_equal(TASK.judged(wrapped(scores), masks), TASK.evidence([scores.numpy()], masks.numpy()))


# ── masks that move ──


def test_masks_move_as_their_images_do() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(1, 9, (20, 12, 12), generator=generator).to(torch.uint8)
    shift = torch.randint(0, 7, (20, 2), generator=generator)
    flip = torch.randint(0, 2, (20,), generator=generator).bool()
    pixels = mirror(crop(masks.unsqueeze(1), shift, 3), flip).squeeze(1)
    moved = TASK.moved(masks, shift, flip, padding=3, size=12)
    assert moved.dtype == torch.uint8
    outside = pixels == 0  # black, which no mask has here
    assert outside.any()
    assert (moved[outside] == 255).all()
    assert torch.equal(moved[~outside], pixels[~outside])


def test_without_padding_masks_are_mirrored_alone() -> None:
    masks = torch.arange(8, dtype=torch.uint8).view(2, 2, 2)
    moved = TASK.moved(masks, torch.zeros(2, 2, dtype=torch.int64), torch.tensor([True, False]), padding=0, size=2)
    assert moved.tolist() == [[[1, 0], [3, 2]], [[4, 5], [6, 7]]]


def test_all_images_are_in_one_stratum() -> None:
    assert TASK.strata(noise()[1]).tolist() == [0, 0, 0, 0]


# ── what is refused ──


def test_masks_that_fit_are_taken() -> None:
    TASK.check_targets(noise()[1], CLASSES, 8, what="training")


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.zeros(4, 8, 9, dtype=torch.uint8), "test masks (4, 8, 9) of uint8; needed are uint8"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), "test masks (4, 1, 8, 8) of uint8; needed are uint8"),
        (torch.zeros(4, 8, 8), "test masks (4, 8, 8) of float32; needed are uint8 class indices (4, 8, 8)"),
        (torch.full((4, 8, 8), 7, dtype=torch.uint8), "test mask 0 has class 7, but there are 3 classes"),
    ],
)
def test_masks_that_do_not_fit(masks: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        TASK.check_targets(masks, CLASSES, 8, what="test")


@pytest.mark.parametrize("outputs", [torch.zeros(2, 3, 8, 8), {"out": torch.zeros(2, 3, 8, 8), "aux": torch.zeros(2)}])
def test_outputs_that_fit_are_taken(outputs: Tensor | Mapping[str, Tensor]) -> None:
    TASK.check_outputs(outputs, 2, CLASSES, 8, where="on images")
    TASK.check_training_outputs(outputs, 2, CLASSES, 8, where="in training mode")


@pytest.mark.parametrize(
    ("outputs", "classes", "message"),
    [
        (
            torch.zeros(2, 3, 4, 4),
            CLASSES,
            "the input's full size: end its forward with torch.nn.functional.interpolate",
        ),
        (
            torch.zeros(2, 1, 8, 8),
            CLASSES[:2],
            "one score for each pixel; needed are (2, 2, 8, 8): give it two outputs",
        ),
        (torch.zeros(2, 5, 8, 8), CLASSES, "build it with num_classes=3"),
        (torch.zeros(2, 3), CLASSES, "the model gives (2, 3), scores of whole images"),
        (torch.zeros(2, 8, 8, dtype=torch.int64), CLASSES, "the model gives int64 numbers (2, 8, 8)"),
        ((torch.zeros(2, 3), torch.zeros(2, 3, 8, 8)), CLASSES, "the model gives (2, 3), scores of whole images"),
        ({}, CLASSES, "the model gives a dict of"),
        (None, CLASSES, "the model gives a NoneType"),
    ],
)
def test_outputs_that_do_not_fit(outputs: Any, classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        TASK.check_outputs(outputs, 2, classes, 8, where="on images")


@pytest.mark.parametrize("dice", [-1, float("nan"), float("inf")])
def test_a_weight_that_makes_no_sense_is_refused(dice: float) -> None:
    with pytest.raises(ConfigError, match=r"dice=.*0 or more"):
        Segmentation(dice)


def test_it_is_made_by_its_name() -> None:
    assert task_named("segmentation", {"dice": 0.5}).settings() == {"dice": 0.5}
