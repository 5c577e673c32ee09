"""The pace of a build: training steps timed where its rule or its time asks for them, and what follows for variants."""

from collections.abc import Mapping
from time import perf_counter
from typing import Final

from torch import nn

from prunit.batches import Dataset
from prunit.cut.plans import Plan
from prunit.cut.surgery import compact
from prunit.errors import ConfigError
from prunit.prices.costs import cost_of
from prunit.recipe.config import BuildConfig
from prunit.recipe.effort import EXPORT_S, Effort, Pacer, ratios, written_s
from prunit.recipe.work import DENSE, Work
from prunit.train import Fitted, evaluation_seconds, step_seconds
from prunit.units import seconds_of

_STEPS_S: Final = 1.5
"""How long the steps of each model are timed, about."""


def pacer_of(work: Work, plans: Mapping[str, Plan], *, began: float, export_s: float = 0.0) -> Pacer:
    """Epochs for every variant by the build's rule or within its time; what a resumed build has said before holds.

    `began` is when the build did, by `perf_counter`; `export_s` what an export of the dense model took.
    """
    effort = work.config.effort
    file = work.state_file("effort.json")
    return Pacer(
        file,
        Pacer.kept(file) or _found(work, plans),
        dense=work.settings.epochs,
        limit_s=None if effort.time is None else seconds_of(effort.time),
        probe_s=2 * work.config.probe.seconds,
        started=began,
        export_s=max(export_s, EXPORT_S),
    )


def _found(work: Work, plans: Mapping[str, Plan]) -> Effort:
    effort, macs = work.config.effort, {name: cost_of(work.graph, plan).macs for name, plan in plans.items()}
    trained = [name for name in plans if name != DENSE or not work.start.kept]
    if (epochs := work.config.start.epochs) is not None:
        own = epochs / work.settings.epochs
        return Effort({name: 1.0 if name == DENSE else own for name in trained})
    rule = effort.rule if len(plans) > 1 else "equal-epochs"  # alone the dense model has nothing to be equal to
    if effort.time is None and rule != "equal-time":
        return Effort({name: ratio for name, ratio in ratios(rule, macs, {}).items() if name in trained})
    work.progress("all", "pace", 0, 0)
    dense = work.source.make()
    # The dense model is timed even where it is not trained: equal time is its time.
    models = {name: dense if name == DENSE else compact(dense, work.graph, plan) for name, plan in plans.items()}
    step_s = step_seconds(models, work.dataset, work.settings, seconds=_STEPS_S)
    test_s = evaluation_seconds(models, work.dataset, work.settings, seconds=_STEPS_S / 3)
    steps = _steps(work.dataset, work.settings)
    by_rule = ratios(rule, macs, step_s)
    return Effort(
        {name: by_rule[name] for name in trained}, {name: steps * step_s[name] + test_s[name] for name in trained}
    )


def check_time(
    config: BuildConfig, dense: nn.Module, dataset: Dataset, settings: Fitted, *, began: float, export_s: float
) -> None:
    """Raise `ConfigError` if the build's time is too short for one epoch of the dense model and all else."""
    if config.effort.time is None:
        return
    step_s = step_seconds({DENSE: dense}, dataset, settings, seconds=_STEPS_S)[DENSE]
    epoch_s, limit_s = _steps(dataset, settings) * step_s, seconds_of(config.effort.time)
    rest_s = perf_counter() - began + 2 * config.probe.seconds + max(export_s, EXPORT_S) * (1 + len(config.budgets))
    if epoch_s + rest_s > limit_s:
        raise ConfigError(
            f"effort.time={config.effort.time} is too short: one epoch of the dense model takes {written_s(epoch_s)}"
            f" here, planning, exporting and measuring {written_s(rest_s)}; allow"
            f" {written_s(2 * epoch_s + rest_s)} or more, or train on fewer images (--subset)"
        )


def _steps(dataset: Dataset, settings: Fitted) -> int:
    """Training steps of an epoch."""
    return max(1, len(dataset.train) // min(settings.batch_size, len(dataset.train)))
