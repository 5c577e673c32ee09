"""`fitted`: a training's settings with every number in them, the open ones taken from the data set. No torch."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Self

from pydantic import Field

from prunit.train.config import WARMUP, Schedule, TrainConfig

if TYPE_CHECKING:
    from prunit.batches import Dataset

EPOCHS: Final = 30
EPOCHS_OF_OTHERS: Final = 60
"""Of another task than classification: their data sets have fewer images. On 24 of them a small U-Net learnt with 60
what it did with 120, and less with 30."""
BATCH: Final = 128
"""Images per step where there are many."""
LEAST_STEPS: Final = 30
"""Of an epoch, as far as the smallest batches allow it."""
LEAST_STEPS_OF_OTHERS: Final = 20
"""The same for another task than classification, whose trainings have twice as many epochs."""
_SGD_LR: Final[Mapping[Schedule, float]] = {"onecycle": 0.2, "step": 0.1, "cosine": 0.1}
_ADAMW_LR: Final = 3e-3
_TASK_BATCH: Final = 16
"""Images per step for which tasks name their rate."""


class Fitted(TrainConfig, frozen=True):
    """Settings of a training on one data set: epochs, batch size and learning rate are numbers."""

    epochs: int = Field(ge=1)
    """Passes over the training images."""
    batch_size: int = Field(ge=2)
    """Images per step, over all devices together; the odd rest of an epoch is left out."""
    lr: float = Field(gt=0, allow_inf_nan=False)
    """Highest learning rate."""

    @property
    def ramp_epochs(self) -> float:
        """Epochs of linear growth at the start."""
        if self.warmup_epochs is not None:
            return self.warmup_epochs
        return WARMUP[self.schedule] * self.epochs

    def on_one_device(self) -> Self:
        """The same for one device, with its share of the batch."""
        return self.model_copy(update={"devices": 1, "batch_size": self.batch_size // self.devices})


def fitted_to(config: TrainConfig, dataset: "Dataset") -> Fitted:
    """`fitted` to the training images of a data set and its task; `ConfigError` for choices that the task has not."""
    from prunit.train.choices import check_choices  # torch is there: it made the data set

    check_choices(config, dataset)
    task = dataset.task
    if task.name == "classification":
        return fitted(config, len(dataset.train))
    return fitted(config, len(dataset.train), classifies=False, task_lr=getattr(task, "lr", None))


def fitted(config: TrainConfig, images: int, *, classifies: bool = True, task_lr: float | None = None) -> Fitted:
    """The settings with numbers for what is None, by how many training images there are.

    Batches are of 128 images, or of 64 or 32 where an epoch would have fewer than 30 steps. A learning rate that is
    left open is then smaller by the root of that (Krizhevsky 2014); with a batch size that was given it is that of the
    schedule. Epochs are 30. Batches of 32 and 30 epochs were chosen at 1,000 images
    with `onecycle` (bench/small_data.py); where batches of 64 begin and what suits `step` has not been measured.

    AdamW's rate is 3e-3 whatever the batch and the task. The rule of the root (Malladi et al. 2022) from torch's
    default of 1e-3 was measured too low for batches of 32 and of 4, by 7 points of accuracy and 22 of mIoU: trainings
    of a few hundred steps end before they get there (digits and membranes, two seeds each).

    For another task than classification batches get as small as 4, so that an epoch has 20 steps, epochs are 60, and
    SGD's rate follows every batch size by its root. `task_lr` is the rate that suits the task's loss in batches of 16;
    without one it is that of the schedule for 128.

    What is a number already stays. Raises `ConfigError` where a number that was given does not go with those found.
    """
    if isinstance(config, Fitted):
        return config
    batch_size = config.batch_size or max(_batch_size(images, classifies), 2 * config.devices)
    return Fitted.model_validate(
        {
            **config.model_dump(),
            "epochs": config.epochs or (EPOCHS if classifies else EPOCHS_OF_OTHERS),
            "batch_size": batch_size,
            "lr": config.lr or _lr(config, batch_size, classifies, task_lr),
        }
    )


def _lr(config: TrainConfig, batch_size: int, classifies: bool, task_lr: float | None) -> float:
    """The highest learning rate."""
    if config.optimizer == "adamw":
        return _ADAMW_LR
    if task_lr is not None:
        return task_lr * math.sqrt(batch_size / _TASK_BATCH)
    lr = _SGD_LR[config.schedule]
    if classifies and config.batch_size is not None:
        return lr
    return lr * math.sqrt(batch_size / BATCH)


def _batch_size(images: int, classifies: bool) -> int:
    sizes, steps = ((BATCH, 64, 32), LEAST_STEPS) if classifies else ((BATCH, 64, 32, 16, 8, 4), LEAST_STEPS_OF_OTHERS)
    return next((size for size in sizes if images // size >= steps), sizes[-1])
