"""The live parts of a training in one process: a step, an epoch, and the state between two epochs.

A step asks the device for nothing: loss and hits are summed there and read once per epoch.
"""

import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from prunit.batches import Batch, Dataset, Split
from prunit.edge.tasks import Evidence
from prunit.errors import DataError, DeviceError, MissingExtraError, ModelError, TrainingError
from prunit.tasks import Task
from prunit.train.accuracy import check_model, check_split, evidence_of, main_metric
from prunit.train.augment import Feed, feed
from prunit.train.averaging import LIVE, Average
from prunit.train.balancing import class_weights
from prunit.train.checkpoint import State, model_tensors
from prunit.train.config import Chosen, Epoch, TrainConfig, is_evaluated
from prunit.train.defaults import Fitted
from prunit.train.layout import layout_for
from prunit.train.mixing import Mix, dominant, mixed, mixed_loss, mixes
from prunit.train.optimizers import optimizer_for, put_state, state_of
from prunit.train.place import check_place, fabric_for, moved, seeded
from prunit.train.processes import OnStep
from prunit.train.schedule import lr_at
from prunit.train.sparse import Masks

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, eq=False)
class Job:
    """What one process needs to train."""

    model: nn.Module
    dataset: Dataset
    config: Fitted
    checkpoint: Path | None
    masks: Masks = field(default_factory=dict)
    first: int = 0
    teacher: nn.Module | None = None
    """Whose answers the model learns, too; it is moved to the device, and in evaluation mode from then on."""
    precision: Chosen | None = None
    """What `auto` comes to."""


def check_trainable(model: nn.Module, dataset: Dataset, config: TrainConfig) -> None:
    """One of prunit's errors unless the model can be trained on these images where and as `config` says."""
    for part in dataset.parts:
        check_split(dataset, part)
    if len(dataset.train) < 2 * config.devices:
        raise DataError(
            f"data set '{dataset.name}' has {len(dataset.train)} training images; "
            f"training on {config.devices} device{'s' * (config.devices > 1)} needs {2 * config.devices} or more"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError("the model has no parameters to train: none has requires_grad")
    check_model(model, dataset)
    check_place(config)


@contextmanager
def room_for(config: Fitted) -> Iterator[None]:
    """Inside, a device that runs out of memory is a `DeviceError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"the device has too little memory for batches of {config.batch_size} images: lower 'batch_size'"
        ) from error


@dataclass(frozen=True, eq=False)
class Run:
    """The live parts of a training in this process."""

    fabric: "Fabric"
    precision: Chosen
    model: nn.Module
    """The plain model, on its device."""
    wrapped: nn.Module
    """The same under Fabric: mixed precision, gradients averaged over processes."""
    optimizer: torch.optim.Optimizer
    feed: Feed
    test: Split
    """This process's share of the images by which the training is watched."""
    job: Job
    batch_size: int
    """Images per step, over all processes."""
    steps: int
    """Per epoch."""
    average: Average | None = None
    """Of the weights, where one is asked for: between epochs the model holds it."""
    weights_K: Tensor | None = None
    """Of classes in the loss, where it is balanced by them."""

    def epoch(self, index: int, on_step: OnStep | None) -> Epoch:
        """The record of epoch `index` (from 0), after training it."""
        config, started = self.job.config, time.perf_counter()
        draws = self.feed.draws(seed=config.seed, epoch=index)
        ways = mixes(config, self.steps, epoch=index)
        if self.average:
            self.average.swap()
        sums_2 = torch.zeros(2, dtype=torch.float64, device=self.fabric.device)  # loss, hits
        self.wrapped.train()
        lr = 0.0
        batches = self.feed.batches([draws.part(self.share(step)) for step in range(self.steps)])
        with closing(batches), seeded(config.seed, index, self.fabric.global_rank, self.fabric.device):
            for step, (batch, mix) in enumerate(zip(batches, ways, strict=True)):
                done = index * self.steps + step
                lr = lr_at(config, done, self.steps)
                sums_2 += self.step(batch, lr, mix)
                if self.average:
                    self.average.update(done + 1 - self.job.first * self.steps)
                if on_step:
                    on_step(done + 1, config.epochs * self.steps)
        loss, hits = self._over_processes(sums_2).tolist()
        self._check_finite(loss, index, lr)
        if self.average:
            self.average.swap()
        seen = self.steps * self.batch_size
        last = index + 1 == config.epochs
        tested = is_evaluated(index + 1, config.epochs)
        return Epoch(
            index=index + 1,
            epochs=config.epochs,
            loss=loss / seen,
            train_accuracy=hits / seen if math.isfinite(hits) else None,
            test_accuracy=self.tested(exactly=last) if tested else None,
            watched=self.job.dataset.watched is not None,
            lr=lr,
            seconds=time.perf_counter() - started,
        )

    def share(self, step: int) -> slice:
        first = step * self.batch_size
        return slice(first + self.fabric.global_rank, first + self.batch_size, self.fabric.world_size)

    def step(self, batch: Batch, lr: float, mix: Mix | None = None) -> Tensor:
        """Sum of the losses and number of hits (NaN where a task tells none) of one batch, after a step on it.

        A hit on a mixed image is its dominant class.
        """
        x_BCHW, y_B = batch
        if mix is not None:
            x_BCHW, mix = mixed(x_BCHW, mix)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        outputs = self.wrapped(x_BCHW)
        loss = mixed_loss(lambda targets: self._loss(outputs, targets), y_B, mix)
        if self.job.teacher is not None:
            loss = self._distilled(loss, outputs, self.job.teacher, x_BCHW)
        self.fabric.backward(loss)
        if self.job.config.clip:
            # Not an error here: it would wait for the device. What is not finite shows at the end of the epoch.
            self.fabric.clip_gradients(
                *(self.wrapped, self.optimizer), max_norm=self.job.config.clip, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        hits = self.job.dataset.task.hits(outputs, dominant(y_B, mix))
        return torch.stack([loss.detach() * len(y_B), hits if hits is not None else loss.detach() * float("nan")])

    def _loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """The task's loss; cross-entropy with weights of the classes, where it is balanced by them."""
        smoothing = self.job.config.smoothing
        if self.weights_K is not None:
            return cross_entropy(outputs, targets, weight=self.weights_K, label_smoothing=smoothing)
        return self.job.dataset.task.loss(outputs, targets, smoothing=smoothing)

    def _distilled(self, loss: Tensor, logits_BK: Tensor, teacher: nn.Module, x_BCHW: Tensor) -> Tensor:
        """The loss mixed with the divergence from a teacher's answers, times T squared as in Hinton et al. 2015."""
        weight, temperature = self.job.config.distill, self.job.config.temperature
        with torch.no_grad(), self.fabric.autocast():
            taught_BK = teacher(x_BCHW).float()
        divergence = kl_div(
            log_softmax(logits_BK / temperature, dim=1),
            log_softmax(taught_BK / temperature, dim=1),
            log_target=True,
            reduction="batchmean",
        )
        return (1 - weight) * loss + weight * temperature**2 * divergence

    def tested(self, *, exactly: bool) -> float:
        """The main metric on the watched images: in float32, or in the training's precision, which is faster."""
        parts = [self.evidence(exactly=exactly)]
        if self.fabric.world_size > 1:
            mine, parts = parts[0], parts * self.fabric.world_size
            torch.distributed.all_gather_object(parts, mine)
        return main_metric(self.job.dataset.task, np.concatenate(parts))

    def evidence(self, *, exactly: bool) -> Evidence:
        """What the task says of this process's share of the images that are watched."""
        if self.fabric.world_size > 1:  # running statistics differ: the first process's are the model's
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)
        # Not of the wrapped model: it would wait for other processes, which may have a batch less.
        with nullcontext() if exactly else self.fabric.autocast():
            return evidence_of(self.model, self.job.dataset, self.test)

    def _over_processes(self, sums: Tensor) -> Tensor:
        if self.fabric.world_size > 1:
            torch.distributed.all_reduce(sums)
        return sums

    def _check_finite(self, loss: float, index: int, lr: float) -> None:
        size = torch.nn.utils.get_total_norm(list(self.model.parameters()))
        if torch.isfinite(size) and abs(loss) < float("inf"):
            return
        config = self.job.config
        what = "weights are" if abs(loss) < float("inf") else "loss is"
        raise TrainingError(
            f"training diverged: the {what} no longer finite in epoch {index + 1} of {config.epochs} "
            f"(learning rate {lr:.3g}, highest {config.lr:g}): try train.lr={config.lr / 10:g}, "
            f"more train.warmup_epochs or train.precision=32-true"
            + ("" if _is_ours(self.job.dataset.task) else ", or mend the loss")
        )

    def state(self, history: list[Epoch]) -> State:
        """A copy of everything that the next epoch starts from."""
        tensors = {f"model.{name}": tensor for name, tensor in model_tensors(self.model).items()}
        tensors |= state_of(self.model, self.optimizer)
        if self.average:
            tensors |= {f"{LIVE}{name}": tensor for name, tensor in self.average.other.items()}
        copies = {
            name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        place = (self.fabric.device.type, self.precision)
        return State(copies, tuple(history), self.fabric.strategy.precision.state_dict(), place)

    def restore(self, state: State) -> None:
        """Go to where `state` was taken."""
        put_tensors(state.tensors, model_tensors(self.model), "model.")
        put_state(self.model, self.optimizer, state.tensors)
        if self.average:
            put_tensors(state.tensors, self.average.other, LIVE)
        if state.scaler:
            self.fabric.strategy.precision.load_state_dict(state.scaler)


def _is_ours(task: Task) -> bool:
    """Whether the loss is one of prunit's."""
    return type(task).__module__.startswith("prunit.")


def start(job: Job) -> Run:
    """The model on its device with all that a step takes; the model itself is moved there."""
    precision = job.precision if job.config.precision == "auto" else job.config.precision
    assert precision is not None
    try:
        fabric = fabric_for(job.config, precision)
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", error.name or "lightning-fabric", "train") from error
    config, dataset, world = job.config, job.dataset, fabric.world_size
    layout = layout_for(job.model, fabric.device, channels_last=config.channels_last)
    model = moved(job.model, fabric.device, layout)
    if job.teacher is not None:
        moved(job.teacher, fabric.device, layout).eval()
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer_for(model, config, precision))
    # One batch of all images if there are too few for a full one; equal shares for all processes.
    batch_size = min(config.batch_size, len(dataset.train)) // world * world
    test = dataset.watching.test
    return Run(
        fabric,
        precision,
        model,
        wrapped,
        wrapped_optimizer,
        feed(
            *(dataset, fabric.device),
            augment=config.augment,
            channels_last=layout == torch.channels_last,
            flip=config.flip,
            jitter=config.jitter,
            balanced=config.balance == "sampler",
        ),
        test.taken(slice(fabric.global_rank, None, world)).to(fabric.device),
        job,
        batch_size,
        steps=len(dataset.train) // batch_size,
        average=Average.of(model, config.ema) if config.ema else None,
        weights_K=_class_weights(dataset).to(fabric.device) if config.balance == "weights" else None,
    )


def _class_weights(dataset: Dataset) -> Tensor:
    return class_weights(dataset.train.y_B.cpu(), len(dataset.classes))


def put_tensors(values: dict[str, Tensor], into: dict[str, Tensor], prefix: str) -> None:
    """Set each tensor of `into`, in place, to the value whose name is `prefix` and its own."""
    with torch.no_grad():
        for name, tensor in into.items():
            tensor.copy_(values[prefix + name])
