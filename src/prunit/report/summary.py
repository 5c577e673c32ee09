"""What a table of variants holds: each one's figures beside those of the dense model. Plain data, no HTML."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prunit.edge.portfolio import Latency, Portfolio, Variant
from prunit.report import numbers

NEAR: Final = 0.03
"""How much accuracy (3 points) a variant may lose and still count as near the dense model in the headline."""
GUESSING: Final = 1.1
"""Up to this many times the share of one class among all an accuracy says nothing: who guesses reaches it."""


@dataclass(frozen=True)
class SummaryRow:
    """A variant's figures, and how they compare.

    `times_less` holds the dense model's figure divided by this one's (3.6: 3.6 times less) by key: params, macs,
    file_bytes, peak_memory_bytes and `latency_key(batch)`; a key is missing where one of both was not measured or
    the threads differ. `best` names the keys, accuracy among them, in which no variant is better. `dominated_by` is
    a variant that is at least as good in accuracy, file size, macs and median latency at batch 1, and better in one.
    """

    name: str
    is_dense: bool
    keep: float
    """Share of all channels kept."""
    accuracy: float | None
    accuracy_change: float | None
    """Accuracy minus the dense model's."""
    params: int
    macs: int
    file_bytes: int
    peak_memory_bytes: int | None
    latencies: tuple[Latency, ...]
    seconds: Mapping[str, float]
    times_less: Mapping[str, float]
    best: tuple[str, ...]
    dominated_by: str | None

    def latency(self, batch: int = 1) -> Latency | None:
        """The latency at a batch size, None if it was not measured."""
        return _latency(self.latencies, batch)


def latency_key(batch: int) -> str:
    """The key of the median latency at a batch size in `times_less` and `best`."""
    return f"latency_ms_batch_{batch}"


def summary_rows(portfolio: Portfolio) -> list[SummaryRow]:
    """A row per variant: the dense one first, then from the dearest in macs to the cheapest."""
    dense = dense_variant(portfolio)
    order = sorted(portfolio.variants, key=lambda v: (v is not dense, -v.metrics.macs, -v.metrics.file_bytes))
    best = _best(order)
    return [_row(variant, dense, order, best) for variant in order]


def dense_variant(portfolio: Portfolio) -> Variant | None:
    """The variant to compare with: the one called dense, else the first that keeps every channel."""
    whole = [variant for variant in portfolio.variants if variant.keep == 1]
    return next((variant for variant in whole if variant.name == "dense"), whole[0] if whole else None)


def headline(portfolio: Portfolio, rows: Sequence[SummaryRow]) -> tuple[str, str]:
    """A title (what was built) and a sentence (what came of it)."""
    variants = f"{len(rows)} variant{'' if len(rows) == 1 else 's'}"
    said = (_sentence(rows), _guessing(len(portfolio.classes), rows))
    return f"{portfolio.model} on {portfolio.data}: {variants}", " ".join(filter(None, said))


def pick(rows: Sequence[SummaryRow]) -> tuple[SummaryRow, str] | None:
    """The pruned variant worth naming first, and why: the fastest one near the dense accuracy, if there is one."""
    dense = next((row for row in rows if row.is_dense), None)
    pruned = [row for row in rows if not row.is_dense]
    if not pruned:
        return None
    if len(pruned) == 1:
        return pruned[0], ""
    rated = [row for row in pruned if row.accuracy is not None]
    if not rated:
        return min(pruned, key=lambda row: row.file_bytes), "the smallest variant"
    near = [row for row in rated if row.accuracy_change is not None and row.accuracy_change >= -NEAR]
    if dense is None or not near:
        return max(rated, key=lambda row: row.accuracy or 0), "the most accurate pruned variant"
    within = f"within {100 * NEAR:.0f} points of the dense accuracy"
    timed = [(latency.p50_ms, row) for row in near if (latency := row.latency())]
    if timed:
        return min(timed, key=lambda pair: pair[0])[1], f"the fastest variant {within}"
    return min(near, key=lambda row: row.file_bytes), f"the smallest variant {within}"


def _sentence(rows: Sequence[SummaryRow]) -> str:
    if not rows:
        return "The portfolio holds no variant yet."
    dense = next((row for row in rows if row.is_dense), None)
    named = pick(rows)
    if named is None:
        return f"Only the dense model: {_figures(rows[0])}."
    row, why = named
    subject = f"“{row.name}”, {why}," if why else f"“{row.name}”"
    if dense is None:
        return f"No dense model to compare with. {subject.rstrip(',')}: {_figures(row)}."
    sentence = f"{subject} is {_comparison(row)}"
    if row.accuracy is not None:
        sentence += f"; accuracy {numbers.percent(row.accuracy)}"
        sentence += f" against {numbers.percent(dense.accuracy)}" if dense.accuracy is not None else ""
    return f"{sentence}."


def _guessing(classes: int, rows: Sequence[SummaryRow]) -> str:
    """That accuracies cannot be compared yet, where the dense model is no better than guessing; else ''."""
    accuracy = next((row.accuracy for row in rows if row.is_dense), None)
    if classes < 2 or accuracy is None or accuracy > GUESSING / classes:
        return ""
    return (
        f"The dense model is no better than guessing among {classes} classes: train longer before comparing accuracies."
    )


def _comparison(row: SummaryRow) -> str:
    """'3.6× smaller on disk and 2.9× faster than the dense model at batch 1 (1 thread)', as far as was measured."""
    disk = numbers.times(row.times_less.get("file_bytes", 1), less="smaller", more="larger")
    disk = "as large" if disk == "same" else disk
    speed = row.times_less.get(latency_key(1))
    latency = row.latency()
    if speed is None or latency is None:
        than = "as" if disk == "as large" else "than"
        return f"{disk} on disk {than} the dense model, with {_fewer_macs(row)}"
    pace = numbers.times(speed, less="faster", more="slower")
    pace, than = ("as fast", "as") if pace == "same" else (pace, "than")
    return f"{disk} on disk and {pace} {than} the dense model at batch 1 ({_threads(latency)})"


def _fewer_macs(row: SummaryRow) -> str:
    macs = numbers.times(row.times_less.get("macs", 1), less="fewer macs", more="more macs")
    return "as many macs" if macs == "same" else macs


def _figures(row: SummaryRow) -> str:
    accuracy = "accuracy not measured" if row.accuracy is None else f"accuracy {numbers.percent(row.accuracy)}"
    latency = row.latency()
    speed = f", {numbers.milliseconds(latency.p50_ms)} at batch 1 ({_threads(latency)})" if latency else ""
    return f"{accuracy}, {numbers.size(row.file_bytes)} on disk{speed}"


def _threads(latency: Latency) -> str:
    return f"{latency.threads} thread{'' if latency.threads == 1 else 's'}"


def _latency(latencies: Sequence[Latency], batch: int) -> Latency | None:
    return next((latency for latency in latencies if latency.batch == batch), None)


def _row(
    variant: Variant, dense: Variant | None, variants: Sequence[Variant], best: Mapping[str, Sequence[str]]
) -> SummaryRow:
    metrics = variant.metrics
    reference = dense.metrics.accuracy if dense else None
    change = None if metrics.accuracy is None or reference is None else metrics.accuracy - reference
    return SummaryRow(
        name=variant.name,
        is_dense=variant is dense,
        keep=variant.keep,
        accuracy=metrics.accuracy,
        accuracy_change=change if variant is not dense else None,
        params=metrics.params,
        macs=metrics.macs,
        file_bytes=metrics.file_bytes,
        peak_memory_bytes=metrics.peak_memory_bytes,
        latencies=tuple(sorted(metrics.latencies, key=lambda latency: latency.batch)),
        seconds=dict(variant.seconds),
        times_less=_times_less(variant, dense) if dense and variant is not dense else {},
        best=tuple(key for key, names in best.items() if variant.name in names),
        dominated_by=_dominator(variant, variants),
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
        mine, theirs = (_latency(v.metrics.latencies, batch) for v in (variant, dense))
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


def _dominator(variant: Variant, variants: Sequence[Variant]) -> str | None:
    """The most accurate variant that makes this one pointless, None if there is none."""
    found = [other for other in variants if other is not variant and _dominates(other, variant)]
    return max(found, key=lambda other: other.metrics.accuracy or 0).name if found else None


def _dominates(other: Variant, variant: Variant) -> bool:
    """Whether `other` is nowhere worse and somewhere better; without both accuracies nothing is known."""
    mine, theirs = variant.metrics, other.metrics
    if mine.accuracy is None or theirs.accuracy is None:
        return False
    gains = [theirs.accuracy - mine.accuracy, mine.file_bytes - theirs.file_bytes, mine.macs - theirs.macs]
    my_ms, their_ms = mine.latency_ms(), theirs.latency_ms()
    if my_ms is not None and their_ms is not None:
        gains.append(my_ms - their_ms)
    return min(gains) >= 0 and max(gains) > 0
