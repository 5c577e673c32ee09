"""The tasks that a device knows, by name; a task of the user's own answers with plain numbers."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from prunit.edge.tasks.classification import DeviceClassification
from prunit.edge.tasks.detection import DeviceDetection
from prunit.edge.tasks.task import DeviceTask, Evidence, Outputs

__all__ = ["DEVICE_TASKS", "DeviceTask", "Evidence", "Outputs"]

DEVICE_TASKS: Final[Mapping[str, Callable[..., DeviceTask]]] = {
    "classification": DeviceClassification,
    "detection": DeviceDetection,
}
"""The class of each task, called with the settings that the manifest holds."""
Settings = Mapping[str, Any]
