"""`train`: SGD over augmented images in memory, one record per epoch, resumable after every one of them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from prunit.batches import Dataset
from prunit.cut.surgery import copied
from prunit.errors import ConfigError
from prunit.train.accuracy import check_model
from prunit.train.checkpoint import Fingerprint, fingerprint, load, model_tensors, save
from prunit.train.config import Epoch, TrainConfig
from prunit.train.defaults import Fitted, fitted_to
from prunit.train.place import moved
from prunit.train.precision import precision_of
from prunit.train.processes import OnStep, in_processes
from prunit.train.run import Job, check_trainable, put_tensors, room_for, start
from prunit.train.sparse import KeptZero, Masks, zeroed


def train(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    *,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
    masks: Masks | None = None,
    first: int = 0,
    teacher: nn.Module | None = None,
) -> Iterator[Epoch]:
    """The record of each epoch, as it ends; `model` is trained in place while they are asked for.

    When they are exhausted (or the iterator is closed) the model is on the CPU, in evaluation mode and in contiguous
    format. With `checkpoint`, every epoch is saved in that file; one that exists is continued: its epochs' records come
    first, and on a CPU with the same number of threads the weights end the same to the last bit as without the
    interruption. `on_step` is told how many steps of how many are done.

    Weights with False in `masks` (by parameter name) are set to zero and stay so. The first `first` epochs are left
    out, as if they were over: the weights are those that they led to (rewinding, Frankle et al. 2020).

    With `config.distill` above 0 the model learns from a copy of `teacher`, too, a trained model of the same classes
    (Hinton et al. 2015): the loss is (1 - distill) x cross-entropy + distill x T^2 x KL(teacher || model), both at
    temperature T.
    """
    check_trainable(model, dataset, config)
    config = fitted_to(config, dataset)
    if not 0 <= first < config.epochs:
        raise ConfigError(f"a training of {config.epochs} epochs cannot begin after {first} of them")
    taught = _teacher(teacher, dataset, config)
    zeroed(model, masks or {})
    job = Job(model, dataset, config, checkpoint, masks or {}, first, taught)
    return _epochs_of_many(job, on_step) if config.devices > 1 else epochs_of(job, on_step)


def epochs_of(job: Job, on_step: OnStep | None) -> Iterator[Epoch]:
    """The epochs of this process; among several processes, every one yields the same records."""
    model, config = job.model, job.config
    mark = _mark(job)
    state = load(job.checkpoint, mark) if job.checkpoint else None
    kept_zero = KeptZero(model, job.masks)
    try:
        with room_for(config):
            run = start(replace(job, precision=job.precision or precision_of(job, state)))
            history = list(state.history) if state else []
            if state:
                run.restore(state)
                if on_step:
                    on_step((job.first + len(history)) * run.steps, config.epochs * run.steps)
            yield from history
            for index in range(job.first + len(history), config.epochs):
                history.append(run.epoch(index, on_step))
                if job.checkpoint and run.fabric.is_global_zero:
                    save(job.checkpoint, run.state(history), mark)
                yield history[-1]
    finally:
        kept_zero.end()
        for parameter in model.parameters():
            parameter.grad = None
        moved(model, torch.device("cpu")).eval()


def _teacher(teacher: nn.Module | None, dataset: Dataset, config: Fitted) -> nn.Module | None:
    """A copy of the teacher where one is wanted; ConfigError where it is missing, ModelError where it does not fit."""
    if not config.distill:
        return None
    if teacher is None:
        raise ConfigError(
            f"training setting 'distill' = {config.distill:g} needs a teacher: give train(teacher=) a trained model, "
            f"or set it to 0"
        )
    check_model(teacher, dataset)
    return copied(teacher)


def _mark(job: Job) -> Fingerprint:
    return fingerprint(job.model, job.dataset, job.config, masks=job.masks, first=job.first, teacher=job.teacher)


def _epochs_of_many(job: Job, on_step: OnStep | None) -> Iterator[Epoch]:
    """The epochs of one process per device; the trained weights come back through the checkpoint."""
    mark = _mark(job)
    with TemporaryDirectory(prefix="prunit-") as folder:
        path = job.checkpoint or Path(folder) / "training.safetensors"
        try:
            job.model.to("cpu")
            precision = precision_of(job, load(path, mark))  # here: all processes need the same
            work = replace(job, checkpoint=path, precision=precision)
            yield from in_processes(epochs_of, work, processes=job.config.devices, on_step=on_step)
            state = load(path, mark)
            if state:
                put_tensors(state.tensors, model_tensors(job.model), "model.")
        finally:
            moved(job.model, torch.device("cpu")).eval()
