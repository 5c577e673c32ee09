"""What the benchmarks share: facts about the machine, runs that take turns, and the JSON file of a result."""

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, TypeVar

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "bench" / "results"
PACKAGES: Final = ("torch", "torch-pruning", "onnxruntime", "onnxscript", "openvino", "numpy")

T = TypeVar("T")


def arguments(name: str, about: str | None, **numbers: int) -> argparse.Namespace:
    """The parsed command line of benchmark `name`: --json FILE and one whole number per name in `numbers`."""
    return parser_of(name, about, **numbers).parse_args()


def parser_of(name: str, about: str | None, **numbers: int) -> argparse.ArgumentParser:
    """The same to be given further options."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=about)
    parser.add_argument("--json", type=Path, default=RESULTS / f"{name}.json", metavar="FILE", help="where to write")
    for option, default in numbers.items():
        parser.add_argument(f"--{option}", type=int, default=default, help=f"default {default}")
    return parser


def take_turns(
    runs: Mapping[str, Callable[[], T]], rounds: int, *, warm_up: int = 1, pause: bool = True
) -> dict[str, list[T]]:
    """What each run returned in each round: A B A B …, so that whatever else the machine does hits all alike.

    The first `warm_up` rounds do not count. Garbage is collected before each run, so none pays for another's; without
    `pause` once before all and not meanwhile, where the pause would leave cold caches to answers of a millisecond.
    """
    found: dict[str, list[T]] = {name: [] for name in runs}
    gc.collect()
    if not pause:
        gc.disable()
    try:
        for turn in range(-warm_up, rounds):
            for name, run in runs.items():
                if pause:
                    gc.collect()
                result = run()
                if turn >= 0:
                    found[name].append(result)
    finally:
        gc.enable()
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of the values, and how many there are."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, interpolated."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def quotient(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    """How many times larger `above` is: the ratio of the medians, and the ratios of the runs of the same round."""
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    return {"of_medians": statistics.median(above) / statistics.median(below), "paired": spread(pairs)}


def device(threads: int | Sequence[int]) -> dict[str, Any]:
    """This machine: the CPU's model, the cores that this process may use, and the threads of the measurement."""
    from prunit.edge.measuring.probe import device as facts

    here = facts()
    return {"cpu": here.name, "cores": here.cores, "os": here.os, "threads": threads}


def versions() -> dict[str, str | None]:
    """Versions of Python, prunit (with its git commit) and the packages that a figure depends on."""
    from prunit.version import VERSION

    found: dict[str, str | None] = {"python": platform.python_version(), "prunit": VERSION, "commit": commit()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def commit() -> str | None:
    """The checked-out commit, with a '+' where the package's source differs from it; None outside a checkout."""

    def git(*command: str) -> str:
        done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def record(
    name: str, rows: Sequence[Mapping[str, Any]], *, config: Mapping[str, Any], n: int, percentile: str, threads: Any
) -> dict[str, Any]:
    """A result as it is stored: what was measured, how often, which percentile, where, with what and when."""
    return {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": dict(config),
        "n": n,
        "percentile": percentile,
        "device": device(threads),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": versions(),
        "rows": [dict(row) for row in rows],
    }


def write(result: Mapping[str, Any], file: Path) -> None:
    """Store a result as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {file}")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column to the left, figures to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (head, rule, *rows))
