"""Seconds of whole processes: the bare interpreter, `import prunit`, `prunit --help`, and command lines that are wrong.

    python -m bench.startup [--against FOLDER] [--rounds 21] [--wrong 11]
    python -m bench.startup --plans 9 --against FOLDER

Those in turn. A wrong command line has to end with exit code 2 and one line, whatever it says. With `--against`, the
folder `src` of another checkout, each takes turns with the same command line there.

With `--plans`, whole plans of ResNet-50 instead, from the command line to the file, beside the import of torch alone.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from bench._common import RESULTS, ROOT, percentile, quotient, record, spread, take_turns, write

MISTAKES: Final = (
    "biuld",
    "build --epoch 3",
    "build resnet21",
    "build --recipe reconvine",
    "build --score synflw",
    "build --budget parms=1/4",
    "build --precision int4",
    "build --target ethos-u56",
    "build --data cifar100",
    "build --data digit",
    "build --config typo.toml",
    "build --weights none.pt",
    "build --out used",
    "build --time 30m --epochs 3",
    "plan --mode xa",
    "sweep --recipes unifrm",
    "ladder --method imq",
    "shrink resnet20 none.pt",
    "layers resnt20",
    "inspect other.json",
    "probe-device none.json",
    "bench nowhere",
    "install nowhere",
    "evaluate nowhere --data photos",
    "simulate nowhere --trace none.txt",
    "replay nowhere --trace none.txt",
    "serve nowhere",
    "top localhost:8000",
)
"""One for each kind of mistake and each command; all can be told without a model."""
PLANS: Final = {
    "plan resnet50 --budget macs=1/2 --recipe uniform": 1,
    "plan resnet50 --budget macs=1/2 --recipe complexity": 1,
    "plan resnet50 --budget macs=1/2 --recipe complexity --json": 3,
    "plan resnet50 --budget macs=1/2": 3,
}
"""Plans for images of 32 pixels, and how many times fewer rounds they get; the last is by the default recipe."""
FILES: Final = {
    "typo.toml": "[train]\nepoch = 3\n",
    "used/notes.txt": "mine",
    "other.json": '{"format": "something else"}',
}
"""What lies in the working folder for them."""
_TOLD: Final = """
import atexit, sys
atexit.register(lambda: sys.stdout.write(str("torch" in sys.modules)))
from prunit.cli import main
main()
"""


class Took(NamedTuple):
    """Milliseconds of a process: by the wall clock, and of processor time."""

    wall: float
    cpu: float


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
    runs = {name: lambda command=command: _took(command) for name, command in what.items()}
    found = take_turns(runs, rounds)
    rows = []
    for name, times in found.items():
        times_of = _figures(times)
        bare = rows[0]["wall_ms"]["median"] if rows else times_of["wall_ms"]["median"]
        rows.append({"command": name, **times_of, "beyond_interpreter_ms": times_of["wall_ms"]["median"] - bare})
    return rows


def refused(mistakes: Sequence[str], rounds: int, against: Path | None = None) -> list[dict[str, Any]]:
    """A row for each wrong command line: its process, whether torch was loaded; `before` is the same of `against`."""
    sources = {"now": ROOT / "src"} | ({"before": against} if against else {})
    with TemporaryDirectory(prefix="prunit-startup-") as name:
        folder = Path(name)
        for file, text in FILES.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(text)
        runs = {
            f"{when} {mistake}": lambda source=source, mistake=mistake: _took(
                [sys.executable, "-m", "prunit", *mistake.split()], folder=folder, source=source, code=2
            )
            for mistake in mistakes
            for when, source in sources.items()
        }
        found = take_turns(runs, rounds)
        rows = []
        for mistake in mistakes:
            sides = {
                when: {**_figures(found[f"{when} {mistake}"]), "torch_loaded": _loads_torch(mistake, folder, source)}
                for when, source in sources.items()
            }
            before = {"before": sides["before"]} if "before" in sides else {}
            rows.append({"command": f"prunit {mistake}", **sides["now"], **before})
    return rows


class Whole(NamedTuple):
    """Milliseconds of a process by the wall clock and of processor time, and the most memory that it held."""

    wall: float
    cpu: float
    peak_bytes: int


def planned(rounds: int, against: Path | None) -> list[dict[str, Any]]:
    """A row for each plan, and one for the import of torch alone, which every plan needs."""
    sources = {"now": ROOT / "src"} | ({"before": against} if against else {})
    floor = [sys.executable, "-c", "import torch"]
    rows = [
        {"command": "import torch", "n": rounds, "now": _of_whole([_whole(floor, None, None) for _ in range(rounds)])}
    ]
    with TemporaryDirectory(prefix="prunit-startup-") as name:
        for line, every in PLANS.items():
            command = [sys.executable, "-m", "prunit", *line.split()]
            runs = {
                when: lambda command=command, source=source: _whole(command, Path(name), source)
                for when, source in sources.items()
            }
            n = max(rounds // every, 1)
            found = take_turns(runs, n, warm_up=1 if every == 1 else 0)
            row: dict[str, Any] = {"command": f"prunit {line}", "n": n}
            row |= {when: _of_whole(runs) for when, runs in found.items()}
            if against:
                row["times_faster"] = quotient(*([run.cpu for run in found[when]] for when in ("before", "now")))
            rows.append(row)
    return rows


def _of_whole(runs: Sequence[Whole]) -> dict[str, dict[str, float]]:
    names = {"wall_ms": "wall", "cpu_ms": "cpu", "peak_bytes": "peak_bytes"}
    return {name: spread([getattr(run, field) for run in runs]) for name, field in names.items()}


def _whole(command: Sequence[str], folder: Path | None, source: Path | None) -> Whole:
    start = time.perf_counter()
    env = _environment(source) or dict(os.environ)
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, env={**env, "OMP_NUM_THREADS": "1"}
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}")
    wall = (time.perf_counter() - start) * 1e3
    return Whole(wall, (used.ru_utime + used.ru_stime) * 1e3, used.ru_maxrss * 1024)


def _figures(times: Sequence[Took]) -> dict[str, dict[str, float]]:
    by_clock = {"wall_ms": [took.wall for took in times], "cpu_ms": [took.cpu for took in times]}
    return {name: spread(values) | {"p90": percentile(values, 0.9)} for name, values in by_clock.items()}


def _took(command: Sequence[str], *, folder: Path | None = None, source: Path | None = None, code: int = 0) -> Took:
    cpu, start = _cpu_s(), time.perf_counter()
    done = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=folder,
        env=_environment(source),
    )
    took = Took((time.perf_counter() - start) * 1e3, (_cpu_s() - cpu) * 1e3)
    if done.returncode != code:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")
    return took


def _loads_torch(mistake: str, folder: Path, source: Path) -> bool:
    """Whether torch is there when the command line ends."""
    done = subprocess.run(
        [sys.executable, "-c", _TOLD, *mistake.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=_environment(source),
    )
    return done.stdout.endswith("True")


def _environment(source: Path | None) -> dict[str, str] | None:
    """This one, with another prunit, and no data sets to be found."""
    if source is None:
        return None
    return {k: v for k, v in os.environ.items() if k != "PRUNIT_DATA"} | {"PYTHONPATH": str(source)}


def _cpu_s() -> float:
    """Seconds of processor time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "startup.json", metavar="FILE", help="where to write")
    parser.add_argument("--rounds", type=int, default=21, help="default 21")
    parser.add_argument("--wrong", type=int, default=11, help="rounds of wrong command lines, default 11")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="`src` of another checkout")
    parser.add_argument("--plans", type=int, metavar="ROUNDS", help="measure whole plans, and only those")
    options = parser.parse_args()
    against = options.against and options.against.resolve()
    check_lean()
    before = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    if options.plans:
        rows = planned(options.plans, against)
        for row in rows:
            sides = {when: row[when]["cpu_ms"]["median"] for when in ("before", "now") if when in row}
            print(f"{row['command']}: CPU " + ", ".join(f"{when} {ms:.0f} ms" for when, ms in sides.items()))
        config = {"image": "3x32x32", "classes": 10, "order": "in turn", "file_cache": "warm"}
        part = record("startup", rows, config=config, n=options.plans, percentile="median (p50)", threads=1)
        write({**before, "plans": part}, options.json)
        return
    rows = measure(commands(), options.rounds)
    mistakes = refused(MISTAKES, options.wrong, against)
    for row in [*rows, *mistakes]:
        wall, cpu = row["wall_ms"], row["cpu_ms"]["median"]
        was = f"; before {row['before']['wall_ms']['median']:.0f} ms" if "before" in row else ""
        print(f"{row['command']}: {wall['median']:.0f} ms (p90 {wall['p90']:.0f}), CPU {cpu:.0f} ms{was}")
    config = {"torch_loaded_by_import": False, "warm_up": 1, "order": "in turn", "file_cache": "warm"}
    result = record("startup", rows, config=config, n=options.rounds, percentile="median (p50) and p90", threads=1)
    more = {"plans": before["plans"]} if "plans" in before else {}
    write({**result, "mistakes": mistakes, "n_of": {"startup.mistakes": options.wrong}, **more}, options.json)


if __name__ == "__main__":
    main()
