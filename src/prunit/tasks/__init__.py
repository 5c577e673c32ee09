"""What models are for: tasks by name, each in a file of its own. Another one is a class with the methods of `Task`."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from prunit.known import check_task
from prunit.tasks.classification import Classification
from prunit.tasks.detection import Detection
from prunit.tasks.multilabel import Multilabel
from prunit.tasks.regression import Regression
from prunit.tasks.segmentation import Segmentation
from prunit.tasks.task import Judging, Task

__all__ = [
    "TASKS",
    "Classification",
    "Detection",
    "Judging",
    "Multilabel",
    "Regression",
    "Segmentation",
    "Task",
    "task_named",
]

TASKS: Final[Mapping[str, Callable[..., Task]]] = {
    "classification": Classification,
    "multilabel": Multilabel,
    "regression": Regression,
    "segmentation": Segmentation,
    "detection": Detection,
}
"""The class of each task, which can be called without arguments."""


def task_named(name: str, settings: Mapping[str, Any] | None = None) -> Task:
    """The task of that name; `UnknownNameError` for one that is not there."""
    check_task(name)
    return TASKS[name](**(settings or {}))
