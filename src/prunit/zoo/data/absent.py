"""Classes that a part of a data set has not a single example of."""

import torch
from torch import Tensor

from prunit.edge.reading.listing import some
from prunit.errors import DataError
from prunit.zoo.data.raw import Raw

_LABEL = 4
_KINDS = ("segmentation", "detection", "multilabel")
"""Tasks whose targets tell several classes of an image; class folders are the same in all parts anyway."""


def absent(task: str, targets: Tensor, classes: int) -> list[int]:
    """Classes, by index, that no target shows: of masks (N, H, W), boxes (N, M, 6) or labels (N, K) of 0 and 1."""
    if task == "multilabel":
        return (~targets.bool().any(dim=0)).nonzero().flatten().tolist()
    shown = targets[..., _LABEL] if task == "detection" else targets
    counts_K = torch.zeros(classes, dtype=torch.int64)
    for part in shown.split(64):
        flat = part.flatten().long()
        counts_K += flat[(flat >= 0) & (flat < classes)].bincount(minlength=classes)
    return (counts_K == 0).nonzero().flatten().tolist()


def note_of_absent(name: str, task: str, found: Raw, *, may_lack: bool) -> str:
    """What there is to say of classes that a part does not show, '' if nothing.

    `DataError` for one that no training image shows, which cannot be learnt, unless that is to be (`may_lack`).
    """
    if task not in _KINDS:
        return ""
    classes = found.classes
    never, unseen = ([classes[i] for i in absent(task, part.y_B, len(classes))] for part in (found.train, found.test))
    if never and not may_lack:
        them = "it" if len(never) == 1 else "them"
        raise DataError(
            f"data set '{name}': no training image shows {some(never)}, of its {len(classes)} classes: take {them} out"
            f" of the list of classes, or move images with {them} into the training part"
        )
    said = [f"none of the images to train on shows {some(never)}"] if never else []
    return "; ".join([*said, *([f"none of the images to judge by shows {some(unseen)}"] if unseen else [])])
