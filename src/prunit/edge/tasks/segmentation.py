"""Segmentation: a class for each pixel, by the highest of its scores. Pixels whose truth is 255 do not count."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prunit.edge.pixels import Fit, Placing
from prunit.edge.tasks.means import mean, named, share
from prunit.edge.tasks.task import Evidence, Outputs
from prunit.errors import DataError, MissingExtraError

IGNORED: Final = 255
"""Of pixels in a mask: of no class, as Pascal VOC and most data sets after it have it."""
_RIGHT, _SAID, _TRUE = range(3)
_BLEND: Final = 0.5


class DeviceSegmentation:
    """Evidence (N, K, 3), int64: of each image and class the pixels that are right, said, and true.

    Targets are masks (B, H, W), uint8, of class indices or 255; the output is scores (B, K, H, W) before softmax.
    `dice` is the weight of the Dice part in a training's loss; a device has no use for it.
    """

    name: str = "segmentation"
    metric: str = "mIoU"
    fit: Fit = "letterbox"

    def __init__(self, dice: float = 1.0) -> None:
        self.dice = float(dice)

    def settings(self) -> Mapping[str, Any]:
        return {"dice": self.dice}

    def evidence(self, outputs: Outputs, targets: npt.NDArray[Any]) -> Evidence:
        """Counts of pixels. Raises `DataError` for masks of another size, or with a class that has no scores."""
        scores_BKHW = outputs[0]
        batch, classes, *size = scores_BKHW.shape
        if targets.shape != (batch, *size):
            raise DataError(
                f"masks of shape {targets.shape}, but scores of shape {scores_BKHW.shape}: a mask needs the size of"
                f" its image's scores, {tuple(size)}"
            )
        counts = targets != IGNORED
        truth = targets[counts].astype(np.int64)
        if truth.size and not 0 <= truth.min() <= truth.max() < classes:
            raise DataError(
                f"masks with classes from {truth.min()} to {truth.max()}, but scores of {classes} classes: masks hold 0"
                f" to {classes - 1}, and {IGNORED} where a pixel does not count"
            )
        said = scores_BKHW.argmax(axis=1)[counts]
        # Numbers of an image's own, so that one count serves the batch.
        first = classes * np.nonzero(counts)[0]
        parts = ((first + truth)[said == truth], first + said, first + truth)
        found = [np.bincount(part, minlength=batch * classes).reshape(batch, classes) for part in parts]
        return np.stack(found, axis=2).astype(np.int64)

    def metrics(self, evidence: Evidence) -> Mapping[str, float]:
        """From the pixels of all images together: the mean over classes of the intersection over union (mIoU) and of
        Dice's coefficient, of those classes that are there or are said; and the share of pixels that are right."""
        sums_K3 = evidence.sum(axis=0)
        pixels = int(sums_K3[:, _TRUE].sum())
        return {
            "mIoU": float(mean(_iou(sums_K3))),
            "dice": float(mean(_dice(sums_K3))),
            "pixel_accuracy": int(sums_K3[:, _RIGHT].sum()) / pixels if pixels else float("nan"),
        }

    def resampled(self, evidence: Evidence, counts_RN: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """mIoU of resamples, (R,): of the images as often as `counts_RN` says."""
        sums_RK3 = counts_RN @ evidence.reshape(len(evidence), -1).astype(np.float64)
        return mean(_iou(sums_RK3.reshape(len(counts_RN), -1, 3)))

    def by_class(self, evidence: Evidence, classes: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        """IoU, Dice and true pixels of each class that is there or is said."""
        sums_K3 = evidence.sum(axis=0)
        iou_K, dice_K = _iou(sums_K3), _dice(sums_K3)
        return {
            named(classes, k): {"iou": float(iou_K[k]), "dice": float(dice_K[k]), "pixels": int(sums_K3[k, _TRUE])}
            for k in np.flatnonzero(~np.isnan(iou_K)).tolist()
        }

    def each(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """The image's own mIoU; NaN where no pixel counts."""
        return mean(_iou(evidence))

    def answer(self, outputs: Outputs, classes: Sequence[str], placing: Placing) -> Mapping[str, Any]:
        """{"mask": a PNG in base64, "classes": [{"label", "share", "index"}, …]}: shares of the photo, largest first.

        `index` is what the mask's pixels hold.
        """
        mask_HW = _mask(outputs, placing, placing.photo)
        pixels = np.bincount(mask_HW[mask_HW != IGNORED], minlength=1)
        found = (
            {"label": named(classes, k), "share": float(pixels[k] / pixels.sum()), "index": k}
            for k in (-pixels).argsort(kind="stable").tolist()
            if pixels[k]
        )
        return {"mask": base64.b64encode(_png(mask_HW)).decode(), "classes": list(found)}

    def mask_png(self, outputs: Outputs, placing: Placing) -> bytes:
        """The mask of one image as a PNG file in the size of the client's photo: 8 bits, indexed.

        A pixel's index is its class, 255 where the photo reaches beyond the model's input; the palette is Pascal VOC's.
        """
        return _png(_mask(outputs, placing, placing.photo))

    def drawn(
        self, photo_HWC: npt.NDArray[np.uint8], outputs: Outputs, classes: Sequence[str], placing: Placing
    ) -> npt.NDArray[np.uint8]:
        """The classes' colours over the photo, half of each; class 0, mostly the background, is left as it is."""
        high, wide = photo_HWC.shape[:2]
        mask_HW = _mask(outputs, placing, (high, wide))
        mixed = (1 - _BLEND) * photo_HWC + _BLEND * _PALETTE[mask_HW]
        coloured = ((mask_HW > 0) & (mask_HW != IGNORED))[:, :, None]
        return np.where(coloured, np.rint(mixed).astype(np.uint8), photo_HWC)


def _iou(sums: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Intersection over union of (…, K, 3), NaN for a class that is neither there nor said."""
    right = sums[..., _RIGHT]
    return share(right, sums[..., _SAID] + sums[..., _TRUE] - right)


def _dice(sums: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Twice the intersection over both areas (Dice, 1945), of (…, K, 3)."""
    return share(2 * sums[..., _RIGHT], sums[..., _SAID] + sums[..., _TRUE])


def _mask(outputs: Outputs, placing: Placing, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The mask of one image over the client's photo shown in `size`: no bars, each pixel as the nearest of the input's.

    255 where the photo reaches beyond the input.
    """
    mask_HW = outputs[0].reshape(outputs[0].shape[-3:]).argmax(axis=0).astype(np.uint8)
    (high, wide), (rows, columns) = placing.photo, mask_HW.shape
    y = np.floor((np.arange(size[0]) + 0.5) * (high / size[0]) * placing.scale_y + placing.top).astype(np.int64)
    x = np.floor((np.arange(size[1]) + 0.5) * (wide / size[1]) * placing.scale_x + placing.left).astype(np.int64)
    found = mask_HW[np.clip(y, 0, rows - 1)][:, np.clip(x, 0, columns - 1)]
    found[(y < 0) | (y >= rows)] = IGNORED
    found[:, (x < 0) | (x >= columns)] = IGNORED
    return found


def _png(mask_HW: npt.NDArray[np.uint8]) -> bytes:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("a mask as a PNG", "pillow", "serve") from error
    image = Image.fromarray(mask_HW)
    image.putpalette(_PALETTE.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", bits=8)  # else as few as a palette's colours need
    return file.getvalue()


def _palette() -> npt.NDArray[np.uint8]:
    """Pascal VOC's 256 colours (256, 3): an index's bits, three by three, from the colours' highest bits on."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.astype(np.uint8)


_PALETTE: Final = _palette()
