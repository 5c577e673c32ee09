"""What the server costs and holds: `python -m bench.serving`. Linux only; the load comes from a second process.

VGG-16 at four widths (untrained: times do not depend on the weights; the share of the width stands for the accuracy),
the server as its users start it, on loopback.

- `start`: from the start of the process to the first answer;
- `overhead`: one request after the other over HTTP and in the engine alone, taking turns; JSON beside binary tensors;
- `saturation`: answers per second with many connections, beside the engine alone in a closed loop, before and after;
- `front`: requests per second and latencies of the smallest variant at 1, 16 and 64 connections, taking turns with
  another build (`--against SRC`), with other servers (`--peers VENV`) and with the engine alone;
- `held`: random arrivals at 0.9 of what each variant can answer, one rate after the other, with switching: are they in
  time, and does the server stay with a variant;
- `soak`: random arrivals at 1.5 times what the dense variant can answer, with switching, and dense alone;
- `endurance`: a million requests, 500 switches, 50 reloads (`--requests`): what is lost, and what the server holds.
"""

import argparse
import json
import os
import signal
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench._common import RESULTS, commit, percentile, record, take_turns, write
from bench.serving_endurance import endurance
from bench.serving_front import front, versions_of
from bench.serving_load import IMAGE, TARGET_MS, request
from bench.serving_started import begun, in_a_child, server
from bench.switching import widths_of_vgg
from prunit.edge.measuring.measure import measure
from prunit.edge.measuring.probe import ProbeSettings
from prunit.edge.portfolio import Artifact, Portfolio, Preprocessing
from prunit.edge.serve import protocol
from prunit.edge.switching.switch import Switcher

KEPT: Final = ("w1-1", "w3-4", "w1-2", "w1-8")
PARTS: Final = ("start", "overhead", "tensors", "saturation", "front", "held", "soak", "endurance")


def portfolio_in(folder: Path) -> Portfolio:
    """Four widths with latencies of this machine; the share of the width stands for the accuracy."""
    every = widths_of_vgg(folder)
    kept = [every.variant(name) for name in KEPT]
    marked = tuple(v.model_copy(update={"metrics": v.metrics.model_copy(update={"accuracy": v.keep})}) for v in kept)
    found = measure(every.model_copy(update={"variants": marked}), folder, ProbeSettings())
    found.write(folder)
    return found


def start(folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds from the start of the process to the first answer; variants are installed already."""
    portfolio, found = Portfolio.read(folder), []
    sent = request(portfolio)
    body, head = sent.partition(b"\r\n\r\n")[2], sent.partition(b"\r\n\r\n")[0].decode()
    length = head.partition("Content-Length: ")[2].partition("\r")[0]
    for i in range(rounds + 1):
        port = 20_000 + os.getpid() % 20_000 + i
        began = time.perf_counter()
        process = begun(folder, port)
        url = f"http://127.0.0.1:{port}/v2/models/{portfolio.name}/infer"
        while True:
            asked = urllib.request.Request(url, body, {"Inference-Header-Content-Length": length})
            with suppress(OSError):  # it does not listen yet, or is not ready
                with urllib.request.urlopen(asked) as answer:
                    answer.read()
                break
            time.sleep(0.005)
        found.append(time.perf_counter() - began)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    return {"part": "start", "n": rounds, "s": {f"p{p}": percentile(found[1:], p / 100) for p in (50, 99)}}


def overhead(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """One request after the other, by HTTP and in the engine alone."""
    import socket

    portfolio = Portfolio.read(folder)
    rows: list[dict[str, Any]] = []
    with server(folder, "--policy", "fixed") as (port, _), Switcher(folder) as alone:
        alone.preload()
        link = socket.create_connection(("127.0.0.1", port))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def asked(sent: bytes) -> float:
            began = time.perf_counter()
            link.sendall(sent)
            received = b""
            while True:
                more = link.recv(65536)
                assert more, "the server ended the connection"
                received += more
                head, found, rest = received.partition(b"\r\n\r\n")
                if found and len(rest) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]):
                    break
            assert head.startswith(b"HTTP/1.1 200"), head
            return 1000 * (time.perf_counter() - began)

        def engine(name: str) -> float:
            began = time.perf_counter()
            alone.run(IMAGE, name)
            return 1000 * (time.perf_counter() - began)

        for name in (KEPT[0], KEPT[-1]):
            binary, text = (request(portfolio, binary=kind, version=name) for kind in (True, False))
            ways = {
                "engine": lambda name=name: engine(name),
                "binary": lambda sent=binary: asked(sent),
                "json": lambda sent=text: asked(sent),
            }
            found = take_turns(ways, rounds, warm_up=20, pause=False)
            for way, ms in found.items():
                more = [a - b for a, b in zip(ms, found["engine"], strict=True)]
                rows.append(
                    {
                        "part": "overhead",
                        "variant": name,
                        "way": way,
                        "n": len(ms),
                        "ms": {f"p{p}": percentile(ms, p / 100) for p in (50, 99)},
                        "more_ms": {f"p{p}": percentile(more, p / 100) for p in (50, 99)},
                    }
                )
    return rows


def tensors(rounds: int) -> list[dict[str, Any]]:
    """Milliseconds to read one image of a request and write its ten scores, JSON beside binary, without HTTP."""
    rows: list[dict[str, Any]] = []
    output = np.random.default_rng(1).standard_normal((1, 10), dtype=np.float32)
    for side in (32, 224):
        x_BCHW = np.random.default_rng(0).standard_normal((1, 3, side, side), dtype=np.float32)
        artifact = Artifact(
            path="a.onnx",
            sha256="0" * 64,
            bytes=1,
            input_name="x",
            input_shape=(3, side, side),
            output_name="y",
            self_test="a.npz",
            self_test_sha256="0" * 64,
            tolerance=1.0,
        )
        sent = {"name": "x", "datatype": "FP32", "shape": list(x_BCHW.shape)}
        text = json.dumps({"inputs": [{**sent, "data": x_BCHW.ravel().tolist()}]}).encode()
        binary = {"inputs": [{**sent, "parameters": {"binary_data_size": x_BCHW.nbytes}}]}
        head = json.dumps({**binary, "parameters": {"binary_data_output": True}}).encode()
        preprocessing = Preprocessing(mean=(0.5,) * 3, std=(0.2,) * 3, size=(side, side))

        def both(body: bytes, length: int | None, artifact: Artifact, preprocessing: Preprocessing) -> float:
            began = time.perf_counter()
            asked = protocol.parse(body, length, artifact, preprocessing, 1)
            protocol.answer(asked, output, artifact, (), model="m", variant="v", figures={})
            return 1000 * (time.perf_counter() - began)

        ways = {
            "json": partial(both, text, None, artifact, preprocessing),
            "binary": partial(both, head + x_BCHW.tobytes(), len(head), artifact, preprocessing),
        }
        found = take_turns(ways, rounds, warm_up=20, pause=False)
        for way, ms in found.items():
            figures = {f"p{p}": percentile(ms, p / 100) for p in (50, 99)}
            rows.append({"part": "tensors", "side": side, "way": way, "n": rounds, "ms": figures})
    return rows


def saturation(folder: Path, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Answers per second, with the engine alone before and after each load."""
    rows: list[dict[str, Any]] = []
    for name in (KEPT[0], KEPT[-1]):
        bare: list[float] = []
        served: list[float] = []
        with server(folder, "--policy", f"fixed:{name}", "--slo-ms", "200") as (port, _), Switcher(folder) as alone:
            for _ in range(rounds):
                bare.append(_closed(alone, name, seconds))
                asked = {"kind": "closed", "folder": str(folder), "port": port, "connections": 32, "seconds": seconds}
                found = in_a_child(asked)
                assert not found["failed"], found
                served.append(found["per_s"])
            bare.append(_closed(alone, name, seconds))
        medians = statistics.median(served), statistics.median(bare)
        rows.append(
            {"part": "saturation", "variant": name, "per_s": medians[0], "bare_per_s": medians[1], "n": rounds}
            | {"share": medians[0] / medians[1]}
        )
    return rows


def _closed(switcher: Switcher, name: str, seconds: float) -> float:
    until, count, began = time.perf_counter() + seconds, 0, time.perf_counter()
    while time.perf_counter() < until:
        switcher.run(IMAGE, name)
        count += 1
    return count / (time.perf_counter() - began)


def soak(folder: Path, seconds: float, alone_seconds: float) -> list[dict[str, Any]]:
    """At 1.5 times the dense variant's capacity: with switching for so long, and dense alone."""
    portfolio = Portfolio.read(folder)
    dense_ms = portfolio.variant(KEPT[0]).metrics.latency_ms() or 1.0
    rate, rows = 1.5 * 1000 / dense_ms, []
    for policy, length in (("queue", seconds), (f"fixed:{KEPT[0]}", alone_seconds)):
        with server(folder, "--policy", policy, "--slo-ms", f"{TARGET_MS:g}") as (port, pid):
            asked = {
                "kind": "open",
                "folder": str(folder),
                "port": port,
                "rate": rate,
                "seconds": length,
                "pids": [pid],
            }
            found = in_a_child(asked)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status") as answer:
                status = json.load(answer)
        row = {"part": "soak", "policy": policy, "rate": rate, "seconds": length, **found}
        rows.append({**row, "switches": status["switches"]})
    return rows


def held(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """At 0.9 of each variant's capacity for so long, from the start of the server on and then once more.

    Capacity is what a closed loop gets of a server with that variant alone.
    """
    rows: list[dict[str, Any]] = []
    for name in KEPT:
        with server(folder, "--policy", f"fixed:{name}", "--slo-ms", f"{TARGET_MS:g}") as (port, _):
            asked = {"kind": "closed", "folder": str(folder), "port": port, "connections": 32, "seconds": 3.0}
            capacity = statistics.median(in_a_child(asked)["per_s"] for _ in range(3))
        rate = 0.9 * capacity
        with server(folder, "--policy", "queue", "--slo-ms", f"{TARGET_MS:g}") as (port, pid):
            switches = 0
            for time_of in ("at first", "after that"):
                asked = {"kind": "open", "folder": str(folder), "port": port, "rate": rate, "seconds": seconds}
                found = in_a_child({**asked, "pids": [pid]})
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status") as answer:
                    status = json.load(answer)
                row = {"part": "held", "variant": name, "capacity": capacity, "rate": rate, "seconds": seconds, **found}
                rows.append(
                    {**row, "when": time_of, "active": status["active"], "switches": status["switches"] - switches}
                )
                switches = status["switches"]
    return rows


def main() -> None:
    """Measure, and write the result; parts that are not asked for stay as they are in the file."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "serving.json", metavar="FILE", help="where to write")
    parser.add_argument("--rounds", type=int, default=300, help="requests of each way; default 300")
    parser.add_argument("--seconds", type=float, default=600, help="of the soak; default 600")
    parser.add_argument("--parts", default=",".join(PARTS), help="names, separated by commas; default all")
    parser.add_argument("--resume", action="store_true", help="leave out parts that the file has of this commit")
    parser.add_argument("--against", type=Path, metavar="SRC", help="front: the directory src of another build")
    told = "front: where LitServe, BentoML, Ray Serve or MLServer are installed; can be repeated"
    parser.add_argument("--peers", type=Path, action="append", default=[], metavar="VENV", help=told)
    parser.add_argument("--requests", type=int, default=1_000_000, help="of endurance; default a million")
    args = parser.parse_args()
    torch.set_num_threads(1)
    known, made = _stored(args.json)
    asked = [part for part in PARTS if part in args.parts.split(",")]
    left = [part for part in asked if not (args.resume and made.get(part, {}).get("commit") == commit())]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "vgg16"
        folder.mkdir()
        portfolio_in(folder)
        with Switcher(folder):
            pass  # installs
        for part in left:
            rows: list[dict[str, Any]] = []
            for row in _measured(part, folder, args):
                print(row, flush=True)
                rows.append(row)
            known = [*(row for row in known if row["part"] != part), *rows]
            made[part] = {"commit": commit(), "load_average": round(os.getloadavg()[0], 2), "n": args.rounds}
            if part == "front":
                made[part]["peers"] = versions_of(args.peers)
            config = {"target_ms": TARGET_MS, "widths": KEPT, "connections": 32, "parts": made}
            write(
                record("serving", known, config=config, n=args.rounds, percentile="p50 and p99", threads=1), args.json
            )


def _stored(file: Path) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """The rows of an earlier run, and of what commit each part is."""
    if not file.exists():
        return [], {}
    found = json.loads(file.read_text(encoding="utf-8"))
    one = {"commit": found["versions"]["commit"], "load_average": found["load_average"], "n": found["n"]}
    return found["rows"], found["config"].get("parts") or {row["part"]: one for row in found["rows"]}


def _measured(part: str, folder: Path, args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    """The rows of a part; of `front` one by one."""
    match part:
        case "start":
            return [start(folder, max(args.rounds // 20, 3))]
        case "overhead":
            return overhead(folder, args.rounds)
        case "tensors":
            return tensors(args.rounds)
        case "saturation":
            return saturation(folder, min(5.0, args.seconds), 5 if args.rounds > 100 else 1)
        case "front":
            turns, seconds = max(args.rounds // 30, 2), min(5.0, args.seconds)
            return front(folder, KEPT[-1], seconds=seconds, rounds=turns, against=args.against, peers=args.peers)
        case "held":
            return held(folder, min(60.0, args.seconds))
        case "endurance":
            switches, reloads = max(args.requests // 2_000, 2), max(args.requests // 20_000, 2)
            return [
                endurance(
                    folder, (KEPT[2], *KEPT[:2], KEPT[3]), requests=args.requests, switches=switches, reloads=reloads
                )
            ]
        case _:
            return soak(folder, args.seconds, min(60.0, args.seconds))


if __name__ == "__main__":
    main()
