"""The steps of one build; each leaves its result in the folder, and reads it back if it is there."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from torch import nn

from prunit.allocate import Budget
from prunit.batches import Dataset
from prunit.cut.plans import Plan, choose, keep_all
from prunit.cut.store import load as load_weights
from prunit.cut.store import save as save_weights
from prunit.cut.surgery import Rectify, check_runs, compact, rectify
from prunit.edge.answers import Answers
from prunit.edge.measuring.measure import measure
from prunit.edge.measuring.probe import ProbeSettings
from prunit.edge.names import portfolio_name
from prunit.edge.portfolio import Portfolio, Preprocessing, TaskRecord, Variant
from prunit.edge.precision import LeftOut
from prunit.errors import ModelError
from prunit.export import export_onnx
from prunit.export.template import Template
from prunit.export.translation import Translation
from prunit.files import write_atomically
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_of
from prunit.recipe.choosing import Chosen
from prunit.recipe.config import BuildConfig
from prunit.recipe.deciding import decided
from prunit.recipe.folder import STATE, TEMPLATE, intact_variant, read_history, read_json, read_plan
from prunit.recipe.gradual import in_one, of_length, rounds_of
from prunit.recipe.progress import Progress
from prunit.recipe.quality import Quality, variant_record
from prunit.recipe.source import Source, example_of, rectifier_for
from prunit.recipe.starting import FROM_INIT, Start, channel_scores, score_of
from prunit.report import write_report
from prunit.shown import metric_value
from prunit.train import Epoch, Fitted, device_named, fitted_to, recalibrate, resolved_precision, train
from prunit.train.accuracy import Judged, judge
from prunit.train.balancing import guessing_loss
from prunit.train.guessing import stuck
from prunit.train.sparse import Masks
from prunit.version import VERSION

DENSE: Final = "dense"
"""The name of the variant that is not pruned."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """The steps of one build; each leaves its result in the folder, and reads it back if it is there."""

    config: BuildConfig
    folder: Path
    dataset: Dataset
    source: Source
    graph: ChannelGraph
    progress: Progress
    start: Start = FROM_INIT

    @property
    def settings(self) -> Fitted:
        """How the dense model is trained."""
        return fitted_to(self.config.train, self.dataset)

    def with_precision(self, dense: nn.Module) -> "Work":
        """The same work in the precision that `auto` means for the dense model here: one for all its variants.

        What a resumed build found before holds.
        """
        if self.config.train.precision != "auto":
            return self
        file = self.state_file("precision.json")
        if not file.exists():
            found = resolved_precision(dense, self.dataset, self.settings)
            write_atomically(file, json.dumps({"precision": found}))
        train = self.config.train.model_copy(update={"precision": read_json(file)["precision"]})
        return replace(self, config=self.config.model_copy(update={"train": train}))

    def settings_of(self, name: str, epochs: int) -> Fitted:
        """How a variant is trained, for so many epochs; a warm-up of a set length goes with them."""
        settings = of_length(self.settings, epochs)
        if name == DENSE:
            return settings.model_copy(update={"distill": 0.0})  # there is nobody to learn from
        if not self.start.trained:
            return settings
        return settings.model_copy(update={"lr": self.start.rate(self.config.start, self.settings, epochs)})

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

    def train(self, name: str, plan: Plan, epochs: int) -> tuple[Plan, list[Epoch]]:
        """Train the variant for so many epochs; its weights stand in NAME.safetensors, its epochs in the state.

        The plan may come back with other channels: those that trained weights say.
        """
        history, checkpoint = self._state(name, "history.json"), self._state(name, "checkpoint.safetensors")
        weights = self.folder / f"{name}.safetensors"
        if history.exists() and weights.exists():
            self.progress.trained(name)
            return plan, read_history(history)
        settings = self.settings_of(name, epochs) if epochs else None
        if settings is None or name == DENSE:
            model = self.source.make()
            found = list(self.epochs(name, model, checkpoint, settings)) if settings else []
        elif self.start.trained:
            plan, model, found = self._fine_tuned(name, plan, checkpoint, settings)
        else:
            dense = self.source.make()
            model = compact(dense, self.graph, plan)
            if plan.widths != dict(plan.dense):
                prune = self.config.prune_of(name)
                rectify(model, dense, self._rectifier(name), seed=prune.seed)
            del dense
            found = list(self.epochs(name, model, checkpoint, settings))
        if self.start.trained:
            write_atomically(self.folder / f"{name}.plan.json", plan.to_json())
        save_weights(model, plan, weights)
        self.trained(name, history, found, checkpoint)
        return plan, found

    def _fine_tuned(
        self, name: str, plan: Plan, checkpoint: Path, settings: Fitted
    ) -> tuple[Plan, nn.Module, list[Epoch]]:
        """The dense variant's weights, cut in rounds to the plan's widths and trained after each, most often in one.

        Each round leaves its weights and epochs. Which channels stay the trained weights say, in each round anew.
        """
        start, prune = self.config.start, self.config.prune_of(name)
        rounds = rounds_of(plan, settings, start.rounds)
        model, graph, cut = self.taught(), self.graph, keep_all(self.graph)
        parts: list[list[Epoch]] = []
        for number, each in enumerate(rounds, start=1):
            weights = self._state(name, f"round-{number}.safetensors")
            history = weights.with_suffix(".json")
            if history.exists():
                model, cut = load_weights(weights, self.source.make), read_plan(weights.with_suffix(".plan.json"))
                graph = trace(model, example_of(self.dataset))
                parts.append(read_history(history))
                continue
            self.progress(name, "prune", 0, 0, "channels by the trained weights")
            if number == 1 and each.widths == plan.widths and self.start.kept and start.score is None:
                step = plan  # decided by these very weights already
            else:
                step = self._ranked(name, model, graph, each.widths, plan)
            small = compact(model, graph, step)
            if self._rectifier(name) != "none":
                rectify(small, model, self._rectifier(name), seed=prune.seed)
            if start.recalibrate:
                recalibrate(
                    *(small, self.dataset), batch_size=settings.batch_size, device=settings.device, seed=settings.seed
                )
            model, cut = small, cut.then(step)
            parts.append(list(self.epochs(name, model, checkpoint, each.settings)))
            if number < len(rounds):
                graph = trace(model, example_of(self.dataset))
                write_atomically(weights.with_suffix(".plan.json"), cut.to_json())
                save_weights(model, cut, weights)
                write_atomically(history, json.dumps([asdict(e) for e in parts[-1]]))
                checkpoint.unlink(missing_ok=True)
        origin = {**plan.origin, "start": "trained", "channels": score_of(prune, start.score)}
        return replace(cut, origin=origin), model, in_one(parts)

    def _ranked(self, name: str, model: nn.Module, graph: ChannelGraph, widths: Mapping[str, int], plan: Plan) -> Plan:
        """The channels of a trained model that stay, for widths by group of the dense one."""
        left = {group.name: widths[group.name] for group in graph.groups if group.name in widths}
        share = cost_of(self.graph, plan).params / max(cost_of(self.graph).params, 1)
        scores = channel_scores(
            *(model, graph, self.dataset, self.config.prune_of(name)),
            score=self.config.start.score,
            share=share,
            device=device_named(self.config.train.device),
        )
        return choose(graph, scores, left)

    def taught(self) -> nn.Module:
        """The dense variant with its trained weights."""
        return load_weights(self.folder / f"{DENSE}.safetensors", self.source.make)

    def epochs(
        self,
        name: str,
        model: nn.Module,
        checkpoint: Path,
        settings: Fitted,
        *,
        masks: Masks | None = None,
        first: int = 0,
    ) -> Iterator[Epoch]:
        """The epochs of a training as they end, its progress told; as `train` has them."""
        last: Epoch | None = None  # of those with a test accuracy
        told, found = False, ""

        def on_training_step(done: int, total: int) -> None:
            self.progress(name, "train", done, total, f"{found} at epoch {last.index}/{last.epochs}" if last else "")

        for epoch in train(
            *(model, self.dataset, settings),
            checkpoint=checkpoint,
            on_step=on_training_step,
            masks=masks,
            first=first,
            teacher=self.taught() if settings.distill else None,
        ):
            told = told or self._told_stuck(name, epoch, settings)
            if epoch.test_accuracy is not None:
                last, found = epoch, metric_value(self.dataset.task.metric, epoch.test_accuracy)
            yield epoch

    def _told_stuck(self, name: str, epoch: Epoch, settings: Fitted) -> bool:
        guessing = guessing_loss(self.dataset, settings)
        found = "" if guessing is None else stuck(epoch, guessing)
        if found:
            _log.warning("%s: %s", name, found)
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

    def keep_template(self, dense: nn.Module, translation: Translation) -> None:
        """Write down what the files of all variants are made of; without it each is translated for itself."""
        try:
            Template.of(dense, self.graph, translation).write(self.state_file(TEMPLATE))
        except ModelError as error:
            _log.info("each variant is translated for itself: %s", error)

    @cached_property
    def template(self) -> Template | None:
        """What `keep_template` wrote, in this build or before it was resumed."""
        return Template.read(self.state_file(TEMPLATE))

    def export(self, name: str, plan: Plan, budget: Budget | None, epochs: Sequence[Epoch]) -> Variant:
        """The variant's record, without latencies; what is exported is what was saved."""
        file = self._state(name, "variant.json")
        # A record of an older version lacks the answers, by which variants are compared: it is made again.
        if file.exists() and (found := intact_variant(file, self.folder)) and found.metrics.scores:
            self.progress.exported(name)
            return found
        self.progress(name, "evaluate", 0, 0)
        model = load_weights(self.folder / f"{name}.safetensors", self.source.make)
        judged = judge(model, self.dataset, device=self.config.train.device)
        quality = Quality.of(judged, self.dense_judged if name != DENSE and judged.answers is None else None)
        self.progress(name, "export", 0, 0)
        started = perf_counter()
        artifact = export_onnx(
            *(model, example_of(self.dataset), self.folder),
            name=name,
            output=self.dataset.task.output,
            template=self.template,
        )
        seconds = {
            **read_json(self._state(name, "seconds.json")),
            "train": sum(e.seconds for e in epochs),
            "export": perf_counter() - started,
        }
        variant = variant_record(
            *(name, plan, budget, cost_of(self.graph, plan), artifact, quality),
            rectifier=self._rectifier(name),
            folder=self.folder,
            seconds=seconds,
            epochs=len(epochs),
            seed=self.config.seed,
        )
        write_atomically(file, variant.model_dump_json(indent=2))
        self.progress.exported(name)
        return variant

    def answers_to_choose_by(self, dense: Variant) -> Answers | None:
        """Those of the dense variant to the images that may still decide how a build goes on."""
        if self.dataset.watched is None:
            return dense.metrics.answers
        return judge(self.taught(), self.dataset.watching, device=self.config.train.device).answers

    @cached_property
    def dense_judged(self) -> Judged:
        """What the dense variant's outputs say, for comparisons; of evidence there may be too much to store it."""
        return judge(self.taught(), self.dataset, device=self.config.train.device)

    def measure(self, variants: Sequence[Variant], left_out: Sequence[LeftOut] = ()) -> Portfolio:
        """The portfolio with latencies and memory measured here, all variants in one run; written to the folder."""
        size, task = self.dataset.image_size, self.dataset.task
        portfolio = Portfolio(
            name=portfolio_name(self.source.name, self.dataset.name),
            model=self.source.name,
            data=self.dataset.name,
            task=TaskRecord(name=task.name, metric=task.metric, settings=dict(task.settings())),
            classes=self.dataset.classes,
            preprocessing=Preprocessing(
                mean=self.dataset.mean_C,
                std=self.dataset.std_C,
                channels={1: "L", 3: "RGB"}.get(self.dataset.channels, str(self.dataset.channels)),
                size=(size, size),
                fit=task.fit,
            ),
            variants=tuple(variants),
            left_out=tuple(left_out),
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

    def _rectifier(self, name: str) -> Rectify:
        """How the variant's cut layers are renewed; what inherits trained weights keeps them unless told otherwise."""
        prune = self.config.prune_of(name)
        if self.start.trained:
            return "none" if prune.rectifier == "auto" else prune.rectifier
        return rectifier_for(prune, self.source.named)

    def state_file(self, file: str) -> Path:
        """A file of the whole build that only a resumed one needs."""
        return self.folder / STATE / file

    def _state(self, name: str, file: str) -> Path:
        return self.folder / STATE / name / file


def report_on(portfolio: Portfolio, folder: Path, *, trials: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write report.html into the folder of a build; `trials` are what a sweep tried, see `report.trials`."""
    histories = {v.name: read_history(folder / STATE / v.name / "history.json") for v in portfolio.variants}
    write_report(portfolio, folder, histories=histories, trials=trials)
