"""Bad days, each for real: killed workers, an end under load, bad files, a full disk, slow and malformed clients."""

import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.edge.engines import routes_in
from tests.edge.folders import FACTORS, SHAPE, X_BCHW, gives, portfolio_in, variant_in
from tests.edge.serving import TOKEN, binary, output_of, serving, wait_for

REQUESTS = int(os.environ.get("PRUNIT_FUZZ", "500"))
"""How many malformed ones are made, at least; before a release PRUNIT_FUZZ=2000."""


MIXED = pytest.mark.parametrize(
    "engines",
    [
        dict.fromkeys(FACTORS, "onnxruntime"),
        {"large": "onnxruntime", "middle": "onnxruntime", "small": "reference"},
    ],
    ids=["one engine", "two engines"],
)


class Load:
    """Clients that keep their connections as clients do, and check every answer."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self._port, self._over = port, threading.Event()
        self.answered, self.refused = 0, 0
        self.lost: list[str] = []
        self.wrong: list[str] = []
        self.unreachable = 0
        self.slowest_s = 0.0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        rng = np.random.default_rng(number)
        link: socket.socket | None = None
        while not self._over.is_set():
            x_BCHW = rng.standard_normal((1, *SHAPE), dtype=np.float32)
            body, headers = binary(x_BCHW)
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            head = f"POST /v2/models/numbers/infer HTTP/1.1\r\nHost: localhost\r\n{head}"
            sent = f"{head}Content-Length: {len(body)}\r\n\r\n"
            if link is None:
                try:
                    link = socket.create_connection(("127.0.0.1", self._port), timeout=20)
                except OSError:
                    with self._lock:
                        self.unreachable += 1
                    time.sleep(0.02)
                    continue
            began = time.monotonic()
            try:
                link.sendall(sent.encode() + body)
                status, told, answer = _received(link)
            except OSError as error:
                status, told, answer = 0, {}, repr(error).encode()
            with self._lock:
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                if status == 200:
                    name, output = output_of(told, answer)
                    self.answered += 1
                    if not gives(output, x_BCHW, name):
                        self.wrong.append(name)
                elif status in (429, 503):
                    self.refused += 1
                else:
                    self.lost.append(f"{status} {answer[:100]!r}")
            if status == 0 or told.get("connection") == "close":
                link.close()
                link = None
        if link is not None:
            link.close()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def _more(link: socket.socket) -> bytes:
    found = link.recv(65536)
    if not found:  # between head and body too: a killed worker ends anywhere
        raise ConnectionResetError("the connection ended before the answer did")
    return found


def _received(link: socket.socket) -> tuple[int, dict[str, str], bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(link)
    head, _, rest = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    told = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    while len(rest) < int(told["content-length"]):
        rest += _more(link)
    return int(lines[0].split()[1]), told, rest


@contextmanager
def loaded(port: int, clients: int = 4) -> Iterator[Load]:
    load = Load(port, clients)
    try:
        wait_for(lambda: load.answered > 50)
        yield load
    finally:
        load.end()


@MIXED
def test_an_end_under_load_loses_nothing(tmp_path: Path, engines: dict[str, str]) -> None:
    portfolio_in(tmp_path)
    routes_in(tmp_path, engines)
    with serving(tmp_path) as served, loaded(served.port) as load:
        assert served.end() == 0
        wait_for(lambda: load.unreachable > 10)
    assert (load.lost, load.wrong) == ([], [])
    assert served.told("ended")


def test_a_killed_worker_is_replaced_and_the_others_answer(tmp_path: Path) -> None:
    portfolio_in(tmp_path)
    with serving(tmp_path, "--workers", "2") as served:
        status = wait_for(lambda: (found := served.status()) and len(found["workers"]) == 2 and found)
        pids = {worker["pid"] for worker in status["workers"]}
        with loaded(served.port, clients=6) as load:
            victim = min(pids)
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: {w["pid"] for w in served.status()["workers"]} - pids)
            before = load.answered
            wait_for(lambda: load.answered > before + 200)
        # A request that the killed one was answering has no answer; the client sees its connection end.
        assert len(load.lost) <= 6
        assert all("Reset" in each or "ended" in each or "BrokenPipe" in each for each in load.lost)
        assert load.wrong == []
        total = served.ask("GET", "/metrics")[2].decode()
        assert "prunit_requests_total" in total
        # What one worker is told all do.
        served.ask("POST", "/v1/pin", '{"variant": "small"}', token=TOKEN)
        wait_for(lambda: {w["active"] for w in served.status()["workers"]} == {"small"})
    assert served.process.returncode == 0


@MIXED
def test_a_corrupt_variant_that_is_dropped_in_is_refused(tmp_path: Path, engines: dict[str, str]) -> None:
    portfolio = portfolio_in(tmp_path, {"large": 4.0, "small": 1.0})
    routes_in(tmp_path, {name: engine for name, engine in engines.items() if name != "middle"})
    with serving(tmp_path, "--slo-ms", "1000") as served, loaded(served.port) as load:
        assert {v["name"]: v["engine"] for v in served.status()["variants"]}["small"] == engines["small"]
        new = variant_in(tmp_path, "middle", 2.0)
        (tmp_path / "middle.onnx").write_bytes(os.urandom(5000))
        portfolio.adding(new).write(tmp_path)
        served.told("refused", variant="middle")
        (tmp_path / "portfolio.json").write_text('{"format": "prunit-portfolio", "version": 1, "varia')
        served.told("the portfolio was not reloaded")
        assert [v["name"] for v in served.status()["variants"]] == ["large", "small"]
        # The same in order: it is taken.
        portfolio.adding(variant_in(tmp_path, "middle", 2.0)).write(tmp_path)
        served.told("reloaded", why="3 variants, 1 of them new")
        assert gives(served.infer(version="middle")[1], X_BCHW, "middle")
    assert (load.lost, load.wrong, load.refused) == ([], [], 0)


def test_a_full_disk_while_reloading_costs_the_installed_form_only(tmp_path: Path) -> None:
    """The system refuses every write of the server from some moment on, as a full disk does."""
    portfolio = portfolio_in(tmp_path, {"large": 4.0, "small": 1.0})
    with serving(tmp_path, "--slo-ms", "1000") as served, loaded(served.port) as load:
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        portfolio.adding(variant_in(tmp_path, "middle", 2.0)).write(tmp_path)
        served.told("reloaded")
        assert "cannot" in served.told("install")["why"]
        assert gives(served.infer(version="middle")[1], X_BCHW, "middle")
    assert (load.lost, load.wrong, load.refused) == ([], [], 0)


def test_data_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    """A model file may name a file with its weights; only the folder's are read."""
    onnx = pytest.importorskip("onnx")
    folder = tmp_path / "portfolio"
    portfolio = portfolio_in(folder, {"large": 4.0, "small": 1.0})
    model = onnx.load(folder / "small.onnx")
    (tmp_path / "secret.bin").write_bytes(b"\0" * 10_000)
    for weight in model.graph.initializer:
        onnx.external_data_helper.set_external_data(weight, location="../secret.bin")
        weight.ClearField("raw_data")
    new = variant_in(folder, "middle", 2.0)
    (folder / "middle.onnx").write_bytes(model.SerializeToString())
    from prunit.files import sha256_of

    artifact = new.artifact.model_copy(update={"sha256": sha256_of(folder / "middle.onnx")})
    portfolio.adding(new.model_copy(update={"artifact": artifact})).write(folder)
    with serving(folder) as served:
        assert served.infer()[0] == "large"
        found = served.ask("POST", "/v2/models/numbers/versions/middle/infer", *binary(X_BCHW))
        assert found[0] == 503
        assert b"secret" not in found[2]


def test_slow_clients_take_nothing_from_the_others(tmp_path: Path) -> None:
    portfolio_in(tmp_path)
    with serving(tmp_path, "--read-timeout", "1", "--max-connections", "40") as served:
        links = [socket.create_connection(("127.0.0.1", served.port), timeout=20) for _ in range(30)]
        try:
            for i, link in enumerate(links):
                if i % 3 == 0:
                    link.sendall(b"POST /v2/models/numbers/infer HTTP/1.1\r\nHost: localhost\r\n")
                elif i % 3 == 1:
                    link.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
            with loaded(served.port) as load:
                for i in range(10):  # a byte now and then
                    for link in links[::3]:
                        with suppress(OSError):
                            link.sendall(f"X-{i}: a\r\n".encode())
                    time.sleep(0.15)
            assert (load.lost, load.wrong) == ([], [])
            for i, link in enumerate(links):
                told = b"".join(iter(lambda link=link: _rest(link), b""))
                assert told.startswith(b"HTTP/1.1 408") or (i % 3 == 2 and told == b"")
        finally:
            for link in links:
                link.close()
        # Too many connections: those over the limit are told so, and a place is free again later.
        held = [socket.create_connection(("127.0.0.1", served.port), timeout=20) for _ in range(41)]
        assert b"503" in _rest(held[-1])
        for link in held:
            link.close()
        wait_for(lambda: served.ask("GET", "/v2/health/ready")[0] == 200)


def _rest(link: socket.socket) -> bytes:
    with suppress(OSError):
        return link.recv(65536)
    return b""


def test_requests_of_random_bytes_are_refused_one_by_one(tmp_path: Path) -> None:
    """Four times `REQUESTS`: nonsense as HTTP, nonsense as a body, and good bodies with a byte changed."""
    portfolio_in(tmp_path)
    rng = random.Random(0)
    with serving(tmp_path, "--slo-ms", "1000") as served, loaded(served.port, clients=2) as load:
        statuses: dict[int, int] = {}
        for i in range(4 * REQUESTS):
            status = _odd(served.port, _nonsense(rng, i))
            statuses[status] = statuses.get(status, 0) + 1
        assert served.process.poll() is None
    for link in _LINKS.values():
        link.close()
    _LINKS.clear()
    assert (load.lost, load.wrong, load.refused) == ([], [], 0)
    assert sum(statuses.values()) == 4 * REQUESTS
    assert not [status for status in statuses if status >= 500], statuses
    assert statuses[400] > 2 * REQUESTS


_LINKS: dict[int, socket.socket] = {}


def _odd(port: int, sent: bytes) -> int:
    """The status of the answer, 0 if the connection ended without one."""
    link = _LINKS.pop(port, None) or socket.create_connection(("127.0.0.1", port), timeout=20)
    try:
        link.sendall(sent)
        link.settimeout(20)
        status, told, _ = _received(link)
    except (OSError, ValueError, KeyError):
        link.close()
        return 0
    if told.get("connection") == "close":
        link.close()
    else:
        _LINKS[port] = link
    return status


def _nonsense(rng: random.Random, number: int) -> bytes:
    kind = number % 4
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 300)) + b"\r\n\r\n"
    body, headers = binary(X_BCHW)
    length = headers["Inference-Header-Content-Length"]
    if kind == 1:
        body = rng.randbytes(rng.randrange(0, 2000))
        length = str(rng.randrange(0, 2500))
    elif kind == 2:
        at = rng.randrange(int(length))
        body = body[:at] + rng.randbytes(1) + body[at + 1 :]
    else:
        body = body[: rng.randrange(len(body))]
    head = f"POST /v2/models/numbers/infer HTTP/1.1\r\nHost: localhost\r\nInference-Header-Content-Length: {length}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.slow
def test_requests_made_of_the_description_get_no_server_error(tmp_path: Path) -> None:
    """`REQUESTS` at least by schemathesis, valid and malformed, with the token, while other clients are answered."""
    portfolio_in(tmp_path)
    with serving(tmp_path, "--slo-ms", "1000") as served, loaded(served.port, clients=1) as load:
        command = ["run", f"http://127.0.0.1:{served.port}/openapi.json", "--checks", "not_a_server_error"]
        more = [
            "--max-examples",
            str(REQUESTS // 9),
            "--seed",
            "1",
            "--phases",
            "examples,coverage,fuzzing",
            "--no-color",
        ]
        more += ["--header", f"Authorization: Bearer {TOKEN}"]
        script = "from schemathesis.cli import schemathesis; schemathesis()"
        child = subprocess.run(
            [sys.executable, "-c", script, *command, *more],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert child.returncode == 0, child.stdout[-3000:] + child.stderr[-1000:]
        generated = re.search(r"(\d+) generated", child.stdout)
        assert generated is not None
        assert int(generated[1]) >= REQUESTS
        assert served.process.poll() is None
        assert served.infer()[0] in FACTORS
    assert (load.lost, load.wrong) == ([], [])
