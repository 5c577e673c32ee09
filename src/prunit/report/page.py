"""One HTML page about a portfolio: everything in it is inlined, nothing is loaded."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from prunit.edge.comparing.verdicts import KINDS, told, verdicts
from prunit.edge.judging.evaluation import Evaluation
from prunit.edge.portfolio import Portfolio
from prunit.edge.served import Fleet
from prunit.errors import MissingExtraError, unknown
from prunit.files import staged
from prunit.report import numbers
from prunit.report.accuracy import AXES, Figure, accuracy_plot
from prunit.report.charts import Curve, EpochRecord, curves, tested_on, training_figures, width_figures, widths_note
from prunit.report.evaluation import evaluation_of, evaluation_section
from prunit.report.headline import headline, pick
from prunit.report.parts import parts_section
from prunit.report.precisions import precisions_section
from prunit.report.served import fleet_of, fleet_section
from prunit.report.summary import SummaryRow, summary_rows
from prunit.report.tables import (
    differences_table,
    latencies_table,
    recipes_table,
    summary_table,
    text,
    widths_table,
)
from prunit.report.trials import Trial, trials_figure, trials_table

REPORT: Final = "report.html"
TRIED: Final = "What was tried"
"""The heading above the trials of a sweep."""
BENCH: Final = "<code>prunit bench</code> measures it"


def write_report(
    portfolio: Portfolio,
    folder: Path,
    *,
    histories: Mapping[str, Sequence[EpochRecord]] | None = None,
    trials: Sequence[Trial] = (),
) -> Path:
    """The path of `folder/report.html`, after the page took the place of an older one in one step.

    `histories` are the epochs of each variant's training by its name; variants may be missing. `trials` are what a
    sweep tried before. What `prunit evaluate --save` left in the folder is shown too, and which devices of a fleet the
    variants serve.
    """
    histories = histories or {}
    names = [variant.name for variant in portfolio.variants]
    for name in histories:
        if name not in names:
            raise unknown("variant", name, names, hint="Each training history must be a variant's.")
    judged, fleet = evaluation_of(portfolio, folder), fleet_of(folder)
    page = html_page(portfolio, summary_rows(portfolio), histories, trials, judged, fleet)
    path = folder / REPORT
    with staged(path) as temporary:
        temporary.write_bytes(page.encode("utf-8"))
    return path


def html_page(
    portfolio: Portfolio,
    rows: Sequence[SummaryRow],
    histories: Mapping[str, Sequence[EpochRecord]],
    trials: Sequence[Trial] = (),
    evaluation: Evaluation | None = None,
    fleet: Fleet | None = None,
) -> str:
    """The page's HTML."""
    figures: dict[str, Figure] = {}
    notes = [f"“{row.name}” {widths_note(portfolio.variant(row.name))}." for row in rows]
    sections = [
        _head(portfolio, rows),
        _section("Figures", summary_table(rows)) if rows else "",
        _accuracy_section(portfolio, rows, figures),
        _section("On labelled images", evaluation_section(evaluation)) if evaluation else "",
        _section("A fleet", fleet_section(fleet)) if fleet else "",
        _section("Precisions", lower) if (lower := precisions_section(portfolio)) else "",
        _section("Microcontrollers and NPUs", parts) if (parts := parts_section(portfolio)) else "",
        _widths_section(portfolio, rows, figures),
        _trials_section(trials, figures, portfolio.task.metric),
        _training_section(curves(rows, histories), figures, portfolio.task.metric),
        _section("How each variant was made", recipes_table(portfolio, rows)) if rows else "",
        _definitions(portfolio, rows),
    ]
    data = json.dumps({"figures": figures, "notes": notes}, allow_nan=False, separators=(",", ":"))
    # '<' only occurs inside JSON strings; escaped, no name can end the script element that holds the data.
    data = data.replace("<", "\\u003c")
    return _document(f"{portfolio.name}: prunit report", "\n".join(sections), data)


def _document(title: str, body: str, data: str) -> str:
    """The whole document. Its content security policy runs the page's own two scripts by hash, and loads nothing."""
    here = files("prunit.report")
    plotly, script = _plotly(), here.joinpath("page.js").read_text("utf-8")
    hashes = " ".join(f"'sha256-{_sha256(source)}'" for source in (plotly, script))
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<style>
{here.joinpath("page.css").read_text("utf-8")}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="data">{data}</script>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


def _plotly() -> str:
    """The source of plotly.js, out of the plotly package."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtraError("the report", "plotly", "train") from None
    return get_plotlyjs()


def _sha256(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode("ascii")


def _head(portfolio: Portfolio, rows: Sequence[SummaryRow]) -> str:
    title, sentence = headline(portfolio, rows)
    facts = "".join(f"<div><dt>{text(term)}</dt><dd>{text(value)}</dd></div>" for term, value in _facts(portfolio))
    return (
        f'<header><p class="eyebrow">prunit portfolio · {text(portfolio.name)}</p><h1>{text(title)}</h1>'
        f'<p class="lead">{_unbroken(sentence)}</p>{_verdicts(portfolio)}<dl class="facts">{facts}</dl></header>'
    )


def _verdicts(portfolio: Portfolio) -> str:
    """What is to be said of single variants, a line each."""
    lines = "".join(
        f'<li><span class="tag">{text(KINDS[kind])}</span><span>{_unbroken(sentence)}</span></li>'
        for kind, sentence in told(verdicts(portfolio))
    )
    return f'<ul class="verdicts" aria-label="What to know of single variants">{lines}</ul>' if lines else ""


def _unbroken(sentence: str) -> str:
    """The sentence in HTML, without line breaks between a number and its %."""
    return text(sentence.replace(" %", f"{numbers.SPACE}%"))


def _facts(portfolio: Portfolio) -> list[tuple[str, str]]:
    fed = portfolio.preprocessing
    shape = " × ".join(str(n) for n in (len(fed.mean), *fed.size))
    facts = [
        ("model", portfolio.model),
        ("data", f"{portfolio.data}, {len(portfolio.classes):,} classes"),
        ("input", f"{shape} ({fed.channels})"),
    ]
    device = portfolio.device
    alone = {v.engine: v.precision for v in portfolio.variants if v.engine and v.metrics.latencies}
    others = "".join(f"; {precision} in {engine}" for engine, precision in alone.items())
    if device:
        facts += [
            ("device", f"{device.name}, {device.cores} core{'' if device.cores == 1 else 's'}"),
            ("engine", f"{device.engine} {device.engine_version}{others}"),
            ("system", f"{device.os}, Python {device.python}"),
        ]
    else:
        facts.append(("device", "not measured on a device yet"))
    variants = portfolio.variants
    return [
        *facts,
        ("created", numbers.moment(portfolio.created)),
        ("prunit", portfolio.prunit_version),
        ("epochs", ", ".join(str(n) for n in sorted({variant.epochs for variant in variants})) or "–"),
        ("seed", ", ".join(str(n) for n in sorted({variant.seed for variant in variants})) or "–"),
    ]


def _section(title: str, content: str) -> str:
    return f"<section><h2>{text(title)}</h2>{content}</section>"


def _plot(name: str, figure: Figure, label: str, figures: dict[str, Figure]) -> str:
    """A place for the figure, which page.js draws there."""
    figures[name] = figure
    height = figure["layout"]["height"]
    return f'<div class="plot" id="{name}" role="img" aria-label="{text(label)}" style="height:{height}px"></div>'


def _accuracy_section(portfolio: Portfolio, rows: Sequence[SummaryRow], figures: dict[str, Figure]) -> str:
    if not rows:
        return ""
    name = numbers.capitalised(rows[0].metric)
    title = f"{name} against cost"
    if all(row.accuracy is None for row in rows):
        return _section(
            title, f'<p class="note">No {text(rows[0].metric)} was measured, so there is nothing to plot.</p>'
        )
    cards = []
    for axis in AXES:
        figure = accuracy_plot(portfolio, rows, axis)
        if figure is None and axis.metric == "train_seconds":
            continue  # nothing that can be measured later
        label = f"{name} against {axis.title}; the table of figures holds the same numbers"
        plot = (
            _plot(f"accuracy-{axis.metric}", figure, label, figures)
            if figure
            else _empty(f"No {axis.title} yet: {BENCH}.")
        )
        cards.append(_card(f"{name} and {axis.title}", plot))
    key = _key(rows) if len(rows) > 1 else ""
    unrated = sum(row.accuracy is None for row in rows)
    note = (
        f'<p class="note">Not drawn, for want of a measured {text(rows[0].metric)}: {unrated}.</p>' if unrated else ""
    )
    table = ""
    if any(row.difference for row in rows):
        table = f"<details><summary>Differences and their intervals</summary>{differences_table(rows)}</details>"
    return _section(title, f'{key}<div class="plots three">{"".join(cards)}</div>{note}{table}')


def _key(rows: Sequence[SummaryRow]) -> str:
    """What the signs in the plots of accuracy mean."""
    signs = [
        ("dot", "on the Pareto front: no variant is better in both"),
        ("dot open", "beaten by another variant"),
        ("diamond", "dense"),
        ("stairs", "front"),
    ]
    if any(row.latency() for row in rows):
        signs.append(("bars", "latency: median, thick to p90, thin to p99"))
    spans = "".join(f'<span><i class="{sign}"></i>{meaning}</span>' for sign, meaning in signs)
    return f'<p class="key">{spans}</p>'


def _card(title: str, content: str) -> str:
    return f"<figure><figcaption><h3>{text(title)}</h3></figcaption>{content}</figure>"


def _empty(message: str) -> str:
    return f'<p class="empty"><span>{message}</span></p>'


def _widths_section(portfolio: Portfolio, rows: Sequence[SummaryRow], figures: dict[str, Figure]) -> str:
    parts = width_figures(portfolio, rows)
    if not parts:
        return ""
    named = pick(rows)
    first = rows.index(named[0]) if named else min(1, len(rows) - 1)
    options = "".join(
        f'<option value="{i}"{" selected" if i == first else ""}>{text(row.name)}</option>'
        for i, row in enumerate(rows)
    )
    plots = "".join(
        _plot(f"widths-{i}", part, "Dense and kept channels per group; the table beneath holds the numbers", figures)
        for i, part in enumerate(parts)
    )
    chooser = (
        f'<p class="chooser"><label for="variant">Variant</label> <select id="variant">{options}</select>'
        f'<output id="widths-note" for="variant"></output></p>'
        '<p class="key"><span><i class="bar outline"></i>dense</span><span><i class="bar"></i>kept</span></p>'
    )
    table = f"<details><summary>Widths as a table</summary>{widths_table(portfolio, rows)}</details>"
    content = f'{chooser}<div class="plots columns-{len(parts)}">{plots}</div>{table}'
    return _section("Widths per group, before and after", content)


def _trials_section(trials: Sequence[Trial], figures: dict[str, Figure], metric: str) -> str:
    if not trials:
        return ""
    figure = trials_figure(trials, metric)
    label = f"Held-out {metric} of every trial against its parameters; the table beneath holds the same numbers"
    plot = _card(f"Held-out {metric} and params", _plot("trials", figure, label, figures)) if figure else ""
    note = (
        '<p class="note">Plans of several recipes for each budget, trained briefly and judged on images held'
        " out of that; the best went on for longer. Darker dots trained longer, coloured ones won their budget.</p>"
    )
    return _section(TRIED, f"{note}{plot}{trials_table(trials, metric)}")


def _training_section(trainings: Sequence[Curve], figures: dict[str, Figure], metric: str) -> str:
    if not trainings:
        return ""
    cards = "".join(
        _card(title, _plot(f"training-{i}", figure, title, figures))
        for i, (title, figure) in enumerate(training_figures(trainings, metric).items())
    )
    legend = "".join(
        f'<button type="button" aria-pressed="true" data-curve="{text(curve.name)}">'
        f'<i style="background:{curve.colour if curve.colour.startswith("hsl") else f"var({curve.colour})"}"></i>'
        f"{text(curve.name)}</button>"
        for curve in trainings
    )
    key = f'<p class="legend" role="group" aria-label="Trainings to show">{legend}</p>'
    if any(epoch.train_accuracy is not None for curve in trainings for epoch in curve.epochs):
        key += (
            f'<p class="key"><span><i class="solid"></i>{tested_on(trainings[0].epochs)}</span>'
            '<span><i class="dots"></i>train, on augmented images</span></p>'
        )
    return _section("Training", f'{key}<div class="plots two">{cards}</div>')


def _definitions(portfolio: Portfolio, rows: Sequence[SummaryRow]) -> str:
    classifies = portfolio.task.name == "classification"
    terms = [
        ("accuracy", _ACCURACY_MEANS) if classifies else (portfolio.task.metric, _MAIN_METRIC_MEANS),
        *_FIGURES_MEAN,
        *([] if any(row.latencies for row in rows) else [("not yet measured", f"Latency: {BENCH}.")]),
    ]
    body = "".join(f"<div><dt>{text(term)}</dt><dd>{meaning}</dd></div>" for term, meaning in terms)
    fed = portfolio.preprocessing
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (fed.mean, fed.std))
    body += (
        f"<div><dt>input</dt><dd>({_scaled_pixel(fed.scale)} − mean) / deviation per channel, "
        f"mean {text(mean)}, deviation {text(std)}.</dd></div>"
    )
    table = latencies_table(rows) if any(row.latencies for row in rows) else ""
    details = f"<details><summary>All latencies</summary>{table}</details>" if table else ""
    return _section("What the figures mean", f'<dl class="terms">{body}</dl>{details}')


def _scaled_pixel(scale: float) -> str:
    divisor = round(1 / scale)
    return f"pixel / {divisor}" if divisor and abs(scale * divisor - 1) < 1e-6 else f"pixel × {scale:.4g}"


_NO_DIFFERENCE: Final = (
    "it tells what other images would change, not what another seed of the training would. “No measurable difference” "
    "is no proof that there is none: the interval says how large it may be."
)
_ACCURACY_MEANS: Final = (
    "Top-1, a share of the test images. The 95 % interval of a difference (Newcombe 1998, method 10) comes from "
    f"the images that only one of both variants has right: {_NO_DIFFERENCE}"
)
_MAIN_METRIC_MEANS: Final = (
    "The main metric of the task on the test images, 100 % (of r2: 1) is perfect. The 95 % interval of a difference "
    f"comes from drawing these images anew a thousand times, the same for both variants: {_NO_DIFFERENCE}"
)
_FIGURES_MEAN: Final = (
    ("params, macs", "Parameters, and multiply-adds of one image through convolutions and linear layers."),
    ("file size", "Bytes of the exported model file. KB, MB and GB are powers of 1000."),
    (
        "latency",
        "Wall-clock time of one answer of the engine to a whole batch, the warm-up left out. All variants took turns "
        "in one run, in a new order each round, so that what else the machine did hit all alike. p50, p90 and p99 "
        "are percentiles of n answers.",
    ),
    (
        "peak memory",
        "How much a fresh process grows at its peak while it opens the model file and answers at batch 1: weights, "
        "what the engine makes of them, its buffers. The engine’s own footprint is not in it.",
    ),
    ("time", "Wall-clock time of the build: prune (trace, score, allocate, cut), train, export with its check."),
)
