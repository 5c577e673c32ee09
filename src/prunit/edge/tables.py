"""Portfolios and variants as they are shown in a terminal and in a notebook."""

from typing import TYPE_CHECKING, Final

from prunit.shown import NUMBERS, Table, count, metric_value

if TYPE_CHECKING:
    from prunit.edge.portfolio import Portfolio, Variant

_HEAD: Final = ("variant", "accuracy", "latency", "params", "macs", "file")


def of_portfolio(portfolio: "Portfolio") -> Table:
    """A row for each variant, with what there is to say of it in a word."""
    from prunit.edge.comparing.verdicts import KINDS, verdicts  # it needs the records, which need this

    words: dict[str, list[str]] = {}
    for verdict in verdicts(portfolio):
        words.setdefault(verdict.variant, []).append(KINDS[verdict.kind])
    parts = (f"{portfolio.model} on {portfolio.data}", count(len(portfolio.classes), "class", "classes"))
    title = f"Portfolio {portfolio.name}: {count(len(portfolio.variants), 'variant')}, {', '.join(parts)}"
    device = portfolio.device
    notes = (f"measured on {device.name} with {device.engine}",) if device else ()
    rows = [(variant.name, *_figures(variant, portfolio.task.metric)) for variant in portfolio.variants]
    head = tuple(portfolio.task.metric if name == "accuracy" else name for name in _HEAD)
    if not words:
        return Table(title, head, rows, notes)
    told = [(*row, ", ".join(words.get(row[0], ()))) for row in rows]
    return Table(title, (*head, ""), told, notes)


def of_variant(variant: "Variant") -> Table:
    """A row for each figure."""
    budget = ",".join(f"{key}={value}" for key, value in variant.budget.items())
    settings = ", ".join((variant.recipe, *(f"{key}={value}" for key, value in variant.settings.items())))
    rows = [*zip(_HEAD[1:], _figures(variant), strict=True), ("channels kept", f"{100 * variant.keep:.1f} %")]
    title = f"Variant {variant.name}: {settings}{f' for {budget}' if budget else ''}"
    return Table(title, (), [*rows, ("epochs", str(variant.epochs))], (f"file: {variant.artifact.path}",))


def _figures(variant: "Variant", metric: str = "") -> tuple[str, ...]:
    """Below `_HEAD`, without the name. A variant by itself does not know the metric."""
    held, latency_ms = variant.metrics, variant.metrics.latency_ms()
    metric = metric or next((name for name in NUMBERS if held.scores.get(name) == held.accuracy), "")
    return (
        "–" if held.accuracy is None else metric_value(metric, held.accuracy),
        "–" if latency_ms is None else f"{latency_ms:.3g} ms",
        *(f"{held.params:,}", f"{held.macs:,}", f"{held.file_bytes / 1000:,.0f} KB"),
    )
