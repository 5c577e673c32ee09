"""Variants of fewer bits: made of the exported float ones, judged through the engine, kept where they lose little.

A float variant and its twins of fewer bits are judged on the same test images by the outputs that an engine gives for
the files, so that what a precision costs is a paired difference: nothing of a training's chance is in it.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from prunit.cut.store import save as save_weights
from prunit.edge import runtimes
from prunit.edge.comparing.paired import Difference
from prunit.edge.portfolio import Artifact, Variant
from prunit.edge.precision import LeftOut, Lowered, Precision, name_in
from prunit.edge.records import StoredFile
from prunit.edge.session import engine
from prunit.errors import DataError, DeviceError, FileError, MissingExtraError, ModelError
from prunit.export.quantising import QuantSettings, computed_in_bf16, quantised
from prunit.files import write_atomically
from prunit.recipe.folder import STATE, intact_variant, read_json, read_plan
from prunit.recipe.quality import Quality, comparison
from prunit.recipe.twins import Beside, judged_by, opened, training_images
from prunit.recipe.work import DENSE, Work
from prunit.train.accuracy import Judged

BF16: Final = "openvino-bf16"
"""The engine that computes float files in bf16."""
_VARIANT, _LEFT_OUT, _ASKED = "variant.json", "left-out.json", "asked.json"
_CANNOT: Final = (ModelError, DataError, DeviceError, FileError, MissingExtraError)
"""What may be wrong with one precision of one variant, while the float one goes on."""


def lowered(work: Work, variants: Sequence[Variant]) -> tuple[list[Variant], list[LeftOut]]:
    """The variants of a build in all precisions that were asked for, and those that were made and not kept.

    A float variant stays where `fp32` is wanted, where none of its twins was kept, and where it is the dense one: all
    others are compared with it.
    """
    found: list[Variant] = []
    left_out: list[LeftOut] = []
    for twin in variants:
        wanted = work.config.precision.of(twin.name)
        lowering = _Lowering(work, twin, Beside(work, twin))
        made = [lowering.made(precision) for precision in wanted if precision != "fp32"]
        kept = [each for each in made if isinstance(each, Variant)]
        if "fp32" in wanted or twin.name == DENSE or not kept:
            found.append(twin)
        found += kept
        left_out += [each for each in made if isinstance(each, LeftOut)]
    for each in left_out:
        logging.getLogger(__name__).warning("%s is left out: %s", each.name, each.why)
    return found, left_out


@dataclass(frozen=True)
class _Made:
    """A model file of fewer bits, how it was made, and how good it is beside its twin."""

    artifact: Artifact
    facts: Lowered
    judged: Judged
    weight_bytes: int
    drop: Difference | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    weights: StoredFile | None = None
    """Those of such a training; None: the twin's."""
    untuned: str = ""
    """Why there was no such training although it was needed."""

    @property
    def lost_points(self) -> float:
        return 0.0 if self.drop is None else -100 * self.drop.value


@dataclass(frozen=True)
class _Lowering:
    """What is made of one float variant."""

    work: Work
    twin: Variant
    beside: Beside

    def made(self, precision: Precision) -> Variant | LeftOut:
        """The variant in a precision; what stands in the folder is not made again where the same was asked for."""
        name = name_in(self.twin.name, precision)
        before = self._before(name)
        if before is not None:
            return before
        self.work.progress(name, "quantise" if precision == "int8" else "try", 0, 0)
        try:
            made = self._int8(name) if precision == "int8" else self._bf16()
        except _CANNOT as error:
            # Not written down: what is missing now may be there when the build is resumed.
            return LeftOut(name=name, precision=precision, why=str(error))
        limit = self.work.config.precision.max_drop
        if made.lost_points <= limit:
            variant = self._record(name, precision, made)
            write_atomically(self._state(name, "history.json"), "[]")
            self._write(name, _VARIANT, variant)
            return variant
        left_out = LeftOut(name=name, precision=precision, why=self._too_much(made))
        for file in self._files(name):
            (self.work.folder / file).unlink(missing_ok=True)
        self._write(name, _LEFT_OUT, left_out)
        return left_out

    def _too_much(self, made: _Made) -> str:
        points = f"{made.lost_points:.2f} points of {self.work.dataset.task.metric}"
        limit = f"{self.work.config.precision.max_drop:g} (--max-drop)"
        lost = f"it loses {points} to '{self.twin.name}', more than {limit}"
        if made.facts.tuned:
            return f"{lost}, after quantisation-aware training too"
        return f"{lost}; quantisation-aware training: {made.untuned}" if made.untuned else lost

    # ── what a build that was stopped has left ──

    def _before(self, name: str) -> Variant | LeftOut | None:
        asked = self._state(name, _ASKED)
        if not asked.exists() or read_json(asked) != self._asked:
            return None
        record, refused = self._state(name, _VARIANT), self._state(name, _LEFT_OUT)
        if record.exists():
            return intact_variant(record, self.work.folder)
        return LeftOut.model_validate_json(refused.read_text("utf-8")) if refused.exists() else None

    def _write(self, name: str, file: str, found: Variant | LeftOut) -> None:
        for other in (_VARIANT, _LEFT_OUT):
            self._state(name, other).unlink(missing_ok=True)
        write_atomically(self._state(name, file), found.model_dump_json(indent=2))
        write_atomically(self._state(name, _ASKED), json.dumps(self._asked))

    @property
    def _asked(self) -> dict[str, Any]:
        """What a result depends on: the float file and the settings."""
        settings = self.work.config.precision.model_dump(mode="json", exclude={"wanted", "by_variant"})
        return {"twin": self.twin.artifact.sha256, **settings}

    def _state(self, name: str, file: str) -> Path:
        return self.work.state_file(f"{name}/{file}")

    def _files(self, name: str) -> tuple[str, ...]:
        return f"{name}.onnx", f"{name}.selftest.npz", f"{name}.safetensors"

    # ── int8 ──

    def _int8(self, name: str) -> _Made:
        """As the float weights are; where that loses too much, after a training for it, if that loses less."""
        work, settings = self.work, self.work.config.precision
        began = perf_counter()
        made = self._judged(self._quantised(self.twin.artifact, work.folder, name), work.folder)
        made = replace(made, seconds={"quantise": perf_counter() - began})
        if made.lost_points <= settings.max_drop or not settings.tune:
            return made
        try:
            return self._tuned(name, made, settings.tune)
        except _CANNOT as error:
            return replace(made, untuned=str(error))

    def _tuned(self, name: str, before: _Made, epochs: int) -> _Made:
        """The same of weights that were trained for it, or what was there before where that loses no more."""
        work, began = self.work, perf_counter()
        model = self.beside.trained_for_int8(epochs, name=name)
        trained_s = perf_counter() - began
        with TemporaryDirectory(prefix="tuning-", dir=work.folder / STATE) as place:
            aside = Path(place)
            made = self._judged(self._quantised(self.beside.exported(model, aside), aside, name), aside, tuned=epochs)
            if made.lost_points >= before.lost_points:
                return replace(before, untuned=f"after it {made.lost_points:.2f} are lost")
            save_weights(model, read_plan(work.folder / f"{self.twin.name}.plan.json"), aside / f"{name}.safetensors")
            for file in self._files(name):
                (aside / file).replace(work.folder / file)
        seconds = {"train": trained_s, "quantise": perf_counter() - began - trained_s}
        return replace(made, seconds=seconds, weights=StoredFile.of(work.folder, f"{name}.safetensors"))

    def _quantised(self, artifact: Artifact, folder: Path, name: str) -> tuple[Artifact, Lowered]:
        settings, seed = self.work.config.precision, self.work.config.seed
        calibration, held_out = training_images(self.work.dataset, settings.images, seed)
        how = QuantSettings(timed=settings.timed, seed=seed)
        return quantised(artifact, folder, calibration, name=name, settings=how, holdout_BCHW=held_out)

    # ── bf16 ──

    def _bf16(self) -> _Made:
        """The float file in an engine that computes in bf16: how far its outputs are off is measured here."""
        work, began = self.work, perf_counter()
        with opened(self.twin.artifact, work.folder, BF16) as session:
            artifact = computed_in_bf16(self.twin.artifact, work.folder, session)
            judged = judged_by(session, self.work.dataset)
        engine = runtimes.runtime(BF16)
        facts = Lowered(twin=self.twin.name, library=f"openvino {engine.version()}")
        made = _Made(artifact, facts, judged, self.twin.metrics.weight_bytes)
        return replace(self._compared(made), seconds={"quantise": perf_counter() - began})

    # ── how good ──

    def _judged(self, found: tuple[Artifact, Lowered], folder: Path, *, tuned: int = 0) -> _Made:
        artifact, facts = found
        with opened(artifact, folder, runtimes.DEFAULT) as session:
            judged = judged_by(session, self.work.dataset)
        facts = facts.model_copy(update={"twin": self.twin.name, "tuned": tuned})
        held = _weight_bytes(folder / artifact.path)
        return self._compared(_Made(artifact, facts, judged, held))

    def _compared(self, made: _Made) -> _Made:
        """Beside the float twin, image by image."""
        gap, agreement = self.beside.compared(made.judged)
        against = gap and comparison(gap, self.twin.name)
        facts = made.facts.model_copy(update={"agreement": agreement, "against": against})
        return replace(made, facts=facts, drop=gap)

    def _record(self, name: str, precision: Precision, made: _Made) -> Variant:
        twin, work = self.twin, self.work
        dense = work.dense_judged if made.judged.answers is None else None
        quality = Quality.of(made.judged, dense)
        metrics = twin.metrics.model_copy(
            update={
                "accuracy": quality.main,
                "answers": quality.answers,
                "scores": quality.scores,
                "interval": quality.interval,
                "against": quality.against,
                "weight_bytes": made.weight_bytes,
                "file_bytes": made.artifact.bytes,
            }
        )
        return twin.model_copy(
            update={
                "name": name,
                "precision": precision,
                "lowered": made.facts,
                "engine": BF16 if precision == "bf16" else "",
                "artifact": made.artifact,
                "weights": made.weights or twin.weights,
                "metrics": metrics,
                "seconds": made.seconds,
                "epochs": twin.epochs + made.facts.tuned,
            }
        )


def _weight_bytes(file: Path) -> int:
    """What the constants of an ONNX file take."""
    onnx: Any = engine("onnx", extra="train")
    return sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in onnx.load(file).graph.initializer)
