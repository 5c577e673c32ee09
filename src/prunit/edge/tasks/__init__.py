"""The tasks that a device knows, by name; a task of the user's own answers with plain numbers."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from prunit.edge.tasks.classification import DeviceClassification
from prunit.edge.tasks.detection import DeviceDetection
from prunit.edge.tasks.multilabel import DeviceMultilabel
from prunit.edge.tasks.regression import DeviceRegression
from prunit.edge.tasks.segmentation import DeviceSegmentation
from prunit.edge.tasks.task import DeviceTask, Evidence, Outputs
from prunit.errors import PortfolioError, PrunitError

__all__ = ["DEVICE_TASKS", "DeviceTask", "Evidence", "Outputs", "device_task"]

DEVICE_TASKS: Final[Mapping[str, Callable[..., DeviceTask]]] = {
    "classification": DeviceClassification,
    "multilabel": DeviceMultilabel,
    "regression": DeviceRegression,
    "segmentation": DeviceSegmentation,
    "detection": DeviceDetection,
}
"""The class of each task, called with the settings that the manifest holds."""


def device_task(name: str, settings: Mapping[str, Any], size: tuple[int, int]) -> DeviceTask | None:
    """The task that a manifest names, for inputs of (height, width); None for one of the user's own.

    Raises `PortfolioError` where the task does not take the settings: a newer prunit wrote them, say.
    """
    if name not in DEVICE_TASKS:
        return None
    told: dict[str, Any] = dict(settings)
    if name == "detection" and told.get("size") is None:
        told["size"] = list(size)  # boxes that are shares of the input are compared with labels in its pixels
    try:
        return DEVICE_TASKS[name](**told)
    except (TypeError, ValueError, PrunitError) as error:
        raise PortfolioError(
            f"the task '{name}' does not take the portfolio's settings {dict(settings)}: {error}; upgrade prunit if a"
            " newer one wrote them"
        ) from None
