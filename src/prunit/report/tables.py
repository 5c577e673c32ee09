"""The tables of the page, in HTML. Every name is escaped, every figure carries its unit or stands under it."""

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from prunit.edge.comparing.paired import Difference
from prunit.edge.portfolio import Latency, Portfolio, Variant
from prunit.report import numbers
from prunit.report.charts import dense_widths, group_names
from prunit.report.summary import SummaryRow, latency_key

MISSING: Final = '<td class="missing"><span aria-hidden="true">–</span><span class="unseen">not measured</span></td>'
DOMINATED: Final = "it is not better than the other variant in anything that was measured, beyond noise"
_SMALL_P: Final = 0.0001


@dataclass(frozen=True)
class Column:
    """A column of the summary: its heading, the heading above it (with a remark), and what a row shows.

    `key` is that of the row's `times_less` and `best`, empty where figures are not compared.
    """

    head: str
    show: Callable[[SummaryRow], str | None]
    key: str = ""
    above: str = ""
    remark: str = ""


def text(value: object) -> str:
    """The value, escaped for HTML."""
    return html.escape(str(value))


def summary_table(rows: Sequence[SummaryRow]) -> str:
    """A row per variant, dense first, with how many times less than dense beneath each figure."""
    columns = _columns(rows)
    body = "".join(
        f"<tr{_class('dominated', row.dominated_by is not None)}>{_name_cell(row)}"
        f"{''.join(_cell(row, column) for column in columns)}</tr>"
        for row in rows
    )
    dense = next((row for row in rows if row.is_dense), None)
    compared = f" The small print compares with “{text(dense.name)}”." if dense and len(rows) > 1 else ""
    marks = ' <span class="best">Tinted</span>: the best of its column.' if len(rows) > 1 else ""
    if any(row.dominated_by for row in rows):
        marks += f' <span class="tag">dominated</span>: {DOMINATED}.'
    return scrollable(f"Figures of each variant.{compared}{marks}", _summary_head(columns) + f"<tbody>{body}</tbody>")


def scrollable(caption: str, content: str, *, looks: str = "") -> str:
    """A table that scrolls inside the page where it is too wide; `caption` is HTML, read out up to its first dot.

    `looks` are CSS classes: 'tall' for a table that scrolls up and down too, 'words' for one that is not of numbers.
    """
    label = text(html.unescape(caption.partition(".")[0]))
    return (
        f'<div class="{f"scroll {looks}".strip()}" role="region" aria-label="{label}" tabindex="0">'
        f"<table><caption><span>{caption}</span></caption>{content}</table></div>"
    )


def simple_table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, looks: str = "") -> str:
    """A table whose first column names its rows. `caption` and the cells are HTML, `heads` plain text."""
    head = "".join(f'<th scope="col">{text(title)}</th>' for title in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return scrollable(caption, f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>", looks=looks)


def widths_table(portfolio: Portfolio, rows: Sequence[SummaryRow]) -> str:
    """Channels kept: a row per group in network order, a column per variant."""
    variants = [portfolio.variant(row.name) for row in rows]
    dense = dense_widths(portfolio)
    pruned = [variant for variant, row in zip(variants, rows, strict=True) if not row.is_dense]
    body = (
        [f"<code>{text(group)}</code>", f"{dense[group]:,}", *(_kept(variant, group) for variant in pruned)]
        for group in group_names(portfolio)
    )
    heads = ["group", "dense", *(variant.name for variant in pruned)]
    return simple_table("Channels kept in each group, in network order", heads, body, looks="tall")


def recipes_table(portfolio: Portfolio, rows: Sequence[SummaryRow]) -> str:
    """How each variant was made."""
    variants = (portfolio.variant(row.name) for row in rows)
    body = (
        [
            text(variant.name),
            text(variant.recipe),
            _with(variant, portfolio),
            text(_budget(variant)),
            numbers.percent(variant.keep),
            f"{variant.epochs:,}",
            str(variant.seed),
            f"<code>{text(variant.artifact.path)}</code>",
            f'<code title="{text(variant.artifact.sha256)}">{text(variant.artifact.sha256[:12])}</code>',
            f"{variant.artifact.tolerance:.2g}",
        ]
        for variant in variants
    )
    heads = [
        "variant",
        "recipe",
        "with",
        "budget, as written",
        "channels kept",
        "epochs",
        "seed",
        "model file",
        "SHA-256 begins",
        "self-test tolerance",
    ]
    return simple_table("Origin of each variant", heads, body, looks="words origin")


def _with(variant: Variant, portfolio: Portfolio) -> str:
    """Its settings, a line each; one of fewer bits has those of its float twin, which stand there."""
    twin = portfolio.float_twin(variant)
    if twin is not None:
        return f"“{text(twin.name)}” in {text(variant.precision)}"
    return "<br>".join(text(f"{name} {value}") for name, value in variant.settings.items()) or "–"


def differences_table(rows: Sequence[SummaryRow]) -> str:
    """Each variant's accuracy against the dense model's, image by image."""
    dense, metric = next((row.name for row in rows if row.is_dense), "dense"), rows[0].metric
    body = (
        [
            text(row.name),
            numbers.gain(metric, found.value),
            f"{numbers.change(metric, found.low)} to {numbers.change(metric, found.high)}",
            "yes" if found.measurable else "no",
            *_mcnemar(found),
        ]
        for row in rows
        if (found := row.difference)
    )
    points = "" if metric in numbers.PLAIN else ", points"
    heads = ["variant", text(metric), f"95 % interval{points}", "measurable"]
    if any(row.difference and row.difference.p is not None for row in rows):
        heads += ["only it is right", f"only {text(dense)} is", "images", "p (McNemar, exact)"]
    return simple_table(f"{text(numbers.capitalised(metric))} against “{text(dense)}”", heads, body)


def _mcnemar(found: Difference) -> list[str]:
    """How many images only one of both has right, of how many, and the test of it; nothing where there is none."""
    if found.p is None:
        return []
    p = f"{found.p:.2g}" if found.p >= _SMALL_P else text(f"< {_SMALL_P}")
    return [f"{found.first:,}", f"{found.second:,}", f"{found.images:,}", p]


def latencies_table(rows: Sequence[SummaryRow]) -> str:
    """Every latency that was measured, a row each."""
    body = (
        [
            text(row.name),
            str(latency.batch),
            str(latency.threads),
            f"{latency.n:,}",
            *(numbers.significant(ms) for ms in (latency.p50_ms, latency.p90_ms, latency.p99_ms)),
            _per_second(latency),
        ]
        for row in rows
        for latency in row.latencies
    )
    heads = ["variant", "batch", "threads", "n", "p50, ms", "p90, ms", "p99, ms", "images/s at p50"]
    return simple_table("All latencies", heads, body, looks="tall")


def _columns(rows: Sequence[SummaryRow]) -> list[Column]:
    metric = rows[0].metric if rows else "accuracy"
    columns = [
        Column(metric, lambda row: None if row.accuracy is None else numbers.score(metric, row.accuracy), "accuracy"),
        Column("params", lambda row: numbers.count(row.params), "params"),
        Column("macs", lambda row: numbers.count(row.macs), "macs"),
        Column("file size", lambda row: numbers.size(row.file_bytes), "file_bytes"),
        *_latency_columns(rows),
    ]
    if any(row.peak_memory_bytes is not None for row in rows):
        columns.append(Column("peak memory", _memory, "peak_memory_bytes"))
    steps = list(dict.fromkeys(step for row in rows for step in row.seconds))
    return columns + [Column(step, _seconds_of(step), above="time to") for step in steps]


def _latency_columns(rows: Sequence[SummaryRow]) -> list[Column]:
    """p50, p90 and p99 at batch 1, the median at every other batch size."""
    columns: list[Column] = []
    for batch in sorted({latency.batch for row in rows for latency in row.latencies}):
        found = [latency for row in rows if (latency := row.latency(batch))]
        above, remark = "latency at batch 1, ms" if batch == 1 else f"batch {batch}, ms", _how(found)
        median = _percentile(batch, lambda latency: latency.p50_ms)
        columns.append(Column("p50", median, latency_key(batch), above, remark))
        if batch == 1:
            columns.append(Column("p90", _percentile(batch, lambda latency: latency.p90_ms), "", above, remark))
            columns.append(Column("p99", _percentile(batch, lambda latency: latency.p99_ms), "", above, remark))
    return columns


def _how(latencies: Sequence[Latency]) -> str:
    threads = _span([latency.threads for latency in latencies])
    runs = _span([latency.n for latency in latencies])
    return f"{threads} thread{'' if threads == '1' else 's'}, n = {runs}"


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _percentile(batch: int, of: Callable[[Latency], float]) -> Callable[[SummaryRow], str | None]:
    def show(row: SummaryRow) -> str | None:
        latency = row.latency(batch)
        return None if latency is None else numbers.significant(of(latency))

    return show


def _memory(row: SummaryRow) -> str | None:
    return None if row.peak_memory_bytes is None else numbers.size(row.peak_memory_bytes)


def _seconds_of(step: str) -> Callable[[SummaryRow], str | None]:
    return lambda row: numbers.duration(row.seconds[step]) if step in row.seconds else None


def _summary_head(columns: Sequence[Column]) -> str:
    """Two lines of headings: single columns reach over both, a family of columns has its title above."""
    upper = ['<th scope="col" rowspan="2">variant</th>']
    lower: list[str] = []
    previous = ""
    for column in columns:
        family = sum(other.above == column.above for other in columns)
        if not column.above:
            upper.append(f'<th scope="col" rowspan="2">{text(column.head)}</th>')
        elif column.above != previous:
            upper.append(f'<th scope="colgroup" colspan="{family}" class="family">{_family(column)}</th>')
        if column.above:
            lower.append(f'<th scope="col">{text(column.head)}</th>')
        previous = column.above
    return f"<thead><tr>{''.join(upper)}</tr><tr>{''.join(lower)}</tr></thead>"


def _family(column: Column) -> str:
    return text(column.above) + (f"<small>{text(column.remark)}</small>" if column.remark else "")


def _name_cell(row: SummaryRow) -> str:
    tag = f'<small class="tag">dominated by {text(row.dominated_by)}</small>' if row.dominated_by else ""
    return f'<th scope="row">{text(row.name)}{tag}</th>'


def _cell(row: SummaryRow, column: Column) -> str:
    shown = column.show(row)
    if shown is None:
        return MISSING
    small = ""
    if column.key == "accuracy" and row.accuracy_change is not None:
        small = f"<small>{numbers.gain(row.metric, row.accuracy_change)}</small>"
    elif column.key in row.times_less:
        small = f"<small>{numbers.times(row.times_less[column.key])}</small>"
    best = '<span class="unseen"> (best)</span>' if column.key in row.best else ""
    figure = f'<span class="best">{shown}</span>{best}' if best else shown
    return f"<td>{figure}{small}</td>"


def _kept(variant: Variant, group: str) -> str:
    if group not in variant.widths:
        return "–"
    dense, kept = variant.widths[group]
    whole = _class("whole", kept == dense)
    return f"<span{whole}>{kept:,}</span> <small>{100 * kept / dense:.0f}{numbers.SPACE}%</small>"


def _budget(variant: Variant) -> str:
    """'params=1/4, latency_ms=5' for a budget; the dense model has none."""
    return ", ".join(f"{key}={value}" for key, value in variant.budget.items()) or "none"


def _per_second(latency: Latency) -> str:
    return numbers.significant(1000 * latency.batch / latency.p50_ms) if latency.p50_ms else "–"


def _class(name: str, given: bool) -> str:
    return f' class="{name}"' if given else ""
