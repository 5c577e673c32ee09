"""The part `front` of bench/serving.py: what requests for tensors cost, beside other builds and other servers.

The smallest variant over 1, 16 and 64 connections, binary tensors and JSON. All servers hold the same model file in
ONNX Runtime with one thread; they stand idle while one of them is asked, and take turns. The engine alone computes
batches of its best size in a loop. Ray's own processes are never idle: measure Ray Serve in a run of its own.
"""

import importlib.metadata
import json
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import psutil

from bench._common import ROOT, spread
from bench.serving_load import IMAGE, SHAPE, request
from bench.serving_started import in_a_child, server
from prunit.edge.portfolio import Portfolio
from prunit.edge.switching.switch import Switcher

CONNECTIONS: Final = (1, 16, 64)
ENCODINGS: Final = ("binary", "json")
PEERS: Final = ("litserve", "bentoml", "ray", "mlserver")
_BATCHES: Final = (1, 2, 4, 8, 16, 32)
_LONGEST_START_S: Final = 120.0
_MODULES: Final = {"ray": "ray.serve"}
"""Whose import tells that a server is there, where that is another name."""
_NUMBERS: Final = json.dumps({"data": [IMAGE.ravel().tolist()]}).encode()
"""A list of one image: of a batch, as BentoML has it."""


class Way(NamedTuple):
    """A server: where it listens, its process, and a request in each encoding that it takes."""

    name: str
    port: int
    pid: int
    sent: dict[str, bytes]


def front(
    folder: Path, variant: str, *, seconds: float, rounds: int, against: Path | None, peers: Sequence[Path]
) -> Iterator[dict[str, Any]]:
    """A row for each way, encoding and number of connections, as soon as it is measured; and what the engine can do."""
    portfolio = Portfolio.read(folder)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ways = [
            *_prunits(stack, folder, portfolio, variant, against),
            *_others(stack, folder, portfolio, variant, peers),
        ]
        alone = stack.enter_context(Switcher(folder))
        alone.preload()
        size = _best_size(alone, variant)
        for encoding in ENCODINGS:
            able = [way for way in ways if encoding in way.sent]
            for connections in CONNECTIONS:
                found: dict[str, list[dict[str, Any]]] = {way.name: [] for way in able}
                bare: list[float] = []
                for turn in range(-1, rounds):  # the first warms all of them
                    bare.append(_bare(alone, variant, size, seconds))
                    for way in able:
                        one = _asked(place, way, encoding, connections, seconds if turn >= 0 else 0.5)
                        if turn >= 0:
                            found[way.name].append(one)
                told = {"part": "front", "encoding": encoding, "connections": connections, "n": rounds}
                yield {**told, "way": "engine", "per_s": spread(bare[1:]), "batch": size}
                for way in able:
                    yield {**told, "way": way.name, **_row(found[way.name], statistics.median(bare[1:]))}


def _prunits(stack: ExitStack, folder: Path, portfolio: Portfolio, variant: str, against: Path | None) -> Iterator[Way]:
    sent = {encoding: request(portfolio, binary=encoding == "binary") for encoding in ENCODINGS}
    for name, source in (("prunit", None), *((("against", against),) if against else ())):
        started = server(folder, "--policy", f"fixed:{variant}", "--slo-ms", "200", source=source)
        yield Way(name, *stack.enter_context(started), sent)


def _others(stack: ExitStack, folder: Path, portfolio: Portfolio, variant: str, peers: Sequence[Path]) -> Iterator[Way]:
    """Those of the other servers that are installed in these virtual environments; one that fails is left out."""
    model = folder / portfolio.variant(variant).artifact.path
    for number, name in enumerate(PEERS):
        found = [peer for peer in peers if _has(peer, name)]
        if not found:
            if peers:
                print(f"{name} is not installed in {', '.join(map(str, peers))}")
            continue
        port = 21_000 + 10 * number + psutil.Process().pid % 5_000
        asked = requests(name)
        pid = stack.enter_context(_peer(found[0], name, model, port, asked["json"]))
        taken = {encoding: each.text() for encoding, each in asked.items() if takes(port, each)}
        yield Way(name, port, pid, taken)


def _has(peer: Path, name: str) -> bool:
    command = [str(peer / "bin" / "python"), "-c", f"import {_MODULES.get(name, name)}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Asked(NamedTuple):
    """A request for one image."""

    path: str
    headers: dict[str, str]
    body: bytes

    def text(self) -> bytes:
        """As it is sent."""
        lines = [f"POST {self.path} HTTP/1.1", "Host: localhost", *(f"{k}: {v}" for k, v in self.headers.items())]
        return "\r\n".join([*lines, f"Content-Length: {len(self.body)}", "", ""]).encode() + self.body


def requests(name: str) -> dict[str, Asked]:
    """What a server is asked, each in the way that it has for it."""
    image, as_json = IMAGE.tobytes(), {"Content-Type": "application/json"}
    if name == "mlserver":
        tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, *SHAPE]}
        path = "/v2/models/peer/infer"
        text = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(image)}}]}).encode()
        numbers = json.dumps({"inputs": [{**tensor, "data": IMAGE.ravel().tolist()}]}).encode()
        head = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))}
        return {"binary": Asked(path, head, text + image), "json": Asked(path, as_json, numbers)}
    if name == "ray":
        binary = Asked("/predict", {"Content-Type": "application/octet-stream"}, image)
    else:
        mark = b"0123456789"
        part = b'--%b\r\nContent-Disposition: form-data; name="data"; filename="x"\r\n\r\n' % mark
        head = {"Content-Type": "multipart/form-data; boundary=" + mark.decode()}
        binary = Asked("/predict", head, b"%b%b\r\n--%b--\r\n" % (part, image, mark))
    return {"binary": binary, "json": Asked("/predict", as_json, _NUMBERS)}


@contextmanager
def _peer(peers: Path, name: str, model: Path, port: int, asked: Asked) -> Iterator[int]:
    command = [str(peers / "bin" / "python"), str(ROOT / "bench" / "serving_peers.py"), name, str(model), str(port)]
    environment = {"OMP_NUM_THREADS": "1", "PATH": f"{peers / 'bin'}:/usr/bin:/bin", "HOME": str(Path.home())}
    environment |= {"ORT_DISABLE_TELEMETRY": "1"}  # as prunit has it
    environment |= {"BENTOML_DO_NOT_TRACK": "True", "LITSERVE_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    family: dict[int, psutil.Process] = {}
    try:
        until = time.monotonic() + _LONGEST_START_S
        while not takes(port, asked):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{name} did not start")
            time.sleep(0.2)
        yield process.pid
    finally:
        with suppress(psutil.NoSuchProcess):  # it has ended by itself
            whole = psutil.Process(process.pid)
            family = {each.pid: each for each in (*whole.children(recursive=True), whole)}
        for each in family.values():
            with suppress(psutil.NoSuchProcess):
                each.terminate()
        _, left = psutil.wait_procs(list(family.values()), timeout=20)
        for each in left:
            each.kill()
        process.wait(20)


def takes(port: int, asked: Asked) -> bool:
    """Whether the server answers such a request with ten scores."""
    sent = urllib.request.Request(f"http://127.0.0.1:{port}{asked.path}", asked.body, asked.headers)
    with suppress(OSError, ValueError, KeyError, IndexError, TypeError):
        with urllib.request.urlopen(sent, timeout=20) as answer:
            data = answer.read()
        if len(data) == 40:
            return True
        found = json.loads(data)
        return len(np.ravel(found["outputs"][0]["data"] if isinstance(found, dict) else found)) == 10
    return False


def _best_size(alone: Switcher, variant: str) -> int:
    """The batch of which the engine computes most images a second."""
    return max(_BATCHES, key=lambda size: max(_bare(alone, variant, size, 0.3) for _ in range(3)))


def _bare(alone: Switcher, variant: str, size: int, seconds: float) -> float:
    """Images per second of the engine in a loop."""
    x_BCHW = np.random.default_rng(0).standard_normal((size, *SHAPE), dtype=np.float32)
    began, count = time.perf_counter(), 0
    while (now := time.perf_counter()) < began + seconds:
        alone.run(x_BCHW, variant)
        count += size
    return count / (now - began)


def _asked(place: Path, way: Way, encoding: str, connections: int, seconds: float) -> dict[str, Any]:
    sent = place / "sent"
    sent.write_bytes(way.sent[encoding])
    before = _cpu_s(way.pid)
    asked = {"kind": "lean", "port": way.port, "sent": str(sent), "connections": connections, "seconds": seconds}
    found = in_a_child(asked)
    if found["failed"]:
        raise RuntimeError(f"{way.name}: {found}")
    return {**found, "cpu_us": 1e6 * (_cpu_s(way.pid) - before) / found["answered"]}


def _cpu_s(pid: int) -> float:
    """What a server and its children have computed so far."""
    whole = psutil.Process(pid)
    times = [each.cpu_times() for each in (whole, *whole.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _row(found: Sequence[dict[str, Any]], bare_per_s: float) -> dict[str, Any]:
    per_s = [one["per_s"] for one in found]
    return {
        "per_s": spread(per_s),
        "share": statistics.median(per_s) / bare_per_s,
        "ms": {p: statistics.median(one["ms"][p] for one in found) for p in ("p50", "p99")},
        "cpu_us": statistics.median(one["cpu_us"] for one in found),
    }


def versions_of(peers: Sequence[Path]) -> dict[str, str]:
    """Of the other servers."""
    places = [str(place) for peer in peers for place in peer.glob("lib/python*/site-packages")]
    found = importlib.metadata.distributions(path=places)
    return {each.name.lower(): each.version for each in found if each.name.lower() in PEERS}
