"""From a budget to a plan with the engine at hand: `decide`, and what takes a clock besides.

- a budget of time without a profile is met by timing plans (faster.py);
- of roundings that meet a budget, the fastest one that costs no accuracy is taken (choosing.py);
- a budget of a microcontroller or an NPU is met by what its own tools report of the plan (correcting.py);
- everything else is `decide`, and nothing is timed.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

from torch import Tensor, nn

from prunit.allocate import Budget, Limit
from prunit.batches import Batch, Dataset
from prunit.cut.plans import keep_all
from prunit.cut.surgery import copied
from prunit.edge import runtimes
from prunit.errors import ModelError
from prunit.graph import ChannelGraph
from prunit.graph.running import example_tensors
from prunit.prices.costs import width_array
from prunit.recipe.choosing import Candidate, Chosen, candidates_of, fastest, in_words, told, with_timings
from prunit.recipe.config import BuildConfig, PruneConfig
from prunit.recipe.devices import meters_of
from prunit.recipe.dial import Dial, limited
from prunit.recipe.faster import Met, meet
from prunit.recipe.progress import Progress
from prunit.recipe.recipes import Decision, OnRound, Scored, narrowest, scored_for
from prunit.recipe.request import check_timable, untimable
from prunit.recipe.source import example_of
from prunit.recipe.steady import Watch, middle, steadily
from prunit.recipe.stopwatch import Stopwatch
from prunit.scores import Saliency, Score
from prunit.train import device_named

if TYPE_CHECKING:
    from prunit.export.translation import Translation
    from prunit.recipe.blueprint import Blueprint

OnTimed = Callable[[int, int], None]
"""Called with how many timings are done and how many there will be, 0 where that is not known."""

_SECONDS: Final = 1.0
"""How long plans are timed at each batch size, about, for each of them."""


class Watches(Protocol):
    """What makes a stopwatch for a model: `Stopwatch`."""

    def __call__(
        self,
        dense: nn.Module,
        graph: ChannelGraph,
        example: Tensor,
        /,
        *,
        threads: int,
        batches: tuple[int, ...],
        seconds: float,
        translation: "Translation | None",
    ) -> AbstractContextManager[Watch]: ...


@dataclass(frozen=True)
class Clock:
    """How plans are timed: as the finished variants will be, on so many threads, at batch 1 and one more size.

    `engine` is that of `prune.engine`, which `decide_here` fills in. `translation` is what exporting the dense model
    gave, if that was done already (`check_exports`). `watches` makes the stopwatch of a model; None is `Stopwatch`.
    """

    threads: int = 1
    batch: int = 32
    seconds: float = _SECONDS
    translation: "Translation | None" = None
    watches: Watches | None = None
    engine: str = runtimes.DEFAULT

    def watch(
        self, model: nn.Module, graph: ChannelGraph, example: Any, batches: tuple[int, ...]
    ) -> AbstractContextManager[Watch]:
        """A stopwatch for the model, on the CPU whatever the model is on; `ModelError` if no engine can be given it."""
        tensors = example_tensors(example)
        if len(tensors) != 1:
            raise ModelError(f"cannot time plans of a model with {len(tensors)} inputs: only images can be exported")
        on_cpu = all(tensor.device.type == "cpu" for tensor in model.state_dict().values())
        still = model if on_cpu else copied(model).to("cpu")
        image = tensors[0].detach().to("cpu")
        watches: Watches = self.watches or partial(Stopwatch, engine=self.engine)
        return watches(
            *(still, graph, image),
            threads=self.threads,
            batches=batches,
            seconds=self.seconds,
            translation=self.translation,
        )


def decide_here(
    model: nn.Module,
    graph: ChannelGraph,
    example: Any,
    batches: Sequence[Batch],
    budget: Budget,
    config: PruneConfig,
    *,
    measure: bool,
    clock: Clock | None = None,
    every: bool = False,
    score: Score | Saliency | None = None,
    on_round: OnRound | None = None,
    on_timed: OnTimed | None = None,
    blueprint: "Blueprint | None" = None,
) -> Chosen:
    """The plan within the budget, found with a clock where the budget or `measure` asks for it.

    With `measure` the rounding is chosen by timing, where `config` leaves a choice and more than one plan competes;
    with `every` all plans are timed, those too that do not compete or are alone. `example` is an image for the model on
    the CPU; `batches` are where the model is; `blueprint` is the model's, if there is one. Raises `BudgetError` with
    the closest reachable point, timed if need be.
    """
    clock, on_timed = replace(clock or Clock(), engine=config.engine), on_timed or (lambda done, total: None)
    started = perf_counter()
    check_timable(budget, config, every=every)
    if budget.timed:
        chosen = _within_time(
            *(model, graph, example, batches, budget, config),
            limit=budget.timed,
            clock=clock,
            score=score,
            on_round=on_round,
            on_timed=on_timed,
            blueprint=blueprint,
        )
    elif budget.on_parts:
        from prunit.recipe.blueprint import Blueprint
        from prunit.recipe.correcting import met_by_tools

        blueprint = blueprint or Blueprint(model, graph, example_tensors(example)[0], translation=clock.translation)
        scored, _ = scored_for(
            *(model, graph, batches, budget, config), score=score, on_round=on_round, blueprint=blueprint
        )
        chosen = Chosen(met_by_tools(scored, budget, config))
    else:
        scored, target = scored_for(model, graph, batches, budget, config, score=score, on_round=on_round)
        chosen = Chosen(scored.decide(budget, config, target=target))
        if measure and not untimable(config.engine):
            chosen = measured(
                *(scored, example, budget, config, chosen.decision), clock=clock, every=every, on_timed=on_timed
            )
    return replace(chosen, decision=replace(chosen.decision, seconds=perf_counter() - started))


def measured(
    scored: Scored,
    example: Any,
    budget: Budget,
    config: PruneConfig,
    default: Decision,
    *,
    clock: Clock,
    every: bool = False,
    on_timed: OnTimed = lambda done, total: None,
) -> Chosen:
    """Of the plans that may compete with the default one the fastest here; `every` times those that are out too."""
    candidates = candidates_of(scored, default, budget, config)
    timed = [c for c in candidates if every or not c.out]
    if len(timed) < 2 and not every:
        return Chosen(default, tuple(candidates))
    sizes = tuple(dict.fromkeys((1, clock.batch)))
    on_timed(0, len(timed))
    with clock.watch(scored.model, scored.graph, example, sizes) as watch:
        found = steadily(watch, {c.name: c.decision.plan for c in timed})
        timings = {name: [middle(each) for each in zip(*several, strict=True)] for name, several in found.items()}
    on_timed(len(timed), len(timed))
    candidates = with_timings(candidates, timings)
    best = fastest(candidates)
    text = told(best, candidates, clock.engine)
    decision = replace(_with_origin(best.decision, {"measured": text}), measured=best.timings)
    return Chosen(decision, tuple(candidates))


def _within_time(
    model: nn.Module,
    graph: ChannelGraph,
    example: Any,
    batches: Sequence[Batch],
    budget: Budget,
    config: PruneConfig,
    *,
    limit: Limit,
    clock: Clock,
    score: Score | Saliency | None,
    on_round: OnRound | None,
    on_timed: OnTimed,
    blueprint: "Blueprint | None",
) -> Chosen:
    if budget.on_parts and blueprint is None:
        from prunit.recipe.blueprint import Blueprint

        blueprint = Blueprint(model, graph, example_tensors(example)[0], translation=clock.translation)
    with clock.watch(model, graph, example, (1,)) as watch:
        # A latency in ms says how much there is to prune only beside that of the dense model.
        share = limit.share if limit.share is not None else _share_of(limit, graph, watch)
        target = narrowest(graph, budget.known, config, meters_of(graph, budget.known, config, blueprint))
        # Scored as for half that share of the multiply-adds: they shrink faster than the time they take.
        asked = limited(budget.known, target, share / 2)
        scored, _ = scored_for(
            *(model, graph, batches, asked, config), score=score, on_round=on_round, blueprint=blueprint
        )
        dial = Dial(scored, budget.known, config, target)
        met = meet(dial, limit, watch, tell=lambda done: on_timed(done, 0))
    text = f"{in_words(met.timing, clock.engine)}; found by timing {len(met.tried)} plans"
    decision = _with_origin(met.decision, {"budget": str(budget), "measured": text})
    known = dial.target.shares_used(dial.target.figures(width_array(graph, decision.plan.widths)))
    used = {str(x): met.used if x is limit else known[str(x)] for x in budget.limits}
    return Chosen(replace(decision, used=used, measured=(met.timing,)), _tried(met))


def _tried(met: Met) -> tuple[Candidate, ...]:
    """What was timed on the way, from narrow to wide."""
    tried = sorted(met.tried, key=lambda entry: entry.macs)
    return tuple(
        Candidate(f"macs={entry.decision.cost.macs / max(entry.decision.dense.macs, 1):.1%}", entry.decision, (t,))
        for entry in tried
        for t in entry.timings[-1:]
    )


def _with_origin(decision: Decision, more: Mapping[str, str]) -> Decision:
    return replace(decision, plan=replace(decision.plan, origin={**decision.plan.origin, **more}))


def _share_of(limit: Limit, graph: ChannelGraph, watch: Watch) -> float:
    (timing, *_) = watch({"dense": keep_all(graph)})["dense"]
    return limit.share_of({"latency_ms": timing.dense_p50_ms})


def decided(
    config: BuildConfig,
    dataset: Dataset,
    graph: ChannelGraph,
    dense: nn.Module,
    name: str,
    budget: Budget,
    progress: Progress,
    *,
    prune: PruneConfig | None = None,
    measure: bool | None = None,
    translation: "Translation | None" = None,
    note: str = "",
    blueprint: "Blueprint | None" = None,
) -> Chosen:
    """What a variant keeps, decided on the device of the training and timed as its finished model will be.

    `prune` are other settings than the configuration has for the variant; with `measure=False` nothing is timed but
    what a budget of time needs. `translation` is what exporting the dense model gave, if that was done already.
    `note` is told with the progress; `blueprint` is the dense model's, for budgets of parts.
    """
    progress(name, "prune", 0, 0, note)
    prune = prune or config.prune_of(name)
    batches = dataset.scoring_batches(per_class=prune.per_class, batch_size=256, seed=prune.seed)
    place = device_named(config.train.device)
    try:
        return decide_here(
            dense.to(place),
            graph,
            example_of(dataset),
            batches.to(place),
            budget,
            prune,
            measure=prune.measure is not False if measure is None else measure,
            clock=Clock(config.probe.threads, config.probe.batch, translation=translation),
            on_round=lambda done, total: progress(name, "prune", done, total, note),
            on_timed=lambda done, total: progress(name, "measure", done, total, note),
            blueprint=blueprint,
        )
    finally:
        dense.to("cpu")
