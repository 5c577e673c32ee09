"""The whole flow: from a model and images to a portfolio of small trained exported models.

Read `build` top to bottom: it is the table of contents. Every step leaves a file when it is done, and training one
after each epoch, so a build that was killed at any moment goes on with `resume=True` and ends with the same result.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from prunit.allocate import Budget
from prunit.batches import Dataset
from prunit.edge.portfolio import Portfolio, Variant
from prunit.errors import ConfigError, unknown
from prunit.mcu.tools import check_tools
from prunit.prices.costs import cost_of
from prunit.recipe.blueprint import Blueprint
from prunit.recipe.config import BuildConfig
from prunit.recipe.deciding import check_timable, decided
from prunit.recipe.devices import profiles_of
from prunit.recipe.embedding import embedded, parts_of
from prunit.recipe.folder import held, open_folder
from prunit.recipe.lowering import lowered
from prunit.recipe.opening import configured, for_task, opened
from prunit.recipe.pacing import check_time, pacer_of
from prunit.recipe.progress import OnStep
from prunit.recipe.recipes import constraints_of, first_reachable, method_of
from prunit.recipe.source import (
    ModelLike,
    check_exports,
    check_trains,
    example_of,
)
from prunit.recipe.starting import Start, check_start, check_taught
from prunit.recipe.work import DENSE, Work
from prunit.train import device_named, fitted_to
from prunit.train.accuracy import judge
from prunit.zoo import load as load_model
from prunit.zoo import models as known_models


def build(
    model: ModelLike,
    data: str | Dataset,
    out: Path | str,
    *,
    config: BuildConfig | Mapping[str, Any] | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> Portfolio:
    """The portfolio in folder `out`: the dense model and one variant per budget, trained, exported and measured.

    `model` is a name (see `zoo.load`), a module or a callable; `data` a name (see `zoo.data.load`) or a `Dataset`;
    `config` the settings that differ from the defaults, for example `{"budgets": ["params=1/8"], "train": {"epochs":
    5}}`. The folder holds portfolio.json, report.html and for every variant NAME.onnx, NAME.selftest.npz,
    NAME.plan.json and NAME.safetensors. With `resume` a build of the same configuration in `out` goes on where it
    stopped.
    """
    config, began = configured(model, config), perf_counter()
    budgets = check_request(config)
    begun = opened(config, model, data, Path(out), resume=resume, on_step=on_step, pin=config.prune.pin)
    dataset, progress, source, graph, dense = begun.dataset, begun.progress, begun.source, begun.graph, begun.dense
    config = for_task(config, dataset.task)
    parts = parts_of(config, budgets.values())
    start = Start.of(config.start, source)
    if source.told:
        progress("all", "plan", 0, 0, source.told)
    for name, budget in budgets.items():
        if budget and not budget.on_parts:
            first_reachable(graph, budget.known, config.prune_of(name))
    translation, export_s = None, 0.0
    if not begun.goes_on:
        check_trains(source.make(), dataset)
        exporting = perf_counter()
        translation = check_exports(dense, dataset)
        export_s = perf_counter() - exporting
        if start.trained and start.kept:
            answers = judge(dense, dataset.watching, device=config.train.device).answers
            check_taught(answers, kept=True, part=dataset.watched_part)
        check_time(config, dense, dataset, fitted_to(config.train, dataset), began=began, export_s=export_s)
    blueprint = Blueprint(dense, graph, example_of(dataset), translation=translation)
    found = {
        name: decided(
            *(config, dataset, graph, dense, name, budget, progress), translation=translation, blueprint=blueprint
        )
        for name, budget in budgets.items()
        if budget and (budget.timed or budget.on_parts) and not (resume and (Path(out) / f"{name}.plan.json").exists())
    }
    # All that can be wrong with what was asked has been found by now; only then the folder is touched.
    with held(Path(out), resume=resume):
        folder = open_folder(Path(out), begun.settings, resume=resume, defaults=BuildConfig().model_dump(mode="json"))
        work = Work(config, folder, dataset, source, graph, progress, start)
        plans = {
            name: work.plan(dense, name, budget, chosen=found.get(name), translation=translation)
            for name, budget in budgets.items()
        }
        work = work.with_precision(dense)
        del begun, dense, translation, blueprint
        pacer = pacer_of(work, plans, began=began, export_s=export_s)
        progress.plan_to_train(
            {name: cost_of(graph, plan).macs for name, plan in plans.items()},
            seconds=pacer.seconds(),
            probe_s=2 * config.probe.seconds,
        )
        if not pacer.over:
            progress("all", "plan", 0, 0, pacer.told())
        variants: list[Variant] = []
        for name, plan in plans.items():
            epochs_n = 0 if name == DENSE and start.kept else pacer.epochs(name)
            plan, epochs = work.train(name, plan, epochs_n)
            pacer.trained(name, epochs)
            variants.append(work.export(name, plan, budgets[name], epochs))
            if name == DENSE and start.trained:
                answers = work.answers_to_choose_by(variants[0])
                check_taught(answers, kept=start.kept, part=dataset.watched_part)
        portfolio = work.measure(*lowered(work, embedded(work, variants, parts)))
        work.report(portfolio)
        return portfolio


def check_request(config: BuildConfig) -> dict[str, Budget | None]:
    """The budget of each variant by name, None for the dense one; an error for what can be refused without data."""
    budgets: dict[str, Budget | None] = {"dense": None}
    for budget in map(Budget.parse, config.budgets):
        other = budgets.setdefault(variant_name(budget), budget)
        if other != budget:
            raise ConfigError(f"budgets {other} and {budget} would both be called '{variant_name(budget)}': build one")
    device_named(config.train.device)
    check_start(config.start, config.effort)
    for name in config.by_variant:
        if not budgets.get(name):
            raise unknown("variant", name, [n for n, budget in budgets.items() if budget], "by_variant names them.")
        if config.prune_of(name).pin != config.prune.pin:
            raise ConfigError(f"by_variant.{name}.pin: the model is read once for all variants; set prune.pin")
    config.precision.check_variants(budgets)
    check_tools(parts_of(config, budgets.values()))
    for prune in (config.prune, *map(config.prune_of, config.by_variant)):
        method_of(prune)
        constraints_of(prune)
    alike: dict[Any, str] = {}
    for name, budget in budgets.items():
        if budget:
            prune = config.prune_of(name)
            profiles_of(budget, prune)
            check_timable(budget, prune)
            other = alike.setdefault((budget.asks, prune.model_dump_json()), name)
            if other != name:
                raise ConfigError(f"budgets {budgets[other]} and {budget} ask for the same: build one")
    if ":" not in config.model and config.model not in known_models():
        load_model(config.model)  # it says what there is
    return budgets


def variant_name(budget: Budget) -> str:
    """A file name for the variant of a budget: `params=1/16` becomes `params-1-16`; without devices."""
    text = "-".join(f"{limit.key}-{limit.text.partition('@')[0]}" for limit in budget.limits)
    return "-".join(re.findall(r"[a-z0-9.]+", text.replace("%", "-percent").replace("×", "x").lower()))
