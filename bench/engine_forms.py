"""Opening, answering and memory of engines by the form of the file: `python -m bench.engine_forms`. Linux only.

Each cell is processes of their own, of all engines and forms in turns: the time to open a file, of the first answer and
of steady ones, what the process then holds for itself (anonymous memory, which no other process shares and the system
cannot drop), how that grows with a batch of 32, and what of it is left after 100 single answers and after `close`.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench._common import arguments, percentile, record, write
from prunit.edge.runtimes import RUNTIMES, runtime
from prunit.errors import PrunitError

NETS: Final = ("vgg16",)
SIDE: Final = 32
FORMS: Final = ("file", "installed")
ENGINES: Final = ("onnxruntime", "openvino", "openvino-bf16")
LARGE: Final = 32
SMALL: Final = 100
"""Single answers after a large batch."""


def held_mb() -> float:
    """Anonymous memory of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


def cell(engine: str, form: str, file: str) -> dict[str, float]:
    """The figures of this process."""
    used = runtime(engine)
    used.version()
    one, many = (np.ones((batch, 3, SIDE, SIDE), np.float32) for batch in (1, LARGE))
    before = held_mb()
    start = time.perf_counter()
    session = (used.open if form == "file" else used.open_installed)(Path(file))
    opened = time.perf_counter()
    session.run(one)
    answered = time.perf_counter()
    cpu = time.process_time()
    for _ in range(30):
        session.run(one)
    steady = time.process_time() - cpu
    found = {
        "open_ms": 1000 * (opened - start),
        "first_ms": 1000 * (answered - opened),
        "steady_cpu_ms": 1000 * steady / 30,
        "held_mb": held_mb() - before,
    }
    session.run(many)
    found["after_large_mb"] = held_mb() - before
    for _ in range(SMALL + 1):
        session.run(one)
    found["after_small_mb"] = held_mb() - before
    session.close()
    return found | {"closed_mb": held_mb() - before}


def export(folder: Path) -> None:
    """The nets with random weights, and each in the form of each engine."""
    import torch

    from prunit import zoo
    from prunit.export import exporter

    for net in NETS:
        exporter("onnx")(zoo.load(net).eval(), torch.zeros(1, 3, SIDE, SIDE), folder, name=net)
        for engine in engines():
            (folder / f"{net}-{engine}").mkdir()
            runtime(engine).install(folder / f"{net}.onnx", folder / f"{net}-{engine}")


def engines() -> list[str]:
    """Those that are installed and that this CPU can do."""
    found = []
    for name in ENGINES:
        try:
            RUNTIMES[name].version()
            found.append(name)
        except PrunitError as error:
            print(error)
    return found


def measure(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """A row for each net, engine and form: the median, and of times the 90th percentile too, over the rounds."""
    cells: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for net in NETS:
            for engine in engines():
                for form in FORMS:
                    file = folder / f"{net}.onnx"
                    if form == "installed":
                        file = next((folder / f"{net}-{engine}").glob("model.*"))
                    command = [sys.executable, "-m", "bench.engine_forms", "cell", engine, form, str(file)]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    cells.setdefault((net, engine, form), []).append(json.loads(done.stdout))
    rows = []
    for (net, engine, form), found in cells.items():
        figures: dict[str, float] = {}
        for key in found[0]:
            values = [each[key] for each in found]
            figures[key] = round(percentile(values, 0.5), 2)
            if key.endswith("_ms"):
                figures[f"{key}_p90"] = round(percentile(values, 0.9), 2)
        rows.append({"net": net, "engine": engine, "form": form, "n": len(found)} | figures)
        print(f"{net:12} {engine:14} {form:10}", "  ".join(f"{k} {v:g}" for k, v in figures.items()))
    return rows


def main() -> None:
    args = arguments("engine_forms", __doc__, rounds=5)
    with tempfile.TemporaryDirectory() as name:
        export(Path(name))
        rows = measure(Path(name), args.rounds)
    versions = {engine: RUNTIMES[engine].version() for engine in engines()}
    config = {"nets": NETS, "side": SIDE, "large": LARGE, "small": SMALL, "engines": versions}
    write(
        record("engine_forms", rows, config=config, n=args.rounds, percentile="50, of times 90 too", threads=1),
        args.json,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["cell"]:
        print(json.dumps(cell(*sys.argv[2:5])))
    else:
        main()
