"""Segmentation on a device: counts against scikit-learn's metrics, masks in the client's photo, pictures."""

import base64
import io
import math
import sys

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score

from prunit.edge.pixels import Placing, placed
from prunit.edge.tasks import DEVICE_TASKS
from prunit.edge.tasks.segmentation import DeviceSegmentation
from prunit.errors import DataError, MissingExtraError

TASK = DeviceSegmentation()
CLASSES = ("background", "cell", "wall")


def scores(mask_BHW: npt.NDArray[np.uint8], classes: int = 3) -> npt.NDArray[np.float32]:
    """Scores whose highest is the mask's class."""
    return (mask_BHW[:, None] == np.arange(classes)[:, None, None]).astype(np.float32)


def noise(seed: int, images: int = 4, classes: int = 3) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    masks_BHW = random.integers(0, classes, (images, 6, 5), np.uint8)
    masks_BHW[random.random(masks_BHW.shape) < 0.2] = 255
    return random.normal(size=(images, classes, 6, 5)).astype(np.float32), masks_BHW


def test_counts_of_a_mask_that_can_be_counted_by_hand() -> None:
    truth = np.array([[[0, 0, 1], [1, 1, 255]]], np.uint8)
    said = np.array([[[0, 1, 1], [1, 2, 2]]], np.uint8)
    evidence = TASK.evidence([scores(said)], truth)
    assert evidence.dtype == np.int64
    assert evidence.tolist() == [[[1, 1, 2], [2, 3, 3], [0, 1, 0]]]  # right, said, true; the last pixel does not count
    found = TASK.metrics(evidence)
    assert found["mIoU"] == pytest.approx((1 / 2 + 2 / 4 + 0) / 3)
    assert found["dice"] == pytest.approx((2 / 3 + 4 / 6 + 0) / 3)
    assert found["pixel_accuracy"] == pytest.approx(3 / 5)
    assert TASK.by_class(evidence, CLASSES[:2]) == {
        "background": {"iou": 0.5, "dice": pytest.approx(2 / 3), "pixels": 2},
        "cell": {"iou": 0.5, "dice": pytest.approx(2 / 3), "pixels": 3},
        "2": {"iou": 0, "dice": 0, "pixels": 0},  # a class without a name, said where it is not
    }


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_scikit_learn_on_all_pixels(seed: int) -> None:
    outputs, masks = noise(seed)
    there = masks != 255
    truth, said = masks[there], outputs.argmax(1)[there]
    found = TASK.metrics(TASK.evidence([outputs], masks))
    assert found["mIoU"] == pytest.approx(jaccard_score(truth, said, average="macro"))
    assert found["dice"] == pytest.approx(f1_score(truth, said, average="macro"))
    assert found["pixel_accuracy"] == pytest.approx((truth == said).mean())


def test_batches_joined_are_the_whole_and_each_image_has_its_own() -> None:
    outputs, masks = noise(0, images=5)
    whole = TASK.evidence([outputs], masks)
    parts = [TASK.evidence([outputs[part]], masks[part]) for part in (slice(0, 2), slice(2, 5))]
    assert np.array_equal(np.concatenate(parts), whole)
    assert TASK.each(whole).tolist() == [pytest.approx(TASK.metrics(whole[[i]])["mIoU"]) for i in range(5)]


def test_classes_that_are_neither_there_nor_said_do_not_count_and_nothing_is_nan() -> None:
    zeros = np.zeros((1, 4, 4), np.uint8)
    evidence = TASK.evidence([scores(zeros)], zeros)
    assert TASK.metrics(evidence) == {"mIoU": 1, "dice": 1, "pixel_accuracy": 1}
    assert list(TASK.by_class(evidence, CLASSES)) == ["background"]
    nothing = TASK.evidence([scores(zeros)], zeros + np.uint8(255))
    assert all(map(math.isnan, TASK.metrics(nothing).values()))
    assert np.isnan(TASK.each(nothing)).all()
    assert all(map(math.isnan, TASK.metrics(nothing[:0]).values()))
    assert TASK.metrics(np.concatenate([evidence, nothing])) == TASK.metrics(evidence)


def test_masks_that_do_not_fit_are_refused() -> None:
    outputs = scores(np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(DataError, match=r"masks of shape \(2, 4, 5\), but scores of shape \(2, 3, 4, 4\)"):
        TASK.evidence([outputs], np.zeros((2, 4, 5), np.uint8))
    with pytest.raises(DataError, match=r"classes from 3 to 3, but scores of 3 classes: masks hold 0 to 2, and 255"):
        TASK.evidence([outputs], np.full((2, 4, 4), 3, np.uint8))


# ── in the client's photo ──


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_the_mask_has_the_photos_size_and_its_indices_are_classes() -> None:
    placing = Placing.of((40, 80), (32, 32), "letterbox")  # bars of 8 rows above and below
    mask = np.full((1, 32, 32), 2, np.uint8)
    mask[0, 8:24] = 0
    mask[0, 8:24, 16:] = 1
    image = opened(TASK.mask_png([scores(mask)], placing))
    assert (image.size, image.mode, image.format) == ((80, 40), "P", "PNG")
    expected = np.zeros((40, 80), np.uint8)
    expected[:, 40:] = 1
    assert np.array_equal(np.asarray(image), expected)
    assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]  # as Pascal VOC's masks
    answer = TASK.answer([scores(mask)], CLASSES, placing)
    assert np.array_equal(np.asarray(opened(base64.b64decode(answer["mask"]))), expected)
    found = [(each["index"], each["label"], each["share"]) for each in answer["classes"]]
    assert found == [(0, "background", 0.5), (1, "cell", 0.5)]


def test_a_png_has_8_bits_for_few_classes_too() -> None:
    png = TASK.mask_png([scores(np.zeros((1, 8, 8), np.uint8), 2)], Placing.of((8, 8), (8, 8), "letterbox"))
    assert png[24] == 8  # the header's bit depth
    assert png[25] == 3  # indexed


@pytest.mark.parametrize("size", [(37, 90), (64, 64), (300, 200), (5, 7)])
def test_what_is_drawn_in_a_photo_is_found_where_it_was(size: tuple[int, int]) -> None:
    high, wide = size
    truth = np.zeros(size, np.uint8)
    truth[high // 3 :, : wide // 2] = 255
    x_CHW, placing = placed(Image.fromarray(truth), (64, 64), "L", "letterbox")
    mask = (x_CHW > 180).astype(np.uint8)
    found = np.asarray(opened(TASK.mask_png([scores(mask, 2)], placing)))
    assert found.shape == size
    # Off by less than two pixels of the input at the edges.
    reach = math.ceil(2 / placing.scale_x) if placing.scale_x < 1 else 1
    rows, columns = np.arange(high), np.arange(wide)
    inside = (abs(rows - high // 3) > reach)[:, None] & (abs(columns - wide // 2) > reach)
    assert np.array_equal(found[inside], (truth > 0)[inside])


def test_where_a_photo_reaches_beyond_the_input_there_is_no_class() -> None:
    placing = Placing.of((10, 30), (10, 10), "crop")
    found = np.asarray(opened(TASK.mask_png([scores(np.ones((1, 10, 10), np.uint8))], placing)))
    assert found[:, 10:20].tolist() == [[1] * 10] * 10
    assert (np.delete(found, np.s_[10:20], axis=1) == 255).all()
    answer = TASK.answer([scores(np.ones((1, 10, 10), np.uint8))], CLASSES, placing)
    assert answer["classes"] == [{"index": 1, "label": "cell", "share": 1}]


def test_colours_lie_over_the_photo_also_where_it_is_shown_smaller() -> None:
    placing = Placing.of((40, 40), (20, 20), "letterbox")
    mask = np.zeros((1, 20, 20), np.uint8)
    mask[0, :, 10:] = 1
    for side in (40, 10):
        photo = np.full((side, side, 3), 100, np.uint8)
        drawn = TASK.drawn(photo, [scores(mask)], CLASSES, placing)
        assert drawn.dtype == np.uint8
        assert (drawn[:, : side // 2] == 100).all()  # the background
        assert (drawn[:, side // 2 :] == [114, 50, 50]).all()
        assert (photo == 100).all()


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'pillow': pip install 'prunit\[serve\]'"):
        TASK.mask_png([scores(np.zeros((1, 8, 8), np.uint8))], Placing.of((8, 8), (8, 8), "letterbox"))


def test_the_manifests_settings_make_the_same_task() -> None:
    again = DEVICE_TASKS["segmentation"](**DeviceSegmentation(dice=0.5).settings())
    assert (again.name, again.metric, again.fit, again.settings()) == (
        "segmentation",
        "mIoU",
        "letterbox",
        {"dice": 0.5},
    )
