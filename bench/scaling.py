"""Is a build sooner done with --jobs? `python -m bench.scaling --data-dir DATA`, on an idle machine of two cores.

A portfolio of ResNet-20 (dense and three budgets) on a part of CIFAR-10, built in turns, each time in a new process
with an empty folder: with `--jobs N`; one variant after the other with the threads that each training has there
(`alone`), which gives the same weights to the last bit, as is checked; one after the other with all threads of torch
(`default`); with `--ray` as tasks of Ray; and with `--against SRC` by another build of prunit, with as many threads as
`alone` and with all. Seconds are those of the whole process, imports and reading the images included. All variants
train for the same epochs, so that no clock decides what is built.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench._common import ROOT, parser_of, quotient, record, spread, table, take_turns, write

BUDGETS: Final = ("params=1/2", "params=1/4", "params=1/8")
SOURCE: Final = ROOT / "src"

BUILD: Final = """
import json, sys
asked = json.loads(sys.argv[1])
import torch
if asked["threads"]:
    torch.set_num_threads(asked["threads"])
import prunit
from pathlib import Path
assert Path(prunit.__file__).is_relative_to(asked["source"]), prunit.__file__
dataset = prunit.zoo.data.load("cifar10", data_dir=Path(asked["data"]), subset=asked["images"])
if asked["tests"]:
    from dataclasses import replace
    dataset = replace(dataset, test=dataset.test.taken(slice(asked["tests"])))
more = {"jobs": asked["jobs"]} if asked["jobs"] > 1 else {}
if asked.get("ray"):
    from prunit.recipe import OnRay
    more = {"jobs": OnRay("local", jobs=asked["jobs"], cpus=asked["threads"])}
prunit.build("resnet20", dataset, asked["out"], config=asked["config"], **more)
"""
"""What each process runs."""


def config(epochs: int, budgets: Sequence[str]) -> dict[str, Any]:
    """Settings by which no clock decides anything, and little is measured."""
    return {
        "budgets": list(budgets),
        "effort": {"rule": "equal-epochs"},
        "train": {"epochs": epochs, "device": "cpu", "precision": "32-true"},
        "prune": {"measure": False},
        "probe": {"seconds": 0.5, "batch": 8},
    }


def built(asked: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Seconds of a build in an empty folder, and a digest of each variant's weights."""
    rmtree(folder, ignore_errors=True)
    environment = {n: v for n, v in os.environ.items() if n not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment["PYTHONPATH"] = str(asked["source"])
    told = json.dumps({**asked, "source": str(asked["source"]), "out": str(folder)})
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", BUILD, told], env=environment, cwd=ROOT, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"a build ended with exit code {done.returncode}: see above")
    weights = {f.stem: hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in sorted(folder.glob("*.safetensors"))}
    return {"seconds": seconds, "weights": weights}


def arms(jobs: int, threads: int, against: Path | None, *, ray: bool = False) -> dict[str, dict[str, Any]]:
    """What is built in turns, by name: from which source, with how many jobs, and threads (0: all of torch)."""
    found: dict[str, dict[str, Any]] = {
        f"jobs {jobs}": {"source": SOURCE, "jobs": jobs, "threads": 0},
        "alone": {"source": SOURCE, "jobs": 1, "threads": threads},
        "default": {"source": SOURCE, "jobs": 1, "threads": 0},
    }
    if ray:
        found["ray local"] = {"source": SOURCE, "jobs": jobs, "threads": threads, "ray": True}
    if against is not None:
        found["other build, alone"] = {"source": against.resolve(), "jobs": 1, "threads": threads}
        found["other build, default"] = {"source": against.resolve(), "jobs": 1, "threads": 0}
    return found


def row_of(name: str, jobs: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What is told of an arm, beside that with several jobs."""
    mine, theirs = found[name], found[jobs]
    row: dict[str, Any] = {"arm": name, "seconds": spread([run["seconds"] for run in mine])}
    if name != jobs:
        row["times_sooner"] = quotient([run["seconds"] for run in mine], [run["seconds"] for run in theirs])
        row["same_weights"] = all(a["weights"] == b["weights"] for a, b in zip(mine, theirs, strict=True))
    return row


def told(result: Mapping[str, Any]) -> str:
    """The table of a result."""
    rows = []
    for row in result["rows"]:
        ratio = row.get("times_sooner")
        seconds = row["seconds"]
        rows.append(
            (
                row["arm"],
                f"{seconds['median']:.0f} ({seconds['min']:.0f} to {seconds['max']:.0f})",
                f"**{ratio['of_medians']:.2f}** ({ratio['paired']['min']:.2f} to {ratio['paired']['max']:.2f})"
                if ratio
                else "",
                "" if ratio is None else "yes" if row["same_weights"] else "no",
            )
        )
    jobs = result["config"]["jobs"]
    return table(("one build", "seconds", f"times sooner with --jobs {jobs}", "the same weights"), rows)


def main() -> None:
    """Measure, and write the result."""
    parser = parser_of("scaling", __doc__, rounds=3, jobs=2, images=5000, tests=1000, epochs=4)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data", metavar="DIR", help="where CIFAR-10 lies")
    parser.add_argument("--against", type=Path, metavar="SRC", help="the src folder of another build")
    parser.add_argument("--ray", action="store_true", help="on Ray, too, started for each build; needs prunit[ray]")
    parser.add_argument("--budgets", nargs="+", default=BUDGETS, help=f"default {' '.join(BUDGETS)}")
    args = parser.parse_args()
    threads = max(1, len(os.sched_getaffinity(0)) // args.jobs) if hasattr(os, "sched_getaffinity") else 1
    settings = config(args.epochs, args.budgets)
    asked = {
        "data": str(args.data_dir.resolve()),
        "images": args.images,
        "tests": args.tests,
        "config": settings,
    }
    those = arms(args.jobs, threads, args.against, ray=args.ray)
    with TemporaryDirectory(prefix="prunit-scaling-") as folder:
        runs = {
            name: partial(built, {**asked, **arm}, Path(folder) / name.replace(" ", "-")) for name, arm in those.items()
        }
        found = take_turns(runs, args.rounds, warm_up=0)
    rows = [row_of(name, f"jobs {args.jobs}", found) for name in those]
    for row in rows:
        print(row, flush=True)
    told_of = {"model": "resnet20", "data": "cifar10", "jobs": args.jobs, "threads of a training": threads}
    told_of |= {name: asked[name] for name in ("images", "tests")} | {"build": settings}
    note = "medians; of builds that take turns"
    write(record("scaling", rows, config=told_of, n=args.rounds, percentile=note, threads=threads), args.json)


if __name__ == "__main__":
    main()
