"""Detection on a device: what outputs say, COCO's metrics of it, answers in the photo's pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from prunit.edge.pixels import Placing
from prunit.edge.tasks import DEVICE_TASKS
from prunit.edge.tasks.average_precision import ImageBoxes, average_precisions, matches
from prunit.edge.tasks.boxes import best_of_each, overlap
from prunit.edge.tasks.detection import DeviceDetection
from prunit.edge.tasks.drawing import colour_of, draw_boxes, ink_on
from prunit.errors import ConfigError, MissingExtraError

NAMES = ("cat", "dog", "cow")


def row(box: Sequence[float], label: int, ignored: int = 0) -> list[float]:
    return [*box, label, ignored]


def said(rows: Sequence[tuple[Sequence[float], int, float]], *, size: int = 100, classes: int = 3) -> Any:
    """An output (1, N, 4 + K) whose boxes, in pixels, have one class each."""
    output = np.zeros((1, len(rows), 4 + classes), np.float32)
    for index, (box, label, score) in enumerate(rows):
        output[0, index, :4] = np.array(box) / size
        output[0, index, 4 + label] = score
    return [output]


def evidence_of(task: DeviceDetection, rows: Any, truth: Sequence[Sequence[float]]) -> npt.NDArray[Any]:
    return task.evidence(said(rows), np.array([truth], np.float32).reshape(1, -1, 6))


def scene(seed: int, images: int = 20, *, ties: bool = False, ignored: float = 0.0) -> npt.NDArray[Any]:
    """Evidence of images with objects of three classes, most of them found, some by boxes that are off."""
    rng = np.random.default_rng(seed)
    found = np.empty(images, dtype=object)
    for index in range(images):
        there = int(rng.integers(0, 6))
        corner, side = rng.uniform(0, 60, (there, 2)), rng.uniform(8, 40, (there, 2))
        truth = np.concatenate([corner, corner + side], axis=1)
        labels = rng.integers(0, 3, there)
        near = np.repeat(truth, 2, axis=0) + rng.normal(0, 2.5, (2 * there, 4))
        lost = rng.uniform(0, 50, (3, 2))
        boxes = np.concatenate([near, np.concatenate([lost, lost + 20], axis=1)])
        scores = rng.random(len(boxes)).round(1 if ties else 12)
        named = np.concatenate([np.repeat(labels, 2), rng.integers(0, 3, 3)])
        found[index] = ImageBoxes(boxes, scores, named, truth, labels, rng.random(there) < ignored)
    return found


def test_the_task_is_known_by_name_and_made_again_from_its_settings() -> None:
    task = DEVICE_TASKS["detection"](size=[48, 64], boxes="cxcywh", unit="pixels", channels_first=True, shown=0.4)
    again = DEVICE_TASKS["detection"](**task.settings())
    assert again.settings() == task.settings()
    assert task.settings()["size"] == [48, 64]
    assert (task.name, task.metric, task.fit) == ("detection", "mAP", "letterbox")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"shown": 1.2}, "'shown' = 1.2: it goes from 0 to 1"),
        ({"most": 0}, "'most' = 0: it must be at least 1"),
        ({"boxes": "xywh"}, "'boxes' = 'xywh': use xyxy or cxcywh"),
        ({"unit": "percent"}, "'unit' = 'percent': use share or pixels"),
        ({"size": [1, 2, 3]}, "'size' = "),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        DeviceDetection(**settings)


def test_shares_cannot_be_compared_with_pixels_without_a_size() -> None:
    with pytest.raises(ConfigError, match="set 'size' to the input's height and width"):
        evidence_of(DeviceDetection(), [((10, 10, 30, 30), 0, 0.9)], [row((10, 10, 30, 30), 0)])


def test_a_box_found_exactly_is_perfect_and_a_missed_class_counts_as_zero() -> None:
    task = DeviceDetection(size=100)
    right = ((10, 10, 30, 40), 0, 0.9)
    whole = evidence_of(task, [right], [row((10, 10, 30, 40), 0)])
    assert task.metrics(whole) == pytest.approx({"mAP": 1.0, "AP50": 1.0, "AP75": 1.0})
    half = evidence_of(task, [right], [row((10, 10, 30, 40), 0), row((60, 60, 90, 90), 2)])
    assert task.metrics(half)["mAP"] == pytest.approx(0.5)
    by_class = task.by_class(half, NAMES)
    assert by_class["cat"] == pytest.approx({"AP": 1.0, "AP50": 1.0, "objects": 1})
    assert by_class["cow"] == {"AP": 0.0, "AP50": 0.0, "objects": 1}


def test_an_overlap_of_0_6_counts_at_three_of_ten_thresholds() -> None:
    task = DeviceDetection(size=100)
    # 20 x 10 beside 20 x 6.2 in it: IoU 0.62, above 0.50, 0.55 and 0.60.
    found = evidence_of(task, [((10, 10, 30, 16.2), 1, 0.8)], [row((10, 10, 30, 20), 1)])
    assert task.metrics(found) == pytest.approx({"mAP": 0.3, "AP50": 1.0, "AP75": 0.0})


def test_a_wrong_box_with_a_higher_score_halves_precision() -> None:
    task = DeviceDetection(size=100)
    found = evidence_of(task, [((60, 60, 80, 80), 0, 0.9), ((10, 10, 30, 30), 0, 0.8)], [row((10, 10, 30, 30), 0)])
    assert task.metrics(found)["mAP"] == pytest.approx(0.5)


def test_what_is_ignored_counts_neither_found_nor_missed() -> None:
    task = DeviceDetection(size=100)
    right, other = ((10, 10, 30, 30), 0, 0.8), ((60, 60, 80, 80), 0, 0.9)
    truth = [row((10, 10, 30, 30), 0), row((60, 60, 80, 80), 0, ignored=1)]
    for rows in ([right, other], [right]):
        assert task.metrics(evidence_of(task, rows, truth))["mAP"] == pytest.approx(1.0)
        assert task.each(evidence_of(task, rows, truth)).tolist() == [1.0]
    only = evidence_of(task, [other], truth[1:])
    assert np.isnan(task.metrics(only)["mAP"])


def test_rows_of_padding_are_no_objects() -> None:
    task = DeviceDetection(size=100)
    truth = [row((10, 10, 30, 30), 0), row((0, 0, 0, 0), -1)]
    found = evidence_of(task, [((10, 10, 30, 30), 0, 0.8)], truth)
    assert task.metrics(found)["mAP"] == pytest.approx(1.0)
    assert task.by_class(found, NAMES)["cat"]["objects"] == 1


def test_without_objects_nothing_is_told() -> None:
    task = DeviceDetection(size=100)
    nothing = evidence_of(task, [((10, 10, 30, 30), 0, 0.0)], [row((0, 0, 0, 0), -1)])
    assert all(np.isnan(value) for value in task.metrics(nothing).values())
    assert task.each(nothing).tolist() == [1.0]
    assert np.isnan(task.resampled(nothing, np.ones((3, 1)))).all()
    wrong = evidence_of(task, [((10, 10, 30, 30), 0, 0.9)], [row((0, 0, 0, 0), -1)])
    assert task.each(wrong).tolist() == [0.0]
    assert np.isnan(task.by_class(wrong, NAMES)["cat"]["AP"])


def test_each_is_f1_of_what_is_shown() -> None:
    task = DeviceDetection(size=100, shown=0.5)
    rows = [((10, 10, 30, 30), 0, 0.9), ((60, 60, 80, 80), 1, 0.7), ((40, 10, 60, 30), 2, 0.4)]
    truth = [row((10, 10, 30, 30), 0), row((40, 10, 60, 30), 2)]
    # One right, one wrong, one object missed: what has a score of 0.4 is not shown.
    assert task.each(evidence_of(task, rows, truth)).tolist() == [pytest.approx(2 / 4)]


def test_yolos_form_says_the_same_as_shares() -> None:
    rows = [((10, 10, 30, 40), 0, 0.9), ((50, 20, 90, 80), 2, 0.6)]
    truth = np.array([[row((10, 10, 30, 40), 0), row((50, 20, 90, 80), 2)]], np.float32)
    plain = said(rows)[0]
    pixels = plain.copy()
    pixels[..., :4] *= 100
    corners = pixels[..., :4].copy()
    pixels[..., :2], pixels[..., 2:4] = (corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]
    yolo = DeviceDetection(boxes="cxcywh", unit="pixels", channels_first=True)
    ours = DeviceDetection(size=100)
    mine, theirs = ours.evidence([plain], truth)[0], yolo.evidence([pixels.transpose(0, 2, 1)], truth)[0]
    assert mine.boxes_D4 == pytest.approx(theirs.boxes_D4, abs=1e-4)
    placing = Placing.of((200, 200), (100, 100), "letterbox")
    one = ours.answer([plain], NAMES, placing)["boxes"]
    other = yolo.answer([pixels.transpose(0, 2, 1)], NAMES, placing)["boxes"]
    assert [box["label"] for box in one] == ["cat", "cow"]
    for left, right in zip(one, other, strict=True):
        assert left == pytest.approx(right, abs=1e-3)


def test_an_answer_is_in_the_photos_pixels() -> None:
    # A photo twice as wide as high: in the input it lies between two bars.
    placing = Placing.of((200, 400), (100, 100), "letterbox")
    in_a_bar = ((10, 5, 40, 20), 2, 0.9)
    output = said([((0, 25, 50, 50), 1, 0.75), ((20, 60, 40, 95), 0, 0.5), ((0, 0, 1, 1), 2, 0.1), in_a_bar])
    boxes = DeviceDetection().answer(output, NAMES, placing)["boxes"]
    assert [(box["label"], box["score"]) for box in boxes] == [("dog", 0.75), ("cat", 0.5)]
    assert [boxes[0][key] for key in ("x1", "y1", "x2", "y2")] == pytest.approx([0, 0, 200, 100])
    assert boxes[1]["y2"] == 200  # cut where the photo ends


def test_a_drawn_box_has_the_colour_of_its_class_and_the_photo_stays() -> None:
    photo = np.full((200, 400, 3), 255, np.uint8)
    placing = Placing.of((200, 400), (100, 100), "letterbox")
    picture = DeviceDetection().drawn(photo, said([((25, 40, 50, 60), 1, 0.75)]), NAMES, placing)
    assert picture.shape == photo.shape
    assert (photo == 255).all()
    changed = (picture != 255).any(axis=2)
    assert tuple(picture[120, 100]) == colour_of(1)  # the left side: 25 of 100 columns
    assert changed[60:140, 100:200].any()
    assert not changed[:30].any()
    assert not changed[110:130, 110:190].any()  # the middle is free
    nothing = DeviceDetection().drawn(photo, said([((25, 40, 50, 60), 1, 0.1)]), NAMES, placing)
    assert (nothing == photo).all()


def test_labels_stay_inside_the_photo_and_colours_differ() -> None:
    photo = np.zeros((60, 60, 3), np.uint8)
    drawn = draw_boxes(photo, np.array([[50.0, 0.0, 60.0, 8.0]]), [3], ["a label wider than the box"])
    assert drawn.shape == photo.shape
    assert tuple(drawn[0, 0]) in {colour_of(3), ink_on(colour_of(3))}
    assert len({colour_of(label) for label in range(80)}) == 80
    assert {ink_on(colour_of(3)), ink_on(colour_of(4))} == {(0, 0, 0), (255, 255, 255)}


def test_of_boxes_for_one_object_the_best_stays_and_other_classes_do_not_matter() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    scores = np.array([0.5, 0.9, 0.4, 0.3], np.float32)
    assert best_of_each(boxes, scores, np.array([0, 0, 1, 0]), iou=0.5, most=100).tolist() == [1, 2, 3]
    assert best_of_each(boxes, scores, np.array([0, 0, 1, 0]), iou=0.5, most=2).tolist() == [1, 2]
    assert best_of_each(boxes, scores, np.array([0, 0, 1, 0]), iou=0.95, most=100).tolist() == [1, 0, 2, 3]
    assert best_of_each(boxes[:0], scores[:0], np.zeros(0, np.int64), iou=0.5, most=5).tolist() == []


@pytest.mark.parametrize("seed", range(4))
def test_what_stays_is_apart_and_what_goes_is_covered_by_a_better_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 50, (200, 2))
    boxes, scores = np.concatenate([corner, corner + rng.uniform(5, 30, (200, 2))], axis=1), rng.random(200)
    labels = rng.integers(0, 3, 200)
    kept = best_of_each(boxes, scores, labels, iou=0.4, most=200)
    assert (np.diff(scores[kept]) <= 0).all()
    for index in range(200):
        mine = [k for k in kept if labels[k] == labels[index] and k != index]
        shared = overlap(boxes[index], boxes[mine])
        if index in kept:
            assert (shared <= 0.4).all()
        else:
            assert (shared[scores[mine] >= scores[index]] > 0.4).any()


@pytest.mark.parametrize("ignored", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_resampling_is_the_metric_of_images_taken_so_often(seed: int, ignored: float) -> None:
    task, found = DeviceDetection(), scene(seed, ignored=ignored)
    counts_RN = np.random.default_rng(seed).multinomial(len(found), np.full(len(found), 1 / len(found)), size=6)
    counts_RN = np.concatenate([counts_RN, np.ones((1, len(found)), np.int64)])
    expected = [task.metrics(np.repeat(found, counts_N))["mAP"] for counts_N in counts_RN]
    assert task.resampled(found, counts_RN) == pytest.approx(expected, abs=1e-12)
    assert task.resampled(found, counts_RN.astype(np.float64)) == pytest.approx(expected, abs=1e-12)


def test_resampling_without_repeats_is_the_metric_with_equal_scores_too() -> None:
    task, found = DeviceDetection(), scene(7, ties=True)
    assert task.resampled(found, np.ones((1, len(found))))[0] == pytest.approx(task.metrics(found)["mAP"], abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_are_those_of_pycocotools(ties: bool, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pycocotools", reason="not installed: pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found: list[ImageBoxes] = scene(3, ties=ties, ignored=0.2).tolist()
    objects: list[dict[str, Any]] = []
    boxes: list[list[float]] = []
    for number, image in enumerate(found, 1):
        for (x1, y1, x2, y2), label, ignored in zip(
            image.truth_G4.tolist(), image.truth_labels_G.tolist(), image.ignored_G.tolist(), strict=True
        ):
            box = {"image_id": number, "category_id": label + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            objects.append({"id": len(objects) + 1, "area": (x2 - x1) * (y2 - y1), "iscrowd": int(ignored), **box})
        for (x1, y1, x2, y2), label, score in zip(
            image.boxes_D4.tolist(), image.labels_D.tolist(), image.scores_D.tolist(), strict=True
        ):
            boxes.append([number, x1, y1, x2 - x1, y2 - y1, score, label + 1])
    truth = COCO()
    images = [{"id": number} for number in range(1, len(found) + 1)]
    truth.dataset = {"images": images, "annotations": objects, "categories": [{"id": k} for k in (1, 2, 3)], "info": {}}
    truth.createIndex()
    theirs = COCOeval(truth, truth.loadRes(np.array(boxes)), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    mine = DeviceDetection().metrics(np.array([*found, None], dtype=object)[:-1])
    assert [mine["mAP"], mine["AP50"], mine["AP75"]] == pytest.approx(theirs.stats[:3].tolist(), abs=1e-12)
    assert "Average Precision" in capsys.readouterr().out


def test_matches_and_precisions_name_the_same_classes() -> None:
    found: list[ImageBoxes] = scene(1).tolist()
    assert set(average_precisions(found)) == {label for label, of in matches(found).items() if of.objects_N.any()}


def test_without_hotcoco_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "hotcoco", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'hotcoco': pip install 'prunit\[evaluate\]'"):
        DeviceDetection().metrics(scene(0))
