"""The whole flow: from a model and images to a portfolio of small trained exported models.

Read `build` top to bottom: it is the table of contents. Every step leaves a file when it is done, and training one
after each epoch, so a build that was killed at any moment goes on with `resume=True` and ends with the same result.
"""

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from prunit.batches import Dataset
from prunit.edge.portfolio import Portfolio, Variant
from prunit.prices.costs import cost_of
from prunit.recipe.blueprint import Blueprint
from prunit.recipe.config import BuildConfig
from prunit.recipe.deciding import decided
from prunit.recipe.embedding import embedded
from prunit.recipe.folder import held, open_folder
from prunit.recipe.lowering import lowered
from prunit.recipe.opening import configured, for_task, opened
from prunit.recipe.pacing import check_time, pacer_of
from prunit.recipe.progress import OnStep
from prunit.recipe.recipes import first_reachable
from prunit.recipe.request import check_request, parts_of
from prunit.recipe.source import (
    ModelLike,
    check_exports,
    check_trains,
    example_of,
)
from prunit.recipe.starting import Start, check_taught
from prunit.recipe.work import DENSE, Work
from prunit.train import device_named, fitted_to
from prunit.train.accuracy import judge


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
    device_named(config.train.device)
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
        if translation is not None and any(budgets.values()):
            work.keep_template(dense, translation)
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
