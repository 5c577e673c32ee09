"""What the way by Ray Serve costs: `python -m bench.ray_serving`, with prunit[train,ray-serve], on an idle machine.

The smallest of four widths of VGG-16 answers requests for one image, tensors in binary and in JSON, over 1, 16 and 64
connections that are asked again as soon as they have an answer. Three ways take turns: `prunit serve`; the same as an
application of Ray Serve (`prunit.edge.ray_serve:app`, one replica); and on the same Ray, behind the same proxy, a
deployment that holds the model in ONNX Runtime and nothing else (`bench/serving_peers.py`), with Ray's own batching.
Both have one thread for the engine, take up to 16 images together, and write no line for a request. Ray's processes
are never quite idle: they run beside `prunit serve`, too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench._common import ROOT, parser_of, quotient, record, spread, table, take_turns, write
from bench.serving_front import Asked, requests, takes
from bench.serving_load import request
from bench.serving_started import in_a_child, path_of, server
from prunit.edge.portfolio import Portfolio

OURS: Final = "prunit on Ray Serve"
BARE: Final = "bare Ray Serve"
PLAIN: Final = "prunit serve"
CONNECTIONS: Final = (1, 16, 64)
_ENCODINGS: Final = ("binary", "json")
_LONGEST_START_S: Final = 120.0


class Way(NamedTuple):
    """Where a server listens, and a request in each encoding."""

    port: int
    sent: Mapping[str, bytes]


def both_on_ray(folder: Path, variant: str, port: int) -> None:
    """Start Ray here with both applications, and stay until standard input ends."""
    import ray
    from ray import serve

    from bench.serving_peers import ray_deployment
    from prunit.edge.ray_serve import app

    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        bare = ray_deployment(folder / Portfolio.read(folder).variant(variant).artifact.path)
        quiet = bare.options(logging_config={"enable_access_log": False})
        serve.run(quiet.bind(), name="bare", route_prefix="/predict")
        serve.run(app({"portfolio": folder, "policy": f"fixed:{variant}", "slo_ms": 200}), name="prunit")
        print("ready", flush=True)
        sys.stdin.read()
    finally:
        serve.shutdown()
        ray.shutdown()


@contextmanager
def on_ray(folder: Path, variant: str) -> Iterator[int]:
    """Both in a process of their own: the port."""
    port = 22_000 + os.getpid() % 5_000
    command = [sys.executable, "-m", "bench.ray_serving", "--child", str(folder), variant, str(port)]
    environment = {**os.environ, "PYTHONPATH": path_of(), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)
    assert child.stdin
    assert child.stdout
    try:
        if not any(line == "ready\n" for line in child.stdout):
            raise RuntimeError("Ray Serve did not start")
        yield port
    finally:
        child.stdin.close()
        child.wait(60)
        child.stdout.close()


def measure(folder: Path, variant: str, *, seconds: float, rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each encoding and number of connections."""
    portfolio = Portfolio.read(folder)
    ours = {encoding: request(portfolio, binary=encoding == "binary") for encoding in _ENCODINGS}
    theirs = requests("ray")
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain, _ = stack.enter_context(server(folder, "--policy", f"fixed:{variant}", "--slo-ms", "200"))
        port = stack.enter_context(on_ray(folder, variant))
        _wait(port, theirs["binary"])
        ways = {
            PLAIN: Way(plain, ours),
            OURS: Way(port, ours),
            BARE: Way(port, {encoding: asked.text() for encoding, asked in theirs.items()}),
        }
        for encoding in _ENCODINGS:
            for connections in CONNECTIONS:
                runs = {name: partial(_asked, place, way, encoding, connections, seconds) for name, way in ways.items()}
                found = take_turns(runs, rounds, pause=False)
                yield {"encoding": encoding, "connections": connections, "n": rounds, **row_of(found)}


def row_of(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Answers a second and latencies of each way, and how many times worse prunit is than the bare deployment."""
    per_s = {name: [one["per_s"] for one in each] for name, each in found.items()}
    ms = {p: {name: [one["ms"][p] for one in each] for name, each in found.items()} for p in ("p50", "p99")}
    return {
        "per_s": {name: spread(each) for name, each in per_s.items()},
        "ms": {p: {name: spread(each) for name, each in of.items()} for p, of in ms.items()},
        "times_fewer": quotient(per_s[BARE], per_s[OURS]),
        "times_longer": quotient(ms["p99"][OURS], ms["p99"][BARE]),
    }


def _asked(place: Path, way: Way, encoding: str, connections: int, seconds: float) -> dict[str, Any]:
    sent = place / "sent"
    sent.write_bytes(way.sent[encoding])
    asked = {"kind": "lean", "port": way.port, "sent": str(sent), "connections": connections, "seconds": seconds}
    found = in_a_child(asked)
    if found["failed"]:
        raise RuntimeError(f"{found['failed']} of {found['answered']} requests failed on port {way.port}")
    return found


def _wait(port: int, asked: Asked) -> None:
    until = time.monotonic() + _LONGEST_START_S
    while not takes(port, asked):
        if time.monotonic() > until:
            raise RuntimeError("the bare deployment gives no scores")
        time.sleep(0.2)


def told(result: Mapping[str, Any]) -> str:
    """A row for each encoding and number of connections."""
    head = ["request, connections"]
    head += [f"{name}, per s" for name in (PLAIN, BARE, OURS)] + ["times fewer than bare"]
    head += [f"{name}, p99 ms" for name in (PLAIN, BARE, OURS)] + ["times longer than bare"]
    rows = [
        (
            f"{row['encoding']}, {row['connections']}",
            *(f"{row['per_s'][name]['median']:,.0f}" for name in (PLAIN, BARE, OURS)),
            _ratio(row["times_fewer"]),
            *(f"{row['ms']['p99'][name]['median']:.1f}" for name in (PLAIN, BARE, OURS)),
            _ratio(row["times_longer"]),
        )
        for row in result["rows"]
    ]
    return table(head, rows)


def _ratio(ratio: Mapping[str, Any]) -> str:
    return f"**{ratio['of_medians']:.2f}** ({ratio['paired']['min']:.2f} to {ratio['paired']['max']:.2f})"


def main() -> None:
    """Measure, and write the result."""
    parser = parser_of("ray_serving", __doc__, rounds=9)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn; default 5")
    parser.add_argument("--portfolio", type=Path, metavar="DIR", help="where one of bench.serving lies already")
    parser.add_argument("--child", nargs=3, metavar=("DIR", "VARIANT", "PORT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        both_on_ray(Path(args.child[0]), args.child[1], int(args.child[2]))
        return
    import torch

    from bench.serving import KEPT, portfolio_in

    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="prunit-ray-serving-") as name:
        folder = args.portfolio or Path(name) / "vgg16"
        if args.portfolio is None:
            folder.mkdir()
            portfolio_in(folder)
        for row in measure(folder, KEPT[-1], seconds=args.seconds, rounds=args.rounds):
            print(row, flush=True)
            rows.append(row)
    config = {"variant": KEPT[-1], "seconds": args.seconds, "replicas": 1}
    note = f"medians of turns of {args.seconds:g} s, ratios also in pairs"
    found = record("ray_serving", rows, config=config, n=args.rounds, percentile=note, threads=1)
    write({**found, "versions": {**found["versions"], "ray": version("ray")}}, args.json)


if __name__ == "__main__":
    main()
