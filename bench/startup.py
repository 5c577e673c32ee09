"""Seconds of whole processes: the bare interpreter, `import prunit`, `prunit --help`, `prunit --version`, in turn."""

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench._common import arguments, percentile, record, spread, take_turns, write


def commands() -> dict[str, list[str]]:
    """What is run, by name; the console script of this environment, or the module where it is not installed."""
    script = shutil.which("prunit", path=str(Path(sys.executable).parent))
    prunit = [script] if script else [sys.executable, "-m", "prunit"]
    return {
        "interpreter alone": [sys.executable, "-c", "pass"],
        "import prunit": [sys.executable, "-c", "import prunit"],
        "prunit --help": [*prunit, "--help"],
        "prunit --version": [*prunit, "--version"],
    }


def check_lean() -> None:
    """Stop if importing prunit loads torch."""
    code = "import sys, prunit; sys.exit('torch' in sys.modules)"
    if subprocess.run([sys.executable, "-c", code], check=False).returncode:
        raise SystemExit("`import prunit` failed, or it loaded torch")


def measure(what: Mapping[str, Sequence[str]], rounds: int) -> list[dict[str, Any]]:
    """A row for each command: milliseconds of its process, and those beyond the first command's median."""
    runs = {name: lambda command=command: _milliseconds(command) for name, command in what.items()}
    found = take_turns(runs, rounds)
    rows = []
    for name, times in found.items():
        wall = spread(times) | {"p90": percentile(times, 0.9)}
        bare = rows[0]["wall_ms"]["median"] if rows else wall["median"]
        rows.append({"command": name, "wall_ms": wall, "beyond_interpreter_ms": wall["median"] - bare})
    return rows


def _milliseconds(command: Sequence[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    took = (time.perf_counter() - start) * 1e3
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")
    return took


def main() -> None:
    options = arguments("startup", __doc__, rounds=21)
    check_lean()
    rows = measure(commands(), options.rounds)
    for row in rows:
        print(f"{row['command']}: {row['wall_ms']['median']:.0f} ms (p90 {row['wall_ms']['p90']:.0f})")
    config = {"torch_loaded_by_import": False, "warm_up": 1, "order": "in turn", "file_cache": "warm"}
    result = record("startup", rows, config=config, n=options.rounds, percentile="median (p50) and p90", threads=1)
    write(result, options.json)


if __name__ == "__main__":
    main()
