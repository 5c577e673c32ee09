"""Exports by a source tree of prunit, each timed in a process of its own: `python -m bench._exports SRC KEY MODE FILE`.

MODE is `variants`, a process in which the dense model was exported and which exports a variant for each line that it
reads; or `variant`, one variant in a new process, which has of earlier ones what they left in FILE. Each prints a line
of JSON per export.
"""

import gc
import inspect
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, cast

import torch
from torch import nn

from bench._common import ROOT
from bench._nets import HALVED, SMALL, Net, plan_at

NETS: Final[Mapping[str, Net]] = {
    "resnet20-32": SMALL["resnet20-32"],
    "resnet50-224": HALVED["resnet50-224"],
    "mobilenetv3l-224": Net("MobileNetV3-L, 224×224", "timm:mobilenetv3_large_100", 224),
}
SHARES: Final = (Fraction(3, 4), Fraction(1, 2), Fraction(1, 4))
"""Of the channels that variants keep, one after the other."""

Told = dict[str, float]


class Exporting:
    """A process of the prunit in the folder `source` (a `src`) that has exported one dense model, and waits."""

    def __init__(self, source: Path, key: str, file: Path) -> None:
        self._process = subprocess.Popen(
            _command(source, key, "variants", file), **_settings(source), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.dense = self._told()
        """What exporting the dense model took, and what is kept of it for the variants."""

    def __enter__(self) -> "Exporting":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.communicate()

    def variant(self) -> Told:
        """What the export of the next variant took."""
        print(file=cast(IO[str], self._process.stdin), flush=True)
        return self._told()

    def _told(self) -> Told:
        line = cast(IO[str], self._process.stdout).readline()
        if not line:
            raise SystemExit("a build's process has ended: see above")
        return cast(Told, json.loads(line))


def one(source: Path, key: str, file: Path) -> Told:
    """What an export in a new process took."""
    done = subprocess.run(
        _command(source, key, "variant", file), **_settings(source), stdout=subprocess.PIPE, check=True
    )
    return cast(Told, json.loads(done.stdout))


def _command(source: Path, key: str, mode: str, file: Path) -> list[str]:
    return [sys.executable, "-m", "bench._exports", str(source.resolve()), key, mode, str(file)]


def _settings(source: Path) -> dict[str, Any]:
    path = os.pathsep.join((str(source.resolve()), str(ROOT)))
    return {"cwd": ROOT, "env": {**os.environ, "PYTHONPATH": path}, "text": True}


def answer(source: str, key: str, mode: str, file: Path) -> None:
    """Export as `mode` says; the times are those of exporting alone, the memory that of the process at its peak."""
    import prunit
    from prunit.cut.surgery import compact
    from prunit.export.onnx import export_onnx
    from prunit.graph import trace

    if not str(prunit.__file__).startswith(source):
        raise SystemExit(f"prunit came from {prunit.__file__}, not from {source}")
    torch.set_num_threads(1)
    templates = "template" in inspect.signature(export_onnx).parameters
    model, example = NETS[key].make()
    graph = trace(model, example)
    shares = SHARES if mode == "variants" else SHARES[1:2]
    variants = [compact(model, graph, plan_at(model, graph, example, share)) for share in shares]
    with tempfile.TemporaryDirectory() as folder:

        def export(each: nn.Module, **settings: Any) -> None:
            export_onnx(each, example, Path(folder), name="net", **settings)

        if mode == "variant":
            tell(lambda: export(variants[0], **(_read(file) if templates else {})))
            return
        found: list[Any] = []
        once = timed(lambda: export(model, on_translated=found.append))
        kept: Told = {"wall_s": 0.0, "cpu_s": 0.0}
        if templates:
            from prunit.export.template import Template

            kept = timed(lambda: Template.of(model, graph, found[0]).write(file))
        print(json.dumps({"export_s": once, "template_s": kept, "file_bytes": size_of(file)}), flush=True)
        settings = _read(file) if templates else {}
        for number, _ in enumerate(sys.stdin):
            share = variants[number % len(variants)]
            tell(lambda share=share: export(_other(share), **settings))


def _read(file: Path) -> dict[str, Any]:
    from prunit.export.template import Template

    template = Template.read(file)
    if template is None:
        raise SystemExit(f"'{file}' holds no template of this build")
    return {"template": template}


def _other(model: nn.Module) -> nn.Module:
    """The model with slightly other weights, as after more training."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.001)
    return model


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def timed(run: Callable[[], None]) -> Told:
    """Seconds by the wall clock and of all threads, garbage collected before."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def tell(run: Callable[[], None]) -> None:
    """Print what it took, with the largest resident memory of the process before and after in MB."""
    before = _peak_mb()
    print(json.dumps({**timed(run), "before_mb": before, "peak_mb": _peak_mb()}), flush=True)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    answer(*sys.argv[1:4], Path(sys.argv[4]))
