"""What a switch costs between two engines, and within one: `python -m bench.engine_switching`, on an idle machine.

VGG-16 and ResNet-20, untrained, at all widths and a half. A switcher goes to and fro between both: in ONNX Runtime, in
OpenVINO, and from one engine to the other; with both variants open, and with one (the other is opened from its
installed form, tested before, and warmed). The time is that from the decision to the first answer; ways take turns. A
switch into an engine is compared with one into the same variant in the same engine that comes from there too.
"""

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch

from bench._common import RESULTS, percentile, record, take_turns, write
from bench._nets import SMALL, Net, portfolio_at
from prunit.edge.install import cpu_features, place_of
from prunit.edge.measuring.probe import latency_of
from prunit.edge.portfolio import Portfolio
from prunit.edge.routing import Measured, Route, Routes
from prunit.edge.runtimes import runtime
from prunit.edge.switching.switch import Switcher

NETS: Final = ("vgg16-32", "resnet20-32")
ENGINES: Final = ("onnxruntime", "openvino")
SHARES: Final = {"whole": Fraction(1), "half": Fraction(1, 2)}
RESIDENT: Final = (None, 1)
X_BCHW: Final = np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)


def routed(portfolio: Portfolio, folder: Path, engines: Mapping[str, str]) -> None:
    """Leaves routes as `prunit bench --engines all --save` would have, had it found these engines to be the fastest."""
    routes = tuple(
        Route(
            variant=v.name,
            artifact_sha256=v.artifact.sha256,
            precision="fp32",
            engine=engines[v.name],
            measured=(Measured(engine=engines[v.name], latencies=(latency_of([10**6], 1, 1),)),),
        )
        for v in portfolio.variants
    )
    versions = {name: runtime(name).version() for name in ENGINES}
    created = "2026-01-01T00:00:00+00:00"
    Routes(cpu=cpu_features(), engines=versions, threads=1, variants=routes, created=created).write(place_of(folder))


def ways(folder: Path, net: Net) -> dict[str, Switcher]:
    """A switcher for each pair of engines and each number of variants that stay open, each with a folder of its own."""
    source = folder / "exported"
    portfolio = portfolio_at(net, SHARES, source)
    found: dict[str, Switcher] = {}
    for resident in RESIDENT:
        for whole in ENGINES:
            for half in ENGINES:
                own = folder / f"{whole}-{half}-{resident}"
                shutil.copytree(source, own)
                routed(portfolio, own, {"whole": whole, "half": half})
                switcher = Switcher(own, start="whole", resident=resident)
                if resident is None:
                    switcher.preload()
                found[f"{whole} {half} {resident or 'all'}"] = switcher
    return found


def switched_ms(switcher: Switcher) -> tuple[float, float]:
    """Milliseconds from the decision to the first answer: of a switch to the half, and of one back."""
    took = []
    for name in ("half", "whole"):
        started = time.perf_counter_ns()
        switcher.switch(name).wait(30)
        answer = switcher.run(X_BCHW)
        took.append((time.perf_counter_ns() - started) / 1e6)
        assert answer.variant == name
    return took[0], took[1]


def rows_of(net: Net, rounds: int) -> list[dict[str, Any]]:
    """A row for each engine that is switched into, each variant and each number of those that stay open."""
    with TemporaryDirectory() as place:
        switchers = ways(Path(place), net)
        try:
            turns = {name: (lambda s=switcher: switched_ms(s)) for name, switcher in switchers.items()}
            found = take_turns(turns, rounds, warm_up=3)
        finally:
            for switcher in switchers.values():
                switcher.close()
    rows: list[dict[str, Any]] = []
    for resident in RESIDENT:
        for engine in ENGINES:
            other = next(name for name in ENGINES if name != engine)
            for i, into in enumerate(("half", "whole")):
                within = [took[i] for took in found[f"{engine} {engine} {resident or 'all'}"]]
                pair = (other, engine) if into == "half" else (engine, other)
                across = [took[i] for took in found[f"{pair[0]} {pair[1]} {resident or 'all'}"]]
                rows.append(
                    {
                        "net": net.title,
                        "resident": resident or "all",
                        "into": into,
                        "engine": engine,
                        "n": len(within),
                        "within_ms": _spread(within),
                        "across_ms": _spread(across),
                        "times": round(statistics.median(a / w for a, w in zip(across, within, strict=True)), 3),
                    }
                )
    return rows


def _spread(ms: list[float]) -> dict[str, float]:
    return {f"p{round(100 * share)}": round(percentile(ms, share), 4) for share in (0.5, 0.9, 0.99)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine_switching", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "engine_switching.json", metavar="FILE", help="to write")
    parser.add_argument("--rounds", type=int, default=100, help="switches to and fro of each way; default 100")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in NETS for row in rows_of(SMALL[name], options.rounds)]
    for row in rows:
        print(json.dumps(row))
    config = {"rounds": options.rounds, "order": "ways take turns", "networks": list(NETS)}
    write(
        record("engine_switching", rows, config=config, n=options.rounds, percentile="p50, p90, p99", threads=1),
        options.json,
    )


if __name__ == "__main__":
    main()
