"""A pair of torch data sets, or of data loaders, as images held in memory: each image is asked for once."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from prunit.batches import Split
from prunit.edge.reading import Boxes
from prunit.errors import DataError
from prunit.tasks import Task
from prunit.zoo.data.raw import refuse_too_large


def is_pair(made: object) -> bool:
    """Whether a factory returned a data set, or loader, to train on and one to judge by."""
    if not isinstance(made, tuple | list):
        return False
    pair = cast("tuple[object, ...]", made)
    return len(pair) == 2 and all(isinstance(one, TorchDataset | DataLoader) for one in pair)


def held(made: Any, reference: str, task: Task) -> tuple[Split, Split, tuple[str, ...]]:
    """The images of both, squares of one size, with their targets; and the names of the classes where they are told.

    An item is (image, target): an image of Pillow, uint8, or floats from 0 to 1, that is not normalised, in CHW or HWC;
    for detection the target is a mapping with `boxes` (M, 4) and `labels` (M,) as torchvision's models take it. What
    the data set draws at random is drawn once: augmentation is the training's.
    """
    sets: list[Any] = [one.dataset if isinstance(one, DataLoader) else one for one in made]
    for part, one in zip(("train", "test"), sets, strict=True):
        if isinstance(one, IterableDataset) or not hasattr(one, "__len__") or not len(one):
            raise DataError(f"'{reference}' {part}: {type(one).__name__} has no images that can be asked for by number")
    number = (len(sets[0]), len(sets[1]))
    shape = _image(sets[0][0], f"'{reference}' train[0]").shape
    refuse_too_large(reference, number, cast("tuple[int, int, int]", tuple(shape)))
    train, test = (
        _split(one, shape, f"'{reference}' {part}", task) for part, one in zip(("train", "test"), sets, strict=True)
    )
    names: Any = getattr(sets[0], "classes", ())
    told = isinstance(names, list | tuple) and all(isinstance(name, str) for name in cast("list[object]", names))
    return train, test, tuple(names) if told else ()


def _split(one: Any, shape: torch.Size, what: str, task: Task) -> Split:
    x_BCHW = torch.empty((len(one), *shape), dtype=torch.uint8)
    targets: list[np.ndarray[Any, Any]] = []
    for i in range(len(one)):
        item = one[i]
        image = _image(item, f"{what}[{i}]")
        if image.shape != shape:
            raise DataError(
                f"{what}[{i}] has shape {tuple(image.shape)}, the first image {tuple(shape)}: make all alike"
            )
        x_BCHW[i] = image
        targets.append(_target(item[1], f"{what}[{i}]", task))
    if task.name == "detection":
        return Split(x_BCHW, torch.from_numpy(Boxes((), ()).together(targets)))
    if len({target.shape for target in targets}) > 1:
        raise DataError(f"{what}: targets have several shapes, {targets[0].shape} and others: give all the same")
    return Split(x_BCHW, torch.from_numpy(np.stack(targets)))


def _image(item: Any, what: str) -> Tensor:
    """(C, H, W), uint8."""
    if not isinstance(item, tuple | list) or len(cast("tuple[object]", item)) != 2:
        raise DataError(f"{what} is a {type(item).__name__}, not a pair (image, target)")
    given: Any = item[0]
    x = given if isinstance(given, Tensor) else torch.from_numpy(np.array(given))
    x = x[None] if x.ndim == 2 else x
    if x.ndim != 3:
        raise DataError(f"{what}: the image has shape {tuple(x.shape)}; give (C, H, W) or (H, W, C)")
    if x.shape[1] != x.shape[2] and x.shape[0] == x.shape[1]:
        x = x.permute(2, 0, 1)
    if x.is_floating_point():
        low, high = (float(bound) for bound in x.aminmax())
        if not 0 <= low <= high <= 1:
            raise DataError(
                f"{what}: the image has values from {low:.3g} to {high:.3g}; give uint8, or floats from 0 to 1, without"
                " normalising them: that is done here, by the training images"
            )
        x = (x * 255).round().to(torch.uint8)
    if x.dtype != torch.uint8:
        raise DataError(f"{what}: the image is {x.dtype}; give uint8, or floats from 0 to 1")
    return x


def _target(given: Any, what: str, task: Task) -> np.ndarray[Any, Any]:
    if task.name != "detection":
        found = np.asarray(given)
        return found[0] if task.name == "segmentation" and found.ndim == 3 and len(found) == 1 else found
    if isinstance(given, Mapping) and {"boxes", "labels"} <= given.keys():
        boxes, labels = np.asarray(given["boxes"], np.float32).reshape(-1, 4), np.asarray(given["labels"])
        ignored = np.asarray(given.get("iscrowd", np.zeros(len(labels))))
        if labels.shape == ignored.shape == (len(boxes),):
            return np.concatenate([boxes, labels[:, None], ignored[:, None]], axis=1).astype(np.float32)
    raise DataError(
        f"{what}: for detection give a mapping with boxes (M, 4) in pixels and labels (M,), and maybe iscrowd"
    )
