"""What switching costs, and what it delivers: `python -m bench.switching`. Linux only.

A portfolio of VGG-16 at eight widths (untrained: times and memory do not depend on the weights), and for the traces the
trained ones of the evidence. In one run, taking turns:

- from the decision to the first answer of another variant, and how much longer that is than its usual answer:
  resident, opened from the installed form, opened from the portable file, and stop–load–resume of the dense model,
  which is how a device without variants gets back to work;
- memory of eight resident variants, each way in a process of its own;
- a thousand switches under load: requests lost, and how long they took;
- shares of a trace's requests in time (`--trace`), each policy against single variants and the oracle; with the rates
  scaled so that the dense model alone is overloaded at times.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench._common import RESULTS, ROOT, percentile, record, take_turns, write
from bench._nets import SMALL, portfolio_at
from bench.edge_tables import COLD, STOP
from bench.evidence import cells
from bench.evidence.arms import ARMS
from bench.evidence.protocols import protocol
from prunit.edge.install import install, opened, place_of
from prunit.edge.portfolio import Portfolio, Variant
from prunit.edge.runtimes import runtime
from prunit.edge.switching.policy import Option, policy
from prunit.edge.switching.simulate import Service, Simulation
from prunit.edge.switching.switch import Switcher
from prunit.edge.switching.traces import arrivals_of, rates_of

SHARES: Final = tuple(Fraction(n, 8) for n in range(8, 0, -1))
X_BCHW: Final = np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)
TARGET_MS: Final = 20.0
LOAD_PER_S: Final = 50


def widths_of_vgg(folder: Path) -> Portfolio:
    """VGG-16 at eight shares of its widths, exported to the folder."""
    return widths_of("vgg16-32", folder)


def widths_of(net: str, folder: Path) -> Portfolio:
    """A network at eight shares of its widths, exported to the folder."""
    return portfolio_at(SMALL[net], {f"w{share.numerator}-{share.denominator}": share for share in SHARES}, folder)


def first_answers(folder: Path, portfolio: Portfolio, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds from the decision to the first answer of each variant in turn, by way."""
    names = [v.name for v in portfolio.variants]
    engine, dense, place = runtime(), portfolio.variants[0], place_of(folder)
    installed = install(portfolio, folder)
    resident = Switcher(folder, start=names[0])
    resident.preload()
    one = Switcher(folder, start=names[0], resident=1)
    turn = iter(range(10**9))

    with_all = {v.name: opened(v, folder, place=place, installed=installed)[0] for v in portfolio.variants}
    steady = {
        name: percentile([_timed_ms(partial(session.run, X_BCHW)) for _ in range(30)][5:], 0.5)
        for name, session in with_all.items()
    }
    for session in with_all.values():
        session.close()

    def switched(switcher: Switcher) -> tuple[float, float]:
        name = names[next(turn) % len(names)]
        if switcher.active == name:
            name = names[(names.index(name) + 1) % len(names)]
        started = time.perf_counter()
        wish = switcher.switch(name)
        wish.wait(30)
        assert switcher.run(X_BCHW).variant == name
        took_ms = 1000 * (time.perf_counter() - started)
        return took_ms, took_ms - steady[name]

    def opened_by(open_one: Callable[[Variant], Any], variant: Variant | None) -> tuple[float, float]:
        chosen = variant or portfolio.variants[next(turn) % len(names)]
        started = time.perf_counter()
        session = open_one(chosen)
        session.run(X_BCHW)
        took_ms = 1000 * (time.perf_counter() - started)
        session.close()
        return took_ms, took_ms - steady[chosen.name]

    def portable(variant: Variant) -> Any:
        return engine.open(folder / variant.artifact.path)

    def from_disk(variant: Variant) -> tuple[float, float]:
        """The installed form, none of whose pages is in memory: after a restart, or when memory was short."""
        for file in (place / installed.variants[variant.name].model).parent.iterdir():
            _forget(file)
        return opened_by(lambda v: opened(v, folder, place=place, installed=installed)[0], variant)

    def portable_from_disk(variant: Variant) -> tuple[float, float]:
        _forget(folder / variant.artifact.path)
        return opened_by(portable, variant)

    ways = {
        "resident": lambda: switched(resident),
        "one resident, installed form": lambda: switched(one),
        "session anew, installed form": lambda: opened_by(
            lambda v: opened(v, folder, place=place, installed=installed)[0], None
        ),
        f"session anew, installed form, {COLD}": lambda: from_disk(portfolio.variants[next(turn) % len(names)]),
        "session anew, portable file": lambda: opened_by(portable, None),
        STOP: lambda: opened_by(portable, dense),
        f"{STOP}, {COLD}": lambda: portable_from_disk(dense),
    }
    found = take_turns(ways, rounds, warm_up=8)
    swaps = []
    for i in range(1000):
        swaps.append(1000 * resident.switch(names[i % len(names)]).ms)
    resident.close()
    one.close()
    rows = [
        {
            "part": "first answer",
            "net": portfolio.name,
            "way": way,
            "ms": {f"p{p}": percentile([ms for ms, _ in pairs], p / 100) for p in (50, 99)},
            "overhead_ms": {f"p{p}": percentile([more for _, more in pairs], p / 100) for p in (50, 99)},
            "n": len(pairs),
        }
        for way, pairs in found.items()
    ]
    return [
        *rows,
        {
            "part": "swap",
            "net": portfolio.name,
            "us": {f"p{p}": percentile(swaps, p / 100) for p in (50, 99)},
            "n": len(swaps),
        },
    ]


def _forget(file: Path) -> None:
    """Take a file's pages out of the system's cache; those that another process has mapped stay."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _timed_ms(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - started)


def memory(folder: Path, way: str) -> dict[str, int]:
    """In this process: how much anonymous and proportional memory eight answering variants take, in bytes."""
    portfolio = Portfolio.read(folder)
    held: list[Any] = []
    before = _rollup()
    if way == "switcher":
        switcher = Switcher(folder)
        switcher.preload()
        for variant in portfolio.variants:
            switcher.switch(variant.name)
            switcher.run(X_BCHW)
        held.append(switcher)
    else:
        for variant in portfolio.variants:
            held.append(runtime().open(folder / variant.artifact.path))
            held[-1].run(X_BCHW)
    after = _rollup()
    return {name: after[name] - before[name] for name in after}


def _rollup() -> dict[str, int]:
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    found = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines[1:]}
    return {name: found[name] for name in ("Anonymous", "Pss")}


def in_a_child(folder: Path, way: str) -> dict[str, int]:
    """`memory` in a fresh process."""
    command = [sys.executable, "-m", "bench.switching", "--memory", way, str(folder)]
    path = os.pathsep.join(p for p in sys.path if p)
    child = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    return json.loads(child.stdout.splitlines()[-1])


def under_load(folder: Path, portfolio: Portfolio, switches: int) -> dict[str, Any]:
    """A thousand switches in turn while requests come at a steady rate; the variants are all resident."""
    names = [v.name for v in portfolio.variants[2:]]  # the widest ones take as long as requests are apart
    latencies: list[float] = []
    failed: list[str] = []
    over = threading.Event()
    with Switcher(folder, start=names[0]) as switcher:
        switcher.preload(*names)
        started = time.perf_counter()

        def ask() -> None:
            i = 0
            while not over.is_set():
                due = started + i / LOAD_PER_S
                time.sleep(max(0.0, due - time.perf_counter()))
                try:
                    switcher.run(X_BCHW)
                except Exception as error:  # a lost request is what is counted here
                    failed.append(str(error))
                latencies.append(1000 * (time.perf_counter() - due))
                i += 1

        asking = threading.Thread(target=ask)
        asking.start()
        for i in range(switches):
            switcher.switch(names[i % len(names)])
            time.sleep(0.02)
        over.set()
        asking.join()
    return {
        "part": "under load",
        "switches": switches,
        "requests": len(latencies),
        "lost": len(failed),
        "late": sum(ms > TARGET_MS for ms in latencies),
        "ms": {f"p{p}": percentile(latencies, p / 100) for p in (50, 99, 100)},
    }


def trained() -> tuple[list[Option], dict[str, Service]]:
    """Models of the evidence, VGG-16 on CIFAR-10: dense, and those that none beats in accuracy and latency.

    Accuracies and latencies are means over the seeds of the committed cells, all measured on one machine.
    """
    found = cells.find(protocol("vgg16").tasks(), cells.CELLS).cells
    grouped: dict[str, list[Any]] = {}
    for task, cell in found.items():
        if ARMS[task.arm].family in ("dense", "reconvene", "structured") and "accuracy" in cell:
            grouped.setdefault(f"{task.arm} {task.budget}".strip(), []).append(cell)
    options, services = [], {}
    for name, mine in grouped.items():
        one = [next(each for each in cell["latency"] if each["batch"] == 1) for cell in mine]
        p50, p90, p99 = (statistics.fmean(each[f"p{p}_ms"] for each in one) for p in (50, 90, 99))
        accuracy = statistics.fmean(cell["accuracy"] for cell in mine)
        options.append(Option(name, accuracy, p50, energy=statistics.fmean(cell["macs"] for cell in mine)))
        services[name] = Service(p50, p90, p99)
    beaten = {o.name for o in options for p in options if p.accuracy > o.accuracy and p.service_ms <= o.service_ms}
    front = [o for o in options if o.name == "dense" or o.name not in beaten]
    return sorted(front, key=lambda o: -o.accuracy), services


def on_a_trace(file: Path, seconds: int) -> list[dict[str, Any]]:
    """Each policy and each single variant on a trace.

    Its rates are scaled so that they keep the most accurate variant busy to 40 % at the median; the target is five
    times what that variant takes for an answer.
    """
    options, services = trained()
    rates = rates_of(file)[:seconds]
    best_ms = max(options, key=lambda o: o.accuracy).service_ms
    scale = 0.4 * 1000 / best_ms / float(np.median(rates))
    arrivals_s = arrivals_of(rates * scale)
    target_ms = 5 * best_ms
    simulation = Simulation(options, services, target_ms)
    policies = [*(f"fixed:{o.name}" for o in options), "accurate", "queue", "delivered"]
    found = {name: simulation.run(policy(name), arrivals_s) for name in policies} | {
        "oracle": simulation.oracle(arrivals_s)
    }
    head = {"part": "trace", "trace": file.name, "target_ms": target_ms, "scale": scale, "seconds": len(rates)}
    return [{**head, "policy": name, **asdict(each)} for name, each in found.items()]


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m bench.switching", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "switching.json", metavar="FILE", help="where to write")
    parser.add_argument("--rounds", type=int, default=100, help="first answers of each way; default 100")
    parser.add_argument("--trace", type=Path, action="append", default=[], metavar="FILE", help="can be repeated")
    parser.add_argument("--seconds", type=int, default=86_400, help="of each trace; default a day")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("folder", nargs="?", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(memory(args.folder, args.memory)))
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "vgg16"
        folder.mkdir()
        portfolio = widths_of_vgg(folder)
        rows = first_answers(folder, portfolio, args.rounds)
        # Its answers take less than a millisecond, so they do not hide what the switch takes.
        small = Path(name) / "resnet20"
        small.mkdir()
        rows += first_answers(small, widths_of("resnet20-32", small), args.rounds)
        for way in ("switcher", "sessions"):
            rows.append({"part": "memory", "way": way, **in_a_child(folder, way)})
        rows.append(under_load(folder, portfolio, 1000))
    for file in args.trace:
        rows += on_a_trace(file, args.seconds)
    for row in rows:
        print(row, flush=True)
    config = {"target_ms": TARGET_MS, "requests_per_s": LOAD_PER_S, "widths": [str(share) for share in SHARES]}
    write(record("switching", rows, config=config, n=args.rounds, percentile="p50 and p99", threads=1), args.json)


if __name__ == "__main__":
    main()
