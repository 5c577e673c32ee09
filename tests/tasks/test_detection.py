"""Detection in training: which points stand for which box, the loss, boxes that move with their pixels, bad targets."""

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunit.errors import DataError, ModelError
from prunit.tasks import TASKS, Detection, Task, task_named
from prunit.tasks.detection_loss import ALPHA, BACKGROUND, GAMMA, IGNORED, assign, detection_loss, focal, overlaps
from prunit.train.augment import crop, mirror
from prunit.zoo import fcos

CLASSES = ("disc", "bar")


def targets_of(*images: list[tuple[float, ...]]) -> Tensor:
    """(N, M, 6), filled up with rows that are none."""
    most = max(len(rows) for rows in images)
    empty = (0.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    return torch.tensor([[*rows, *[empty] * (most - len(rows))] for rows in images])


def points_of(size: int) -> Tensor:
    """The points of the zoo's detectors."""
    maps = [(stride, torch.empty(1, 1, size // stride, size // stride)) for stride in fcos.STRIDES]
    return torch.cat([fcos._points(x_BCHW, stride) for stride, x_BCHW in maps])


def test_the_task_is_known_by_name_and_made_again_from_its_settings() -> None:
    task: Task = task_named("detection", {"size": 64, "shown": 0.4})
    assert TASKS["detection"](**task.settings()).settings() == task.settings()
    assert (task.name, task.metric, task.output, task.guessing_loss(torch.zeros(1, 1, 6), 2, smoothing=0)) == (
        "detection",
        "mAP",
        "detections",
        None,
    )
    assert pickle.loads(pickle.dumps(task)).settings() == task.settings()


def test_points_near_the_centre_stand_for_a_box_and_the_smaller_of_two_wins() -> None:
    points_N3 = points_of(64)
    small, large = (20.0, 20.0, 44.0, 44.0, 1.0, 0.0), (4.0, 4.0, 60.0, 60.0, 0.0, 0.0)
    found = assign(points_N3, targets_of([large, small]))
    at_N2, label_N = points_N3[:, :2], found.label_BN[0]
    inside = ((at_N2 - 32).abs().amax(1) < 12) & (points_N3[:, 2] == 8)
    assert (label_N[inside] == 1).all()
    assert (found.box_BN4[0][label_N == 1] == torch.tensor(small[:4])).all()
    assert (label_N[(at_N2 - 32).abs().amax(1) > 13] == BACKGROUND).all()
    # Of 56 pixels, reaching at most 8 strides of the finest map: the coarser ones are for larger boxes.
    assert (label_N[points_N3[:, 2] > 8] == BACKGROUND).all()


def test_large_boxes_are_for_coarse_maps() -> None:
    points_N3 = points_of(256)
    label_N = assign(points_N3, targets_of([(8.0, 8.0, 248.0, 200.0, 1.0, 0.0)])).label_BN[0]
    assert {float(stride) for stride in points_N3[label_N == 1, 2]} <= {16.0, 32.0}
    assert (label_N[points_N3[:, 2] == 8] == BACKGROUND).all()


def test_a_box_between_the_points_gets_the_nearest_of_the_finest_map() -> None:
    points_N3 = points_of(64)
    found = assign(points_N3, targets_of([(5.5, 13.0, 7.5, 15.0, 1.0, 0.0)]))
    there = found.label_BN[0] == 1
    assert points_N3[there].tolist() == [[4.0, 12.0, 8.0]]
    assert found.box_BN4[0][there].tolist() == [[5.5, 13.0, 7.5, 15.0]]


def test_points_in_ignored_boxes_count_neither_way() -> None:
    points_N3 = points_of(64)
    crowd, real = (8.0, 8.0, 56.0, 56.0, 0.0, 1.0), (24.0, 24.0, 40.0, 40.0, 1.0, 0.0)
    label_N = assign(points_N3, targets_of([crowd, real])).label_BN[0]
    inside = (points_N3[:, :2] - 32).abs().amax(1) < 24
    assert (label_N[~inside] == BACKGROUND).all()
    assert set(label_N[inside].tolist()) == {IGNORED, 1}
    raw_BNC = torch.randn(1, len(points_N3), 7, generator=torch.Generator().manual_seed(0)).abs()
    other_BNC = raw_BNC.clone()
    other_BNC[0, label_N == IGNORED] += 1
    both = [detection_loss(raw, points_N3, targets_of([crowd, real])) for raw in (raw_BNC, other_BNC)]
    assert torch.equal(*both)


def test_images_are_assigned_alike_together_and_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    points_N3, (_, targets) = points_of(64), scene(5, 64, seed=0)
    together = assign(points_N3, targets)
    monkeypatch.setattr("prunit.tasks.detection_loss.AT_ONCE", 1)
    alone = assign(points_N3, targets)
    assert torch.equal(together.label_BN, alone.label_BN)
    found = together.label_BN >= 0
    assert found.any()
    assert torch.equal(together.box_BN4[found], alone.box_BN4[found])
    assert torch.equal(together.share_BN, alone.share_BN)


def test_every_box_weighs_the_same() -> None:
    points_N3 = points_of(64)
    small, large = (2.0, 2.0, 8.0, 8.0, 1.0, 0.0), (20.0, 20.0, 60.0, 60.0, 0.0, 0.0)
    found = assign(points_N3, targets_of([small, large], []))
    label_N, share_N = found.label_BN[0], found.share_BN[0]
    assert (label_N == 0).sum() > (label_N == 1).sum()
    assert [float(share_N[label_N == label].sum()) for label in (0, 1)] == pytest.approx([1, 1])
    assert (share_N[label_N < 0] == 0).all()
    assert (found.share_BN[1] == 0).all()


def test_focal_loss_is_its_formula_and_cross_entropy_where_it_asks_for_no_focus() -> None:
    logit, truth = torch.tensor([-2.0, 0.3, 1.5]), torch.tensor([0.0, 1.0, 1.0])
    expected = []
    for x, y in zip(logit.tolist(), truth.tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        right, alpha = (p, ALPHA) if y else (1 - p, 1 - ALPHA)
        expected.append(-alpha * (1 - right) ** GAMMA * math.log(right))
    assert focal(logit, truth).tolist() == pytest.approx(expected, rel=1e-5)


def test_overlaps_are_their_formulas() -> None:
    a_4, b_4 = torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([5.0, 0.0, 15.0, 10.0])
    iou, giou = overlaps(a_4, b_4)
    assert (float(iou), float(giou)) == pytest.approx((50 / 150, 50 / 150))
    iou, giou = overlaps(a_4, torch.tensor([20.0, 0.0, 30.0, 10.0]))
    assert (float(iou), float(giou)) == pytest.approx((0.0, -(300 - 200) / 300))
    assert [float(value) for value in overlaps(a_4, a_4)] == [1.0, 1.0]


def test_the_loss_is_least_for_the_truth_and_finite_without_boxes() -> None:
    points_N3 = points_of(64)
    targets = targets_of([(20.0, 20.0, 44.0, 40.0, 1.0, 0.0)])
    found = assign(points_N3, targets)
    right = found.label_BN[0] == 1
    raw_NC = torch.zeros(len(points_N3), 7)
    raw_NC[:, :2] = -9
    raw_NC[right, 1] = 9
    at_N4 = points_N3[:, :2].repeat(1, 2)
    raw_NC[right, 2:6] = ((found.box_BN4[0] - at_N4).abs() / points_N3[:, 2:])[right]
    raw_NC[:, 6] = 9
    best = detection_loss(raw_NC[None], points_N3, targets)
    for column, change in ((0, 9.0), (1, -9.0), (2, 1.0), (6, -9.0)):
        worse_NC = raw_NC.clone()
        worse_NC[right, column] += change
        assert detection_loss(worse_NC[None], points_N3, targets) > best + 0.01
    empty = targets_of([(0.0, 0.0, 0.0, 0.0, -1.0, 0.0)])
    raw_BNC = raw_NC[None].clone().requires_grad_()
    loss = detection_loss(raw_BNC, points_N3, empty)
    loss.backward()
    assert torch.isfinite(loss)
    assert raw_BNC.grad is not None
    assert torch.isfinite(raw_BNC.grad).all()


def test_boxes_move_with_their_pixels() -> None:
    size, padding = 40, 5
    generator = torch.Generator().manual_seed(0)
    x_BCHW = torch.zeros(60, 1, size, size)
    rows = []
    for image in range(60):
        left, top = torch.randint(0, 24, (2,), generator=generator).tolist()
        width, height = torch.randint(4, 16, (2,), generator=generator).tolist()
        x_BCHW[image, 0, top : top + height, left : left + width] = 1
        rows.append([(float(left), float(top), float(left + width), float(top + height), 1.0, 0.0)])
    shift_B2 = torch.randint(0, 2 * padding + 1, (60, 2), generator=generator)
    flip_B = torch.randint(0, 2, (60,), generator=generator).bool()
    moved_BCHW = mirror(crop(x_BCHW, shift_B2, padding), flip_B)
    targets = Detection().moved(targets_of(*rows), shift_B2, flip_B, padding=padding, size=size)
    kept = 0
    for image, target in zip(moved_BCHW[:, 0], targets[:, 0], strict=True):
        at = image.nonzero().float()
        if target[4] >= 0:
            (top, left), (bottom, right) = at.amin(0).tolist(), (at.amax(0) + 1).tolist()
            assert target[:4].tolist() == [left, top, right, bottom]
            kept += 1
    assert kept > 50


def test_of_a_box_that_is_nearly_cut_away_nothing_is_left() -> None:
    rows = [
        (0.0, 0.0, 10.0, 10.0, 1.0, 0.0),  # 2 of 10 columns stay
        (0.0, 0.0, 16.0, 10.0, 0.0, 1.0),  # half of it
        (8.0, 0.0, 9.0, 30.0, 1.0, 0.0),  # 1 pixel wide as it was
        (7.0, 0.0, 11.0, 30.0, 1.0, 0.0),
    ]
    moved = Detection().moved(targets_of(rows), torch.tensor([[4, 12]]), torch.tensor([False]), padding=4, size=40)
    assert moved[0, :, 4].tolist() == [-1.0, 0.0, 1.0, 1.0]
    assert moved[0, 1].tolist() == [0.0, 0.0, 8.0, 10.0, 0.0, 1.0]
    gone = Detection().moved(targets_of(rows), torch.tensor([[4, 14]]), torch.tensor([False]), padding=4, size=40)
    assert gone[0, :, 4].tolist() == [-1.0, 0.0, -1.0, -1.0]  # of the last 1 pixel of 4 is left


def test_strata_are_the_rarest_class_and_images_without_boxes_their_own() -> None:
    one, two, ignored = (0.0, 0.0, 5.0, 5.0, 0.0, 0.0), (0.0, 0.0, 5.0, 5.0, 1.0, 0.0), (0.0, 0.0, 5.0, 5.0, 0.0, 1.0)
    targets = targets_of([one], [one, two], [ignored, one], [], [two, two, one])
    assert Detection().strata(targets).tolist() == [0, 1, 0, 2, 1]
    assert Detection().strata(targets_of([], [], [one])[:2]).tolist() == [1, 1]


GOOD = (2.0, 2.0, 10.0, 12.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ((2.0, 2.0, 2.0, 12.0, 1.0, 0.0), "has no area"),
        ((2.0, 2.0, 50.0, 12.0, 1.0, 0.0), "reaches beyond its image of 40 x 40 pixels"),
        ((2.0, 2.0, 10.0, 12.0, 2.0, 0.0), "has a label that is none of 0 to 1"),
        ((2.0, 2.0, 10.0, 12.0, 0.5, 0.0), "has a label that is none of 0 to 1"),
        ((2.0, 2.0, 10.0, 12.0, 1.0, 0.5), "has a sixth number that is neither 0 nor 1"),
        ((2.0, 2.0, math.nan, 12.0, 1.0, 0.0), "is not all finite"),
    ],
)
def test_a_bad_box_is_named_with_its_image(row: tuple[float, ...], says: str) -> None:
    task, targets = Detection(), targets_of([GOOD], [GOOD, row])
    task.check_targets(targets_of([GOOD], []), CLASSES, 40, what="training")
    with pytest.raises(DataError, match=rf"training image 1, box 1 \(2, 2, .*\) {says}"):
        task.check_targets(targets, CLASSES, 40, what="training")


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (torch.zeros(4, dtype=torch.int64), r"int64 \(4,\): detection takes float32 \(images, boxes, 6\)"),
        (torch.zeros(4, 3, 5), r"float32 \(4, 3, 5\)"),
        (targets_of([], [], [GOOD])[:2], "no boxes at all"),
    ],
)
def test_targets_of_another_task_are_named(targets: Tensor, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Detection().check_targets(targets, CLASSES, 40, what="test")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (torch.zeros(2, 3), r"\(2, 3\) here; detection needs one tensor \(2, boxes, 6\)"),
        ({"boxes": torch.zeros(2, 3)}, "a dict here; detection needs one tensor"),
        (torch.zeros(2, 50, 7), "num_classes=2, and without a column for the background"),
        (torch.zeros(2, 6, 50), "set the task's channels_first=True"),
        (torch.full((2, 50, 6), 1.5), "scores from 1.5 to 1.5 here; detection needs them from 0 to 1"),
        (torch.full((2, 50, 6), math.nan), "scores from nan to nan"),
    ],
)
def test_outputs_that_cannot_be_judged_are_named(found: Any, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        Detection().check_outputs(found, 2, CLASSES, 40, where="here")


def test_outputs_that_can_be_judged_pass() -> None:
    Detection().check_outputs(torch.rand(2, 50, 6), 2, CLASSES, 40, where="here")
    Detection(channels_first=True).check_outputs(torch.rand(2, 6, 50), 2, CLASSES, 40, where="here")
    Detection().check_training_outputs((torch.zeros(2, 50, 7), torch.zeros(50, 3)), 2, CLASSES, 40, where="here")


@pytest.mark.parametrize(
    "found", [torch.zeros(2, 50, 6), (torch.zeros(2, 50, 6), torch.zeros(50, 3)), [torch.zeros(2, 50, 7), 3]]
)
def test_training_outputs_of_another_kind_are_named(found: Any) -> None:
    with pytest.raises(ModelError, match=r"here the model returns .*Detection\(loss=...\)"):
        Detection().check_training_outputs(found, 2, CLASSES, 40, where="here")


def test_a_loss_of_ones_own_is_called_with_what_the_model_gives() -> None:
    given: list[Any] = []

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        given.append((outputs, targets))
        return outputs["loss"].sum()

    task, targets = Detection(loss=loss, size=64), targets_of([GOOD])
    outputs = {"loss": torch.tensor([2.0, 3.0], requires_grad=True)}
    task.check_training_outputs(outputs, 1, CLASSES, 40, where="here")
    assert task.loss(outputs, targets, smoothing=0.1).item() == 5.0
    assert given == [(outputs, targets)]
    assert "loss" not in task.settings()
    with pytest.raises(ModelError, match=r"own loss returns \(2,\): return one number"):
        Detection(loss=lambda outputs, targets: outputs["loss"]).loss(outputs, targets, smoothing=0.0)


def scene(images: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with one or two bright rectangles in each image: flat ones and tall ones."""
    generator = torch.Generator().manual_seed(seed)
    x_BCHW = torch.randn(images, 1, size, size, generator=generator) * 0.1
    rows = []
    for image in range(images):
        boxes = []
        for half in range(int(torch.randint(1, 3, (1,), generator=generator))):
            label = int(torch.randint(0, 2, (1,), generator=generator))
            width, height = ((24, 10), (10, 24))[label]
            left = half * size // 2 + int(torch.randint(0, size // 2 - width, (1,), generator=generator))
            top = int(torch.randint(0, size - height, (1,), generator=generator))
            x_BCHW[image, 0, top : top + height, left : left + width] += 1
            boxes.append((float(left), float(top), float(left + width), float(top + height), float(label), 0.0))
        rows.append(boxes)
    return x_BCHW, targets_of(*rows)


def test_a_detector_learns_to_find_rectangles() -> None:
    size, task = 64, Detection(size=64)
    torch.manual_seed(0)
    model = fcos.fcos_tiny(num_classes=2, in_channels=1)
    x_BCHW, targets = scene(96, size, seed=1)
    task.check_targets(targets, CLASSES, size, what="training")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    losses = []
    for step in range(72):
        part = torch.arange(step * 16, step * 16 + 16) % len(x_BCHW)
        optimizer.param_groups[0]["lr"] = 0.1 * min((step + 1) / 15, (72 - step) / 57)
        loss = task.loss(model(x_BCHW[part]), targets[part], smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    x_BCHW, targets = scene(32, size, seed=2)
    with torch.no_grad():
        evidence = task.judged(model.eval()(x_BCHW), targets)
    assert task.metrics(evidence)["AP50"] > 0.8
    assert task.hits(None, targets) is None
    assert isinstance(model, nn.Module)
