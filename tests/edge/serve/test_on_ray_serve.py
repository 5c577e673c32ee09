"""The application of Ray Serve on a Ray of this machine: its addresses, updates under load, replicas that end.

Where Ray Serve is not installed these tests are skipped: it is an extra of some hundred megabytes.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from prunit.edge.portfolio import Portfolio
from tests.edge.folders import FACTORS, X_BCHW, portfolio_in, variant_in
from tests.edge.serving import binary, output_of, wait_for

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'prunit[ray-serve]'")
serve = pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'prunit[ray-serve]'")
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.slow]
DEPLOY = Path(__file__).parents[3] / "deploy"
IMPORT_PATH = "prunit.edge.ray_serve:app"
OTHER = {"large": 8.0, "small": 2.0}
"""Factors of a second portfolio: none of its answers can be taken for one of the first."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Ingress:
    """Ray Serve as `serve deploy` has it, and its clients."""

    def __init__(self, port: int) -> None:
        self.port = port

    def deploy(self, portfolio: Path, user_config: dict[str, Any] | None = None, **more: Any) -> None:
        """Hand in a configuration, as `serve deploy` does."""
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        change = {"deployments": [{"name": "Portfolio", "user_config": user_config}]} if user_config else {}
        # One variant: on a machine with much else to do the policy would choose another one in the middle of a test.
        args = {"portfolio": str(portfolio), "policy": "fixed:large", **more}
        application = {"name": "p", "import_path": IMPORT_PATH, "args": args, **change}
        client: Any = _get_global_client()
        client.deploy_apps(ServeDeploySchema.model_validate({"applications": [application]}))

    def state(self) -> str:
        found = serve.status().applications.get("p")
        return found.status.value if found else ""

    def replicas(self) -> dict[str, int]:
        return {k: n for k, n in serve.status().applications["p"].deployments["Portfolio"].replica_states.items() if n}

    def message(self) -> str:
        return serve.status().applications["p"].message

    def deployed(self, portfolio: Path, user_config: dict[str, Any] | None = None, **more: Any) -> None:
        """The same, and wait until it runs and nothing else does."""
        self.deploy(portfolio, user_config, **more)
        time.sleep(0.5)  # what ran before is still told
        wait_for(lambda: self.state() == "RUNNING" and set(self.replicas()) == {"RUNNING"}, 60)

    def ask(self, method: str, path: str, body: bytes = b"", headers: Any = None) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def workers(self) -> dict[int, dict[str, Any]]:
        """What each replica that answers says of itself, by its process."""
        found: dict[int, dict[str, Any]] = {}
        for _ in range(40):
            status = json.loads(self.ask("GET", "/v1/status")[2])
            found[status["workers"][0]["pid"]] = status
        return found

    @contextmanager
    def load(self) -> Iterator["Load"]:
        """Three clients that ask all the time, and the test meanwhile."""
        asking = Load(self.port)
        try:
            yield asking
        finally:
            asking.end()


class Load:
    """What clients got: everything that was no right answer, and by what numbers answers were multiplied."""

    def __init__(self, port: int) -> None:
        self.port, self.over = port, threading.Event()
        self.wrong: list[object] = []
        self.factors: list[float] = []
        self.threads = [threading.Thread(target=self._ask) for _ in range(3)]
        for thread in self.threads:
            thread.start()

    def _ask(self) -> None:
        body, headers = binary(X_BCHW)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.over.is_set():
            try:
                connection.request("POST", "/v2/models/numbers/infer", body, headers)
                answer = connection.getresponse()
                told = {key.lower(): value for key, value in answer.getheaders()}
                data = answer.read()
                output = output_of(told, data)[1] if answer.status == 200 else None
                factor = 0.0 if output is None else round(float(np.median(output / X_BCHW)), 3)
                if output is None or not np.allclose(output, X_BCHW * factor, atol=1e-4):
                    self.wrong.append((answer.status, data[:200]))
                else:
                    self.factors.append(factor)
            except Exception as error:
                self.wrong.append(error)
                connection.close()
            time.sleep(0.005)
        connection.close()

    def until(self, factor: float) -> None:
        """Wait until such an answer has come."""
        wait_for(lambda: factor in self.factors[-20:], 60)

    def end(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(40)


@pytest.fixture(scope="module")
def ingress() -> Iterator[Ingress]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        "local",
        num_cpus=6,
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    port = free_port()
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield Ingress(port)
    finally:
        serve.shutdown()
        ray.shutdown()
        with warnings.catch_warnings():  # Ray leaves the files of its processes to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@pytest.fixture
def one(tmp_path: Path) -> Path:
    portfolio_in(tmp_path / "one")
    return tmp_path / "one"


@pytest.fixture
def two(tmp_path: Path) -> Path:
    portfolio_in(tmp_path / "two", OTHER)
    return tmp_path / "two"


def test_a_public_client_works_unchanged(ingress: Ingress, one: Path) -> None:
    triton = pytest.importorskip("tritonclient.http")
    ingress.deployed(one)
    client = triton.InferenceServerClient(f"127.0.0.1:{ingress.port}")
    assert client.is_server_ready()
    assert client.is_model_ready("numbers", "small")
    assert client.get_model_metadata("numbers")["versions"] == list(FACTORS)
    for is_binary in (True, False):
        given = triton.InferInput("x", list(X_BCHW.shape), "FP32")
        given.set_data_from_numpy(X_BCHW, binary_data=is_binary)
        found = client.infer("numbers", [given], model_version="small", request_id="seven")
        assert found.get_response()["id"] == "seven"
        np.testing.assert_allclose(found.as_numpy("sum"), X_BCHW, atol=1e-4)
    client.close()
    assert ingress.ask("GET", "/")[1]["content-type"].startswith("text/html")
    assert ingress.ask("POST", "/v2/models/others/infer")[0] == 404
    assert ingress.ask("POST", "/v2/models/numbers/infer", b"{")[0] == 400
    assert ingress.ask("POST", "/v1/target", b'{"ms": 5}')[0] == 403


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_replicas_map_the_same_weights_and_hold_no_torch(ingress: Ingress, one: Path) -> None:
    ingress.deployed(one, replicas=2)
    pids = list(ingress.workers())
    assert len(pids) == 2
    maps = [Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines() for pid in pids]
    # Address, permissions, offset, device, inode, path: the same inode is the same memory.
    mapped = [{tuple(line.split()[3:]) for line in each if f"{one}/.installed" in line} for each in maps]
    assert mapped[0] == mapped[1]
    assert len(mapped[0]) == len(FACTORS)
    assert not any("libtorch" in line for each in maps for line in each)


@pytest.mark.parametrize("replicas", [1, 2])
def test_another_portfolio_takes_the_place_of_the_first_without_a_lost_request(
    ingress: Ingress, one: Path, two: Path, replicas: int
) -> None:
    ingress.deployed(one, replicas=replicas)
    with ingress.load() as load:
        load.until(FACTORS["large"])
        ingress.deployed(two, replicas=replicas)
        load.until(OTHER["large"])
    assert load.wrong == []
    assert set(load.factors) == {FACTORS["large"], OTHER["large"]}


def test_a_folder_that_changes_is_taken_over_in_place(ingress: Ingress, one: Path) -> None:
    ingress.deployed(one, replicas=2)
    before = set(ingress.workers())
    with ingress.load() as load:
        load.until(FACTORS["large"])
        Portfolio.read(one).adding(variant_in(one, "large", 16.0)).write(one)
        load.until(16.0)
        wait_for(lambda: set(load.factors[-50:]) == {16.0}, 30)
    assert load.wrong == []
    assert set(ingress.workers()) == before


def test_what_cannot_be_served_leaves_the_old_one_in_its_place(ingress: Ingress, one: Path, two: Path) -> None:
    ingress.deployed(one)
    with ingress.load() as load:
        ingress.deploy(one / "none")
        wait_for(lambda: ingress.state() == "DEPLOY_FAILED", 60)
        assert "none' is no portfolio: it holds no portfolio.json" in ingress.message()
        for file in two.glob("*.onnx"):  # which only a replica finds out
            file.write_bytes(b"cut short")
        ingress.deploy(two)
        wait_for(lambda: "its SHA-256 is not the manifest's" in _deployment_message(), 60)
        load.until(FACTORS["large"])
    assert load.wrong == []
    assert set(load.factors) == {FACTORS["large"]}
    ingress.deployed(one)


def _deployment_message() -> str:
    return " ".join(each.message for each in serve.status().applications["p"].deployments.values())


def test_target_and_pin_reach_all_replicas_where_they_are(ingress: Ingress, one: Path) -> None:
    ingress.deployed(one, replicas=2)
    before = set(ingress.workers())
    with ingress.load() as load:
        ingress.deployed(one, {"slo_ms": 7.0, "pin": "small"}, replicas=2)
        wait_for(lambda: {each["target_ms"] for each in ingress.workers().values()} == {7.0}, 30)
        wait_for(lambda: set(load.factors[-50:]) == {FACTORS["small"]}, 30)
        ingress.deployed(one, {"slo_ms": "soon"}, replicas=2)
        time.sleep(1)
        found = ingress.workers()
    assert load.wrong == []
    assert set(found) == before
    assert {(each["target_ms"], each["pinned"]) for each in found.values()} == {(7.0, "small")}


def test_a_replica_that_is_killed_is_replaced(ingress: Ingress, one: Path) -> None:
    ingress.deployed(one, replicas=2)
    victim, other = list(ingress.workers())
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(set(ingress.workers()) - {victim}) == 2, 60)
    assert other in ingress.workers()


def run_command(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """`serve run` as a user starts it."""
    code = "import sys; from ray.serve.scripts import cli; sys.exit(cli())"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", code, "run", *arguments]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["portfolio=none"], "none' is no portfolio: it holds no portfolio.json; "),
        (["portfolio=one", "target=3"], "Error: unknown argument 'target'"),
        ([], "Error: the argument 'portfolio' is missing"),
    ],
)
def test_the_command_tells_in_a_line_what_cannot_be_served(one: Path, arguments: list[str], message: str) -> None:
    found = run_command(IMPORT_PATH, *arguments, cwd=one.parent)
    text = found.communicate(timeout=60)[0]
    assert found.returncode == 1
    lines = [line for line in text.splitlines() if "Running import path" not in line]
    assert len(lines) == 1, text
    assert message in lines[0]


def test_the_configuration_of_the_documentation_serves(one: Path) -> None:
    config = yaml.safe_load((DEPLOY / "ray-serve.yaml").read_text(encoding="utf-8"))
    (application,) = config["applications"]
    application["args"] |= {"portfolio": str(one), "cache": str(one.parent / "cache")}
    config["http_options"]["port"] = port = free_port()
    (one.parent / "served.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    running = run_command("served.yaml", "--address", "local", cwd=one.parent)
    try:
        wait_for(lambda: _ready(port) or running.poll() is not None, 90)
        status, headers, answer = Ingress(port).ask("POST", "/v2/models/numbers/infer", *binary(X_BCHW))
        assert status == 200
        assert np.allclose(output_of(headers, answer)[1], X_BCHW * FACTORS["large"], atol=1e-4)
        assert list((one.parent / "cache").glob("one-*/*/weights.bin"))
    finally:
        running.send_signal(signal.SIGINT)
        text = running.communicate(timeout=60)[0]
    assert running.returncode == 0, text


def _ready(port: int) -> bool:
    try:
        return Ingress(port).ask("GET", "/v2/health/ready")[0] == 200
    except OSError:
        return False
