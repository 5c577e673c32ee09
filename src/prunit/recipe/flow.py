"""The whole flow: from a model and images to a portfolio of small trained exported models.

Read `build` top to bottom: it is the table of contents. Every step leaves a file when it is done, and training one
after each epoch, so a build that was killed at any moment goes on with `resume=True` and ends with the same result.
"""

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from prunit.allocate import Budget
from prunit.batches import Dataset
from prunit.edge.portfolio import Portfolio, Variant
from prunit.prices.costs import cost_of
from prunit.recipe.blueprint import Blueprint
from prunit.recipe.choosing import Chosen
from prunit.recipe.config import BuildConfig
from prunit.recipe.deciding import decided
from prunit.recipe.embedding import embedded
from prunit.recipe.fleets import building as fleets
from prunit.recipe.folder import STATE, held, open_folder
from prunit.recipe.lowering import lowered
from prunit.recipe.opening import configured, for_task, opened
from prunit.recipe.outs import Out
from prunit.recipe.pacing import check_time, pacer_of
from prunit.recipe.places.asked import executor_for
from prunit.recipe.places.benches import VariantBench, made_variants
from prunit.recipe.places.pieces import Executor
from prunit.recipe.places.threads import keep, told, working
from prunit.recipe.progress import OnStep
from prunit.recipe.recipes import first_reachable
from prunit.recipe.request import check_kept, check_request, parts_of
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
    jobs: int | Executor = 1,
    work: Path | str | None = None,
) -> Portfolio:
    """The portfolio in folder `out`: the dense model and one variant per budget, trained, exported and measured.

    `model` is a name (see `zoo.load`), a module or a callable; `data` a name (see `zoo.data.load`) or a `Dataset`;
    `config` the settings that differ from the defaults, for example `{"budgets": ["params=1/8"], "train": {"epochs":
    5}}`. The folder holds portfolio.json, report.html and for every variant NAME.onnx, NAME.selftest.npz,
    NAME.plan.json and NAME.safetensors. With `resume` a build of the same configuration in `out` goes on where it
    stopped. With `fleet.goals` there are as few variants as serve all its devices, and fleet.json says which does whom.

    `jobs` says how many variants are trained at the same time, in processes of this machine which share out its
    threads, or where else they are trained. A model in a process of its own has to be made anew there: name it.

    `out` may be an address, as `s3://bucket/portfolio`: the build works in the folder `work` (by default one below
    `prunit-builds`), and sends the portfolio there at its end, whole or not at all.
    """
    config, began, into = configured(model, config), perf_counter(), Out.of(out, work)
    budgets = check_request(config)
    if isinstance(model, str):
        check_kept(config)
    executor = executor_for(jobs, config, len(budgets))
    into.check()
    with into.naming(), working(executor, len(budgets), into.folder) as threads:
        portfolio = _built(
            *(model, data, into.folder, config, budgets, executor, threads, began), resume=resume, on_step=on_step
        )
    into.send(on_step=on_step)
    return portfolio


def _built(
    model: ModelLike,
    data: str | Dataset,
    out: Path,
    config: BuildConfig,
    budgets: Mapping[str, Budget | None],
    executor: Executor,
    threads: int | None,
    began: float,
    *,
    resume: bool,
    on_step: OnStep | None,
) -> Portfolio:
    device_named(config.train.device)
    begun = opened(config, model, data, out, resume=resume, on_step=on_step, pin=config.prune.pin)
    dataset, progress, source, graph, dense = begun.dataset, begun.progress, begun.source, begun.graph, begun.dense
    config = for_task(config, dataset.task)
    parts = parts_of(config, budgets.values())
    start = Start.of(config.start, source)
    if source.told:
        progress("all", "plan", 0, 0, source.told)
    fleet, planned = fleets.before(out, progress, resume=resume) if config.fleet.goals else None, None
    for name, budget in budgets.items():
        if budget and not budget.on_parts and not config.fleet.goals:
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
    if config.fleet.goals and fleet is None:
        planned = fleets.planned_here(config, dataset, graph, dense, budgets, progress)
        fleet = planned.fleet
    if fleet is not None:
        budgets = {name: budget for name, budget in budgets.items() if name == DENSE or name in fleet.variants}
    blueprint = Blueprint(dense, graph, example_of(dataset), translation=translation)
    found = {
        name: decided(
            *(config, dataset, graph, dense, name, budget, progress), translation=translation, blueprint=blueprint
        )
        for name, budget in budgets.items()
        if budget and (budget.timed or budget.on_parts) and not (resume and (out / f"{name}.plan.json").exists())
    }
    if planned is not None:
        found |= {name: Chosen(decision) for name, decision in planned.decisions.items()}
    # All that can be wrong with what was asked has been found by now; only then the folder is touched.
    with held(out, resume=resume):
        folder = open_folder(out, begun.settings, resume=resume, defaults=BuildConfig().model_dump(mode="json"))
        keep(threads, folder / STATE)
        work = Work(config, folder, dataset, source, graph, progress, start)
        if translation is not None and any(budgets.values()):
            work.keep_template(dense, translation)
        plans = {
            name: work.plan(dense, name, budget, chosen=found.get(name), translation=translation)
            for name, budget in budgets.items()
        }
        if fleet is not None:
            fleet.write(folder)
        work = work.with_precision(dense)
        del begun, dense, translation, blueprint
        pacer = pacer_of(work, plans, began=began, export_s=export_s)
        progress.plan_to_train(
            {name: cost_of(graph, plan).macs for name, plan in plans.items()},
            seconds=pacer.seconds(),
            probe_s=2 * config.probe.seconds,
            at_once=executor.at_once,
        )
        if not pacer.over:
            progress("all", "plan", 0, 0, pacer.told())
            if at_once := told(executor, threads):
                progress("all", "plan", 0, 0, at_once)
        bench, names = VariantBench(work, budgets), list(plans)
        with executor.open(bench) as run:
            variants: list[Variant] = []
            if start.trained:  # all others begin with what this one has learnt
                variants = made_variants(bench, [DENSE], pacer, run)
                answers = work.answers_to_choose_by(variants[0])
                check_taught(answers, kept=start.kept, part=dataset.watched_part)
                names.remove(DENSE)
            variants += made_variants(bench, names, pacer, run)
        portfolio = work.measure(*lowered(work, embedded(work, variants, parts)))
        work.report(portfolio)
        return portfolio
