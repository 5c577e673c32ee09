"""`judge`: what every variant says of labelled images, each of which is decoded once and shown to all."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np

from prunit.edge import runtimes
from prunit.edge.install import place_of
from prunit.edge.judging.labelled import task_of
from prunit.edge.judging.stream import Batch, batches
from prunit.edge.portfolio import Portfolio, Variant, file_problem
from prunit.edge.reading import Files
from prunit.edge.reading.photos import Problem, named, quiet
from prunit.edge.routing import Router, router
from prunit.edge.session import Session, engine, outputs_of, self_test
from prunit.edge.tasks import DeviceTask, Evidence, Outputs
from prunit.edge.tasks.classification import DeviceClassification
from prunit.edge.tasks.detection import DeviceDetection
from prunit.errors import ConfigError, DataError, DeviceError, MissingExtraError, PortfolioError, PrunitError

Tell = Callable[[int, int], None]
"""Called with the images done and the images in all."""
BATCH: Final = 32
_VALUES: Final = 2**23
"""Of a batch at most, unless it is asked for: 32 MB of them, as the engine takes them."""


@dataclass(frozen=True)
class JudgeSettings:
    """`batch` images at once (None: 32, or fewer large ones), `threads` of the engine, `decoders` that read files.

    With `skip_broken` images that cannot be used are left out and counted. `pictures` of the worst images are drawn.
    """

    batch: int | None = None
    threads: int = 1
    decoders: int = min(8, os.cpu_count() or 1)
    skip_broken: bool = False
    pictures: int = 0

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("threads", 1), ("decoders", 1), ("pictures", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}={value} for judging a portfolio: at least {least} is needed")

    def batch_of(self, shape: tuple[int, int, int]) -> int:
        """How many images of this shape are taken at once."""
        return self.batch or max(1, min(BATCH, _VALUES // int(np.prod(shape))))


@dataclass(frozen=True, eq=False)
class Run:
    """What came of showing images to variants: evidence by the variant's name, each (N, …), of the same N images."""

    task: DeviceTask
    evidence: dict[str, Evidence]
    index: tuple[int, ...]
    """Which of the files the N images are."""
    problems: tuple[Problem, ...]
    """Of the images that were left out."""
    batch: int
    seconds: float
    """From the first file to the last answer."""
    engine_s: dict[str, float]
    """What the answers of each variant took of them."""
    resident_bytes: tuple[int, int]
    """Of this process before the models were opened, and at its peak meanwhile."""
    engines: dict[str, str]
    """That each variant was opened in."""
    notes: tuple[str, ...] = ()
    """Why not in the one that it was to run in."""


def judge(
    portfolio: Portfolio,
    folder: Path,
    files: Files,
    *,
    variants: Sequence[str] | None = None,
    settings: JudgeSettings | None = None,
    here: Router | None = None,
    tell: Tell | None = None,
) -> Run:
    """What the variants of the portfolio in `folder` (or some, by name) say of all images, through the engine.

    Each is asked in the engine that it runs in on this device, as `here` says (None: as the routes in `folder` do).
    Of all variants those stay out, with a note, whose own engine is not here; one that is named has to have it.
    Targets are those of the portfolio's classes (`labelled`). Images stream from disk: what is held of each is its
    evidence. Raises `DataError` for images that cannot be used, `PortfolioError` for a variant that is damaged or does
    not give its stored output here, `MissingExtraError` for a package that the task needs.
    """
    settings, here = settings or JudgeSettings(), here or router(place_of(folder))
    task = task_of(portfolio)
    chosen = portfolio.variants if variants is None else tuple(map(portfolio.variant, dict.fromkeys(variants)))
    if not chosen:
        raise PortfolioError(f"portfolio '{portfolio.name}' in '{folder}' has no variant to judge")
    shape = _shape(portfolio, chosen)
    check_packages(task)
    memory = _Memory()
    found: dict[str, list[Evidence]] = {v.name: [] for v in chosen}
    took = dict.fromkeys(found, 0.0)
    index: list[int] = []
    problems: list[Problem] = []
    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        engines, notes = dict[str, str](), list(here.notes)
        missing: PrunitError | None = None
        for v in chosen:
            try:
                sessions[v.name], engines[v.name], note = opened_here(v, folder, here, settings.threads)
            except (MissingExtraError, DeviceError) as error:
                if variants is not None or not v.engine:
                    raise
                missing, note = error, f"'{v.name}' is not judged: {error}"
                del found[v.name], took[v.name]
            else:
                stack.callback(sessions[v.name].close)
            notes += [note] if note else []
        if missing and not sessions:
            raise missing
        stack.enter_context(quiet())
        batch = settings.batch_of(shape)
        started = perf_counter()
        stream = batches(files, shape, portfolio.preprocessing.fit, batch=batch, threads=settings.decoders)
        stack.callback(stream.close)
        for part in stream:
            problems += part.problems
            if part.problems and not settings.skip_broken:
                raise DataError(f"{named(problems)}; --skip-broken leaves such images out")
            if part.index:
                x_BCHW = portfolio.preprocessing.normalise(part.x_BCHW)
                for name, session in sessions.items():
                    before = perf_counter()
                    outputs = outputs_of(session, x_BCHW)
                    took[name] += perf_counter() - before
                    found[name].append(_evidence(task, outputs, part, portfolio, name))
            index += part.index
            memory.look()
            if tell is not None:
                tell(len(index) + len(problems), len(files))
        seconds = perf_counter() - started
    if not index:
        raise DataError(f"of {len(files)} images none can be used: {named(problems)}")
    evidence = {name: np.concatenate(parts) for name, parts in found.items()}
    return Run(
        *(task, evidence, tuple(index), tuple(problems), batch, seconds, took, (memory.start, memory.peak)),
        engines=engines,
        notes=tuple(notes),
    )


def check_packages(task: DeviceTask) -> None:
    """`MissingExtraError` for what is not installed, before hours are spent."""
    for package, what, needed in (
        ("PIL", "reading image files", True),
        ("hotcoco", "mean average precision", isinstance(task, DeviceDetection)),
    ):
        if needed and importlib.util.find_spec(package) is None:
            raise MissingExtraError(what, {"PIL": "pillow"}.get(package, package), "evaluate")


def _shape(portfolio: Portfolio, chosen: Sequence[Variant]) -> tuple[int, int, int]:
    """(C, H, W) of the images that all variants take."""
    fed = portfolio.preprocessing
    shape = ({"L": 1, "RGB": 3}.get(fed.channels, 0), *fed.size)
    if not shape[0]:
        raise PortfolioError(
            f"portfolio '{portfolio.name}' takes channels '{fed.channels}', which no image file holds: files can be"
            " judged in L (grey) and RGB"
        )
    other = next((v for v in chosen if v.artifact.input_shape != shape), None)
    if other is not None:
        raise PortfolioError(
            f"variant '{other.name}' takes input of shape {other.artifact.input_shape}, but the portfolio prepares"
            f" {shape}: build it again"
        )
    return shape


def opened_here(variant: Variant, folder: Path, here: Router, threads: int = 1) -> tuple[Session, str, str]:
    """A session of the variant as this device runs it, its engine, and why that is not the one of its route, if so."""
    artifact = variant.artifact
    problem = file_problem(folder, artifact.path, artifact.bytes, artifact.sha256)
    if problem:
        raise PortfolioError(f"variant '{variant.name}': {problem}")
    note, failed = "", PortfolioError(f"variant '{variant.name}' has no engine")
    for wanted in here.order(variant):
        engine = wanted if isinstance(wanted, str) else wanted.name
        try:
            session = runtimes.runtime(wanted).open(folder / artifact.path, threads=threads)
            try:
                self_test(session, artifact, folder)
            except BaseException:
                session.close()
                raise
            return session, engine, note
        except PrunitError as error:
            failed, note = (error if not note else failed), f"'{variant.name}' was not judged in {engine}: {error}"
    raise failed


def _evidence(task: DeviceTask, outputs: Outputs, part: Batch, portfolio: Portfolio, name: str) -> Evidence:
    if isinstance(task, DeviceClassification):
        wanted = (len(part.index), len(portfolio.classes))
        if outputs[0].shape != wanted:
            raise PortfolioError(
                f"variant '{name}' gives an output of shape {outputs[0].shape}; scores of the portfolio's classes would"
                f" be {wanted}"
            )
    return task.evidence(outputs, part.targets)


@dataclass
class _Memory:
    """The resident size of this process, looked at now and then."""

    process: Any = field(default_factory=lambda: engine("psutil", extra="edge").Process())
    start: int = 0
    peak: int = 0

    def __post_init__(self) -> None:
        self.look()
        self.start = self.peak

    def look(self) -> None:
        self.peak = max(self.peak, int(self.process.memory_info().rss))
