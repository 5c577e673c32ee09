"""Classes that cannot be learnt, as no training image shows them, and those that others do not show."""

from collections.abc import Sequence

from prunit.batches import Split
from prunit.edge.reading.absent import absent, told_of_absent
from prunit.edge.reading.listing import some
from prunit.errors import DataError
from prunit.zoo.data.raw import Raw

_KINDS = ("segmentation", "detection", "multilabel")
"""Tasks whose targets tell several classes of an image; class folders are the same in all parts anyway."""


def note_of_absent(name: str, task: str, found: Raw, *, may_lack: bool) -> str:
    """What there is to say of classes that a part does not show, '' if nothing.

    `DataError` for one that no training image shows, which cannot be learnt, unless that is to be (`may_lack`).
    """
    if task not in _KINDS:
        return ""
    never = _absent(task, found.train, found.classes)
    if never and not may_lack:
        them = "it" if len(never) == 1 else "them"
        raise DataError(
            f"data set '{name}': no training image shows {some(never)}, of its {len(found.classes)} classes: take"
            f" {them} out of the list of classes, or move images with {them} into the training part"
        )
    said = told_of_absent(never, "train on")
    if found.watched is not None:
        said += told_of_absent(_absent(task, found.watched, found.classes), "watch by")
    return "; ".join([*said, *told_of_absent(_absent(task, found.test, found.classes), "judge by")])


def _absent(task: str, part: Split, classes: Sequence[str]) -> list[str]:
    return [classes[i] for i in absent(task, part.y_B.numpy(), len(classes))]
