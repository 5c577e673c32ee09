"""`evaluate`: how good every variant of a portfolio is on labelled images, as plain data, with intervals."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from prunit.edge import runtimes
from prunit.edge.answers import Pairs
from prunit.edge.comparing.compare import dense_of
from prunit.edge.comparing.paired import Difference, difference, wilson
from prunit.edge.comparing.resampling import interval, paired_difference
from prunit.edge.install import place_of
from prunit.edge.judging.judge import JudgeSettings, Run, Tell, judge
from prunit.edge.judging.labelled import Labelled, labelled
from prunit.edge.judging.pictures import Picture, worst
from prunit.edge.measuring.probe import device
from prunit.edge.portfolio import Device, Portfolio
from prunit.edge.problems import first_problem
from prunit.edge.records import Record, Sha256
from prunit.edge.routing import router
from prunit.edge.tasks import DeviceTask, Evidence
from prunit.edge.tasks.classification import DeviceClassification
from prunit.errors import DataError, PortfolioError
from prunit.files import write_atomically

EVALUATION: Final = "evaluation.json"
MATRIX: Final = 20
"""The most classes whose confusion is shown as a matrix; of more the pairs that are confused most."""
Confusion = tuple[tuple[int, ...], ...]


class Against(Record):
    """The main metric less that of another variant on the same images, with its 95 % interval.

    For classification also McNemar's exact p-value and how many images only one of both has right.
    """

    of: str
    difference: float
    low: float
    high: float
    measurable: bool
    p: float | None = None
    only_mine: int | None = None
    only_theirs: int | None = None


class Judgement(Record):
    """How good one variant is.

    `interval` (95 %) is Wilson's for an accuracy, else of resamples of the images; None where they tell nothing.
    `by_class` holds None where a class tells nothing. `confusion` counts the images of each class (row) that were
    given each class (column), for classification alone. `recorded` is what the manifest says of the main metric.
    `engine` is that in which it was judged, '' in evaluations of older versions.
    """

    variant: str
    engine: str = ""
    artifact_sha256: Sha256
    value: float
    interval: tuple[float, float] | None = None
    scores: dict[str, float]
    by_class: dict[str, dict[str, float | None]] = Field(default={})
    confusion: Confusion | None = None
    against: Against | None = None
    recorded: float | None = None
    engine_images_per_s: NonNegativeFloat
    worst: tuple[Picture, ...] = ()


class Evaluation(Record):
    """How good the variants of a portfolio are on labelled images, and what it took to find out.

    `interval_by` names how the intervals came about. `images_per_s` is of the whole run: files read, decoded, brought
    to size, shown to all variants, and compared with their labels. `resident_bytes` are of the process, before the
    models were opened and at the peak. `skipped` images could not be used.
    """

    format: Literal["prunit-evaluation"] = "prunit-evaluation"
    version: Literal[1] = 1
    portfolio: str
    data: str
    layout: str
    split: str
    notes: tuple[str, ...] = ()
    images: PositiveInt
    skipped: NonNegativeInt = 0
    task: str
    metric: str
    interval_by: Literal["wilson", "bootstrap"]
    classes: tuple[str, ...]
    variants: tuple[Judgement, ...]
    device: Device
    threads: PositiveInt
    batch: PositiveInt
    seconds: NonNegativeFloat
    images_per_s: NonNegativeFloat
    resident_bytes: tuple[NonNegativeInt, NonNegativeInt]
    created: str

    @property
    def score_names(self) -> list[str]:
        """Names of the task's metrics, as far as these images tell them of any variant."""
        return list(dict.fromkeys(name for one in self.variants for name in one.scores))

    @property
    def labels(self) -> list[str]:
        """The classes of which any variant has figures."""
        return list(dict.fromkeys(label for one in self.variants for label in one.by_class))

    @property
    def class_score_names(self) -> list[str]:
        """Names of the figures of a class, the main one first."""
        return list(dict.fromkeys(name for one in self.variants for of in one.by_class.values() for name in of))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The evaluation that lies in the folder of a portfolio, None without one; `PortfolioError` for another."""
        path = folder / EVALUATION
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise PortfolioError(f"cannot read '{path}': {error}") from None
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise PortfolioError(f"cannot read '{path}': {first_problem(error, cls)}") from None

    def write(self, folder: Path) -> Path:
        """The file's path, after it took the place of an older one in one step."""
        path = folder / EVALUATION
        write_atomically(path, self.model_dump_json(indent=1) + "\n")
        return path


def evaluate(
    portfolio: Portfolio,
    folder: Path,
    place: Path,
    *,
    split: str | None = None,
    variants: Sequence[str] | None = None,
    settings: JudgeSettings | None = None,
    engine: str | None = None,
    cache: Path | None = None,
    tell: Tell | None = None,
) -> Evaluation:
    """Judge the variants of the portfolio in `folder` (or some, by name) by the labelled images at `place`.

    Each is judged in the engine of its route on this device (kept in `cache`, else in `folder`), or all in `engine`.
    `split` as in `labelled`. Where the dense variant is judged too, the others are compared with it in pairs. Raises
    what `labelled` and `judge` do, and `DataError` where the main metric is no number on these images.
    """
    settings = settings or JudgeSettings()
    for name in variants or ():
        portfolio.variant(name)
    here = router(place_of(folder, cache), engine)
    data = labelled(portfolio, place, split=split)
    run = judge(portfolio, folder, data.files, variants=variants, settings=settings, here=here, tell=tell)
    whole = dense_of(portfolio)
    dense = whole.name if whole and whole.name in run.evidence else None
    drawn: Mapping[str, tuple[Picture, ...]] = (
        worst(portfolio, folder, data.files, run, count=settings.pictures) if settings.pictures else {}
    )
    return Evaluation(
        portfolio=portfolio.name,
        data=str(place),
        layout=data.layout,
        split=data.split,
        notes=(*data.notes, *run.notes),
        images=len(run.index),
        skipped=len(run.problems),
        task=run.task.name,
        metric=run.task.metric,
        interval_by="wilson" if isinstance(run.task, DeviceClassification) else "bootstrap",
        classes=portfolio.classes,
        variants=tuple(_judgement(portfolio, name, run, data, dense, drawn.get(name, ())) for name in run.evidence),
        device=device(_one_of(run.engines.values())),
        threads=settings.threads,
        batch=run.batch,
        seconds=run.seconds,
        images_per_s=len(run.index) / max(run.seconds, 1e-9),
        resident_bytes=run.resident_bytes,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _judgement(
    portfolio: Portfolio, name: str, run: Run, data: Labelled, dense: str | None, pictures: tuple[Picture, ...]
) -> Judgement:
    task, evidence, variant = run.task, run.evidence[name], portfolio.variant(name)
    scores = {key: float(value) for key, value in task.metrics(evidence).items()}
    value = scores[task.metric]
    if not math.isfinite(value):
        raise DataError(
            f"the {task.metric} of variant '{name}' is {value} on {len(evidence)} images of '{data.place}'"
            f" ({data.split}): their labels tell nothing that it can be computed from, or its outputs are not numbers"
        )
    by_class = task.by_class(evidence, portfolio.classes)
    return Judgement(
        variant=name,
        engine=run.engines[name],
        artifact_sha256=variant.artifact.sha256,
        value=value,
        interval=_interval(task, evidence),
        scores={key: score for key, score in scores.items() if math.isfinite(score)},
        by_class={label: {key: _number(one) for key, one in of.items()} for label, of in by_class.items()},
        confusion=_confusion(task, evidence, len(portfolio.classes)),
        against=_against(task, evidence, run.evidence[dense], dense) if dense not in (None, name) else None,
        recorded=variant.metrics.accuracy,
        engine_images_per_s=len(evidence) / max(run.engine_s[name], 1e-9),
        worst=pictures,
    )


def _one_of(engines: Iterable[str]) -> str:
    """The engine of all variants; where there are several the default one, if it is among them, else any."""
    found = sorted(set(engines), key=lambda name: (name != runtimes.DEFAULT, name))
    return found[0]


def _interval(task: DeviceTask, evidence: Evidence) -> tuple[float, float] | None:
    if isinstance(task, DeviceClassification):
        return wilson(int(_right(evidence).sum()), len(evidence))
    return interval(task, evidence)


def _against(task: DeviceTask, mine: Evidence, theirs: Evidence, name: str) -> Against | None:
    if isinstance(task, DeviceClassification):
        one, other = _right(mine), _right(theirs)
        counts = (int(part.sum()) for part in (one & other, one & ~other, other & ~one, ~(one | other)))
        gap = difference(Pairs(*counts))
        tested = {"p": gap.p, "only_mine": gap.first, "only_theirs": gap.second}
    else:
        found = paired_difference(task, mine, theirs)
        if found is None:
            return None
        gap, tested = Difference(*found), {}
    return Against.model_validate(
        {"of": name, "difference": gap.value, "low": gap.low, "high": gap.high, "measurable": gap.measurable, **tested}
    )


def _right(evidence: Evidence) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Of a classifier's evidence, for each image whether it was right."""
    return evidence[:, 0] == evidence[:, 1]


def _confusion(task: DeviceTask, evidence: Evidence, classes: int) -> Confusion | None:
    if not isinstance(task, DeviceClassification):
        return None
    return tuple(tuple(row) for row in task.confusion(evidence, classes).tolist())


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def most_confused(confusion: Confusion, most: int = MATRIX) -> list[tuple[int, int, int]]:
    """The pairs of classes (true, said, images) that are confused most, at most so many."""
    pairs = [
        (true, said, count)
        for true, row in enumerate(confusion)
        for said, count in enumerate(row)
        if true != said and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:most]
