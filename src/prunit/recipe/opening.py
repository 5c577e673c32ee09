"""How every build begins: the data read, the model made and traced, before a folder is touched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from prunit.batches import Dataset
from prunit.graph import ChannelGraph, trace
from prunit.recipe.config import BuildConfig, validated
from prunit.recipe.folder import check_folder, is_started
from prunit.recipe.progress import OnStep, Progress
from prunit.recipe.source import ModelLike, Source, example_of, loaded, settings_of_build
from prunit.tasks import Task


@dataclass(frozen=True)
class Opening:
    """What is known when a build begins."""

    dataset: Dataset
    progress: Progress
    source: Source
    dense: nn.Module
    graph: ChannelGraph
    settings: Mapping[str, Any]
    """What the folder says of the build, by which a resumed one is told to be the same."""
    goes_on: bool
    """The folder holds the beginning of this build: what it needs was checked then."""


def configured(model: ModelLike, config: BuildConfig | Mapping[str, Any] | None) -> BuildConfig:
    """The configuration, which names the model if that is a name."""
    config = config if isinstance(config, BuildConfig) else validated(config or {})
    return config.model_copy(update={"model": model}) if isinstance(model, str) else config


def for_task(config: BuildConfig, task: Task) -> BuildConfig:
    """The configuration with what `auto` means for a task: residual streams shrink like other layers, but for classes.

    Of a classifier nearly all layers lie beside its streams. A detector has a pyramid and heads too, which then have to
    give all that its streams keep: on BCCD's val, at half the macs, `fcos-tiny` had 48.8 % mAP with whole streams and
    two channels in a head, and 53.6 % with all of them cut alike (the same trained start, one seed; dense 55.3 %).
    """
    if task.name == "classification" or config.prune.residual != "auto":
        return config
    return config.model_copy(update={"prune": config.prune.model_copy(update={"residual": "prune"})})


def opened(
    config: BuildConfig,
    model: ModelLike,
    data: str | Dataset,
    out: Path,
    *,
    resume: bool,
    on_step: OnStep | None,
    pin: Sequence[str] = (),
) -> Opening:
    """Data and model, read and checked; raises what is wrong with them or with the folder, which stays as it is."""
    check_folder(out, resume=resume)
    dataset = loaded(data, config)
    progress = Progress(on_step)
    if dataset.told:
        progress("all", "plan", 0, 0, dataset.told)
    progress("dense", "check", 0, 0)
    source = Source.of(model, dataset, seed=config.seed, start=config.start)
    dense = source.make()
    from prunit.train.accuracy import check_model

    check_model(dense, dataset)
    graph = trace(dense, example_of(dataset), pin=pin)
    settings = settings_of_build(config, source, dense, dataset)
    return Opening(dataset, progress, source, dense, graph, settings, goes_on=resume and is_started(out))
