"""`fitted`: a training's settings with every number in them, the open ones taken from the data set. No torch."""

from typing import TYPE_CHECKING, Self

from pydantic import Field

from prunit.train.config import ONECYCLE_WARMUP, TrainConfig

if TYPE_CHECKING:
    from prunit.batches import Dataset


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
    return fitted(config, len(dataset.train), len(dataset.classes))


def fitted(config: TrainConfig, images: int, classes: int) -> Fitted:
    """The settings with numbers for what is None, by how many training images there are of how many classes.

    What is a number already stays. Raises `ConfigError` where a number that was given does not go with those found.
    """
    if isinstance(config, Fitted):
        return config
    del images, classes
    batch_size = config.batch_size or max(128, 2 * config.devices)
    lr = config.lr or {"step": 0.1, "onecycle": 0.2}[config.schedule]
    return Fitted.model_validate(
        {**config.model_dump(), "epochs": config.epochs or 30, "batch_size": batch_size, "lr": lr}
    )
