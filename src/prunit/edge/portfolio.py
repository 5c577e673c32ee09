"""The manifest of a portfolio, `portfolio.json`: the only thing that crosses from the workshop to a device.

Every record is frozen plain data. Reading checks everything and changes nothing; writing is atomic.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from prunit.edge import tables
from prunit.edge.answers import Answers
from prunit.edge.embedded import Embedded
from prunit.edge.pixels import Fit
from prunit.edge.precision import Comparison, LeftOut, Lowered, Precision
from prunit.edge.problems import check_version, first_problem, text_at, text_of
from prunit.edge.records import Record, RelativePath, Sha256, StoredFile
from prunit.errors import PortfolioError, unknown
from prunit.files import inside, sha256_of, write_atomically
from prunit.remote import is_address
from prunit.shown import Table

MANIFEST: Final = "portfolio.json"
VERSION: Final = 5
"""Of what is written; all older ones are read. Version 4 lacks `embedded`, what is for microcontrollers; version 3
knows float variants only, without `precision`; version 2 also classifiers with one output only: without `task`, `fit`,
`outputs` and further metrics; version 1 lacks `answers`."""


class Output(Record):
    """One of a model's outputs, which goes by its name.

    `shape` is that for one image, -1 where it depends on the image; None: not known, as in manifests of older versions.
    `tolerance` is how far it may be off in the self-test, absolutely; None: as the artifact says.
    """

    name: str = Field(min_length=1)
    shape: tuple[Annotated[int, Field(ge=-1)], ...] | None = None
    tolerance: float | None = Field(default=None, gt=0)


class Artifact(Record):
    """An exported model file, and one stored input with the outputs it must give.

    `input_shape` is (C, H, W); the batch dimension is free, and the first of each output too. `outputs` stand in the
    file's order, `output_name` is the first one's. `self_test` is an .npz with the float32 arrays `input` (n, C, H, W)
    and `expected` (n, …), of further outputs `expected_1`, …; an engine's outputs may differ from them by the output's
    `tolerance` at most, absolutely.
    """

    path: RelativePath
    format: Literal["onnx"] = "onnx"
    sha256: Sha256
    bytes: PositiveInt
    input_name: str
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    output_name: str
    outputs: tuple[Output, ...] = Field(default=(), validate_default=True)
    self_test: RelativePath
    self_test_sha256: Sha256
    tolerance: float = Field(gt=0)

    @field_validator("outputs")
    @classmethod
    def _outputs_of(cls, outputs: tuple[Output, ...], info: ValidationInfo) -> tuple[Output, ...]:
        """Older manifests know only the name of the one output that they have."""
        first = info.data.get("output_name")
        if first is None:  # which is told already
            return outputs
        if not outputs:
            return (Output(name=first),)
        names = [output.name for output in outputs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two outputs are called '{twice}'")
        if names[0] != first:
            raise ValueError(f"the first is called '{names[0]}', and 'output_name' is '{first}'")
        return outputs

    def unlike(self, other: "Artifact") -> str:
        """Why another one cannot answer in its place, '' if it can: it takes other images, or has other outputs."""
        if self.input_shape != other.input_shape:
            return f"it takes images of shape {other.input_shape}, the portfolio's are {self.input_shape}"
        own, others = ([output.name for output in artifact.outputs] for artifact in (self, other))
        return "" if own == others else f"its outputs are {', '.join(others)}; the portfolio's are {', '.join(own)}"


class Latency(Record):
    """Percentiles, in ms, of `n` answers to batches of `batch` images with `threads` threads, warm-up left out."""

    batch: PositiveInt
    threads: PositiveInt
    n: PositiveInt
    p50_ms: NonNegativeFloat
    p90_ms: NonNegativeFloat
    p99_ms: NonNegativeFloat


class Metrics(Record):
    """What a variant was measured to be and cost. `accuracy` is a share (0 to 1) of the test images.

    `answers` say which of those images were right; manifests of older versions have none. For another task than
    classification `accuracy` is its main metric (1 is perfect, more is better; the portfolio's task names it), with its
    95 % interval, and `against` compares it with the dense variant's. `scores` are all metrics of the task by name.
    """

    accuracy: float | None = Field(default=None, le=1)
    answers: Answers | None = None
    scores: dict[str, float] = Field(default={})
    interval: tuple[float, float] | None = None
    against: Comparison | None = None
    params: NonNegativeInt
    macs: NonNegativeInt
    weight_bytes: NonNegativeInt
    activation_bytes: NonNegativeInt
    file_bytes: NonNegativeInt
    latencies: tuple[Latency, ...] = ()
    peak_memory_bytes: NonNegativeInt | None = None

    @property
    def open_bytes(self) -> int:
        """What a variant takes while it is open: as measured, else its weights."""
        return self.peak_memory_bytes or self.weight_bytes

    def latency(self, *, batch: int = 1) -> Latency | None:
        """The latency of a batch of `batch` images, None if it was not measured."""
        return next((latency for latency in self.latencies if latency.batch == batch), None)

    def latency_ms(self, *, batch: int = 1) -> float | None:
        """The median of it, None if it was not measured."""
        found = self.latency(batch=batch)
        return found.p50_ms if found else None


class Device(Record):
    """Where the latencies were measured. `name` is the CPU model, `cores` those this process may use."""

    name: str
    cores: PositiveInt
    engine: str
    engine_version: str
    os: str
    python: str


class Preprocessing(Record):
    """How uint8 images become the model's input: `(x * scale - mean) / std` per channel.

    `channels` is the order the model was trained with: RGB, L (grey), or what the data set holds. `size` is (H, W), to
    which a photo is brought by `fit`: made to cover it and its centre cut out, or made to fit in with grey bars around.
    """

    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    scale: float = Field(default=1 / 255, gt=0)
    channels: str = "RGB"
    size: tuple[PositiveInt, PositiveInt]
    fit: Fit = "crop"

    def normalise(self, x_BCHW: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Images (0 to 255) as the float32 input of the model."""
        mean_C11 = np.asarray(self.mean, np.float32).reshape(-1, 1, 1)
        std_C11 = np.asarray(self.std, np.float32).reshape(-1, 1, 1)
        return (x_BCHW.astype(np.float32) * np.float32(self.scale) - mean_C11) / std_C11


class Variant(Record):
    """One exported model with how it came about and what it costs.

    `settings` are the switches of the recipe, such as its score; `budget` is as the user wrote it; `keep` the share of
    all channels kept (1.0 = dense); `widths` are (dense, kept) by group; `seconds` those spent by step (prune, train,
    export). One of fewer bits says by `lowered` how it was made of its float twin; `engine` is the only one that it
    runs in, '' where any will do. `embedded` is its form for microcontrollers and NPUs, where one was asked for.
    """

    name: str = Field(min_length=1)
    recipe: str
    precision: Precision = "fp32"
    lowered: Lowered | None = None
    engine: str = ""
    settings: dict[str, str] = Field(default={})
    budget: dict[str, str] = Field(default={})
    keep: float = Field(gt=0, le=1)
    widths: dict[str, tuple[PositiveInt, PositiveInt]] = Field(default={})
    plan: StoredFile | None = None
    weights: StoredFile | None = None
    artifact: Artifact
    embedded: Embedded | None = None
    metrics: Metrics
    seconds: dict[str, NonNegativeFloat] = Field(default={})
    epochs: NonNegativeInt = 0
    seed: int = 0

    @property
    def files(self) -> list[tuple[str, int | None, str]]:
        """Path, bytes (None where they are not noted) and SHA-256 of each of its files."""
        own = self.artifact
        stored = [f for f in (self.plan, self.weights, *(self.embedded.files if self.embedded else ())) if f]
        first = (own.path, own.bytes, own.sha256), (own.self_test, None, own.self_test_sha256)
        return [*first, *((f.path, f.bytes, f.sha256) for f in stored)]

    def _table(self) -> Table:
        return tables.of_variant(self)


_METRICS: Final[Mapping[str, Callable[[Variant], float | None]]] = {
    "accuracy": lambda variant: variant.metrics.accuracy,
    "params": lambda variant: variant.metrics.params,
    "macs": lambda variant: variant.metrics.macs,
    "weight_bytes": lambda variant: variant.metrics.weight_bytes,
    "activation_bytes": lambda variant: variant.metrics.activation_bytes,
    "file_bytes": lambda variant: variant.metrics.file_bytes,
    "peak_memory_bytes": lambda variant: variant.metrics.peak_memory_bytes,
    "latency_ms": lambda variant: variant.metrics.latency_ms(),
    # Of a model that was kept as it was given nobody here knows.
    "train_seconds": lambda variant: variant.seconds.get("train") or None,
}


class TaskRecord(Record):
    """What the models are for: a task by its name, its main metric's, and the settings that a device makes it from.

    A task of the user's own has a name that no device knows: it serves plain numbers.
    """

    name: str = "classification"
    metric: str = "accuracy"
    settings: dict[str, Any] = Field(default={})


class Portfolio(Record):
    """The variants that a device holds, with all it must know to feed them. `created` is an ISO 8601 time.

    `classes` are the names of what the task tells apart: classes, or values that are estimated. `left_out` are variants
    of fewer bits that were made and lost too much.
    """

    format: Literal["prunit-portfolio"] = "prunit-portfolio"
    version: Literal[1, 2, 3, 4, 5] = VERSION
    name: str
    model: str
    data: str
    task: TaskRecord = TaskRecord()
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    variants: tuple[Variant, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    device: Device | None = None
    prunit_version: str
    created: str

    @field_validator("variants")
    @classmethod
    def _names_differ(cls, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        names = [variant.name for variant in variants]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two variants are called '{twice}'")
        return variants

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """The portfolio whose manifest lies in `folder`, or at an address (`s3://…`); no other file is opened."""
        if is_address(folder):
            return cls.of_text(*text_at(str(folder), MANIFEST))
        path = Path(folder) / MANIFEST
        return cls.of_text(text_of(path), path)

    @classmethod
    def of_text(cls, text: str, path: Path | str) -> Self:
        """The portfolio of a manifest's text, which stands at `path`."""
        check_version(path, text, VERSION)
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise PortfolioError(f"cannot read '{path}': {first_problem(error, cls)}") from None

    def text(self) -> str:
        """The manifest, as it is written."""
        return self.model_copy(update={"version": VERSION}).model_dump_json(indent=2) + "\n"

    def write(self, folder: Path | str) -> Path:
        """The manifest's path, after the manifest took the place of an older one in one step."""
        path = Path(folder) / MANIFEST
        write_atomically(path, self.text())
        return path

    def variant(self, name: str) -> Variant:
        """The variant called `name`."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise unknown("variant", name, [variant.name for variant in self.variants])

    def float_twin(self, variant: Variant) -> Variant | None:
        """The float variant that one of fewer bits was made of; None for a float one, and where it is not there."""
        twin = variant.lowered.twin if variant.lowered else None
        return next((other for other in self.variants if other.name == twin), None)

    def pareto(self, x: str = "file_bytes", y: str = "accuracy") -> tuple[Variant, ...]:
        """The variants that no other one beats in both metrics, ascending in `x`.

        More is better for accuracy, less for every other metric; a variant that lacks one of both is left out.
        """
        points = [
            (x_cost, y_cost, variant)
            for variant in self.variants
            if (x_cost := _cost(variant, x)) is not None and (y_cost := _cost(variant, y)) is not None
        ]
        front = [
            (x_cost, y_cost, variant)
            for x_cost, y_cost, variant in points
            if not any(
                other_x <= x_cost and other_y <= y_cost and (other_x, other_y) != (x_cost, y_cost)
                for other_x, other_y, _ in points
            )
        ]
        ascending = sorted(front, key=lambda point: abs(point[0]))
        return tuple(variant for _, _, variant in ascending)

    def adding(self, *variants: Variant) -> Self:
        """The portfolio with these variants too; one of a name that is there takes its place. Files are not touched."""
        new = {variant.name: variant for variant in variants}
        kept = [new.pop(variant.name, variant) for variant in self.variants]
        return type(self).model_validate(self.model_copy(update={"variants": (*kept, *new.values())}).model_dump())

    def without(self, *names: str) -> Self:
        """The portfolio without these variants; their files stay. `UnknownNameError` for one that is not there."""
        gone = {self.variant(name).name for name in names}
        return self.model_copy(update={"variants": tuple(v for v in self.variants if v.name not in gone)})

    def _table(self) -> Table:
        return tables.of_portfolio(self)

    def thinned(self, count: int, x: str = "latency_ms", y: str = "accuracy") -> Self:
        """The portfolio with at most so many variants, those that together cover most of the front of two metrics.

        Both ends of the front stay; of the others the one goes, again and again, without which the least area under the
        front is lost. What is not on the front goes first.
        """
        if count < 1:
            raise PortfolioError(f"a portfolio of {count} variants: at least one has to stay")
        front = list(self.pareto(x, y))
        while len(front) > count:
            points = [(abs(_cost(v, x) or 0.0), -(_cost(v, y) or 0.0)) for v in front]
            # Between its neighbours a point adds a rectangle: cheaper than the next one, better than the one before.
            areas = [
                (points[i + 1][0] - points[i][0]) * (points[i][1] - points[i - 1][1]) for i in range(1, len(front) - 1)
            ]
            del front[1 + areas.index(min(areas)) if areas else 0]
        kept = {variant.name for variant in front}
        return self.model_copy(update={"variants": tuple(v for v in self.variants if v.name in kept)})

    def verify(self, folder: Path | str) -> list[str]:
        """What is wrong with the files in `folder`, a line each: missing, of another size, of another content."""
        problems: list[str] = []
        for variant in self.variants:
            for path, size, sha256 in variant.files:
                problem = file_problem(Path(folder), path, size, sha256)
                if problem:
                    problems.append(f"variant '{variant.name}': {problem}")
        return problems


def _cost(variant: Variant, metric: str) -> float | None:
    """The metric's value, turned so that less is better."""
    if metric not in _METRICS:
        raise unknown("metric", metric, _METRICS)
    value = _METRICS[metric](variant)
    return -value if value is not None and metric == "accuracy" else value


def file_problem(folder: Path, path: str, size: int | None, sha256: str) -> str | None:
    """What is wrong with a file of a folder, None if nothing is; without `size` only the content counts."""
    try:
        file = inside(folder, path)
        if not file.is_file():
            return f"'{path}' is missing"
        found = file.stat().st_size
        if size is not None and found != size:
            return f"'{path}' has {found} bytes instead of {size}"
        if sha256_of(file) != sha256:
            return f"'{path}' was changed: its SHA-256 is not the manifest's"
    except PortfolioError as error:
        return str(error)
    except OSError as error:
        return f"'{path}' cannot be read: {error.strerror or error}"
    return None
