"""What many short trials cost the process that hands them out: `python -m bench.scaling trials`.

Trials of a sweep, of as many budgets of ResNet-20, each for an epoch on a part of the digits, as tasks of Ray on a
cluster that is simulated on this machine: a head that trains nothing, and as many nodes of one CPU as there are cores.
The driver is a process of its own. What it computes is its user and system time, all threads of Ray's in it included
and no other process; its share is of the seconds that passed. `python -m bench.scaling_trials` is that process.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench._common import ROOT, quotient, record, spread, table, take_turns

NAME: Final = "scaling.trials"
MODEL: Final = "resnet20"
RECIPE: Final = "uniform"
COUNTS: Final = (20, 200)
IMAGES: Final = 200
"""Of the digits, which a trial trains on, but for a fifth that judge it."""
_STORE_BYTES: Final = 100 << 20


def budgets(count: int) -> list[str]:
    """So many shares of the parameters, from a tenth to nine tenths."""
    return [f"params={0.1 + 0.8 * i / max(count - 1, 1):.4f}" for i in range(count)]


def config(count: int) -> dict[str, Any]:
    """Settings of a sweep over so many budgets, by which no clock decides anything."""
    train = {"epochs": 1, "batch_size": 32, "device": "cpu", "precision": "32-true"}
    return {"budgets": budgets(count), "effort": {"rule": "equal-epochs"}, "train": train, "prune": {"measure": False}}


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """The address of a cluster on this machine, with so many nodes of one CPU; ended with all its processes."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
        yield made.address
    finally:
        made.shutdown()


def computed_s() -> float:
    """Seconds that this process has computed, in all its threads, itself and for it the system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def driven(address: str, count: int, folder: Path, images: int) -> dict[str, Any]:
    """What the trials took, done on the cluster from this process."""
    from prunit.graph import trace
    from prunit.recipe import OnRay
    from prunit.recipe.config import validated
    from prunit.recipe.progress import Progress
    from prunit.recipe.recipes import decide
    from prunit.recipe.request import check_request
    from prunit.recipe.source import Source, example_of
    from prunit.recipe.trials import TrialBench, held
    from prunit.zoo.data import load

    settings = validated(config(count))
    dataset = load("digits", subset=images)
    source = Source.of(MODEL, dataset, seed=settings.seed)
    graph = trace(source.make(), example_of(dataset))
    bench = TrialBench(
        *(settings, folder, dataset, held(dataset, None, settings.seed), graph, source, Progress(None), None)
    )
    pieces = []
    for i, (name, budget) in enumerate(check_request(settings).items()):
        if budget is not None:
            plan = decide(source.make(), graph, [], budget, bench.prune_of(name, RECIPE)).plan
            bench.keep(name, RECIPE, plan)
            pieces.append(bench.piece(name, RECIPE, 1, done=i, of=count))
    place = OnRay(address)
    with closing(place):
        began, computed = time.perf_counter(), computed_s()
        place.ready(len(pieces), folder)
        connected = time.perf_counter() - began
        done: list[tuple[float, float]] = []
        with place.open(bench) as run:
            for _ in run(pieces):
                done.append((time.perf_counter() - began, computed_s() - computed))
    found = [bench.found(piece) for piece in pieces]
    if failed := [text for text in found if isinstance(text, str)]:
        raise SystemExit(f"a trial failed: {failed[0]}")
    return told_of(count, connected, done)


def told_of(count: int, connected: float, done: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Figures from the seconds passed, and computed, when each trial was done."""
    (first_s, first_cpu_s), (seconds, cpu_s) = done[0], done[-1]
    more = max(len(done) - 1, 1)
    return {
        "trials": count,
        "seconds": seconds,
        "connected_s": connected,
        "first_s": first_s,
        "trial_s": (seconds - first_s) / more,
        "driver_s": cpu_s,
        "driver_share": cpu_s / seconds,
        "driver_trial_ms": 1e3 * (cpu_s - first_cpu_s) / more,
    }


def driver(address: str, count: int, images: int) -> dict[str, Any]:
    """The same in a process of its own, with an empty folder."""
    with TemporaryDirectory(prefix="prunit-trials-") as folder:
        path = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
        asked = json.dumps({"address": address, "count": count, "folder": folder, "images": images})
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "bench.scaling_trials", asked]
        ended = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, check=False, text=True)
    if ended.returncode:
        raise SystemExit(f"the driver of {count} trials ended with exit code {ended.returncode}: see above")
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def measured(counts: Sequence[int], rounds: int, nodes: int, images: int = IMAGES) -> dict[str, Any]:
    """The result: counts take turns on one cluster."""
    with cluster(nodes) as address:
        runs = {str(count): partial(driver, address, count, images) for count in counts}
        found = take_turns(runs, rounds, warm_up=0)
    names = [name for name in next(iter(found.values()))[0] if name != "trials"]
    rows = [
        {"trials": int(count), **{name: spread([one[name] for one in mine]) for name in names}}
        for count, mine in found.items()
    ]
    fewest, most = (found[str(count)] for count in (min(counts), max(counts)))
    told_config = {"model": MODEL, "data": "digits", "images": images, "recipe": RECIPE, "nodes": nodes}
    flat = {
        name: quotient([one[name] for one in most], [one[name] for one in fewest])
        for name in ("trial_s", "driver_trial_ms")
    }
    result = record(
        *(NAME, rows),
        config={**told_config, "build": {**config(1), "budgets": "as many as trials"}},
        n=rounds,
        percentile="medians; of drivers that take turns on one cluster",
        threads=1,
    )
    return {**result, "versions": {**result["versions"], "ray": version("ray")}, "most_of_fewest": flat}


def told(result: Mapping[str, Any]) -> str:
    """The table of a result, and what a trial costs among the most, of what it costs among the fewest."""
    head = ("trials", "seconds", "until the first is done", "each after it, s")
    head += ("the driver computes, s", "its share of the seconds", "for each trial, ms")
    rows = []
    for row in result["rows"]:
        share = row["driver_share"]
        rows.append(
            (
                row["trials"],
                f"{row['seconds']['median']:.0f}",
                f"{row['first_s']['median']:.1f}",
                f"{row['trial_s']['median']:.2f}",
                f"{row['driver_s']['median']:.2f}",
                f"**{share['median']:.1%}** ({share['min']:.1%} to {share['max']:.1%})",
                f"{row['driver_trial_ms']['median']:.1f}",
            )
        )
    fewest, most = (pick(row["trials"] for row in result["rows"]) for pick in (min, max))
    trial, driver = (result["most_of_fewest"][name]["of_medians"] for name in ("trial_s", "driver_trial_ms"))
    flat = f"With {most} trials each takes {trial:.2f} of what it takes with {fewest}, and the driver {driver:.2f}."
    return f"{table(head, rows)}\n\n{flat}"


if __name__ == "__main__":
    ask = json.loads(sys.argv[1])
    print(json.dumps(driven(ask["address"], ask["count"], Path(ask["folder"]), ask["images"])))
