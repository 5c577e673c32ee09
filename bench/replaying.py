"""Is what is simulated what happens? `python -m bench.replaying --trace FILE` (Linux; four times as long as the trace).

VGG-16 at four widths with this machine's latencies; the share of the width stands for the accuracy. A trace of
requests, scaled so that it keeps the dense variant busy to 40 % at the median, is replayed in real time against a
`Switcher`, and simulated from the measured latencies; the target is five times what the dense variant takes.
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench._common import RESULTS, record, write
from bench.serving import KEPT, portfolio_in
from prunit.edge.switching.policy import options_of, policy
from prunit.edge.switching.replay import replay
from prunit.edge.switching.simulate import Simulation, services_of
from prunit.edge.switching.switch import Switcher
from prunit.edge.switching.traces import arrivals_of, rates_of

POLICIES = ("queue", "delivered", f"fixed:{KEPT[0]}", f"fixed:{KEPT[2]}")


def main() -> None:
    """Replay, simulate, write both."""
    parser = argparse.ArgumentParser(prog="python -m bench.replaying", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "replaying.json", metavar="FILE", help="where to write")
    parser.add_argument("--trace", type=Path, required=True, metavar="FILE", help="requests per second")
    parser.add_argument("--seconds", type=int, default=120, help="of the trace; default 120")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "vgg16"
        folder.mkdir()
        portfolio = portfolio_in(folder)
        options, services = options_of(portfolio), services_of(portfolio)
        dense_ms = next(o.service_ms for o in options if o.name == KEPT[0])
        rates = rates_of(args.trace)[: args.seconds]
        scale = 0.4 * 1000 / dense_ms / float(np.median(rates))
        sent_s, target_ms = arrivals_of(rates * scale), 5 * dense_ms
        for each in POLICIES:
            with Switcher(folder) as switcher:
                switcher.preload()
                found = replay(switcher, policy(each), sent_s, options, target_ms=target_ms)
            simulated = Simulation(options, services, target_ms).run(policy(each), sent_s)
            row = {
                "policy": each,
                "lost": found.lost,
                "replayed": asdict(found.outcome),
                "simulated": asdict(simulated),
            }
            print(row, flush=True)
            rows.append(row)
    config = {"trace": args.trace.name, "seconds": len(rates), "scale": scale, "target_ms": target_ms}
    write(record("replaying", rows, config=config, n=len(sent_s), percentile="p50 and p99", threads=1), args.json)


if __name__ == "__main__":
    main()
