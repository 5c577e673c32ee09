"""How long a training's steps take here: measured on copies of several models that take turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import torch
from torch import nn

from prunit.batches import Dataset
from prunit.surgery import copied
from prunit.train.accuracy import BATCH, correct_of
from prunit.train.config import TrainConfig
from prunit.train.defaults import fitted_to
from prunit.train.place import check_place, seeded
from prunit.train.run import Job, Run, check_trainable, room_for, start

_LEAST: Final = 3
_MOST: Final = 15
"""Rounds; medians of more are hardly steadier."""
_LR: Final = 1e-6
"""So low that weights stay where they are: numbers that have become denormal take longer."""


def step_seconds(
    models: Mapping[str, nn.Module], dataset: Dataset, config: TrainConfig, *, seconds: float = 2.0
) -> dict[str, float]:
    """Seconds that one training step of each model takes, as `train` makes it here with these settings.

    Device, precision, memory format, optimiser, batch size and augmentation are those of `config`; of several
    `devices` one is timed, with its share of the batch. After a step each that does not count the models take turns,
    for 3 to 15 rounds, as many as fit into about `seconds` for each model; of their times the median is given. It all
    happens on copies: the models, their modes and the random state stay as they were. Raises what `train` raises.
    """
    if not models:
        return {}
    config = fitted_to(config, dataset)
    alone = config.model_copy(update={"devices": 1, "batch_size": config.batch_size // config.devices})
    for model in models.values():
        check_trainable(model, dataset, alone)
    with room_for(alone), seeded(config.seed, 0, 0, check_place(alone)):
        first, *others = (start(Job(copied(model), dataset, alone, None)) for model in models.values())
        # One copy of the images serves all.
        runs = [first, *(replace(run, feed=first.feed, test=first.test) for run in others)]
        draws = first.feed.draws(seed=config.seed, epoch=0)

        def stepped(run: Run, turn: int) -> object:
            run.wrapped.train()
            return run.step(draws.part(run.share(turn % run.steps)), _LR)

        return _in_turns({name: _on(run, stepped) for name, run in zip(models, runs, strict=True)}, seconds)


def evaluation_seconds(
    models: Mapping[str, nn.Module], dataset: Dataset, config: TrainConfig, *, seconds: float = 1.0
) -> dict[str, float]:
    """Seconds that each model takes for all test images after an epoch of `train`: of one batch, times their number.

    Of several `devices` each takes its share of the images. The rest is as in `step_seconds`.
    """
    if not models:
        return {}
    config = fitted_to(config, dataset)
    alone = config.model_copy(update={"devices": 1, "batch_size": config.batch_size // config.devices})
    for model in models.values():
        check_trainable(model, dataset, alone)
    images = min(BATCH, len(dataset.test))
    few = replace(
        dataset, test=replace(dataset.test, x_BCHW=dataset.test.x_BCHW[:images], y_B=dataset.test.y_B[:images])
    )
    with room_for(alone), seeded(config.seed, 0, 0, check_place(alone)):
        runs = {name: start(Job(copied(model), few, alone, None)) for name, model in models.items()}

        def evaluated(run: Run, _: int) -> object:
            return correct_of(run.model, few, run.test)

        found = _in_turns({name: _on(run, evaluated) for name, run in runs.items()}, seconds)
    return {name: value * len(dataset.test) / images / config.devices for name, value in found.items()}


def _on(run: Run, work: Callable[[Run, int], object]) -> Callable[[int], float]:
    """The seconds of `work` on its device in turn number so and so."""

    def timed(turn: int) -> float:
        _finished(run.fabric.device)
        started = time.perf_counter()
        work(run, turn)
        _finished(run.fabric.device)
        return time.perf_counter() - started

    return timed


def _in_turns(runs: Mapping[str, Callable[[int], float]], seconds: float) -> dict[str, float]:
    """The median of what each gives, over as many rounds as there is time for."""
    for run in runs.values():
        run(0)
    times: dict[str, list[float]] = {name: [] for name in runs}
    spent, round_s = 0.0, 0.0
    for turn in range(1, _MOST + 1):
        if turn > _LEAST and spent + round_s > seconds * len(runs):
            break
        for name, run in runs.items():
            times[name].append(run(turn))
        round_s = sum(own[-1] for own in times.values())
        spent += round_s
    return {name: statistics.median(own) for name, own in times.items()}


def _finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
