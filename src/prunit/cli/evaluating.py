"""`prunit evaluate`: every variant of a portfolio judged on labelled images, without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from prunit.cli.options import AsJson, Threads
from prunit.cli.safe import safe

if TYPE_CHECKING:
    from prunit.edge.judging.evaluation import Evaluation, Judgement

_SHARES: Final = ("r2", "mae", "rmse")
"""Metrics that are no shares: R² may be far below 0, errors have the user's units. All others are shown in percent."""
_LONG: Final = 40
"""The most classes that are printed; the rest is in the JSON."""


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A portfolio folder.")],
    data: Annotated[
        Path,
        typer.Option("--data", help="A folder of labelled images, or a file that lists them, as for build --data."),
    ],
    split: Annotated[
        str | None,
        typer.Option("--split", help="test, val, train or all. (default: test if it is there, else val)"),
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="Judge this one alone. Can be repeated. (default: all)")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images at once. (default: 32, or fewer large ones)")] = None,
    threads: Threads = 1,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out images that cannot be used, and count them.")
    ] = False,
    save: Annotated[
        bool, typer.Option("--save", help="Write evaluation.json, and a section of report.html with the worst images.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Judge every variant on labelled images, through this device's own engine. Needs no torch."""
    from prunit.cli.progress import Bars
    from prunit.edge.judging.evaluation import evaluate as run
    from prunit.edge.judging.judge import JudgeSettings
    from prunit.edge.portfolio import Portfolio
    from prunit.errors import harmless
    from prunit.report import rewrite_report

    portfolio = Portfolio.read(folder)
    settings = JudgeSettings(batch=batch, threads=threads, skip_broken=skip_broken, pictures=_PICTURES if save else 0)
    with Bars() as bars:
        found = run(
            *(portfolio, folder, data),
            split=split,
            variants=variant or None,
            settings=settings,
            tell=lambda done, total: bars.tell("all", "judge", done, total),
        )
    stale = None
    if save:
        found.write(folder)
        stale = rewrite_report(portfolio, folder)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _show(found)
        if save:
            typer.echo(harmless(f"written to {folder / 'evaluation.json'}" + (" and report.html" * (stale == ""))))
    if stale:
        typer.echo(harmless(f"report.html stays without it: {stale}"), err=True)


_PICTURES: Final = 10
"""Of each variant, in the report."""


def _show(found: "Evaluation") -> None:
    from prunit.cli import show

    out = show.console()
    out.print(_judgements(found))
    by = "Wilson" if found.interval_by == "wilson" else "the images drawn anew, many times"
    compared = "; the difference on the same images" if any(v.against for v in found.variants) else ""
    out.print(f"[dim]intervals of 95 %, by {by}{compared}[/]")
    if any(v.by_class for v in found.variants):
        out.print(_by_class(found, out))
    for one in found.variants:
        if one.confusion is not None:
            out.print(_confusion(one, found.classes, out))
    skipped = f", {found.skipped} left out" if found.skipped else ""
    out.print(safe(f"{found.images:,} images of '{found.data}' ({found.layout}), part {found.split}{skipped}"))
    for note in found.notes:
        out.print(f"[yellow]note:[/] {safe(note)}")
    start, peak = (f"{size / 1e6:,.0f} MB" for size in found.resident_bytes)
    out.print(
        f"[dim]{found.images_per_s:,.0f} images/s through all of it, batch {found.batch}; memory {start} at the start,"
        f" {peak} at the peak[/]"
    )


def _judgements(found: "Evaluation") -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("variant", overflow="fold")
    others = [name for name in found.variants[0].scores if name != found.metric]
    for column in (
        found.metric,
        "95 % interval",
        "to dense",
        "interval, points",
        *others,
        "manifest",
        "engine\nimages/s",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for one in found.variants:
        interval = "–" if one.interval is None else _between(found.metric, one.interval)
        gap = one.against
        compared = ("–", "–")
        if gap is not None:
            word = "" if gap.measurable else " [dim](may be chance)[/]"
            compared = (_points(found.metric, gap.difference), _span(found.metric, gap.low, gap.high) + word)
        recorded = "–" if one.recorded is None else figure(found.metric, one.recorded)
        table.add_row(
            safe(one.variant),
            *(figure(found.metric, one.value), interval, *compared),
            *("–" if name not in one.scores else figure(name, one.scores[name]) for name in others),
            *(recorded, f"{one.engine_images_per_s:,.0f}"),
        )
    return table


def _by_class(found: "Evaluation", out: Console) -> Table:
    """The main figure of each class and variant; all figures of one variant where there is no other."""
    labels = list(dict.fromkeys(label for one in found.variants for label in one.by_class))
    first = found.variants[0]
    alone = len(found.variants) == 1
    keys = list(next(iter(first.by_class.values()), {}))
    counts = [key for key in keys if key in ("images", "objects", "pixels")]
    shown = keys if alone else keys[:1]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class" if found.task != "regression" else "value", overflow="fold")
    heads = keys if alone else [*counts, *(f"{safe(v.variant)}\n{shown[0]}" for v in found.variants)]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for label in labels[:_LONG]:
        if alone:
            cells = [figure(key, first.by_class[label].get(key)) for key in keys]
        else:
            known = [one.by_class.get(label, {}) for one in found.variants]
            cells = [figure(key, next((of[key] for of in known if of), None)) for key in counts]
            cells += [figure(shown[0], of.get(shown[0])) for of in known]
        table.add_row(safe(label), *cells)
    if len(labels) > _LONG:
        table.caption = f"{len(labels) - _LONG} more classes: --json"
    return table


def _confusion(one: "Judgement", classes: Sequence[str], out: Console) -> Table:
    """The matrix where it fits, else the pairs that are confused most."""
    from prunit.edge.judging.evaluation import MATRIX, most_confused

    assert one.confusion is not None
    if len(classes) <= MATRIX:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=safe(f"{one.variant}: true (row), said (column)"))
        table.title_justify = "left"
        table.add_column("")
        for label in classes:
            table.add_column(safe(label), justify="right", no_wrap=True)
        for i, (label, row) in enumerate(zip(classes, one.confusion, strict=True)):
            cells = (
                f"[bold]{n}[/]" if i == j else f"[dim]{n or '·'}[/]" if not n else str(n) for j, n in enumerate(row)
            )
            table.add_row(safe(label), *cells)
        if out.measure(table, options=out.options.update_width(1000)).maximum <= out.width:
            return table
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=safe(f"{one.variant}: confused most"))
    table.title_justify = "left"
    for column in ("true", "said", "images"):
        table.add_column(column, justify="right" if column == "images" else "left", overflow="fold")
    for true, said, count in most_confused(one.confusion):
        table.add_row(safe(classes[true]), safe(classes[said]), f"{count:,}")
    return table


def figure(metric: str, value: float | None) -> str:
    """A metric as it is printed: counts as they are, shares in percent, others with three digits that count."""
    if value is None:
        return "–"
    if metric in ("images", "objects", "pixels"):
        return f"{value:,.0f}"
    return f"{value:.3g}" if metric in _SHARES else f"{100 * value:.1f} %"


def _between(metric: str, ends: tuple[float, float]) -> str:
    return f"{figure(metric, ends[0]).removesuffix(' %')} to {figure(metric, ends[1])}"


def _points(metric: str, change: float) -> str:
    return f"{change:+.3f}" if metric in _SHARES else f"{100 * change:+.1f} pts"


def _span(metric: str, low: float, high: float) -> str:
    return f"{low:+.3f} to {high:+.3f}" if metric in _SHARES else f"{100 * low:+.1f} to {100 * high:+.1f}"
