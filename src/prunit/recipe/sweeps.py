"""A search over budgets and recipes: all plans are tried on little training, the best of each budget in full.

Successive halving (Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
AISTATS 2016): in each rung what is left trains for `eta` times as many epochs as before, and of each budget only the
best 1 / `eta` go on. Recipes compete within a budget, at equal cost. They are judged on the validation images where a
data set has some besides its test images, else on training images that are held out; the test images are seen once, by
what is built in the end. Which of that is on the front the validation images say, too, where they are there.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from prunit.allocate import Budget
from prunit.batches import Dataset
from prunit.cut.plans import Plan
from prunit.cut.store import load as load_weights
from prunit.edge.portfolio import Portfolio
from prunit.errors import BudgetError, ConfigError
from prunit.files import write_atomically
from prunit.graph import trace
from prunit.recipe.config import BuildConfig
from prunit.recipe.deciding import decided
from prunit.recipe.entrants import (
    DEFAULT_RECIPES,
    HELD_OUT,
    PORTFOLIO,
    TRIALS,
    check_content,
    check_entrants,
    check_place,
    other_settings,
    settings_of,
    trainings_of,
)
from prunit.recipe.fleets.goals import check_no_fleet
from prunit.recipe.flow import build
from prunit.recipe.folder import STATE, is_started, read_json
from prunit.recipe.lock import holding
from prunit.recipe.opening import configured, for_task
from prunit.recipe.outs import Out
from prunit.recipe.places.asked import executor_for
from prunit.recipe.places.pieces import Executor, Here, Piece, Run
from prunit.recipe.places.threads import keep, limited, threads_for, told
from prunit.recipe.progress import OnStep, Progress
from prunit.recipe.request import check_request
from prunit.recipe.source import (
    ModelLike,
    Source,
    check_exports,
    check_trains,
    digest_of_data,
    digest_of_weights,
    example_of,
    loaded,
    rectifier_for,
)
from prunit.recipe.trials import TrialBench, held, own_settings
from prunit.recipe.work import report_on
from prunit.shown import Shown, metric_value
from prunit.train import device_named, fitted_to, resolved_precision
from prunit.train.accuracy import check_model, evaluate


@dataclass(frozen=True, repr=False)
class Trial(Shown):
    """A recipe that is tried for a budget.

    `accuracies` are pairs of epochs and the share of held-out images that were right after so many, one for each rung;
    `out` says why the trial ended there, '' for what won its budget.
    """

    variant: str
    budget: str
    recipe: str
    cost: Mapping[str, int]
    accuracies: tuple[tuple[int, float], ...] = ()
    out: str = ""


@dataclass(frozen=True, repr=False)
class Sweep(Shown):
    """What was tried, and the portfolio of what is on the front of accuracy and size, macs or latency."""

    trials: tuple[Trial, ...]
    portfolio: Portfolio


def sweep(
    model: ModelLike,
    data: str | Dataset,
    out: Path | str,
    *,
    recipes: Sequence[str] = DEFAULT_RECIPES,
    config: BuildConfig | Mapping[str, Any] | None = None,
    eta: int = 3,
    held_out: float | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
    jobs: int | Executor = 1,
    work: Path | str | None = None,
) -> Sweep:
    """The best recipe for each of the configuration's budgets, found by successive halving, and its portfolio.

    `recipes` are names, where a word after a colon is the evaluator of reconvene or the mode of complexity. The share
    `held_out` of the training images judges them; without one the validation images do, where the data set has some
    besides its test images (`Dataset.watched`), else a fifth of the training images. The folder `out` gets trials.json
    and, in portfolio/, what `build` writes; the manifest holds the front, the report all that was tried. With `resume`
    a sweep of the same configuration goes on where it stopped. `jobs` as for `build`. `out` may be an address, with
    `work`, as for `build`: it gets the portfolio, and trials.json with it. Raises `BudgetError` if no recipe meets any
    budget.
    """
    config, into = configured(model, config), Out.of(out, work)
    check_no_fleet(config, "a sweep")
    settings = {text: settings_of(text) for text in recipes}
    budgets = {name: budget for name, budget in check_request(config).items() if budget}
    check_entrants(settings, budgets, eta, held_out)
    executor = executor_for(jobs, config, trainings_of(settings, budgets), what="sweep")
    into.check()
    with into.naming():
        found = _swept(
            *(model, data, into.folder, config, settings, budgets, executor, jobs),
            recipes=recipes,
            eta=eta,
            held_out=held_out,
            resume=resume,
            on_step=on_step,
        )
    into.send(inner=PORTFOLIO, extras={TRIALS: into.folder / TRIALS}, on_step=on_step)
    return found


def _swept(
    model: ModelLike,
    data: str | Dataset,
    out: Path,
    config: BuildConfig,
    settings: Mapping[str, Mapping[str, str]],
    budgets: Mapping[str, Budget],
    executor: Executor,
    jobs: int | Executor,
    *,
    recipes: Sequence[str],
    eta: int,
    held_out: float | None,
    resume: bool,
    on_step: OnStep | None,
) -> Sweep:
    device_named(config.train.device)
    check_place(out, resume=resume)
    dataset = loaded(data, config)
    source = Source.of(model, dataset, seed=config.seed)
    dense = source.make()
    check_model(dense, dataset)
    config = for_task(config, dataset.task)
    judged = held(dataset, held_out, config.seed)
    graph = trace(dense, example_of(dataset), pin=config.prune.pin)
    asked = _asked(config, recipes, eta, held_out, dense, dataset)
    if not (resume and (out / TRIALS).exists()):
        check_trains(source.make(), dataset)
        check_exports(dense, dataset)
    check_place(out, resume=resume)
    executor.ready(trainings_of(settings, budgets), out)
    with closing(executor), holding(out, what="sweep", shown=out):
        check_content(out, resume=resume)
        state = _State.open(out, asked)
        progress = Progress(on_step)
        threads = threads_for(executor, out / STATE)
        with limited(threads):
            alike = _alike(config, dense, dataset, executor)
            bench = TrialBench(alike, out, dataset, judged, graph, source, progress, held_out)
            trials = _Halving(bench, settings, budgets, state, threads).run(dense, eta, executor)
        winners = {trial.variant: trial for trial in trials if not trial.out}
        if not winners:
            first = trials[0]
            raise BudgetError(f"no recipe meets any budget: {first.variant} with {first.recipe}: {first.out}")
        own = {name: own_settings(config, name, settings[trial.recipe]) for name, trial in winners.items()}
        chosen = config.model_copy(update={"budgets": tuple(str(budgets[name]) for name in winners), "by_variant": own})
        folder = out / PORTFOLIO
        portfolio = build(
            *(model, dataset, folder),
            config=chosen,
            resume=is_started(folder),
            on_step=on_step,
            jobs=min(jobs, len(winners) + 1) if isinstance(jobs, int) else jobs,
        )
        portfolio = front(portfolio, _watched(portfolio, folder, dataset, source, config.train.device))
        portfolio.write(folder)
        report_on(portfolio, folder, trials=[asdict(trial) for trial in trials])
        return Sweep(tuple(trials), portfolio)


def rungs(epochs: int, recipes: int, eta: int) -> list[int]:
    """The epochs of each rung: as many rungs as it takes to leave one of so many recipes, each `eta` times longer."""
    count = math.ceil(math.log(recipes, eta) - 1e-9) if recipes > 1 else 0
    return [max(1, round(epochs / eta ** (count - rung))) for rung in range(count)]


def front(portfolio: Portfolio, accuracies: Mapping[str, float] | None = None) -> Portfolio:
    """The portfolio without variants that others beat in accuracy at no more of size, macs and latency; dense stays.

    `accuracies` by variant stand for those of the manifest, which come from the test images: they may not choose where
    others can.
    """
    judged = portfolio
    if accuracies is not None:
        by_others = [
            v.model_copy(update={"metrics": v.metrics.model_copy(update={"accuracy": accuracies[v.name]})})
            for v in portfolio.variants
        ]
        judged = portfolio.model_copy(update={"variants": tuple(by_others)})
    kept = {v.name for metric in ("file_bytes", "macs", "latency_ms") for v in judged.pareto(metric, "accuracy")}
    variants = tuple(v for v in portfolio.variants if v.name in kept or not v.budget)
    return portfolio.model_copy(update={"variants": variants})


def _watched(
    portfolio: Portfolio, folder: Path, dataset: Dataset, source: Source, device: str
) -> dict[str, float] | None:
    """The main metric of each built variant on the images to choose by; None where there are none but the test images.

    From the stored weights: a dense model that was not trained has no epoch that would say it.
    """
    if dataset.watched is None:
        return None
    stored = {v.name: load_weights(folder / f"{v.name}.safetensors", source.make) for v in portfolio.variants}
    return {name: evaluate(model, dataset.watching, device=device) for name, model in stored.items()}


def _asked(
    config: BuildConfig, recipes: Sequence[str], eta: int, held_out: float | None, dense: nn.Module, dataset: Dataset
) -> dict[str, Any]:
    """What a sweep that goes on must have in common with the one that was stopped."""
    return {
        **config.model_dump(mode="json", exclude={"probe"}),
        "recipes": list(recipes),
        "eta": eta,
        # In a number: sweeps of older versions, which always had one, go on.
        "held_out": HELD_OUT if held_out is None and dataset.watched is None else held_out,
        "digest of the images": digest_of_data(dataset),
        "digest of the initial weights": digest_of_weights(dense),
    }


class _State:
    """Accuracies that were found, in a file that is written after each training."""

    def __init__(self, file: Path, asked: Mapping[str, Any], found: dict[str, float]) -> None:
        self.file, self.asked, self.found = file, asked, found

    @staticmethod
    def open(folder: Path, asked: Mapping[str, Any]) -> "_State":
        file = folder / TRIALS
        if not file.exists():
            return _State(file, asked, {})
        before = read_json(file)
        if before.get("asked") != json.loads(json.dumps(asked)):
            raise ConfigError(other_settings(folder))
        return _State(file, asked, dict(before["found"]))

    def add(self, key: str, accuracy: float, trials: Sequence[Trial]) -> None:
        self.found[key] = accuracy
        self.write(trials)

    def write(self, trials: Sequence[Trial]) -> None:
        data = {"asked": self.asked, "found": self.found, "trials": [asdict(trial) for trial in trials]}
        write_atomically(self.file, json.dumps(data, indent=1))


def _alike(config: BuildConfig, dense: nn.Module, dataset: Dataset, executor: Executor) -> BuildConfig:
    """The settings of trials that may run beside each other: what `auto` means for precision is timed before."""
    if isinstance(executor, Here):
        return config
    precision = resolved_precision(dense, dataset, fitted_to(config.train, dataset))
    return config.model_copy(update={"train": config.train.model_copy(update={"precision": precision})})


@dataclass(frozen=True)
class _Halving:
    """Plans of all recipes for all budgets, thinned out rung by rung."""

    bench: TrialBench
    settings: Mapping[str, Mapping[str, str]]
    budgets: Mapping[str, Budget]
    state: _State
    threads: int | None

    def run(self, dense: nn.Module, eta: int, executor: Executor) -> list[Trial]:
        """Every trial as it ended."""
        bench, plans = self.bench, dict[tuple[str, str], Plan]()
        trials = self._planned(dense, plans)
        self.state.write(trials)  # before any other file: a folder without it is not a sweep's
        keep(self.threads, bench.folder / STATE)
        for (variant, recipe), plan in plans.items():
            bench.keep(variant, recipe, plan)
        if at_once := told(executor, self.threads):
            bench.progress("all", "plan", 0, 0, at_once)
        with executor.open(bench) as run:
            for epochs in rungs(fitted_to(bench.config.train, bench.dataset).epochs, len(self.settings), eta):
                self._rung(trials, epochs, eta, run)
        self.state.write(trials)
        return trials

    def _rung(self, trials: list[Trial], epochs: int, eta: int, run: Run) -> None:
        """Train all that have a rival for so many epochs, and leave the best of each budget."""
        alive = [i for i, trial in enumerate(trials) if not trial.out]
        by_variant = {name: [i for i in alive if trials[i].variant == name] for name in self.budgets}
        contested = [i for mine in by_variant.values() if len(mine) > 1 for i in mine]
        waiting: dict[str, int] = {}
        pieces: list[Piece] = []
        for done, i in enumerate(contested):
            trial = trials[i]
            key = _key(trial, epochs)
            if key in self.state.found:
                trials[i] = _judged(trial, epochs, self.state.found[key])
                continue
            pieces.append(self.bench.piece(trial.variant, trial.recipe, epochs, done=done, of=len(contested)))
            waiting[pieces[-1].key] = i
        for piece in run(pieces):
            i, found = waiting[piece.key], self.bench.found(piece)
            if isinstance(found, str):
                trials[i] = replace(trials[i], out=found)
                continue
            self.state.add(_key(trials[i], epochs), found, trials)
            trials[i] = _judged(trials[i], epochs, found)
        for mine in by_variant.values():
            ranked = sorted((i for i in mine if not trials[i].out), key=lambda i: -_last(trials[i]))
            for place, i in list(enumerate(ranked, start=1))[max(1, math.ceil(len(mine) / eta)) :]:
                best_found = metric_value(self.bench.dataset.task.metric, _last(trials[ranked[0]]))
                best = f"{trials[ranked[0]].recipe} has {best_found}"
                after = f"after {epochs} epoch{'s' * (epochs > 1)}"
                trials[i] = replace(trials[i], out=f"{place} of {len(mine)} {after}; {best}")

    def _planned(self, dense: nn.Module, plans: dict[tuple[str, str], Plan]) -> list[Trial]:
        bench, trials = self.bench, list[Trial]()
        for name, budget in self.budgets.items():
            seen: dict[str, str] = {}
            for recipe in self.settings:
                prune = bench.prune_of(name, recipe)
                try:
                    # Recipes compete by accuracy; which rounding is the fastest is for the build to find out.
                    decision = decided(
                        *(bench.config, bench.dataset, bench.graph, dense, name, budget, bench.progress),
                        prune=prune,
                        measure=False,
                        note=recipe,
                    ).decision
                except BudgetError as error:
                    trials.append(Trial(name, str(budget), recipe, {}, out=str(error)))
                    continue
                same = hashlib.sha256(json.dumps(dict(decision.plan.keep)).encode()).hexdigest()
                same += rectifier_for(prune, bench.source.named)
                out = f"the same channels as {seen[same]}" if same in seen else ""
                seen.setdefault(same, recipe)
                plans[name, recipe] = decision.plan
                trials.append(Trial(name, str(budget), recipe, decision.cost.as_dict(), out=out))
        return trials


def _key(trial: Trial, epochs: int) -> str:
    return f"{trial.variant} {trial.recipe} {epochs}"


def _judged(trial: Trial, epochs: int, accuracy: float) -> Trial:
    return replace(trial, accuracies=(*trial.accuracies, (epochs, accuracy)))


def _last(trial: Trial) -> float:
    """What the last rung found; nothing, where it had no rival."""
    return trial.accuracies[-1][1] if trial.accuracies else 0.0
