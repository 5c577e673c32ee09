"""Classes that come unequally often: weights in the loss, or draws that make up for it."""

import torch
from torch import Tensor

from prunit.batches import Dataset
from prunit.tasks.task import guess_of
from prunit.train.config import TrainConfig


def class_weights(y_B: Tensor, classes: int) -> Tensor:
    """A weight for each class (K,), float32: the inverse of how often it comes, 1 in the mean over the images.

    1 too for a class that has none.
    """
    counts_K = y_B.bincount(minlength=classes)
    there = int((counts_K > 0).sum())
    return torch.where(counts_K > 0, len(y_B) / (there * counts_K.clamp(min=1)), 1.0).float()


def balanced_order(stratum_N: Tensor, *, seed: int) -> Tensor:
    """N indices of images (int64), in random order: as many of each stratum that there is, as nearly as can be.

    Of a stratum with more images than that some are left out, those of one with fewer come again: each once before one
    comes twice.
    """
    generator = torch.Generator().manual_seed(seed)
    number = len(stratum_N)
    strata = [(stratum_N.cpu() == stratum).nonzero().flatten() for stratum in stratum_N.unique().tolist()]
    # Who gets one more, where it does not come out even, changes from epoch to epoch.
    extra = torch.randperm(len(strata), generator=generator) < number % len(strata)
    parts: list[Tensor] = []
    for members, more in zip(strata, extra.tolist(), strict=True):
        wanted = number // len(strata) + int(more)
        turns = [torch.randperm(len(members), generator=generator) for _ in range(-(-wanted // len(members)))]
        parts += [members[torch.cat(turns)[:wanted]]] if turns else []
    return torch.cat(parts)[torch.randperm(number, generator=generator)]


def guessing_loss(dataset: Dataset, config: TrainConfig) -> float | None:
    """The loss of the best answer that is the same for all training images; of balanced ones where they are balanced.

    None where the task does not know.
    """
    task, targets = dataset.task, dataset.train.y_B
    if config.balance != "none":
        targets = targets[balanced_order(task.strata(targets), seed=config.seed)]
    return guess_of(task, targets, len(dataset.classes), smoothing=config.smoothing)
