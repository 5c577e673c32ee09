"""Labelled images as people have them on disk, read for a task: one file for each layout, without torch.

read(Path("bccd"), "detection")       VOC, COCO or YOLO, whichever lies there
read(Path("cells"), "segmentation")   images/ and masks/
read(Path("photos"), "classification")
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from prunit.edge.reading import coco, csvs, folders, masks, voc, yolo
from prunit.edge.reading.listing import Files, Listing, split
from prunit.edge.reading.targets import IGNORED, NO_BOX, Boxes, Masks, Misfit, Targets, Values
from prunit.errors import DataError, unknown

__all__ = [
    "IGNORED",
    "LISTS",
    "NO_BOX",
    "READ",
    "Boxes",
    "Files",
    "Listing",
    "Masks",
    "Misfit",
    "OtherTask",
    "Targets",
    "Values",
    "read",
    "split",
]

_Look = Callable[[Path], bool]
_Read = Callable[..., Listing]


class OtherTask(DataError):
    """A place that holds data of another task than the one asked for; `what` says so without advice."""

    def __init__(self, what: str, task: str) -> None:
        super().__init__(f"{what}: write --task {task}")
        self.what = what


_LAYOUTS: Final[Mapping[str, Sequence[tuple[_Look, _Read, str]]]] = {
    "classification": (
        (folders.looks_so, folders.image_folder, folders.LAYOUT),
        (csvs.looks_so, csvs.read_classes, csvs.LAYOUT),
    ),
    "multilabel": ((csvs.looks_so, csvs.read_labels, csvs.LAYOUT),),
    "regression": ((csvs.looks_so, csvs.read_values, csvs.LAYOUT),),
    "segmentation": ((masks.looks_so, masks.read, masks.LAYOUT),),
    "detection": (
        (coco.looks_so, coco.read, coco.LAYOUT),
        (voc.looks_so, voc.read, voc.LAYOUT),
        (yolo.looks_so, yolo.read, yolo.LAYOUT),
    ),
}
"""For each task its layouts, in the order in which they are tried: does a place look so, what reads it, in words."""
READ: Final = frozenset(_LAYOUTS)
"""The tasks whose labels can be read from files."""
LISTS: Final = frozenset((".json", ".csv", ".yaml", ".yml"))
"""The endings of files that list images."""
_TELLING: Final = ("segmentation", "detection")
"""Tasks whose layouts look like no other's."""


def read(place: Path, task: str, *, classes: Sequence[str] | None = None, train: bool = True) -> Listing:
    """The labelled images at `place`, a folder or a file that lists them, as the task of that name needs them.

    `classes`: the names in the order of their numbers, where a model knows them already; else they are what is found.
    `train=False`: for judging a model, a place without training images will do. Raises `DataError` for a layout that
    the task does not read, with the task that would where one does, and for labels that cannot be meant.
    """
    if task not in READ:
        hint = "Data of a task of one's own come from path/to/file.py:FACTORY."
        raise unknown("task to read files for", task, READ, hint)
    other = next((name for name in _TELLING if name != task and _reader(place, name)), None)
    reader = None if task == "classification" and other else _reader(place, task)
    if reader is not None:
        return reader(place, known=classes, train=train)
    if other is not None:
        raise OtherTask(f"'{place}' holds data for {other}, not for {task}", other)
    if task in _TELLING and _looks_classified(place):
        raise OtherTask(f"'{place}' holds images in class folders, not data for {task}", "classification")
    wanted = "; or ".join(layout for _, _, layout in _LAYOUTS[task])
    raise DataError(f"'{place}' holds no data for {task} in a layout that is known; expected {wanted}")


def _reader(place: Path, task: str) -> _Read | None:
    return next((reader for looks_so, reader, _ in _LAYOUTS[task] if looks_so(place)), None)


def _looks_classified(place: Path) -> bool:
    try:
        folders.image_folder(place)
    except DataError:
        return False
    return True
