"""The images that a variant did worst, drawn small: what it said on one, what is true on another."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from prunit.edge import runtimes
from prunit.edge.judging.judge import Run
from prunit.edge.pixels import Placing, opened, placed
from prunit.edge.portfolio import Portfolio
from prunit.edge.reading import IGNORED, Files
from prunit.edge.reading.photos import quiet
from prunit.edge.records import Record
from prunit.edge.session import Session, outputs_of
from prunit.edge.tasks import DeviceTask, Outputs
from prunit.edge.tasks.detection import DeviceDetection
from prunit.edge.tasks.drawing import draw_boxes
from prunit.edge.tasks.means import named
from prunit.edge.tasks.multilabel import DeviceMultilabel
from prunit.edge.tasks.regression import DeviceRegression
from prunit.edge.tasks.segmentation import DeviceSegmentation

SIDE: Final = 240
"""The long side of a picture in pixels."""
_QUALITY: Final = 80
Base64 = Annotated[str, Field(pattern="^[A-Za-z0-9+/]*=*$")]
_Pixels = npt.NDArray[np.uint8]


class Picture(Record):
    """One image: its file, how well it was done (by the task's `each`), and what was said and is true, in words.

    `drawn` and `truth_drawn` are JPEG files in base64; the second is there where a truth can be drawn.
    """

    file: str
    score: float
    said: str
    truth: str
    drawn: Base64
    truth_drawn: Base64 | None = None


def worst(portfolio: Portfolio, folder: Path, files: Files, run: Run, *, count: int) -> dict[str, tuple[Picture, ...]]:
    """At most `count` pictures of the images that each variant did worst, the worst first.

    None is among them that was done as well as the best one, unless all were done alike. The files are read again.
    """
    found: dict[str, tuple[Picture, ...]] = {}
    for name, evidence in run.evidence.items():
        each = run.task.each(evidence)
        session = runtimes.runtime(run.engines[name]).open(folder / portfolio.variant(name).artifact.path)
        try:
            with quiet():
                found[name] = tuple(
                    _picture(portfolio, files, run.index[i], run.task, session, float(each[i]))
                    for i in lowest(each, count)
                )
        finally:
            session.close()
    return found


def lowest(each: npt.NDArray[np.float64], count: int) -> list[int]:
    """The places of the lowest values that are numbers, lowest first; none of the highest, where they differ."""
    order = [i for i in np.argsort(each, kind="stable").tolist() if not np.isnan(each[i])]
    best = each[order[-1]] if order else 0.0
    lower = [i for i in order if each[i] < best]
    return (lower or order)[:count]


def _picture(portfolio: Portfolio, files: Files, i: int, task: DeviceTask, session: Session, score: float) -> Picture:
    fed, classes = portfolio.preprocessing, portfolio.classes
    with opened(files.paths[i]) as image:
        pixels_CHW, placing = placed(image, fed.size, fed.channels, fed.fit)
    outputs = outputs_of(session, fed.normalise(pixels_CHW[None]))
    photo_HWC, small = _shrunk(files.paths[i], placing)
    target = files.targets.of(i, placing)
    truth = _truth_drawn(task, photo_HWC, target, classes, small)
    return Picture(
        file=str(files.paths[i]),
        score=score,
        said=_said(task.answer(outputs, classes, placing)),
        truth=_truth(task, target, classes),
        drawn=_jpeg(task.drawn(photo_HWC, outputs, classes, small)),
        truth_drawn=None if truth is None else _jpeg(truth),
    )


def _shrunk(path: Path, placing: Placing) -> tuple[_Pixels, Placing]:
    """The whole photo (H, W, 3) with its long side as `SIDE`, and where the model's input lies on that."""
    high, wide = placing.photo
    scale = SIDE / max(high, wide)
    size = (max(1, round(high * scale)), max(1, round(wide * scale)))
    with opened(path) as image:
        pixels_CHW, _ = placed(image, size, "RGB", "letterbox")
    scales = (placing.scale_x * wide / size[1], placing.scale_y * high / size[0])
    small = Placing(size, placing.size, *scales, placing.left, placing.top)
    return np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0)), small


def _truth_drawn(
    task: DeviceTask, photo_HWC: _Pixels, target: npt.NDArray[Any], classes: Sequence[str], placing: Placing
) -> _Pixels | None:
    """What is true, drawn as answers of the task are; None for those that are words."""
    if isinstance(task, DeviceDetection):
        labels: list[int] = target[:, 4].astype(int).tolist()
        texts = [
            named(classes, label) + " (not to count)" * bool(row[5]) for label, row in zip(labels, target, strict=True)
        ]
        return draw_boxes(photo_HWC, placing.to_photo(target[:, :4]), labels, texts)
    if isinstance(task, DeviceSegmentation):
        # Outputs that would say the truth; what is not to count is given to class 0, which is not coloured.
        known = np.where(target == IGNORED, 0, target)
        scores = (known[None, None] == np.arange(len(classes))[None, :, None, None]).astype(np.float32)
        return task.drawn(photo_HWC, cast("Outputs", (scores,)), classes, placing)
    return None


def _truth(task: DeviceTask, target: npt.NDArray[Any], classes: Sequence[str]) -> str:
    if isinstance(task, DeviceDetection):
        return _counted([named(classes, int(label)) for label in target[:, 4]])
    if isinstance(task, DeviceSegmentation):
        counts = np.bincount(target[target != IGNORED].astype(np.int64), minlength=1)
        shares = {named(classes, k): counts[k] / counts.sum() for k in np.flatnonzero(counts).tolist()}
        return _shares(sorted(shares.items(), key=lambda one: -one[1]))
    if isinstance(task, DeviceMultilabel):
        return ", ".join(named(classes, k) for k in np.flatnonzero(target > 0.5).tolist()) or "none"
    if isinstance(task, DeviceRegression):
        return _values({named(classes, d): float(value) for d, value in enumerate(target)})
    return named(classes, int(target))


def _said(answer: Mapping[str, Any]) -> str:
    """A task's answer in a few words."""
    if "values" in answer:
        return _values(answer["values"])
    if "boxes" in answer:
        return _counted([str(box["label"]) for box in answer["boxes"]])
    shown = answer.get("labels") or answer.get("classes") or ()
    return _shares([(str(one["label"]), float(one["share"])) for one in shown])


def _shares(found: Sequence[tuple[str, float]], most: int = 3) -> str:
    return ", ".join(f"{label} {share:.0%}" for label, share in found[:most]) or "none"


def _counted(labels: Sequence[str]) -> str:
    return ", ".join(f"{count} {label}" for label, count in Counter(labels).most_common()) or "none"


def _values(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _jpeg(picture_HWC: _Pixels) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture_HWC).save(file, "JPEG", quality=_QUALITY)
    return base64.b64encode(file.getvalue()).decode("ascii")
