"""What goes into a training and what comes out of it: `TrainConfig` and `Epoch`. Loads no torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from prunit.errors import ConfigError, PrunitError, unknown
from prunit.shown import Shown

Schedule = Literal["onecycle", "step", "cosine"]
Optimizer = Literal["sgd", "adamw"]
Flip = Literal["auto"] | bool
Balance = Literal["none", "weights", "sampler"]
Chosen = Literal["32-true", "16-mixed", "bf16-mixed"]
"""What `auto` comes to."""
Precision = Literal["auto"] | Chosen

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

WARMUP: Final[Mapping[Schedule, float]] = {"onecycle": 0.2, "step": 0.0, "cosine": 0.05}
"""Share of the epochs in which the rate grows; 5 of 120 with the cosine of He et al. 2019."""
_DECAY: Final[Mapping[Schedule, float]] = {"onecycle": 5e-4, "step": 1e-4, "cosine": 5e-4}
"""Of SGD; of the cosine as in its paper."""
_ADAMW_DECAY: Final = 0.05
"""As in DeiT (Touvron et al. 2021), Swin (Liu et al. 2021) and ConvNeXt (Liu et al. 2022)."""
_SMOOTHING: Final[Mapping[Schedule, float]] = {"onecycle": 0.1, "step": 0.0, "cosine": 0.1}
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
    last epoch in float32, else to watch the training, in its own precision. On the test images, or where `watched` says
    so on the data set's other ones, so that nothing is chosen by the test images."""
    lr: float
    """Learning rate of the epoch's last step."""
    seconds: float
    """Wall-clock time of training and test; what the first run took, where the epoch was read from a checkpoint."""
    watched: bool = False
    """Whether `test_accuracy` is of the images that a data set has to be watched by, besides its test images."""


MOST_EVALUATIONS: Final = 50
"""In a training: enough for a curve, and a small share of the time."""


def is_evaluated(index: int, epochs: int) -> bool:
    """Whether epoch `index` (from 1) of so many has a test accuracy: evenly spread ones do, and the last."""
    most = min(epochs, MOST_EVALUATIONS)
    return index * most // epochs > (index - 1) * most // epochs


def final_accuracy(epochs: Sequence[Epoch]) -> float:
    """The accuracy (the main metric) after the last of a training's epochs, which always has one."""
    accuracy = epochs[-1].test_accuracy
    assert accuracy is not None
    return accuracy


class TrainConfig(Shown, BaseModel, frozen=True):
    """Settings of a training. `None` means: what the schedule's recipe says, or what suits the data set (`fitted`).

    `step` is the papers' recipe (DNNShifter, after OpenLTH: 160 epochs of SGD, lr 0.1, x0.1 at 80 and 120, decay
    1e-4); `onecycle` is the short modern one (lr up and down once, Smith 2018; Nesterov momentum, label smoothing, no
    decay of norms and biases); `cosine` (Loshchilov & Hutter 2017, without restarts) is the common one for long
    trainings, otherwise as `onecycle`. What is off by default costs nothing.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    epochs: int | None = Field(default=None, ge=1)
    """Passes over the training images; None: 30, of another task than classification 60."""
    batch_size: int | None = Field(default=None, ge=2)
    """Images per step, over all devices together, an epoch's odd rest left out; None: 32 to 128 by the data set, 4 to
    128 for another task than classification."""
    optimizer: Optimizer = "sgd"
    """`sgd`, with momentum, or `adamw` (Loshchilov & Hutter 2019; no decay of norms and biases)."""
    lr: Positive | None = None
    """Highest learning rate; None: 0.1 for `step` and `cosine`, 0.2 for `onecycle`, or the task's own, less with
    smaller batches by the data set; 3e-3 for AdamW."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD, Nesterov's in `onecycle` and `cosine`; the first beta of AdamW, the second is 0.999."""
    weight_decay: NotNegative | None = None
    """L2 decay; None: 1e-4 for `step` (all parameters), 5e-4 for the others (not on norms and biases); 0.05 for
    AdamW."""
    schedule: Schedule = "onecycle"
    """`onecycle`: linear up, then linear down to 0. `step`: x0.1 at 50 % and at 75 % of the epochs. `cosine`: linear
    up, then down to 0 along half a cosine."""
    warmup_epochs: NotNegative | None = None
    """Epochs of linear growth at the start; None: 20 % of the epochs for `onecycle`, 5 % for `cosine`, 0 for `step`."""
    clip: NotNegative = 0.0
    """Longest norm of the gradient of all parameters together, longer ones are shortened to it; 0: any."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay per step of a moving average of the weights, 0.999 for example: the average is what is evaluated and
    delivered; 0: none (see `train.averaging`)."""
    label_smoothing: float | None = Field(default=None, ge=0, lt=1)
    """Share of the target spread over all classes; None: 0 for `step`, 0.1 for the others."""
    balance: Balance = "none"
    """`weights`: the loss of rare classes weighs more, by the inverse of how often they come. `sampler`: images of
    rare classes are drawn more often, so that all come equally often."""
    distill: float = Field(default=0.0, ge=0, le=1)
    """Weight of a teacher's soft targets in the loss (Hinton et al. 2015), the rest is the classes' own; 0: none."""
    temperature: Positive = 4.0
    """By which the scores of teacher and model are divided before their probabilities are compared."""
    augment: bool = True
    """Random crops after padding by an eighth of the size, and mirroring as `flip` says; false: no crops, and where
    `flip` is auto no mirroring."""
    flip: Flip = "auto"
    """Half of the images are mirrored left to right, in each epoch others; auto: where the data set allows it."""
    jitter: float = Field(default=0.0, ge=0, le=1)
    """Brightness, contrast and saturation of each image are multiplied by factors from 1 - jitter to 1 + jitter;
    0.4 is usual; 0: not."""
    mixup: NotNegative = 0.0
    """Alpha of mixup (Zhang et al. 2018), of classifiers: images of a batch are blended in pairs, by a share drawn from
    Beta(alpha, alpha). 0.2 is usual; 0: not."""
    cutmix: NotNegative = 0.0
    """Alpha of CutMix (Yun et al. 2019), of classifiers: a box of another image, of a share drawn from Beta(alpha,
    alpha). 1 is usual; 0: not. With mixup too, each batch gets one of the two, by chance."""
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
    """Of order, crops and all other augmentation, and of the model's own randomness (dropout)."""

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
        if self.weight_decay is not None:
            return self.weight_decay
        return _ADAMW_DECAY if self.optimizer == "adamw" else _DECAY[self.schedule]

    @property
    def smoothing(self) -> float:
        return self.label_smoothing if self.label_smoothing is not None else _SMOOTHING[self.schedule]

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
    "write train.optimizer=sgd or adamw": ("optimiser", "optim", "opt", "adam", "adamw", "sgd", "rmsprop"),
    "write train.momentum (Nesterov's with SGD, the first beta of AdamW)": ("nesterov", "betas", "beta1", "beta"),
    "write train.lr": ("learningrate", "lr0", "maxlr", "baselr", "initiallr", "steplr", "stepsize", "eta"),
    "write train.weight_decay": ("wd", "decay", "l2", "regularization", "regularisation"),
    "write train.batch_size, or probe.batch for what is measured": ("bs", "batch", "minibatch", "batches"),
    "write train.schedule=onecycle, step or cosine": (
        *("scheduler", "lrschedule", "lrscheduler", "policy", "cosine", "coslr", "sched"),
    ),
    "write train.clip": ("gradclip", "clipgrad", "clipnorm", "gradclipnorm", "gradientclipval", "maxgradnorm"),
    "write train.ema": ("emadecay", "modelema", "modelemadecay", "averaging", "polyak"),
    "write train.mixup": ("mixupalpha",),
    "write train.cutmix": ("cutmixalpha",),
    "write train.jitter": ("colorjitter", "colourjitter", "brightness", "contrast", "saturation", "hsvs", "hsvv"),
    "write train.flip=true or false": ("fliplr", "hflip", "horizontalflip", "mirror"),
    "write train.balance=weights or sampler": (
        *("classweights", "classweight", "balanced", "sampler", "weightedsampler", "oversample"),
    ),
    "write train.epochs": ("iterations", "steps", "maxepochs", "nepochs", "numepochs", "trainepochs"),
    "write train.precision=16-mixed, bf16-mixed or 32-true": ("amp", "fp16", "bf16", "half", "dtype", "mixed"),
    "write train.device=cuda, and train.devices for how many": ("gpu", "gpus", "cuda", "accelerator", "ngpus"),
    "write train.augment=true or false": ("augmentation", "augmentations", "transforms", "crop", "aug"),
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
