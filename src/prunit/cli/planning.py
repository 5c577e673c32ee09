"""`prunit plan`: decide on a plan with or without data."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import torch

from prunit import zoo
from prunit.allocate import Budget
from prunit.batches import Batches, Dataset
from prunit.cli.checking import built_for
from prunit.cli.progress import Bars
from prunit.cut.surgery import check_runs, compact
from prunit.errors import UncoveredError
from prunit.graph import ChannelGraph, trace
from prunit.recipe import BuildConfig, Chosen, decide_here
from prunit.recipe.deciding import Clock
from prunit.recipe.fleets.goals import budgets_of
from prunit.recipe.fleets.planning import Planned as PlannedFleet
from prunit.recipe.fleets.planning import planned_for
from prunit.recipe.opening import for_task
from prunit.recipe.request import parts_of
from prunit.recipe.source import task_of
from prunit.train import device_named

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunit.recipe.spending import Spent


@dataclass(frozen=True)
class Planned:
    """The graph, the decision, and the seconds that trace, scores, allocation and a test cut took together; and what
    the plan takes on each part that was named."""

    graph: ChannelGraph
    chosen: Chosen
    seconds: float
    spent: "tuple[Spent, ...]" = ()


def decide_plan(
    config: BuildConfig, budget: Budget, dataset: Dataset | None, *, shape: tuple[str, int], measure: bool, bars: Bars
) -> Planned:
    """What is planned for a budget.

    Without a data set `shape` says what the model is built for: C×H×W and the number of classes. With `measure` plans
    of all roundings are timed, and the decision is what `build` would choose.
    """
    config = for_task(config, dataset.task if dataset else task_of(config.task))
    bars.tell(config.model, "check", 0, 0)
    model, batches = _model_and_batches(config, dataset, *shape)
    place = device_named(config.train.device)
    image_1CHW = batches[0][0][:1]
    model.to(place)
    example = image_1CHW.to(place)
    started = perf_counter()
    graph = trace(model, example, pin=config.prune.pin)
    bars.tell(config.model, "prune", 0, 0)
    parts = parts_of(config, [budget])
    blueprint = None
    if parts:
        from prunit.recipe.blueprint import Blueprint

        blueprint = Blueprint(model, graph, image_1CHW)
    with _assuming(dataset, shape):
        chosen = decide_here(
            model,
            graph,
            image_1CHW,
            batches.to(place),
            budget,
            config.prune,
            measure=measure or bool(config.prune.measure),
            every=measure,
            clock=Clock(config.probe.threads, config.probe.batch),
            on_round=lambda done, total: bars.tell(config.model, "prune", done, total),
            on_timed=lambda done, total: bars.tell(config.model, "measure", done, total),
            blueprint=blueprint,
        )
    check_runs(model, compact(model, graph, chosen.decision.plan), example)
    seconds = perf_counter() - started
    spent: tuple[Spent, ...] = ()
    if blueprint is not None:
        from prunit.recipe.spending import spent_on

        bars.tell(config.model, "measure", 0, 0)
        spent = tuple(spent_on(each, blueprint, chosen.decision.plan) for each in parts)
    return Planned(graph, chosen, seconds, spent)


def decide_fleet(config: BuildConfig, dataset: Dataset | None, *, shape: tuple[str, int], bars: Bars) -> PlannedFleet:
    """The plans for the fleet of a configuration, as `build` would make them; `shape` as for `decide_plan`."""
    config = for_task(config, dataset.task if dataset else task_of(config.task))
    bars.tell(config.model, "check", 0, 0)
    model, batches = _model_and_batches(config, dataset, *shape)
    place = device_named(config.train.device)
    model.to(place)
    example = batches[0][0][:1].to(place)
    graph = trace(model, example, pin=config.prune.pin)
    with _assuming(dataset, shape):
        planned = planned_for(
            *(model, graph, batches.to(place), budgets_of(config), config.prune),
            slack=config.fleet.slack,
            on_device=lambda name, told: None if told else bars.tell(name, "prune", 0, 0),
        )
    for decision in planned.decisions.values():
        check_runs(model, compact(model, graph, decision.plan), example)
    return planned


@contextmanager
def _assuming(dataset: Dataset | None, shape: tuple[str, int]) -> Generator[None, None, None]:
    """A profile that lacks layers may be of other images than those that are assumed where no data is given: say so."""
    try:
        yield
    except UncoveredError as error:
        if dataset is not None:
            raise
        size, classes = shape
        raise UncoveredError(
            f"without --data images of {size} and {classes} classes are assumed (--input, --classes; or name the data),"
            f" and for these {error}"
        ) from error


def model_and_image(name: str, shape: str, classes: int, seed: int = 0) -> "tuple[nn.Module, Tensor]":
    """The untrained model for images of this shape (C×H×W), and one of them, black."""
    channels, size = built_for(name, shape, classes)
    model = zoo.load(name, num_classes=classes, in_channels=channels, image_size=size, seed=seed)
    return model, torch.zeros(1, channels, size, size)


def _model_and_batches(
    config: BuildConfig, dataset: Dataset | None, shape: str, classes: int
) -> tuple["nn.Module", Batches]:
    if dataset is None:
        model, image_1CHW = model_and_image(config.model, shape, classes, config.seed)
        return model, Batches([(image_1CHW, torch.empty(0, dtype=torch.int64))], task_of(config.task))
    batches = dataset.scoring_batches(per_class=config.prune.per_class, batch_size=256, seed=config.prune.seed)
    model = zoo.load(
        config.model,
        num_classes=len(dataset.classes),
        in_channels=dataset.channels,
        image_size=dataset.image_size,
        seed=config.seed,
    )
    return model, batches
