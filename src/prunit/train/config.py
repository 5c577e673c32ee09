"""What goes into a training and what comes out of it: `TrainConfig` and `Epoch`. Loads no torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from prunit.errors import ConfigError, PrunitError, unknown
from prunit.shown import Shown

Schedule = Literal["onecycle", "step"]
Chosen = Literal["32-true", "16-mixed", "bf16-mixed"]
"""What `auto` comes to."""
Precision = Literal["auto"] | Chosen

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

ONECYCLE_WARMUP = 0.2  # share of the epochs
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class Epoch:
    """One finished epoch."""

    index: int
    """1 for the first."""
    epochs: int
    """How many there will be."""
    loss: float
    """Mean over the epoch's training images, label smoothing included."""
    train_accuracy: float | None
    """Top-1, 0 to 1, on the augmented images as they were trained on; None for another task than classification."""
    test_accuracy: float | None
    """Top-1, 0 to 1 (the task's main metric, for another one), after the epoch; None where it was not asked for. Of the
    last epoch in float32, else to watch the training, in its own precision."""
    lr: float
    """Learning rate of the epoch's last step."""
    seconds: float
    """Wall-clock time of training and test; what the first run took, where the epoch was read from a checkpoint."""


MOST_EVALUATIONS: Final = 50
"""In a training: enough for a curve, and a small share of the time."""


def is_evaluated(index: int, epochs: int) -> bool:
    """Whether epoch `index` (from 1) of so many has a test accuracy: evenly spread ones do, and the last."""
    most = min(epochs, MOST_EVALUATIONS)
    return index * most // epochs > (index - 1) * most // epochs


def final_accuracy(epochs: Sequence[Epoch]) -> float:
    """The test accuracy (the main metric) of the last of a training's epochs, which always has one."""
    accuracy = epochs[-1].test_accuracy
    assert accuracy is not None
    return accuracy


class TrainConfig(Shown, BaseModel, frozen=True):
    """Settings of a training. `None` means: what the schedule's recipe says, or what suits the data set (`fitted`).

    `step` is the papers' recipe (DNNShifter, after OpenLTH: 160 epochs of SGD, lr 0.1, x0.1 at 80 and 120, decay
    1e-4); `onecycle` is the short modern one (lr up and down once, Smith 2018; Nesterov momentum, label smoothing, no
    decay of norms and biases).
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    epochs: int | None = Field(default=None, ge=1)
    """Passes over the training images; None: 30."""
    batch_size: int | None = Field(default=None, ge=2)
    """Images per step, over all devices together, an epoch's odd rest left out; None: 32 to 128, by the data set."""
    lr: Positive | None = None
    """Highest learning rate; None: 0.1 for `step`, 0.2 for `onecycle`; less with smaller batches by the data set."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD; Nesterov's in `onecycle`."""
    weight_decay: NotNegative | None = None
    """L2 decay; None: 1e-4 for `step` (all parameters), 5e-4 for `onecycle` (not on norms and biases)."""
    schedule: Schedule = "onecycle"
    """`onecycle`: linear up, then linear down to 0. `step`: x0.1 at 50 % and at 75 % of the epochs."""
    warmup_epochs: NotNegative | None = None
    """Epochs of linear growth at the start; None: 0 for `step`, 20 % of the epochs for `onecycle`."""
    label_smoothing: float | None = Field(default=None, ge=0, lt=1)
    """Share of the target spread over all classes; None: 0 for `step`, 0.1 for `onecycle`."""
    distill: float = Field(default=0.0, ge=0, le=1)
    """Weight of a teacher's soft targets in the loss (Hinton et al. 2015), the rest is the classes' own; 0: none."""
    temperature: Positive = 4.0
    """By which the scores of teacher and model are divided before their probabilities are compared."""
    augment: bool = True
    """Random crops after padding by an eighth of the size, and mirroring where the data set allows it."""
    precision: Precision = "auto"
    """auto: bf16-mixed on CUDA devices that have it and on CPUs that do where a step is faster, 16-mixed on older CUDA
    devices with tensor cores, else 32-true."""
    channels_last: bool = True
    """Memory format of images and kernels; faster on CPU, too, for most convolutional networks. Networks with narrow
    strided 1x1 convolutions are trained without it on a CPU, where oneDNN damages memory (see `train.layout`)."""
    device: str = "auto"
    """auto (CUDA if there is one), cpu, cuda or cuda:N."""
    devices: int = Field(default=1, ge=1)
    """How many devices share each batch, one process each."""
    seed: int = 0
    """Of order, crops, flips and of the model's own randomness (dropout)."""

    @classmethod
    def quick(cls, epochs: int | None = None) -> Self:
        """The short modern schedule."""
        return cls(epochs=epochs, schedule="onecycle")

    @classmethod
    def full(cls, epochs: int = 160) -> Self:
        """The papers' recipe."""
        return cls(epochs=epochs, batch_size=128, schedule="step")

    @property
    def decay(self) -> float:
        return self.weight_decay if self.weight_decay is not None else {"step": 1e-4, "onecycle": 5e-4}[self.schedule]

    @property
    def smoothing(self) -> float:
        return (
            self.label_smoothing if self.label_smoothing is not None else {"step": 0.0, "onecycle": 0.1}[self.schedule]
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not _DEVICE.fullmatch(self.device):
            raise ConfigError(f"training setting 'device' = '{self.device}': use auto, cpu, cuda or cuda:N")
        if self.devices > 1 and ":" in self.device:
            raise ConfigError(
                f"training setting 'devices' = {self.devices}, but 'device' = '{self.device}' names one: use 'cuda'"
            )
        if self.batch_size is not None and self.batch_size < 2 * self.devices:
            raise ConfigError(
                f"training setting 'batch_size' = {self.batch_size} leaves {self.devices} devices fewer than 2 images "
                f"each (batch norm needs 2): use {2 * self.devices} or more"
            )
        if self.epochs is not None and self.warmup_epochs is not None and self.warmup_epochs >= self.epochs:
            raise ConfigError(
                f"training setting 'warmup_epochs' = {self.warmup_epochs:g} leaves nothing of 'epochs' = {self.epochs}"
            )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            if not isinstance(data, Mapping):  # another member of a union may still fit
                raise
            raise _one_line(error, cls.model_fields) from None


_MEANT: Final[Mapping[str, tuple[str, ...]]] = {
    "training is SGD with momentum; it has train.lr, train.momentum, train.weight_decay and train.schedule": (
        *("optimizer", "optimiser", "optim", "adam", "adamw", "sgd", "nesterov", "betas", "rmsprop"),
    ),
    "write train.lr": ("learningrate", "lr0", "maxlr", "baselr", "initiallr", "steplr", "stepsize", "eta"),
    "write train.weight_decay": ("wd", "decay", "l2", "regularization", "regularisation"),
    "write train.batch_size, or probe.batch for what is measured": ("bs", "batch", "minibatch", "batches"),
    "write train.schedule=onecycle or step": ("scheduler", "lrschedule", "lrscheduler", "policy", "cosine"),
    "write train.epochs": ("iterations", "steps", "maxepochs", "nepochs", "numepochs", "trainepochs"),
    "write train.precision=16-mixed, bf16-mixed or 32-true": ("amp", "fp16", "bf16", "half", "dtype", "mixed"),
    "write train.device=cuda, and train.devices for how many": ("gpu", "gpus", "cuda", "accelerator", "ngpus"),
    "write train.augment=true or false": ("augmentation", "augmentations", "transforms", "flip", "crop", "aug"),
    "write train.label_smoothing": ("smoothing", "labelsmooth"),
    "write train.warmup_epochs": ("warmup", "warmupsteps"),
    "write budgets, for example budgets=params=1/4 (--budget params=1/4)": (
        *("budget", "sparsity", "ratio", "pruningratio", "amount", "target", "density", "compression", "keep"),
        *("params", "macs", "flops", "ram", "latency", "memory"),
    ),
    "write prune.recipe, and prune.score for what ranks channels": (
        *("method", "algorithm", "strategy", "pruner", "importance", "criterion", "metric"),
    ),
    "write prune.min_width or prune.min_share": ("minchannels", "minimum", "min", "floor"),
    "write prune.round_to": ("multiple", "multipleof", "divisor", "channeldivisor", "align", "round"),
    "write prune.pin": ("ignore", "ignoredlayers", "skip", "exclude", "freeze", "keeplayers"),
    "write data": ("dataset", "datadir", "datapath"),
    "write image_size": ("imgsz", "imgsize", "resolution", "inputsize", "size", "resize"),
    "write model": ("arch", "architecture", "network", "net", "backbone"),
}
"""What others call these settings, without dashes and underscores, and what to write instead."""


def meaning(name: str) -> str:
    """What to write instead of a setting's name that other tools have, '' for one that none is known to have."""
    said = re.sub(r"[\s_-]", "", name.lower())
    return next((text for text, names in _MEANT.items() if said in names), "")


def _one_line(error: ValidationError, known: Mapping[str, object]) -> PrunitError:
    """The first problem that pydantic found, as one of prunit's own errors."""
    first = error.errors()[0]
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return unknown("training setting", key, known, meant=meaning(key))
    reason = first["msg"][0].lower() + first["msg"][1:]
    return ConfigError(f"training setting '{key}' = {first['input']!r}: {reason}")
