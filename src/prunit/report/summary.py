"""What a table of variants holds: each one's figures beside those of the dense model. Plain data, no HTML."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prunit.edge.comparing.compare import Pace, against, better_in, dense_of, pace
from prunit.edge.comparing.paired import Difference
from prunit.edge.comparing.verdicts import Kind, Verdict, verdicts
from prunit.edge.portfolio import Latency, Portfolio, Variant


@dataclass(frozen=True)
class SummaryRow:
    """A variant's figures, and how they compare.

    `times_less` holds the dense model's figure divided by this one's (3.6: 3.6 times less) by key: params, macs,
    file_bytes, peak_memory_bytes and `latency_key(batch)`; a key is missing where one of both was not measured or
    the threads differ. `best` names the keys, accuracy among them, in which no variant is better. `verdicts` are those
    on this variant.
    """

    name: str
    is_dense: bool
    keep: float
    """Share of all channels kept."""
    metric: str
    """What `accuracy` is: the name of the task's main metric."""
    accuracy: float | None
    accuracy_change: float | None
    """Accuracy minus the dense model's."""
    difference: Difference | None
    """The same with its interval, where both answered the same test images."""
    params: int
    macs: int
    file_bytes: int
    peak_memory_bytes: int | None
    latencies: tuple[Latency, ...]
    seconds: Mapping[str, float]
    times_less: Mapping[str, float]
    pace: Pace | None
    """At batch 1 against the dense model, beyond noise."""
    better: tuple[str, ...]
    """In which figures it is surely better than the dense model, accuracy left out."""
    best: tuple[str, ...]
    verdicts: tuple[Verdict, ...] = ()

    def latency(self, batch: int = 1) -> Latency | None:
        """The latency at a batch size, None if it was not measured."""
        return next((latency for latency in self.latencies if latency.batch == batch), None)

    def verdict(self, kind: Kind) -> Verdict | None:
        """The verdict of that kind, if there is one."""
        return next((verdict for verdict in self.verdicts if verdict.kind == kind), None)

    @property
    def dominated_by(self) -> str | None:
        """A variant than which this one is not better in anything."""
        beaten = self.verdict("beaten")
        return beaten.than if beaten else None


def latency_key(batch: int) -> str:
    """The key of the median latency at a batch size in `times_less` and `best`."""
    return f"latency_ms_batch_{batch}"


def summary_rows(portfolio: Portfolio) -> list[SummaryRow]:
    """A row per variant: the dense one first, then from the dearest in macs to the cheapest."""
    dense = dense_of(portfolio)
    order = sorted(portfolio.variants, key=lambda v: (v is not dense, -v.metrics.macs, -v.metrics.file_bytes))
    best, found = _best(order), verdicts(portfolio)
    return [
        _row(variant, dense, best, [v for v in found if v.variant == variant.name], portfolio.task.metric)
        for variant in order
    ]


def _row(
    variant: Variant,
    dense: Variant | None,
    best: Mapping[str, Sequence[str]],
    found: Sequence[Verdict],
    metric: str,
) -> SummaryRow:
    metrics, other = variant.metrics, None if variant is dense else dense
    reference = other.metrics.accuracy if other else None
    change = None if metrics.accuracy is None or reference is None else metrics.accuracy - reference
    return SummaryRow(
        name=variant.name,
        is_dense=variant is dense,
        keep=variant.keep,
        metric=metric,
        accuracy=metrics.accuracy,
        accuracy_change=change,
        difference=against(variant, other) if other else None,
        params=metrics.params,
        macs=metrics.macs,
        file_bytes=metrics.file_bytes,
        peak_memory_bytes=metrics.peak_memory_bytes,
        latencies=tuple(sorted(metrics.latencies, key=lambda latency: latency.batch)),
        seconds=dict(variant.seconds),
        times_less=_times_less(variant, other) if other else {},
        pace=pace(metrics.latency(), other.metrics.latency()) if other else None,
        better=tuple(name for name in better_in(variant, other, surely=True) if name != "accuracy") if other else (),
        best=tuple(key for key, names in best.items() if variant.name in names),
        verdicts=tuple(found),
    )


_COSTS: Final[Mapping[str, Callable[[Variant], float | None]]] = {
    "params": lambda variant: variant.metrics.params,
    "macs": lambda variant: variant.metrics.macs,
    "file_bytes": lambda variant: variant.metrics.file_bytes,
    "peak_memory_bytes": lambda variant: variant.metrics.peak_memory_bytes,
}


def _times_less(variant: Variant, dense: Variant) -> dict[str, float]:
    pairs: dict[str, tuple[float | None, float | None]]
    pairs = {key: (cost(dense), cost(variant)) for key, cost in _COSTS.items()}
    for batch in {latency.batch for latency in variant.metrics.latencies}:
        mine, theirs = (v.metrics.latency(batch=batch) for v in (variant, dense))
        if mine and theirs and mine.threads == theirs.threads:
            pairs[latency_key(batch)] = (theirs.p50_ms, mine.p50_ms)
    return {key: theirs / mine for key, (theirs, mine) in pairs.items() if theirs and mine}


def _best(variants: Sequence[Variant]) -> dict[str, list[str]]:
    """The names of the best variants by key; nothing where there is no second one to be better than."""
    figures: dict[str, dict[str, float | None]]
    figures = {key: {v.name: cost(v) for v in variants} for key, cost in _COSTS.items()}
    figures["accuracy"] = {v.name: None if v.metrics.accuracy is None else -v.metrics.accuracy for v in variants}
    for batch in sorted({latency.batch for v in variants for latency in v.metrics.latencies}):
        figures[latency_key(batch)] = {v.name: v.metrics.latency_ms(batch=batch) for v in variants}
    best: dict[str, list[str]] = {}
    for key, by_name in figures.items():
        known = {name: value for name, value in by_name.items() if value is not None}
        if len(known) > 1:
            best[key] = [name for name, value in known.items() if value == min(known.values())]
    return best
