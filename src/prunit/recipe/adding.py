"""A portfolio from models that were trained anywhere: `add` exports one, measures it and writes it down.

What a build does after a training, for whoever has a loop of their own: `prunit.portfolio.add`.
"""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from torch import Tensor, nn

from prunit.allocate import Budget
from prunit.cut.plans import Plan, keep_all
from prunit.cut.store import save as save_weights
from prunit.edge.measuring.measure import measure as measured_here
from prunit.edge.measuring.probe import ProbeSettings
from prunit.edge.names import is_public
from prunit.edge.portfolio import MANIFEST, Portfolio, Preprocessing, Variant
from prunit.errors import ConfigError, MissingExtraError, PlanError
from prunit.export import export_onnx
from prunit.export.template import Template
from prunit.files import write_atomically
from prunit.graph import ChannelGraph, trace
from prunit.graph.wrappers import unwrapped
from prunit.prices.costs import cost_of
from prunit.recipe.config import ProbeConfig
from prunit.recipe.folder import STATE, TEMPLATE, is_started, read_history
from prunit.recipe.joining import Joining, quality_of
from prunit.recipe.lock import check_free, holding
from prunit.recipe.quality import Quality, variant_record
from prunit.recipe.request import variant_name
from prunit.recipe.work import DENSE
from prunit.report import write_report
from prunit.report.again import rewrite_report
from prunit.report.page import REPORT
from prunit.tasks import Task

_HISTORY: Final = "history.json"
_RUNNING: Final = "build, or another addition,"


def add(
    folder: Path | str,
    model: nn.Module,
    plan: Plan | None = None,
    *,
    example: Tensor,
    name: str | None = None,
    metrics: Mapping[str, float] | None = None,
    accuracy: float | None = None,
    task: str | Task | None = None,
    classes: Sequence[str] = (),
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    data: str = "own data",
    replace: bool = False,
    measure: bool | ProbeSettings = True,
) -> Portfolio:
    """The portfolio in `folder`, which is made if it is not there, with a trained model as one more variant.

        prunit.portfolio.add("portfolio", dense, example=x, metrics={"accuracy": 0.91}, classes=names)
        prunit.portfolio.add("portfolio", small, plan, example=x, metrics={"accuracy": 0.90})

    `plan` is the one that `model` was cut by; without one the model counts as whole. Of `example`, x_BCHW, the shape
    matters; the model is run on it once, in evaluation mode. Written are NAME.onnx, found to give torch's outputs, its
    self-test, NAME.safetensors with the plan inside and NAME.plan.json, then the manifest and, where the package for it
    is there, the report. The model stays as it was. `name` is `dense` without a plan, else from the plan's budget
    (`macs-1-2`); one that is taken is refused unless `replace`, with which variants of fewer bits that were made of the
    one before leave the portfolio. `metrics` are the task's by name, the main one among
    them as a share (1 is perfect); `accuracy` is short for a classifier's. They are taken as they are told.

    The first model settles what the portfolio is for, and later ones need not say it again: `task`, a name (see
    `prunit.tasks`) or a Task with settings; `classes`, numbers where none are named; `data`, a word for the data; and
    `preprocessing`, of mean, std, scale, channels, size and fit those that differ: pixels become 0 to 1 without it, and
    a photo is brought to the example's size as the task does it.

    With `measure` latencies and memory of all variants are measured anew, in turns, for some seconds on one thread.
    Raises `ConfigError` for what contradicts the portfolio, a metric that is no number, or a folder in which a build
    runs; `PlanError` where the model is not as wide as the plan says; `ModelError` for outputs that are not the task's.
    What was there is as it was then.
    """
    folder, model = Path(folder), unwrapped(model)
    before = _opened(folder)
    named = _name_for(folder, name, plan, before, replace=replace)
    joining = Joining.of(folder, model, example, before)
    found, record = joining.task(task)
    quality = quality_of(metrics, accuracy, record)
    graph = trace(model, example)
    if plan is not None:
        _check_widths(plan, graph)
    portfolio = joining.portfolio(
        *(found, record, joining.outputs()), classes=classes, preprocessing=preprocessing, data=data
    )
    with holding(folder / STATE, what=_RUNNING, shown=folder):
        # Only what is whole, and was measured where that was asked for, takes a place in the folder.
        with TemporaryDirectory(prefix="adding-", dir=folder / STATE) as place:
            aside = Path(place)
            template = Template.read(folder / STATE / TEMPLATE)  # a build's: the model may be cut from the same one
            variant = _written(
                *(aside, named, model, plan, graph, example, quality), output=found.output, template=template
            )
            portfolio = _without_twins(portfolio, named).adding(variant)
            if measure:
                _put_beside([v for v in portfolio.variants if v.name != named], folder, aside)
                settings = measure if isinstance(measure, ProbeSettings) else _as_in_a_build()
                portfolio = measured_here(portfolio, aside, settings)
            for file in _files_of(named):
                (aside / file).replace(folder / file)
        write_atomically(folder / STATE / named / _HISTORY, "[]")  # as of a model that was kept as it was given
        portfolio.write(folder)
        _report(portfolio, folder)
    return portfolio


def _without_twins(portfolio: Portfolio, name: str) -> Portfolio:
    """Without the variants of fewer bits of the one that had this name: they have its weights, in bf16 its file."""
    gone = [v.name for v in portfolio.variants if v.lowered is not None and v.lowered.twin == name]
    if gone:
        logging.getLogger(__name__).warning("'%s' is another one now; what was made of it leaves: %s", name, gone)
    return portfolio.without(*gone)


def _opened(folder: Path) -> Portfolio | None:
    """What is there already; `ConfigError` for a folder in which a build runs, or has yet to end."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"'{folder}' is a file: name a folder for the portfolio")
    check_free(folder / STATE, what=_RUNNING, shown=folder)
    if (folder / MANIFEST).exists():
        return Portfolio.read(folder)
    if is_started(folder):
        raise ConfigError(f"'{folder}' holds a build that has not ended: resume it first, or choose another folder")
    return None


def _name_for(folder: Path, name: str | None, plan: Plan | None, before: Portfolio | None, *, replace: bool) -> str:
    budget = _budget_of(plan)
    named = name or (DENSE if plan is None else variant_name(budget) if budget else f"cut-{plan.hash[:6]}")
    if not is_public(named):
        raise ConfigError(f"cannot call a variant '{named}': a name has letters, digits and '._-' only")
    if replace:
        return named
    if before and any(variant.name == named for variant in before.variants):
        raise ConfigError(f"'{folder}' has a variant '{named}' already: give another name=, or replace=True")
    there = next((file for file in _files_of(named) if (folder / file).exists()), None)
    if there:
        raise ConfigError(f"'{folder / there}' is there and is no variant's: give another name=, or replace=True")
    return named


def _budget_of(plan: Plan | None) -> Budget | None:
    """The budget that a plan was made for; None for one made by hand or read from zeros."""
    text = plan.origin.get("budget") if plan else None
    with suppress(ConfigError):  # an origin is a note, and may say anything
        return Budget.parse(str(text)) if text else None
    return None


def _check_widths(plan: Plan, graph: ChannelGraph) -> None:
    """`PlanError` unless the traced model has the widths that the plan leaves.

    A group of one channel may go by another name then, or be none: see `Plan.then`.
    """
    sizes = {group.name: group.size for group in graph.groups}
    for name, width in plan.widths.items():
        found = sizes.get(name)
        if found == width or (found is None and width == 1):
            continue
        if found is None:
            raise PlanError(f"the plan keeps {width} channels of '{name}', which the model lacks: it cut another model")
        why = (
            "it was not cut, or whatever trained it built it anew at full width"
            if found == plan.dense[name]
            else "it is the plan of another model"
        )
        raise PlanError(f"the plan keeps {width} channels of '{name}', the model has {found} there: {why}")


def _written(
    place: Path,
    name: str,
    model: nn.Module,
    plan: Plan | None,
    graph: ChannelGraph,
    example: Tensor,
    quality: Quality,
    *,
    output: str,
    template: Template | None,
) -> Variant:
    """The model's record without latencies, after its files were written into `place`."""
    kept = keep_all(graph) if plan is None else plan
    began = perf_counter()
    artifact = export_onnx(model, example, place, name=name, output=output, template=template)
    seconds = {"export": perf_counter() - began}
    write_atomically(place / f"{name}.plan.json", kept.to_json())
    save_weights(model, kept, place / f"{name}.safetensors")
    variant = variant_record(
        *(name, kept, _budget_of(plan), cost_of(graph), artifact, quality),
        rectifier="",
        folder=place,
        seconds=seconds,
        epochs=0,
        seed=0,
    )
    return variant if plan is None else variant.model_copy(update={"recipe": str(plan.origin.get("recipe", "own"))})


def _files_of(name: str) -> tuple[str, ...]:
    return f"{name}.onnx", f"{name}.selftest.npz", f"{name}.plan.json", f"{name}.safetensors"


def _put_beside(variants: Sequence[Variant], folder: Path, place: Path) -> None:
    """The files of other variants that measuring opens, in `place` too: as links where the file system has them."""
    for path in (path for v in variants for path in (v.artifact.path, v.artifact.self_test)):
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / path, place / path)
        except OSError:
            shutil.copyfile(folder / path, place / path)


def _as_in_a_build() -> ProbeSettings:
    asked = ProbeConfig()
    return ProbeSettings(batches=(1, asked.batch), threads=asked.threads, seconds=asked.seconds)


def _report(portfolio: Portfolio, folder: Path) -> None:
    """The page, where it can be written without losing what is in it."""
    histories = {v.name: folder / STATE / v.name / _HISTORY for v in portfolio.variants}
    try:
        if (folder / REPORT).is_file():
            why_not = rewrite_report(portfolio, folder)
        else:
            found = {name: read_history(file) for name, file in histories.items() if file.exists()}
            why_not = write_report(portfolio, folder, histories=found) and ""
    except MissingExtraError as error:
        why_not = str(error)
    if why_not:
        logging.getLogger(__name__).warning("'%s' was not written anew: %s", folder / REPORT, why_not)
