"""One photo's answer in the form of the portfolio's task: labels, boxes, a mask, values, or plain numbers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from prunit.edge.pixels import Placing
from prunit.edge.portfolio import Artifact, Portfolio
from prunit.edge.serve.settings import Refusal
from prunit.edge.session import Array
from prunit.edge.tasks import DeviceTask, device_task
from prunit.edge.tasks.segmentation import DeviceSegmentation

PNG: Final = "image/png"
JSON: Final = "application/json"
_WEIGHT: Final = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
SMALL: Final = 10_000
"""An output of a task that is not known is told in full up to so many numbers."""


@dataclass(frozen=True)
class Prediction:
    """What the model made of one photo: its outputs (1, …) by the manifest's order, and where the photo lay in it."""

    outputs: tuple[Array, ...]
    artifact: Artifact
    placing: Placing


def task_of(portfolio: Portfolio) -> DeviceTask | None:
    """The portfolio's task as this device knows it; None for one of the user's own. Raises what `device_task` does."""
    return device_task(portfolio.task.name, portfolio.task.settings, portfolio.preprocessing.size)


def told(prediction: Prediction, portfolio: Portfolio) -> dict[str, Any]:
    """The answer as JSON; places in it are pixels of the upright photo, whose size stands beside it."""
    task, placing = task_of(portfolio), prediction.placing
    if task is None:
        found: Mapping[str, Any] = _plain(prediction, portfolio.name)
    else:
        found = task.answer(prediction.outputs, portfolio.classes, placing)
    high, wide = placing.photo
    return {**found, "photo": {"width": wide, "height": high}}


def mask_png(prediction: Prediction, portfolio: Portfolio) -> bytes:
    """The mask of a segmentation as a PNG file in the photo's size."""
    task = task_of(portfolio)
    assert isinstance(task, DeviceSegmentation)
    return task.mask_png(prediction.outputs, prediction.placing)


def offered(portfolio: Portfolio) -> tuple[str, ...]:
    """The media types in which the task can answer, first the one that is given where the client has no preference."""
    return (JSON, PNG) if isinstance(task_of(portfolio), DeviceSegmentation) else (JSON,)


def chosen(accept: str, offers: Sequence[str], task: str) -> str:
    """Of the media types that can be had the one that a header `Accept` likes best (RFC 9110, 12.5.1).

    What cannot be had counts for nothing, however much it is liked. Of several alike it is the first, without a header
    too; `Refusal` (406), which lists them, where none is wanted.
    """
    best = max(offers, key=lambda kind: _quality(accept, kind))
    if _quality(accept, best) > 0:
        return best
    raise Refusal(
        406,
        f"the task '{task}' answers in {' or '.join(offers)}, and 'Accept: {accept[:100]}' takes none of that: ask for"
        " one of them, or leave the header out",
        headers={"vary": "accept"},
    )


def _plain(prediction: Prediction, model: str) -> dict[str, Any]:
    """Numbers of the one image, nested; of a large output its shape."""
    named = zip(prediction.artifact.outputs, prediction.outputs, strict=False)
    found: dict[str, Any] = {}
    large = False
    for output, values in named:
        own = values[0]
        if own.size <= SMALL:
            found[output.name] = np.asarray(own).tolist()
        else:
            found[output.name], large = {"shape": list(own.shape)}, True
    hint = f"of more than {SMALL} numbers the shape is told: POST /v2/models/{model}/infer gives all"
    return {"outputs": found, "note": hint} if large else {"outputs": found}


def _quality(accept: str, kind: str) -> float:
    """How much a media type is wanted, 0 to 1, by the narrowest range that holds it; without a header, all are.

    Of ranges that are equally narrow the one that wants it most counts: `text/*;q=0.1, text/*` wants them.
    """
    ranges = {kind: 3, kind.partition("/")[0] + "/*": 2, "*/*": 1}
    best, found = 0, 0.0 if accept.strip() else 1.0
    for part in accept.lower().split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        narrow = ranges.get(name, 0)
        if narrow and narrow >= best:
            weight = _weight(parameters)
            best, found = narrow, weight if narrow > best else max(found, weight)
    return found


def _weight(parameters: list[str]) -> float:
    """The value of `q`, 1 without one; what is no such value (`nan`, `2`) says nothing, so that it is none either."""
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            return float(value) if _WEIGHT.fullmatch(value.strip()) else 1.0
    return 1.0
