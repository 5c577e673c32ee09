"""The whole flow: from a model and images to a portfolio of small trained exported models.

Read `build` top to bottom: it is the table of contents. Every step leaves a file when it is done, and training one
after each epoch, so a build that was killed at any moment goes on with `resume=True` and ends with the same result.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from torch import nn

from prunit import zoo
from prunit.allocate import Budget
from prunit.batches import Dataset
from prunit.costs import cost_of
from prunit.edge.answers import Answers
from prunit.edge.measure import measure
from prunit.edge.names import portfolio_name
from prunit.edge.portfolio import Artifact, Metrics, Portfolio, Preprocessing, Variant
from prunit.edge.probe import ProbeSettings
from prunit.edge.records import StoredFile
from prunit.errors import ConfigError, unknown
from prunit.export import EXPORTERS
from prunit.export.translation import Translation
from prunit.files import write_atomically
from prunit.graph import ChannelGraph, trace
from prunit.plans import Plan, keep_all
from prunit.recipe.choosing import Chosen
from prunit.recipe.config import BuildConfig, validated
from prunit.recipe.deciding import check_timable, decided
from prunit.recipe.devices import profiles_of
from prunit.recipe.folder import (
    STATE,
    check_folder,
    held,
    intact_variant,
    is_started,
    open_folder,
    read_history,
    read_json,
    read_plan,
)
from prunit.recipe.progress import OnStep, Progress
from prunit.recipe.recipes import constraints_of, first_reachable, method_of
from prunit.recipe.source import (
    ModelLike,
    Source,
    check_exports,
    check_trains,
    example_of,
    loaded,
    rectifier_for,
    settings_of_build,
)
from prunit.report import write_report
from prunit.store import load as load_weights
from prunit.store import save as save_weights
from prunit.surgery import check_runs, compact, rectify
from prunit.train import Epoch, Fitted, device_named, fitted_to, train
from prunit.train.accuracy import answers_of, check_model
from prunit.train.guessing import guessing_loss, stuck
from prunit.train.sparse import Masks
from prunit.version import VERSION


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
    config = config if isinstance(config, BuildConfig) else validated(config or {})
    if isinstance(model, str):
        config = config.model_copy(update={"model": model})
    budgets = check_request(config)
    check_folder(Path(out), resume=resume)
    dataset = loaded(data, config)
    progress = Progress(on_step)
    progress("dense", "check", 0, 0)
    source = Source.of(model, dataset, seed=config.seed)
    dense = source.make()
    check_model(dense, dataset)
    graph = trace(dense, example_of(dataset), pin=config.prune.pin)
    for name, budget in budgets.items():
        if budget:
            first_reachable(graph, budget.known, config.prune_of(name))
    settings = settings_of_build(config, source, dense, dataset)
    translation = None
    if not (resume and is_started(Path(out))):
        check_trains(source.make(), dataset)
        translation = check_exports(dense, dataset)
    timed = {
        name: decided(config, dataset, graph, dense, name, budget, progress, translation=translation)
        for name, budget in budgets.items()
        if budget and budget.timed and not (resume and (Path(out) / f"{name}.plan.json").exists())
    }
    # All that can be wrong with what was asked has been found by now; only then the folder is touched.
    with held(Path(out), resume=resume):
        folder = open_folder(Path(out), settings, resume=resume, defaults=BuildConfig().model_dump(mode="json"))
        work = Work(config, folder, dataset, source, graph, progress)
        plans = {
            name: work.plan(dense, name, budget, chosen=timed.get(name), translation=translation)
            for name, budget in budgets.items()
        }
        del dense, translation
        progress.plan_to_train(
            {name: cost_of(graph, plan).macs for name, plan in plans.items()}, probe_s=2 * config.probe.seconds
        )
        variants = []
        for name, plan in plans.items():
            epochs = work.train(name, plan)
            variants.append(work.export(name, plan, budgets[name], epochs))
        portfolio = work.measure(variants)
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
    for name in config.by_variant:
        if not budgets.get(name):
            raise unknown("variant", name, [n for n, budget in budgets.items() if budget], "by_variant names them.")
        if config.prune_of(name).pin != config.prune.pin:
            raise ConfigError(f"by_variant.{name}.pin: the model is read once for all variants; set prune.pin")
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
    if ":" not in config.model and config.model not in zoo.models():
        zoo.load(config.model)  # it says what there is
    return budgets


_TOLD: Final = (
    "method",
    "density",
    "tolerance",
    "score",
    "evaluator",
    "mode",
    "draw",
    "shares",
    "residual",
    "constraints",
)
"""What a plan's origin says that the manifest tells of a variant."""


@dataclass(frozen=True)
class Work:
    """The steps of one build; each leaves its result in the folder, and reads it back if it is there."""

    config: BuildConfig
    folder: Path
    dataset: Dataset
    source: Source
    graph: ChannelGraph
    progress: Progress

    def plan(
        self,
        dense: nn.Module,
        name: str,
        budget: Budget | None,
        *,
        chosen: Chosen | None = None,
        translation: Translation | None = None,
    ) -> Plan:
        """The plan of the variant: the one in the folder, else the chosen one, else chosen now; what was timed too."""
        file = self.folder / f"{name}.plan.json"
        if file.exists():
            plan = read_plan(file)
            plan.check(self.graph)
            return plan
        plan, seconds = keep_all(self.graph), 0.0
        if budget is not None:
            chosen = chosen or decided(
                *(self.config, self.dataset, self.graph, dense, name, budget, self.progress), translation=translation
            )
            plan, seconds = chosen.decision.plan, chosen.decision.seconds
            check_runs(dense, compact(dense, self.graph, plan), example_of(self.dataset))
            if chosen.timed:
                write_atomically(self._state(name, "candidates.json"), json.dumps(chosen.as_dict(), indent=1))
        # Not in the plan: a build that was resumed would have another one.
        write_atomically(self._state(name, "seconds.json"), json.dumps({"prune": seconds}))
        write_atomically(file, plan.to_json())
        return plan

    def train(self, name: str, plan: Plan) -> list[Epoch]:
        """Train the variant; its weights stand in NAME.safetensors and its epochs in the state folder."""
        history, checkpoint = self._state(name, "history.json"), self._state(name, "checkpoint.safetensors")
        weights = self.folder / f"{name}.safetensors"
        if history.exists() and weights.exists():
            self.progress.trained(name)
            return read_history(history)
        dense = self.source.make()
        model = compact(dense, self.graph, plan)
        if plan.widths != dict(plan.dense):
            prune = self.config.prune_of(name)
            rectify(model, dense, rectifier_for(prune, self.source.named), seed=prune.seed)
        del dense
        epochs = list(self.epochs(name, model, checkpoint))
        save_weights(model, plan, weights)
        self.trained(name, history, epochs, checkpoint)
        return epochs

    def epochs(
        self, name: str, model: nn.Module, checkpoint: Path, *, masks: Masks | None = None, first: int = 0
    ) -> Iterator[Epoch]:
        """The epochs of a training as they end, its progress told; as `train` has them."""
        last: Epoch | None = None  # of those with a test accuracy
        told = False

        def on_training_step(done: int, total: int) -> None:
            note = f"{last.test_accuracy:.1%} at epoch {last.index}/{last.epochs}" if last else ""
            self.progress(name, "train", done, total, note)

        settings = fitted_to(self.config.train, self.dataset)
        for epoch in train(
            *(model, self.dataset, settings), checkpoint=checkpoint, on_step=on_training_step, masks=masks, first=first
        ):
            told = told or self._told_stuck(name, epoch, settings)
            last = last if epoch.test_accuracy is None else epoch
            yield epoch

    def _told_stuck(self, name: str, epoch: Epoch, settings: Fitted) -> bool:
        counts_K = self.dataset.train.y_B.bincount(minlength=len(self.dataset.classes)).tolist()
        found = stuck(epoch, guessing_loss(counts_K, settings.smoothing))
        if found:
            logging.getLogger(__name__).warning("%s: %s", name, found)
        return bool(found)

    def trained(self, name: str, history: Path, epochs: Sequence[Epoch], checkpoint: Path) -> None:
        """Write down the epochs of a training whose weights are stored; its checkpoint is of no more use."""
        write_atomically(history, json.dumps([asdict(e) for e in epochs]))
        with suppress(OSError):
            checkpoint.unlink()
        self.progress.trained(name)

    def put(
        self,
        name: str,
        plan: Plan,
        model: nn.Module,
        epochs: Sequence[Epoch],
        *,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Write down a variant that was trained elsewhere, as `plan` and `train` do; what is there already stays."""
        weights, history = self.folder / f"{name}.safetensors", self._state(name, "history.json")
        if history.exists() and weights.exists():
            return
        write_atomically(self._state(name, "seconds.json"), json.dumps(dict(seconds or {})))
        write_atomically(self.folder / f"{name}.plan.json", plan.to_json())
        save_weights(model, plan, weights)
        write_atomically(history, json.dumps([asdict(e) for e in epochs]))

    def export(self, name: str, plan: Plan, budget: Budget | None, epochs: Sequence[Epoch]) -> Variant:
        """The variant's record, without latencies; what is exported is what was saved."""
        file = self._state(name, "variant.json")
        # A record of an older version lacks the answers, by which variants are compared: it is made again.
        if file.exists() and (found := intact_variant(file, self.folder)) and found.metrics.answers:
            self.progress.exported(name)
            return found
        self.progress(name, "evaluate", 0, 0)
        model = load_weights(self.folder / f"{name}.safetensors", self.source.make)
        answers = answers_of(model, self.dataset, device=self.config.train.device)
        self.progress(name, "export", 0, 0)
        started = perf_counter()
        artifact = EXPORTERS["onnx"](model, example_of(self.dataset), self.folder, name=name)
        seconds = {
            **read_json(self._state(name, "seconds.json")),
            "train": sum(e.seconds for e in epochs),
            "export": perf_counter() - started,
        }
        variant = self._record(name, plan, budget, artifact, seconds, answers)
        write_atomically(file, variant.model_dump_json(indent=2))
        self.progress.exported(name)
        return variant

    def _record(
        self,
        name: str,
        plan: Plan,
        budget: Budget | None,
        artifact: Artifact,
        seconds: Mapping[str, float],
        answers: Answers,
    ) -> Variant:
        cost = cost_of(self.graph, plan)
        return Variant(
            name=name,
            recipe=str(plan.origin.get("recipe", "dense")),
            settings={n: str(plan.origin[n]) for n in _TOLD if n in plan.origin}
            | ({"rectifier": rectifier_for(self.config.prune_of(name), self.source.named)} if budget else {})
            | ({"timed": str(plan.origin["measured"])} if "measured" in plan.origin else {}),
            budget=budget.as_dict if budget else {},
            keep=sum(plan.widths.values()) / sum(plan.dense.values()),
            widths={n: (plan.dense[n], len(c)) for n, c in plan.keep.items()},
            plan=StoredFile.of(self.folder, f"{name}.plan.json"),
            weights=StoredFile.of(self.folder, f"{name}.safetensors"),
            artifact=artifact,
            metrics=Metrics(
                accuracy=answers.accuracy,
                answers=answers,
                params=cost.params,
                macs=cost.macs,
                weight_bytes=cost.weight_bytes,
                activation_bytes=cost.activation_bytes,
                file_bytes=artifact.bytes,
            ),
            seconds=dict(seconds),
            epochs=fitted_to(self.config.train, self.dataset).epochs,
            seed=self.config.seed,
        )

    def measure(self, variants: Sequence[Variant]) -> Portfolio:
        """The portfolio with latencies and memory measured here, all variants in one run; written to the folder."""
        size = self.dataset.image_size
        portfolio = Portfolio(
            name=portfolio_name(self.source.name, self.dataset.name),
            model=self.source.name,
            data=self.dataset.name,
            classes=self.dataset.classes,
            preprocessing=Preprocessing(
                mean=self.dataset.mean_C,
                std=self.dataset.std_C,
                channels={1: "L", 3: "RGB"}.get(self.dataset.channels, str(self.dataset.channels)),
                size=(size, size),
            ),
            variants=tuple(variants),
            prunit_version=VERSION,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        settings = self.config.probe
        measured = measure(
            portfolio,
            self.folder,
            ProbeSettings(
                batches=tuple(dict.fromkeys((1, settings.batch))), threads=settings.threads, seconds=settings.seconds
            ),
            tell=self.progress,
        )
        measured.write(self.folder)
        return measured

    def report(self, portfolio: Portfolio) -> None:
        self.progress("all", "report", 0, 0)
        report_on(portfolio, self.folder)

    def _state(self, name: str, file: str) -> Path:
        return self.folder / STATE / name / file


def report_on(portfolio: Portfolio, folder: Path, *, trials: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write report.html into the folder of a build; `trials` are what a sweep tried, see `report.trials`."""
    histories = {v.name: read_history(folder / STATE / v.name / "history.json") for v in portfolio.variants}
    write_report(portfolio, folder, histories=histories, trials=trials)


def variant_name(budget: Budget) -> str:
    """A file name for the variant of a budget: `params=1/16` becomes `params-1-16`; without devices."""
    text = "-".join(f"{limit.key}-{limit.text.partition('@')[0]}" for limit in budget.limits)
    return "-".join(re.findall(r"[a-z0-9.]+", text.replace("%", "-percent").replace("×", "x").lower()))
