"""What flows into scoring, training and evaluation: batches, and data sets of images held in memory.

Shape letters, here and everywhere: B batch, C channels, H height, W width, O output and I input channels,
K classes. Images are stored as uint8 (a quarter of the memory of float32) and normalised per batch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from prunit.shown import Shown
from prunit.tasks import Classification, Task

Batch = tuple[Tensor, Tensor]
"""Normalised images x_BCHW (float) and their targets y_B: class indices (int64), or what another task has."""


class Batches(list[Batch]):
    """Batches of a task: a score that looks at data takes that task's loss. A plain list is one of a classifier's."""

    def __init__(self, batches: Iterable[Batch], task: Task) -> None:
        super().__init__(batches)
        self.task = task

    def to(self, device: torch.device) -> "Batches":
        """The same on `device`."""
        return Batches([(x_BCHW.to(device), y_B.to(device)) for x_BCHW, y_B in self], self.task)


def task_of(batches: Sequence[Batch]) -> Task:
    """What the models of these batches are for."""
    return batches.task if isinstance(batches, Batches) else Classification()


@dataclass(frozen=True, eq=False, repr=False)
class Split(Shown):
    """One part of a data set: images x_BCHW (uint8, 0 to 255) and class indices y_B (int64).

    For another task than classification y_B are its targets: one tensor, whose first dimension is B too. In the place
    of the images' tensor may stand what reads them from disk when they are indexed: `zoo.data.streamed.ImageFiles`.
    """

    x_BCHW: Tensor
    y_B: Tensor

    def __len__(self) -> int:
        return len(self.y_B)

    def to(self, device: torch.device | str) -> "Split":
        """The same images on `device`."""
        return Split(self.x_BCHW.to(device), self.y_B.to(device))

    def taken(self, index: Tensor | slice) -> "Split":
        """Some of the images; those that are read from disk are not read for it."""
        x: Any = self.x_BCHW
        return Split(x[index] if isinstance(x, Tensor) else x.taken(index), self.y_B[index])


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Shown):
    """Images to train on and to test on, with what a device must know to feed the exported model.

    `mean_C` and `std_C` are those of the training pixels scaled to [0, 1]. `flip` says whether a mirrored image
    keeps its class (false for digits and letters). `task` is what models of these images are for; `classes` are then
    the names of what it tells apart: classes, or values that are estimated.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean_C: tuple[float, ...]
    std_C: tuple[float, ...]
    flip: bool = True
    task: Task = field(default_factory=Classification)
    told: str = ""
    """In a line what was read, where that was files of images: how many, which parts, what was left out."""
    watched: Split | None = None
    """Images besides those of `test`, by which a training is watched and anything is chosen; None: `test` serves."""

    @property
    def parts(self) -> dict[str, Split]:
        """Train, test and, where it is there, watched, by name."""
        found = {"train": self.train, "test": self.test}
        return found if self.watched is None else found | {"watched": self.watched}

    @property
    def watching(self) -> "Dataset":
        """The data set as it is while anything may still be chosen: with the watched images in the place of `test`.

        Whoever chooses by test images finds the best for these images, and the figure on them is too good for others.
        """
        return self if self.watched is None else replace(self, test=self.watched, watched=None)

    @property
    def watched_part(self) -> str:
        """In a word which images those of `watching` are."""
        return "test" if self.watched is None else "validation"

    @property
    def channels(self) -> int:
        return self.train.x_BCHW.shape[1]

    @property
    def image_size(self) -> int:
        """Height of an image; images are square."""
        return self.train.x_BCHW.shape[2]

    def normalise(self, x_BCHW: Tensor) -> Tensor:
        """uint8 images as float32 with the training set's mean 0 and deviation 1, on the images' device."""
        mean_C11 = torch.tensor(self.mean_C, device=x_BCHW.device).view(-1, 1, 1)
        std_C11 = torch.tensor(self.std_C, device=x_BCHW.device).view(-1, 1, 1)
        return (x_BCHW.float() / 255 - mean_C11) / std_C11

    def scoring_batches(self, *, per_class: int, batch_size: int, seed: int) -> "Batches":
        """A few normalised training batches with `per_class` images of every class, for scores that need data.

        10 per class is the field's common choice (SNIP, Lee et al. 2019; Tanaka et al. 2020).
        """
        index = stratified(self.task.strata(self.train.y_B), per_class * len(self.classes), seed=seed)
        order = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))]
        parts = order.split(batch_size)
        return Batches([(self.normalise(self.train.x_BCHW[p]), self.train.y_B[p]) for p in parts], self.task)

    def subset(self, train: int, *, seed: int) -> "Dataset":
        """The data set with `train` training images, as many of each class as can be; others stay whole."""
        index = stratified(self.task.strata(self.train.y_B), train, seed=seed)
        return replace(self, train=self.train.taken(index))


def stratified(y_B: Tensor, n: int, *, seed: int) -> Tensor:
    """Indices, ascending, of `n` items drawn so that the classes are as equally frequent as the items allow."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(y_B), generator=generator)
    # The how-manieth of its class each shuffled item is: taking the lowest n takes all classes in turn.
    by_class = shuffled[torch.argsort(y_B.cpu()[shuffled], stable=True)]
    counts_K = torch.bincount(y_B.cpu())
    turn = torch.cat([torch.arange(int(count)) for count in counts_K])
    return by_class[torch.argsort(turn, stable=True)[:n]].sort().values
