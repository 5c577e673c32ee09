"""What fewer bits cost: each variant in int8 or bf16 beside its float twin, and those that were not kept."""

from collections.abc import Mapping, Sequence
from typing import Final

from prunit.edge.portfolio import Portfolio, Variant
from prunit.report import numbers
from prunit.report.tables import simple_table, text

_MOST: Final = 4
"""So many layers that stay in float are named."""
_METHODS: Final[Mapping[str, str]] = {"minmax": "the extremes", "mse": "least squared error"}
"""Of finding the ranges of activations, in words."""


def precisions_section(portfolio: Portfolio) -> str:
    """A table of the variants of fewer bits, and a line for each that was left out; '' where there is neither."""
    found = [variant for variant in portfolio.variants if variant.lowered]
    left_out = "".join(
        f'<li><span class="tag">left out</span><span>“{text(each.name)}”: {text(each.why)}.</span></li>'
        for each in portfolio.left_out
    )
    lines = f'<ul class="verdicts" aria-label="Precisions that were left out">{left_out}</ul>' if left_out else ""
    return (_table(portfolio, found) if found else "") + lines


def _table(portfolio: Portfolio, found: Sequence[Variant]) -> str:
    metric = portfolio.task.metric
    rows: list[list[str]] = []
    for variant in found:
        lowered = variant.lowered
        assert lowered is not None
        twin, gap = portfolio.float_twin(variant), lowered.against
        rows.append(
            [
                text(variant.name),
                text(lowered.twin),
                "–" if gap is None else numbers.gain(metric, gap.difference),
                "–" if gap is None else f"{numbers.change(metric, gap.low)} to {numbers.change(metric, gap.high)}",
                "–" if lowered.agreement is None else numbers.percent(lowered.agreement),
                _ratio(variant.metrics.file_bytes, twin and twin.metrics.file_bytes),
                *(
                    _ratio(variant.metrics.latency_ms(batch=b), twin and twin.metrics.latency_ms(batch=b))
                    for b in _batches(found)
                ),
                "<br>".join(map(text, made_by(variant))),
            ]
        )
    heads = [
        "variant",
        "float twin",
        metric,
        "95 % interval" if metric in numbers.PLAIN else "95 % interval, points",
        "same answer",
        "file",
        *(f"time at batch {batch}" for batch in _batches(found)),
        "made by",
    ]
    caption = "Each precision beside its float twin; files and times as shares of the twin's"
    return simple_table(caption, heads, rows, looks="last-words")


def _batches(found: Sequence[Variant]) -> list[int]:
    return sorted({latency.batch for variant in found for latency in variant.metrics.latencies})


def _ratio(mine: float | None, theirs: float | None) -> str:
    """'0.27'; a dash where one of both is not known."""
    return f"{mine / theirs:.2f}" if mine is not None and theirs else "–"


def made_by(variant: Variant) -> list[str]:
    """How a variant of fewer bits came about, in a few words each."""
    lowered = variant.lowered
    assert lowered is not None
    parts = [lowered.library or "unknown"]
    if lowered.method:
        method = _METHODS.get(lowered.method, lowered.method)
        parts.append(f"ranges by {method} of {lowered.images:,} training images, seed {lowered.seed}")
    if lowered.tuned:
        parts.append(f"weights trained for it, {lowered.tuned} epoch{'s' * (lowered.tuned > 1)}")
    if lowered.float_layers:
        named = ", ".join(lowered.float_layers[:_MOST])
        more = len(lowered.float_layers) - _MOST
        parts.append(f"in float: {named}" + (f" and {more} more" if more > 0 else ""))
    if variant.engine:
        parts.append(f"runs in {variant.engine}")
    return parts
