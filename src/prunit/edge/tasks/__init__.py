"""The tasks that a device knows, by name; a task of the user's own answers with plain numbers."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from prunit.edge.tasks.classification import DeviceClassification
from prunit.edge.tasks.detection import DeviceDetection
from prunit.edge.tasks.multilabel import DeviceMultilabel
from prunit.edge.tasks.regression import DeviceRegression
from prunit.edge.tasks.segmentation import DeviceSegmentation
from prunit.edge.tasks.task import DeviceTask, Evidence, Outputs

__all__ = ["DEVICE_TASKS", "DeviceTask", "Evidence", "Outputs"]

DEVICE_TASKS: Final[Mapping[str, Callable[..., DeviceTask]]] = {
    "classification": DeviceClassification,
    "multilabel": DeviceMultilabel,
    "regression": DeviceRegression,
    "segmentation": DeviceSegmentation,
    "detection": DeviceDetection,
}
"""The class of each task, called with the settings that the manifest holds."""
Settings = Mapping[str, Any]
