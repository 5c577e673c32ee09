"""How long a training's steps take here: measured on copies of several models that take turns."""

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from prunit.batches import Dataset
from prunit.cut.surgery import copied
from prunit.train.accuracy import BATCH
from prunit.train.augment import Feed
from prunit.train.config import TrainConfig
from prunit.train.defaults import Fitted, fitted_to
from prunit.train.place import check_place, seeded
from prunit.train.precision import resolved_precision
from prunit.train.run import Job, Run, check_trainable, room_for, start
from prunit.train.turns import on_device, times_in_turns, times_of_steps


def step_seconds(
    models: Mapping[str, nn.Module], dataset: Dataset, config: TrainConfig, *, seconds: float = 2.0
) -> dict[str, float]:
    """Seconds that one training step of each model takes, as `train` makes it here with these settings.

    Device, precision, memory format, optimiser, batch size and augmentation are those of `config`; of several
    `devices` one is timed, with its share of the batch. After a step each that does not count the models take turns,
    for 3 to 15 rounds, as many as fit into about `seconds` for each model; of their times the median is given. It all
    happens on copies: the models, their modes and the random state stay as they were. What a teacher, mixed images and
    an average of the weights add to a step is not timed. Raises what `train` raises.
    """
    if not models:
        return {}
    alone = fitted_to(config, dataset).on_one_device()
    for model in models.values():
        check_trainable(model, dataset, alone)
    with room_for(alone), seeded(config.seed, 0, 0, check_place(alone)):
        first, *others = (_started(model, dataset, alone) for model in models.values())
        # One copy of the images serves all.
        runs = [first, *(replace(run, feed=_same_images(first, run), test=first.test) for run in others)]
        return dict(zip(models, times_of_steps(runs, seconds=seconds), strict=True))


def evaluation_seconds(
    models: Mapping[str, nn.Module], dataset: Dataset, config: TrainConfig, *, seconds: float = 1.0
) -> dict[str, float]:
    """Seconds that each model takes for all images that `train` looks at after an epoch: of a batch, times so many.

    Of several `devices` each takes its share of the images. The rest is as in `step_seconds`.
    """
    if not models:
        return {}
    alone = fitted_to(config, dataset).on_one_device()
    for model in models.values():
        check_trainable(model, dataset, alone)
    dataset = dataset.watching
    images = min(BATCH, len(dataset.test))
    few = replace(dataset, test=dataset.test.taken(slice(images)))
    with room_for(alone), seeded(config.seed, 0, 0, check_place(alone)):
        runs = {name: _started(model, few, alone) for name, model in models.items()}
        found = times_in_turns({name: on_device(run, _evaluated) for name, run in runs.items()}, seconds)
    return {name: value * len(dataset.test) / images / config.devices for name, value in found.items()}


def _same_images(first: Run, run: Run) -> Feed:
    """The images of the first run, laid out as the other's model takes them."""
    return replace(first.feed, channels_last=run.feed.channels_last)


def _started(model: nn.Module, dataset: Dataset, config: Fitted) -> Run:
    precision = resolved_precision(model, dataset, config)
    return start(Job(copied(model), dataset, config, None, precision=precision))


def _evaluated(run: Run, _: int) -> object:
    return run.evidence(exactly=False)
