"""Variants for microcontrollers and NPUs: flatbuffers of integers, judged on the test images, and what parts report.

Made of the exported float files after the training. A variant that a part cannot run stays a variant: what is wrong is
said, and the build goes on.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from prunit.allocate import Budget
from prunit.edge.comparing.paired import Difference
from prunit.edge.embedded import Embedded, Numbers, OnPart
from prunit.edge.portfolio import Artifact, Variant
from prunit.edge.records import StoredFile
from prunit.edge.session import expected_key, stored_test
from prunit.errors import DataError, DeviceError, FileError, ModelError
from prunit.export.tflite import Twin, integer_twin
from prunit.files import inside, staged, write_atomically
from prunit.mcu.csource import ARENA_NOTE, c_source
from prunit.mcu.litert import Kernels, answers
from prunit.mcu.micro import file_for
from prunit.mcu.network import Tensor
from prunit.mcu.numbers import quantised
from prunit.mcu.parts import Part
from prunit.mcu.session import IntegerSession
from prunit.mcu.tflm import tflm_answers
from prunit.mcu.tools import named
from prunit.mcu.vela import compiled
from prunit.recipe.folder import STATE, read_json
from prunit.recipe.on_parts import figures_by_compiler, figures_of
from prunit.recipe.quality import Quality, comparison
from prunit.recipe.twins import Beside, judged_by, training_images
from prunit.recipe.work import Work
from prunit.train.accuracy import Judged

FOLDER: Final = "mcu"
"""Inside the portfolio: what microcontrollers and NPUs get."""

_AFFORDED: Final = 5e11
"""Multiply-adds of all test images: the reference kernels compute about 3e9 a second, the others ten times as many."""
_RECORDS: Final = 4096
"""Bytes of an arena for the interpreter's own records of a network that an NPU computes in one operator: a guess."""
_NPU_ARENA: Final = (
    f"Vela's SRAM and {_RECORDS} bytes for the interpreter's own records, which are a guess: ask the"
    " RecordingMicroInterpreter on the device, and give it what it says"
)

_RECORD, _ASKED = "embedded.json", "embedded-asked.json"
_CANNOT: Final = (ModelError, DataError, DeviceError, FileError)
"""What may be wrong with one variant for parts, while the others go on."""


def embedded(work: Work, variants: Sequence[Variant], parts: Sequence[Part]) -> list[Variant]:
    """The variants, each with its form for these parts, as far as there is one."""
    if not parts:
        return list(variants)
    found: list[Variant] = []
    dense: Mapping[str, Mapping[str, float]] = {}
    for variant in variants:
        try:
            made = _Embedding(work, variant, parts, Beside(work, variant), dense).made()
            dense = dense or {on.part: on.figures for on in made.parts}
        except _CANNOT as error:
            logging.getLogger(__name__).warning("%s is not made for %s: %s", variant.name, _names(parts), error)
            made = None
        found.append(variant.model_copy(update={"embedded": made}))
    return found


def _names(parts: Sequence[Part]) -> str:
    return ", ".join(each.name for each in parts)


@dataclass(frozen=True)
class _Made:
    """A flatbuffer and how good it is beside the float file."""

    twin: Twin
    judged: Judged
    drop: Difference | None
    agreement: float | None
    tuned: int = 0

    @property
    def lost_points(self) -> float:
        return 0.0 if self.drop is None else -100 * self.drop.value


@dataclass(frozen=True)
class _Embedding:
    """What is made of one variant."""

    work: Work
    variant: Variant
    parts: Sequence[Part]
    beside: Beside
    dense: Mapping[str, Mapping[str, float]]
    """By part what the dense variant takes of it, of which a budget may ask a share; empty where that is not known."""

    def made(self) -> Embedded:
        """Its record; what stands in the folder is not made again where the same was asked for."""
        before = self._before()
        if before is not None:
            return before
        self.work.progress(self.variant.name, "quantise", 0, 0, _names(self.parts))
        made = self._judged(self._twin(self.variant.artifact, self.work.folder))
        settings = self.work.config.parts
        if made.lost_points > settings.max_drop and settings.tune:
            made = self._tuned(made, settings.tune)
        record = self._written(made)
        write_atomically(self._state(_RECORD), record.model_dump_json(indent=2))
        write_atomically(self._state(_ASKED), json.dumps(self._asked))
        return record

    # ── what a build that was stopped has left ──

    def _before(self) -> Embedded | None:
        asked, record = self._state(_ASKED), self._state(_RECORD)
        if not asked.exists() or not record.exists() or read_json(asked) != self._asked:
            return None
        found = Embedded.model_validate_json(record.read_text("utf-8"))
        return found if all(inside(self.work.folder, file.path).is_file() for file in found.files) else None

    @property
    def _asked(self) -> dict[str, Any]:
        settings = self.work.config.parts.model_dump(mode="json", exclude={"targets"})
        return {"twin": self.variant.artifact.sha256, "parts": [each.name for each in self.parts], **settings}

    def _state(self, file: str) -> Path:
        return self.work.state_file(f"{self.variant.name}/{file}")

    # ── the integers ──

    def _twin(self, artifact: Artifact, folder: Path) -> Twin:
        images, held_out = training_images(self.work.dataset, self.work.config.parts.images, self.work.config.seed)
        return integer_twin(
            folder / artifact.path,
            images,
            name=self.variant.name,
            shape_CHW=artifact.input_shape,
            holdout_BCHW=held_out,
        )

    def _judged(self, twin: Twin, *, tuned: int = 0) -> _Made:
        session = IntegerSession(twin.network, twin.data, kernels=self._kernels)
        judged = judged_by(session, self.work.dataset)
        session.close()
        return _Made(twin, judged, *self.beside.compared(judged), tuned)

    @property
    def _kernels(self) -> Kernels:
        """The kernels of a device where judging by them takes minutes at the most, else the fast ones."""
        macs = self.variant.metrics.macs * len(self.work.dataset.test)
        return "reference" if macs <= _AFFORDED else "optimised"

    def _tuned(self, before: _Made, epochs: int) -> _Made:
        """The same of weights that were trained for it, or what was there before where that loses no more."""
        name = self.variant.name
        try:
            model = self.beside.trained_for_int8(epochs, name=name)
            with TemporaryDirectory(prefix="tuning-", dir=self.work.folder / STATE) as place:
                aside = Path(place)
                made = self._judged(self._twin(self.beside.exported(model, aside), aside), tuned=epochs)
        except _CANNOT as error:
            logging.getLogger(__name__).warning("%s: quantisation-aware training: %s", name, error)
            return before
        return made if made.lost_points < before.lost_points else before

    # ── files ──

    def _written(self, made: _Made) -> Embedded:
        twin, name, folder = made.twin, self.variant.name, self.work.folder
        inputs, expected = self._test(twin)
        (folder / FOLDER).mkdir(exist_ok=True)
        write_atomically(folder / FOLDER / f"{name}.tflite", twin.data)
        test = {"input": inputs} | {expected_key(i): values for i, values in enumerate(expected)}
        with staged(folder / FOLDER / f"{name}.selftest.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **test)
        quality = Quality.of(made.judged, None)
        network = twin.network
        vector = inputs[0], expected[0][0]
        return Embedded(
            file=StoredFile.of(folder, f"{FOLDER}/{name}.tflite"),
            self_test=StoredFile.of(folder, f"{FOLDER}/{name}.selftest.npz"),
            input=_numbers(network.by_name[network.inputs[0]]),
            outputs=tuple(_numbers(network.by_name[each]) for each in network.outputs),
            operators=network.codes,
            method=twin.method,
            images=twin.images,
            seed=self.work.config.seed,
            library=f"{named('ai-edge-litert')}, {self._kernels} kernels",
            tuned=made.tuned,
            accuracy=quality.main,
            scores=quality.scores,
            agreement=made.agreement,
            against=made.drop and comparison(made.drop, name),
            parts=tuple(self._on(each, twin, vector) for each in self.parts),
        )

    def _test(self, twin: Twin) -> tuple[Any, tuple[Any, ...]]:
        """Stored images and the exact answers; `ModelError` where TensorFlow Lite Micro gives others."""
        x_BCHW, _ = stored_test(inside(self.work.folder, self.variant.artifact.self_test), self.variant.artifact)
        inputs = quantised(x_BCHW, twin.network.by_name[twin.network.inputs[0]], layout="NCHW")
        expected = answers(twin.data, inputs, kernels="reference")
        if any(each.kind == "tflm" for each in self.parts):
            found = tflm_answers(twin.data, inputs)
            if any(not np.array_equal(a, b) for a, b in zip(found, expected, strict=True)):
                raise ModelError(
                    f"TensorFlow Lite Micro answers '{self.variant.name}' otherwise than the reference kernels, which"
                    " must not be: please report the model"
                )
        return inputs, expected

    def _on(self, on: Part, twin: Twin, vector: tuple[Any, Any]) -> OnPart:
        """What a part reports, and its files; `vector` is an image's integers and the first output for them."""
        name, folder = self.variant.name, self.work.folder
        data, file, settings = twin.data, None, dict[str, str]()
        if on.kind == "tflm":
            figures = figures_of(data, on)
            tool = named("tflite-micro")
        else:
            found = compiled(file_for(twin.lowered, on), on)
            figures, data = figures_by_compiler(found), found.data
            write_atomically(folder / FOLDER / f"{name}-{on.name}.tflite", data)
            file = StoredFile.of(folder, f"{FOLDER}/{name}-{on.name}.tflite")
            tool = f"vela {found.version}"
            settings = {"system_config": on.system_config, "memory_mode": on.memory_mode}
        stem = f"{name}-{on.name}"
        made = c_source(
            data,
            re.sub(r"\W", "_", f"net_{stem}", flags=re.ASCII),
            arena_bytes=int(figures["arena_bytes"] if on.kind == "tflm" else figures["sram_bytes"] + _RECORDS),
            arena_note=ARENA_NOTE if on.kind == "tflm" else _NPU_ARENA,
            x_int8_1=vector[0][None],
            y_int8_1=vector[1][None],
            notes=(
                f"{self.work.source.name}, variant {name}, for {on.described}; {tool}",
                self._input_note(),
            ),
        )
        paths = []
        for ending, text in ((".h", made.header), (".c", made.source)):
            write_atomically(folder / FOLDER / f"{made.name}{ending}", text)
            paths.append(StoredFile.of(folder, f"{FOLDER}/{made.name}{ending}"))
        return OnPart(
            part=on.name,
            figures=dict(figures),
            limits=self._limits(on),
            tool=tool,
            settings=settings,
            compiled=file,
            sources=tuple(paths),
        )

    def _input_note(self) -> str:
        """How pixels become real inputs, which the scale below is of."""
        mean, std = (
            ", ".join(f"{x:.4f}" for x in each) for each in (self.work.dataset.mean_C, self.work.dataset.std_C)
        )
        return f"a real input is (pixel / 255 - mean) / std, by channel: mean {mean}; std {std}"

    def _limits(self, on: Part) -> dict[str, float]:
        budget = [f"{key}={text}" for key, text in self.variant.budget.items()]
        limits = Budget.parse(budget).on_parts if budget else ()
        known = [limit for limit in limits if limit.part == on.name and (limit.share is None or on.name in self.dense)]
        return {limit.figure: limit.of(self.dense.get(on.name, {})) for limit in known}


def _numbers(tensor: Tensor) -> Numbers:
    return Numbers(name=tensor.name, shape=tensor.shape, scale=tensor.scales[0], zero_point=tensor.zero_point)
