"""What Arm's compiler Vela says of a network on an Ethos-U: cycles, memory, and which operators it leaves to the CPU.

Vela runs in a process of its own: it prints, and a crash of its native part would end the caller's. The cycles are its
estimates, the same in every run; no silicon is involved.
"""

import csv
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from prunit.edge.session import engine
from prunit.errors import ConfigError, MissingExtraError, ModelError, harmless
from prunit.mcu.flatbuffer import without_places
from prunit.mcu.parts import Part

Optimise = Literal["Performance", "Size"]

_SCHEMA: Final = "ai_edge_litert.schema_py_generated"
_COMPILED: Final = b"ethos-u"
"""The custom operator into which Vela compiles all that the accelerator runs."""

_SECONDS: Final = 300.0
"""A network of hundreds of layers takes about one."""


@dataclass(frozen=True)
class LayerCycles:
    """A row of Vela's report: what it makes of one operator. Names that it adds to are those of the layer's output."""

    name: str
    operator: str
    cycles: int


@dataclass(frozen=True)
class LeftToCpu:
    """An operator that the accelerator does not run, by TensorFlow Lite's name and that of the tensor it makes."""

    operator: str
    layer: str


@dataclass(frozen=True, eq=False)
class Compiled:
    """A network as Vela compiled it for a part.

    `cycles` are those of the accelerator alone and hold nothing for operators `left_to_cpu`: call `check`.
    `sram_bytes` is the peak in SRAM, `flash_bytes` what lies in flash (with weights compressed and commands, without
    the file's own tables). `data` is the compiled flatbuffer, whose size is what a device stores.
    """

    part: Part
    version: str
    optimise: Optimise
    cycles: int
    sram_bytes: int
    flash_bytes: int
    macs: int
    left_to_cpu: tuple[LeftToCpu, ...]
    layers: tuple[LayerCycles, ...]
    data: bytes

    @property
    def latency_ms(self) -> float:
        """At the part's clock, estimated by Vela."""
        return self.part.milliseconds(self.cycles)

    @property
    def described(self) -> str:
        """How these figures came about, for reports."""
        return f"{self.part.described}, Vela {self.version} --optimise {self.optimise}"

    def check(self) -> "Compiled":
        """Itself; `ModelError` where the figures do not stand for the whole network.

        That is so if operators are left to the CPU, which Vela counts as nothing, and if it reports no cycles or no
        SRAM at all.
        """
        if self.left_to_cpu:
            named = ", ".join(f"{each.operator} of '{each.layer}'" for each in self.left_to_cpu[:4])
            more = f" and {len(self.left_to_cpu) - 4} more" if len(self.left_to_cpu) > 4 else ""
            raise ModelError(
                f"{self.part.name} does not run {named}{more}: the CPU would, and Vela counts that as no cycles; "
                "replace these operators, or measure on 'tflm'"
            )
        if not self.cycles or not self.sram_bytes:
            found = "no cycles" if not self.cycles else "no SRAM"
            raise ModelError(f"Vela {self.version} reports {found} ({self.described}): distrust the figure")
        return self


def version() -> str:
    """The version of the installed Vela; `MissingExtraError` without it."""
    if importlib.util.find_spec("ethosu") is None:
        raise MissingExtraError("the compiler 'vela'", "ethos-u-vela", "mcu")
    return importlib.metadata.version("ethos-u-vela")


def compiled(
    data: bytes,
    part: Part,
    *,
    optimise: Optimise = "Performance",
    timeout_s: float = _SECONDS,
    options: Sequence[str] = (),
) -> Compiled:
    """The flatbuffer compiled for the part: about 0.3 s. `options` go to Vela's command line as they are.

    A plan of an arena in the file is left out: Vela 5.2.0 copies it as it is, though its file has other tensors.

    Raises `ConfigError` for a part without an accelerator, `ModelError` for a network of floats, one that Vela refuses,
    or one that takes it longer than `timeout_s`, and `MissingExtraError` without the extra `mcu`.
    """
    if part.kind != "ethos-u":
        raise ConfigError(f"Vela compiles for Ethos-U, not for '{part.name}'; choose one of ethos-u55-128, …")
    found = version()
    schema: Any = engine(_SCHEMA, extra="mcu")
    _check_integers(schema, data)
    with tempfile.TemporaryDirectory(prefix="prunit-vela-") as name:
        folder = Path(name)
        (folder / "net.tflite").write_bytes(without_places(data))
        _run(folder, part, optimise, timeout_s, options)
        summary = _rows(folder / f"net_summary_{part.system_config}.csv")[0]
        layers = tuple(
            LayerCycles(row["Name"], row["NNG Operator"], int(row["Op Cycles"]))
            for row in _rows(folder / "net_per-layer.csv")
        )
        made = (folder / "net_vela.tflite").read_bytes()
    return Compiled(
        part=part,
        version=found,
        optimise=optimise,
        cycles=int(float(summary["cycles_total"])),
        sram_bytes=_bytes(summary, "sram"),
        flash_bytes=_bytes(summary, "off_chip_flash") + _bytes(summary, "on_chip_flash"),
        macs=int(summary["nn_macs"]),
        left_to_cpu=_left(schema, made),
        layers=layers,
        data=made,
    )


def _run(folder: Path, part: Part, optimise: str, timeout_s: float, options: Sequence[str]) -> None:
    command = [sys.executable, "-m", "ethosu.vela", "net.tflite", "--output-dir", ".", "--verbose-performance"]
    command += ["--accelerator-config", part.accelerator, "--config", "Arm/vela.ini"]
    command += ["--system-config", part.system_config, "--memory-mode", part.memory_mode, "--optimise", optimise]
    try:
        done = subprocess.run(
            [*command, *options],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"Vela took longer than {timeout_s:g} s for {part.name} and was ended") from None
    if done.returncode or not (folder / "net_vela.tflite").is_file():
        said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        why = harmless(said[-1])[:300] if said else f"exit code {done.returncode}"
        raise ModelError(f"Vela refuses the network for {part.name}: {why}")


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _bytes(summary: Mapping[str, str], memory: str) -> int:
    """Exact, though the file says it in KiB: what is divided by 1024 there is a whole number."""
    return round(float(summary[f"{memory}_memory_used"]) * 1024)


def _check_integers(schema: Any, data: bytes) -> None:
    """Vela leaves what is of floats to the CPU, and then reports success and no cycles."""
    graph = _graph(schema, data)[1]
    floats = [tensor for tensor in graph.tensors if tensor.type == schema.TensorType.FLOAT32]
    if floats:
        raise ModelError(
            f"tensor '{_text(floats[0].name)}' is float32: an Ethos-U runs networks of integers; quantise it first"
        )


def _left(schema: Any, data: bytes) -> tuple[LeftToCpu, ...]:
    """What Vela's file holds beside its own operator: the report has no row for it."""
    model, graph = _graph(schema, data)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    left: list[LeftToCpu] = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        if code.customCode and bytes(code.customCode) == _COMPILED:
            continue
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        left.append(LeftToCpu(names.get(number, str(number)), _text(graph.tensors[operator.outputs[0]].name)))
    return tuple(left)


def _graph(schema: Any, data: bytes) -> tuple[Any, Any]:
    if data[4:8] != b"TFL3":
        raise ModelError("these bytes are no TensorFlow Lite flatbuffer: they do not say TFL3")
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    return model, model.subgraphs[0]


def _text(name: bytes | str | None) -> str:
    return harmless(name.decode(errors="replace") if isinstance(name, bytes) else name or "")
