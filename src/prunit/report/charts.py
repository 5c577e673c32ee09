"""Charts of a portfolio's insides: how wide each group was and is, and how the training went; plain plotly figures."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from prunit.edge.portfolio import Portfolio, Variant
from prunit.report import numbers
from prunit.report.accuracy import HOVER, Figure, escaped, hover
from prunit.report.summary import SummaryRow

ROW_PX: Final = 20
COLUMN_GROUPS: Final = 20
"""Groups beneath one another before a second column of bars begins."""
COLUMNS: Final = 2
NAME_LETTERS: Final = 24
PALETTE: Final = tuple(f"--series-{i}" for i in range(8))


class EpochRecord(Protocol):
    """One finished epoch, as a training reports it: index from 1, accuracies from 0 to 1, None for one not tested.

    `watched`: the test accuracy is of images besides those of the portfolio's figures.
    """

    @property
    def index(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def train_accuracy(self) -> float | None: ...
    @property
    def test_accuracy(self) -> float | None: ...
    @property
    def watched(self) -> bool: ...


def group_names(portfolio: Portfolio) -> list[str]:
    """Every group that a variant knows, in network order."""
    return list(dict.fromkeys(group for variant in portfolio.variants for group in variant.widths))


def dense_widths(portfolio: Portfolio) -> dict[str, int]:
    """The dense width of every group."""
    return {group: dense for variant in portfolio.variants for group, (dense, _) in variant.widths.items()}


def width_figures(portfolio: Portfolio, rows: Sequence[SummaryRow]) -> list[Figure]:
    """Bars of dense and kept channels per group, in one or two columns; `choices` holds the data of each row."""
    groups, dense = group_names(portfolio), dense_widths(portfolio)
    if not groups:
        return []
    variants = [portfolio.variant(row.name) for row in rows]
    figures: list[Figure] = []
    for part in _columns(groups):
        choices = [_width_bars(part, dense, variant) for variant in variants]
        figures.append(
            {"data": choices[0], "layout": _width_layout(part, groups, max(dense.values())), "choices": choices}
        )
    return figures


def widths_note(variant: Variant) -> str:
    """'keeps 312 of 784 channels (40 %)', counted once per group."""
    if not variant.widths:
        return "no widths are recorded for this variant"
    dense, kept = (sum(column) for column in zip(*variant.widths.values(), strict=True))
    groups = f"{len(variant.widths)} group{'' if len(variant.widths) == 1 else 's'}"
    return f"keeps {kept:,} of {dense:,} channels ({numbers.percent(kept / dense)}) in {groups}"


def _columns(groups: Sequence[str]) -> list[Sequence[str]]:
    """The groups in at most two columns of nearly equal length."""
    columns = min(COLUMNS, math.ceil(len(groups) / COLUMN_GROUPS))
    edges = [round(i * len(groups) / columns) for i in range(columns + 1)]
    return [groups[start:end] for start, end in itertools.pairwise(edges)]


def _width_bars(groups: Sequence[str], dense: Mapping[str, int], variant: Variant) -> list[Figure]:
    rows = list(range(len(groups)))
    kept = [variant.widths[group][1] if group in variant.widths else None for group in groups]
    pairs = list(zip(groups, kept, strict=True))
    common: Figure = {"type": "bar", "orientation": "h", "y": rows, "cliponaxis": False}
    outline = common | {
        "x": [dense[group] for group in groups],
        "width": 0.72,
        "marker": {"color": "--faint", "line": {"color": "--outline", "width": 1}},
        "text": [_change(dense[group], keep) for group, keep in pairs],
        "textposition": "outside",
        "textfont": {"color": "--muted", "size": 11},
        "hoverinfo": "text",
        "hovertext": [hover(group, [_in_words(dense[group], keep)]) for group, keep in pairs],
        "hoverlabel": HOVER,
    }
    bar = common | {"x": kept, "width": 0.72, "marker": {"color": "--accent"}, "hoverinfo": "skip"}
    return [outline, bar]


def _change(dense: int, kept: int | None) -> str:
    return f"{dense}" if kept is None or kept == dense else f"{dense} → {kept}"


def _in_words(dense: int, kept: int | None) -> str:
    if kept is None:
        return f"{dense} channels; not recorded for this variant"
    return f"{dense} → {kept} channels ({numbers.percent(kept / dense)} kept)"


def _width_layout(part: Sequence[str], groups: Sequence[str], widest: int) -> Figure:
    names = [numbers.shortened(group, NAME_LETTERS) for group in part]
    letters = max(len(numbers.shortened(group, NAME_LETTERS)) for group in groups)
    return {
        "height": ROW_PX * len(part) + 44,
        "margin": {"l": round(6.6 * letters) + 14, "r": 12 * len(str(widest)) + 26, "t": 4, "b": 40},
        "barmode": "overlay",
        "xaxis": {"range": [0, widest], "nticks": 5, "tickangle": 0, "title": {"text": "channels", "standoff": 6}},
        "yaxis": {
            "range": [len(part) - 0.5, -0.5],
            "tickvals": list(range(len(part))),
            "ticktext": [escaped(name) for name in names],
            "tickfont": {"size": 12},
            "showgrid": False,
        },
        "showlegend": False,
        "hovermode": "closest",
    }


@dataclass(frozen=True)
class Curve:
    """A variant's training, with the colour that is its own in every chart."""

    name: str
    colour: str
    epochs: Sequence[EpochRecord]


def curves(rows: Sequence[SummaryRow], histories: Mapping[str, Sequence[EpochRecord]]) -> list[Curve]:
    """The trainings that have an epoch, in the order of the rows."""
    trained = [(row.name, histories[row.name]) for row in rows if histories.get(row.name)]
    return [Curve(name, _colour(i, len(trained)), epochs) for i, (name, epochs) in enumerate(trained)]


def tested_on(epochs: Sequence[EpochRecord]) -> str:
    """In a word the images that were looked at after epochs."""
    return "validation" if any(epoch.watched for epoch in epochs) else "test"


def training_figures(trainings: Sequence[Curve], metric: str = "accuracy") -> dict[str, Figure]:
    """Charts by title: the metric (test or validation through, train dotted) and loss, a line per variant and epoch."""
    plain = metric in numbers.PLAIN
    unit = "" if plain else f"{numbers.SPACE}%"
    accuracy = [
        *(
            _line(
                curve,
                # A training of hundreds of epochs is not tested after every one.
                [(e.index, _scaled(e.test_accuracy, plain=plain)) for e in curve.epochs if e.test_accuracy is not None],
                *(tested_on(curve.epochs), "solid", unit),
            )
            for curve in trainings
        ),
        *(
            _line(
                curve,
                [(e.index, _scaled(e.train_accuracy or 0.0, plain=plain)) for e in curve.epochs],
                *("train", "dot", unit),
            )
            for curve in trainings
            if all(e.train_accuracy is not None for e in curve.epochs)
        ),
    ]
    loss = [
        _line(curve, [(e.index, _finite(e.loss)) for e in curve.epochs], "loss", "solid", "") for curve in trainings
    ]
    most = max((len(curve.epochs) for curve in trainings), default=1)
    return {
        f"{numbers.capitalised(metric)} by epoch": {"data": accuracy, "layout": _training_layout(most, suffix=unit)},
        "Training loss by epoch": {"data": loss, "layout": _training_layout(most, suffix="")},
    }


def _colour(i: int, n: int) -> str:
    """One of eight colours, or of a row of hues from blue over red to orange where there are more variants."""
    return PALETTE[i] if n <= len(PALETTE) else f"hsl({round(210 + 180 * i / (n - 1)) % 360},60%,55%)"


def _line(curve: Curve, points: Sequence[tuple[int, float | None]], what: str, dash: str, unit: str) -> Figure:
    texts = ["not finite" if value is None else f"{numbers.significant(value)}{unit}" for _, value in points]
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(points) <= 12 else "lines",
        "name": curve.name,
        "x": [index for index, _ in points],
        "y": [value for _, value in points],
        "line": {"color": curve.colour, "width": 2 if dash == "solid" else 1.25, "dash": dash},
        "marker": {"size": 5},
        "hoverinfo": "text",
        "hovertext": [
            hover(curve.name, [f"epoch {index}: {what} {text}"]) for (index, _), text in zip(points, texts, strict=True)
        ],
        "hoverlabel": HOVER,
    }


def _training_layout(epochs: int, *, suffix: str) -> Figure:
    return {
        "height": 320,
        "margin": {"l": 58, "r": 14, "t": 10, "b": 46},
        "xaxis": {"title": {"text": "epoch", "standoff": 8}, "dtick": _epoch_step(epochs)},
        "yaxis": {"nticks": 6, "ticksuffix": suffix},
        "showlegend": False,
        "hovermode": "closest",
    }


def _epoch_step(epochs: int) -> int:
    """Epochs from one tick to the next: whole, as there is no half of one, and 1, 2 or 5 times a power of ten."""
    steps = (step * 10**power for power in itertools.count() for step in (1, 2, 5))
    return next(step for step in steps if epochs <= 8 * step)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _scaled(metric: float, *, plain: bool) -> float | None:
    """A metric as it is drawn: in percent, unless it is `plain`, no share."""
    return _finite(metric if plain else 100 * metric)
