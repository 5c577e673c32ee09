"""`fitted`: a training's settings with every number in them, the open ones taken from the data set. No torch."""

import math
from typing import TYPE_CHECKING, Final, Self

from pydantic import Field

from prunit.train.config import ONECYCLE_WARMUP, TrainConfig

if TYPE_CHECKING:
    from prunit.batches import Dataset

EPOCHS: Final = 30
BATCH: Final = 128
"""Images per step where there are many."""
LEAST_STEPS: Final = 30
"""Of an epoch, as far as batches of a quarter of `BATCH` allow it."""


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
        return {"step": 0.0, "onecycle": ONECYCLE_WARMUP * self.epochs}[self.schedule]

    def on_one_device(self) -> Self:
        """The same for one device, with its share of the batch."""
        return self.model_copy(update={"devices": 1, "batch_size": self.batch_size // self.devices})


def fitted_to(config: TrainConfig, dataset: "Dataset") -> Fitted:
    """`fitted` to the training images of a data set."""
    return fitted(config, len(dataset.train))


def fitted(config: TrainConfig, images: int) -> Fitted:
    """The settings with numbers for what is None, by how many training images there are.

    Batches are of 128 images, or of 64 or 32 where an epoch would have fewer than 30 steps. A learning rate that is
    left open is then smaller by the root of that (Krizhevsky 2014); with a batch size that was given it is that of the
    schedule. Epochs are 30. Batches of 32 and 30 epochs were chosen at 1,000 images
    with `onecycle` (bench/small_data.py); where batches of 64 begin and what suits `step` has not been measured.

    What is a number already stays. Raises `ConfigError` where a number that was given does not go with those found.
    """
    if isinstance(config, Fitted):
        return config
    batch_size = config.batch_size or max(_batch_size(images), 2 * config.devices)
    lr = config.lr or {"step": 0.1, "onecycle": 0.2}[config.schedule]
    if config.lr is None and config.batch_size is None:
        lr *= math.sqrt(batch_size / BATCH)
    return Fitted.model_validate(
        {**config.model_dump(), "epochs": config.epochs or EPOCHS, "batch_size": batch_size, "lr": lr}
    )


def _batch_size(images: int) -> int:
    return next((size for size in (BATCH, BATCH // 2) if images // size >= LEAST_STEPS), BATCH // 4)
