"""Is a build sooner done with --jobs? `python -m bench.scaling --data-dir DATA`, on an idle machine of two cores.

A portfolio of ResNet-20 (dense and three budgets) on a part of CIFAR-10, built in turns, each time in a new process
with an empty folder. Seconds are those of the whole process, imports and reading the images included; `until training`
is what passed before the first step of a training was told. All variants train for the same epochs, so that no clock
decides what is built. Parts, each kept beside the others in the result's file:

    jobs      with `--jobs N`; one variant after the other with the threads that each training has there (`alone`),
              which gives the same weights to the last bit, as is checked; with all threads of torch (`default`); and
              with `--against SRC` by another build of prunit, with as many threads as `alone` and with all
    ray       with `--jobs N`, and as tasks of Ray, which is started for each build (needs prunit[ray]); trainings
              should take a minute or more (--epochs)
    trials    many short trials on a simulated cluster of Ray: what they cost the driver (bench/scaling_trials.py)
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
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench import scaling_trials
from bench._common import ROOT, parser_of, quotient, record, spread, table, take_turns, write

BUDGETS: Final = ("params=1/2", "params=1/4", "params=1/8")
SOURCE: Final = ROOT / "src"
JOBS, RAY, TRIALS = "jobs", "ray", "trials"
RAY_NAME: Final = f"scaling.{RAY}"

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
import time
began = []
def on_step(step):
    if step.stage == "train" and not began:
        began.append(time.time())
prunit.build("resnet20", dataset, asked["out"], config=asked["config"], on_step=on_step, **more)
Path(asked["began"]).write_text(str(began[0]))
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
    """Seconds of a build in an empty folder, those until it trained, and a digest of each variant's weights."""
    rmtree(folder, ignore_errors=True)
    environment = {n: v for n, v in os.environ.items() if n not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment["PYTHONPATH"] = str(asked["source"])
    began = folder.with_name(f"{folder.name}.began")
    told = json.dumps({**asked, "source": str(asked["source"]), "out": str(folder), "began": str(began)})
    started, clock = time.perf_counter(), time.time()
    done = subprocess.run([sys.executable, "-c", BUILD, told], env=environment, cwd=ROOT, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"a build ended with exit code {done.returncode}: see above")
    weights = {f.stem: hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in sorted(folder.glob("*.safetensors"))}
    return {"seconds": seconds, "until_training": float(began.read_text()) - clock, "weights": weights}


def arms(part: str, jobs: int, threads: int, against: Path | None = None) -> dict[str, dict[str, Any]]:
    """What is built in turns, by name: from which source, with how many jobs, and threads (0: all of torch)."""
    found: dict[str, dict[str, Any]] = {f"jobs {jobs}": {"source": SOURCE, "jobs": jobs, "threads": 0}}
    if part == RAY:
        return {**found, "ray local": {"source": SOURCE, "jobs": jobs, "threads": threads, "ray": True}}
    found["alone"] = {"source": SOURCE, "jobs": 1, "threads": threads}
    found["default"] = {"source": SOURCE, "jobs": 1, "threads": 0}
    if against is not None:
        found["other build, alone"] = {"source": against.resolve(), "jobs": 1, "threads": threads}
        found["other build, default"] = {"source": against.resolve(), "jobs": 1, "threads": 0}
    return found


def row_of(name: str, jobs: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What is told of an arm, beside that with several jobs."""
    mine, theirs = found[name], found[jobs]
    row: dict[str, Any] = {"arm": name, **{n: spread([r[n] for r in mine]) for n in ("seconds", "until_training")}}
    if name != jobs:
        row["times_sooner"] = quotient([run["seconds"] for run in mine], [run["seconds"] for run in theirs])
        row["same_weights"] = all(a["weights"] == b["weights"] for a, b in zip(mine, theirs, strict=True))
    return row


def told(result: Mapping[str, Any]) -> str:
    """The table of a result, of jobs or of Ray."""
    jobs = result["config"]["jobs"]
    compared = (
        f"times as long as --jobs {jobs}" if result["benchmark"] == RAY_NAME else f"times sooner with --jobs {jobs}"
    )
    head = ["one build", "seconds", compared, "the same weights"]
    timed = "until_training" in result["rows"][0]  # older results lack it
    rows = []
    for row in result["rows"]:
        ratio = row.get("times_sooner")
        cells = [
            row["arm"],
            _seconds(row["seconds"]),
            f"**{ratio['of_medians']:.2f}** ({ratio['paired']['min']:.2f} to {ratio['paired']['max']:.2f})"
            if ratio
            else "",
            "" if ratio is None else "yes" if row["same_weights"] else "no",
        ]
        rows.append([*cells[:2], _seconds(row["until_training"]), *cells[2:]] if timed else cells)
    return table([*head[:2], "of them until training", *head[2:]] if timed else head, rows)


def _seconds(found: Mapping[str, float]) -> str:
    return f"{found['median']:.0f} ({found['min']:.0f} to {found['max']:.0f})"


def kept(part: str, result: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What the file is to hold: the result of a part, beside those of the others that are there."""
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if part == JOBS:
        return {**result, **{name: before[name] for name in (RAY, TRIALS) if name in before}}
    return {**before, part: dict(result)}


def builds(args: argparse.Namespace) -> dict[str, Any]:
    """The result of builds that take turns."""
    threads = max(1, len(os.sched_getaffinity(0)) // args.jobs) if hasattr(os, "sched_getaffinity") else 1
    settings = config(args.epochs, args.budgets)
    asked = {
        "data": str(args.data_dir.resolve()),
        "images": args.images,
        "tests": args.tests,
        "config": settings,
    }
    those = arms(args.part, args.jobs, threads, args.against)
    with TemporaryDirectory(prefix="prunit-scaling-") as folder:
        runs = {
            name: partial(built, {**asked, **arm}, Path(folder) / name.replace(" ", "-")) for name, arm in those.items()
        }
        found = take_turns(runs, args.rounds, warm_up=0)
    rows = [row_of(name, f"jobs {args.jobs}", found) for name in those]
    told_of = {"model": "resnet20", "data": "cifar10", "jobs": args.jobs, "threads of a training": threads}
    told_of |= {name: asked[name] for name in ("images", "tests")} | {"build": settings}
    note = "medians; of builds that take turns"
    name = RAY_NAME if args.part == RAY else "scaling"
    result = record(name, rows, config=told_of, n=args.rounds, percentile=note, threads=threads)
    if args.part == RAY:
        result["versions"]["ray"] = version("ray")
    return result


def main() -> None:
    """Measure, and write the result."""
    parser = parser_of("scaling", __doc__, rounds=3, jobs=2, images=5000, tests=1000, epochs=4)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("part", nargs="?", choices=(JOBS, RAY, TRIALS), default=JOBS)
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data", metavar="DIR", help="where CIFAR-10 lies")
    parser.add_argument("--against", type=Path, metavar="SRC", help="jobs: the src folder of another build")
    parser.add_argument("--budgets", nargs="+", default=BUDGETS, help=f"default {' '.join(BUDGETS)}")
    parser.add_argument("--counts", nargs="+", type=int, default=scaling_trials.COUNTS, help="trials: default 20 200")
    parser.add_argument("--nodes", type=int, default=os.cpu_count(), help="trials: of one CPU each; default: cores")
    args = parser.parse_args()
    if args.part == TRIALS:
        result = scaling_trials.measured(args.counts, args.rounds, args.nodes)
    else:
        result = builds(args)
    for row in result["rows"]:
        print(row, flush=True)
    write(kept(args.part, result, args.json), args.json)


if __name__ == "__main__":
    main()
