"""`prunit evaluate`: every variant of a portfolio judged on labelled images, without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from prunit.cli.options import AsJson, CacheDir, EngineName, Threads
from prunit.cli.safe import safe
from prunit.report import numbers

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from prunit.edge.judging.evaluation import Evaluation, Judgement

_PICTURES: Final = 10
"""Of each variant, in the report."""
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
    engine: EngineName = None,
    cache: CacheDir = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out images that cannot be used, and count them.")
    ] = False,
    save: Annotated[
        bool, typer.Option("--save", help="Write evaluation.json, and a section of report.html with the worst images.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Judge every variant on labelled images, in the engine that it runs in on this device. Needs no torch."""
    from prunit.edge.portfolio import Portfolio

    portfolio = Portfolio.read(folder)
    from prunit.cli.progress import Bars
    from prunit.edge.judging.evaluation import evaluate as run
    from prunit.edge.judging.judge import JudgeSettings
    from prunit.errors import harmless
    from prunit.report import rewrite_report

    settings = JudgeSettings(batch=batch, threads=threads, skip_broken=skip_broken, pictures=_PICTURES if save else 0)
    with Bars() as bars:
        found = run(
            *(portfolio, folder, data),
            split=split,
            variants=variant or None,
            settings=settings,
            engine=engine,
            cache=cache,
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


def _show(found: "Evaluation") -> None:
    from prunit.cli import show

    out = show.console()
    out.print(_fitting(out, _judgements(found), _judgements(found, wide=False)))
    by = "Wilson" if found.interval_by == "wilson" else "the images drawn anew, many times"
    compared = "; the difference on the same images" if any(v.against for v in found.variants) else ""
    out.print(f"[dim]intervals of 95 %, by {by}{compared}[/]")
    if any(v.by_class for v in found.variants):
        out.print(_by_class(found))
    for one in found.variants:
        if one.confusion is not None:
            title, table = _confusion(one, found.classes, out)
            out.print(f"[bold]{safe(one.variant)}[/]: {title}")
            out.print(table)
    skipped = f", {found.skipped} left out" if found.skipped else ""
    out.print(safe(f"{found.images:,} images of '{found.data}' ({found.layout}), part {found.split}{skipped}"))
    engines: dict[str, list[str]] = {}
    for one in found.variants:
        engines.setdefault(one.engine, []).append(one.variant)
    told = "; ".join(f"{', '.join(names) if len(engines) > 1 else 'all'} in {name}" for name, names in engines.items())
    out.print(safe(f"judged: {told}"))
    for note in found.notes:
        out.print(f"[yellow]note:[/] {safe(note)}")
    start, peak = (f"{size / 1e6:,.0f} MB" for size in found.resident_bytes)
    out.print(
        f"[dim]{found.images_per_s:,.0f} images/s through all of it, batch {found.batch}; memory {start} at the start,"
        f" {peak} at the peak[/]"
    )


def _fitting(out: "Console", wide: "Table", narrow: "Table") -> "Table":
    """The wide table where the terminal shows all of it."""
    return wide if out.measure(wide, options=out.options.update_width(1000)).maximum <= out.width else narrow


def _judgements(found: "Evaluation", *, wide: bool = True) -> "Table":
    """A row for each variant; where it is narrow, the main metric alone, and its difference."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("variant", overflow="fold")
    metric = found.metric
    others = [name for name in found.score_names if name != metric and wide]
    unit = "" if metric in numbers.PLAIN else ",\npoints"
    compared = [f"to dense{unit}", "95 % interval"] if any(v.against for v in found.variants) else []
    last = ["manifest", "engine\nimages/s"] if wide else []
    for column in (metric, "95 % interval", *compared, *others, *last):
        table.add_column(column.replace("_", "\n"), justify="right", no_wrap=wide)
    for one in found.variants:
        cells = [numbers.score(metric, one.value)]
        cells.append("–" if one.interval is None else numbers.score_span(metric, *one.interval))
        if compared:
            cells += _against(metric, one)
        cells += [numbers.score(name, one.scores.get(name)) for name in others]
        if wide:
            cells += [numbers.score(metric, one.recorded), f"{one.engine_images_per_s:,.0f}"]
        table.add_row(safe(one.variant), *map(_spaced, cells))
    return table


def _against(metric: str, one: "Judgement") -> tuple[str, str]:
    gap = one.against
    if gap is None:
        return "–", "–"
    word = "" if gap.measurable else "\n[dim](may be chance)[/]"
    span = f"{numbers.change(metric, gap.low)} to {numbers.change(metric, gap.high)}"
    return numbers.change(metric, gap.difference), span + word


def _by_class(found: "Evaluation") -> "Table":
    """The main figure of each class and variant; all figures of one variant where there is no other."""
    from rich import box
    from rich.table import Table

    labels, keys, first = found.labels, found.class_score_names, found.variants[0]
    alone = len(found.variants) == 1
    counts = [key for key in keys if key in numbers.COUNTS]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class" if found.task != "regression" else "value", overflow="fold")
    heads = keys if alone else [*counts, *(f"{safe(v.variant)}\n{keys[0]}" for v in found.variants)]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for label in labels[:_LONG]:
        if alone:
            cells = [numbers.score(key, first.by_class[label].get(key)) for key in keys]
        else:
            known = [one.by_class.get(label, {}) for one in found.variants]
            cells = [numbers.score(key, next((of[key] for of in known if of), None)) for key in counts]
            cells += [numbers.score(keys[0], of.get(keys[0])) for of in known]
        table.add_row(safe(label), *map(_spaced, cells))
    if len(labels) > _LONG:
        table.caption = f"{len(labels) - _LONG} more classes: --json"
    return table


def _confusion(one: "Judgement", classes: Sequence[str], out: "Console") -> "tuple[str, Table]":
    """What is shown, and the table: the matrix where it fits, else the pairs that are confused most."""
    from rich import box
    from rich.table import Table

    from prunit.edge.judging.evaluation import MATRIX, most_confused

    assert one.confusion is not None
    if len(classes) <= MATRIX:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("")
        for label in classes:
            table.add_column(safe(label), justify="right", no_wrap=True)
        for i, (label, row) in enumerate(zip(classes, one.confusion, strict=True)):
            cells = (f"[bold]{n}[/]" if i == j else str(n) if n else "[dim]·[/]" for j, n in enumerate(row))
            table.add_row(safe(label), *cells)
        if out.measure(table, options=out.options.update_width(1000)).maximum <= out.width:
            return "true (row), said (column)", table
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("true", "said", "images"):
        table.add_column(column, justify="right" if column == "images" else "left", overflow="fold")
    for true, said, count in most_confused(one.confusion):
        table.add_row(safe(classes[true]), safe(classes[said]), f"{count:,}")
    return "confused most", table


def _spaced(text: str) -> str:
    """With plain spaces, which a person may search for."""
    return text.replace(numbers.SPACE, " ")
