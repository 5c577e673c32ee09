"""A replica of Ray Serve without Ray, and what is said of arguments that cannot be served."""

import asyncio
import builtins
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from prunit.edge import ray_serve
from prunit.edge.ray_serve import Replica, app
from prunit.errors import ConfigError, MissingExtraError, PortfolioError, PrunitError, UnknownNameError
from tests.edge.folders import portfolio_in


class NoRay:
    """Ray's deployments, as far as they are needed to be refused."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    portfolio_in(tmp_path / "portfolio")
    return tmp_path / "portfolio"


def opened(arguments: Mapping[str, Any], doing: Callable[[Replica], Awaitable[None]]) -> None:
    """Have a replica begin as Ray has it, do something with it, and end it."""

    async def run() -> None:
        replica = Replica(arguments)
        serving = replica._app
        async with serving.router.lifespan_context(serving):
            await doing(replica)

    asyncio.run(run())


async def asked(replica: Replica, path: str, body: bytes = b"", method: str = "GET") -> tuple[int, bytes]:
    """Status and body of an answer to an ASGI call."""
    sent: list[Any] = []
    pieces = [
        {"type": "http.request", "body": body[:10], "more_body": True},
        {"type": "http.request", "body": body[10:]},
    ]

    async def receive() -> Any:
        return pieces.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b"", "http_version": "1.1"}
    await replica.__serve_build_asgi_app__()(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def test_it_is_ready_when_its_service_is(folder: Path) -> None:
    async def look(replica: Replica) -> None:
        await replica.check_health()
        assert (await asked(replica, "/v2/health/ready"))[0] == 200
        replica._service.drain()
        assert (await asked(replica, "/v2/health/ready"))[0] == 503
        with pytest.raises(ConfigError, match="the service is draining"):
            await replica.check_health()

    opened({"portfolio": str(folder)}, look)


def test_before_it_is_open_it_is_not_healthy(folder: Path) -> None:
    with pytest.raises(ConfigError, match="the service is starting"):
        asyncio.run(Replica({"portfolio": str(folder)}).check_health())


def test_why_it_cannot_open_is_what_its_health_says(folder: Path) -> None:
    for file in folder.glob("*.onnx"):
        file.write_bytes(b"cut short")

    async def look(replica: Replica) -> None:
        with pytest.raises(PrunitError, match=r"its SHA-256 is not the manifest's"):
            await replica.check_health()
        await replica.reconfigure({"slo_ms": 5.0})

    opened({"portfolio": str(folder)}, look)


def test_what_all_replicas_keep_to_is_taken_over(folder: Path) -> None:
    async def look(replica: Replica) -> None:
        steering = replica._service.steering
        assert (steering.target_ms, steering.pinned) == (30.0, None)
        await replica.reconfigure({"slo_ms": 5.0, "pin": "small"})
        assert (steering.target_ms, steering.pinned) == (5.0, "small")
        await replica.reconfigure({"slo_ms": 6.0})
        assert (steering.target_ms, steering.pinned) == (6.0, None)

    opened({"portfolio": str(folder), "slo_ms": "30"}, look)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"slo": 5.0}, "unknown key of user_config 'slo'; did you mean 'slo_ms'? Known: pin, slo_ms."),
        ({"slo_ms": -1}, "key of user_config slo_ms=-1: input should be greater than 0"),
        ([5.0], "[5.0] holds no names with values: each key of user_config is one"),
        ({1: 2}, "unknown key of user_config '1'. Known: pin, slo_ms."),
        ({"pin": "smal"}, "unknown variant 'smal'; did you mean 'small'? Known: large, middle, small."),
    ],
)
def test_what_is_wrong_with_it_is_logged_and_changes_nothing(
    folder: Path, config: Any, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def look(replica: Replica) -> None:
        await replica.reconfigure(config)
        assert (replica._service.steering.target_ms, replica._service.steering.pinned) == (20.0, None)
        await replica.check_health()

    opened({"portfolio": str(folder)}, look)
    told = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["why"] for line in told if line["message"] == "user_config was not taken over"] == [why]


def test_a_pin_on_a_variant_that_was_put_aside_changes_nothing(folder: Path) -> None:
    async def look(replica: Replica) -> None:
        service = replica._service
        service.switcher._failed = {"small": "its file is bad"}
        await replica.reconfigure({"slo_ms": 5.0, "pin": "small"})
        assert (service.steering.target_ms, service.steering.pinned) == (20.0, None)

    opened({"portfolio": str(folder)}, look)


def test_one_replica_of_several_is_not_changed_over_http(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNIT_TOKEN", "a-token-of-the-tests")

    async def look(replica: Replica) -> None:
        status, body = await asked(replica, "/v1/target", b'{"ms": 5}', "POST")
        assert status == 403
        assert "set slo_ms and pin for all of them in the deployment's user_config" in json.loads(body)["error"]

    opened({"portfolio": str(folder)}, look)


def test_a_body_has_a_limit(folder: Path) -> None:
    async def look(replica: Replica) -> None:
        status, body = await asked(replica, "/v2/models/numbers/infer", b"x" * 1001, "POST")
        assert (status, json.loads(body)) == (413, {"error": "a body may have 1000 bytes"})
        status, body = await asked(replica, "/v2/models/numbers/infer", b"x" * 1000, "POST")
        assert status == 400

    opened({"portfolio": str(folder), "max_body": "1KB"}, look)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ConfigError, r"^the argument 'portfolio' is missing: portfolio=/path/to/a/portfolio$"),
        ({"portfolo": "x"}, UnknownNameError, r"^unknown argument 'portfolo'; did you mean 'portfolio'\? Known: "),
        ({"portfolio": "{}/none"}, PortfolioError, r"none' is no portfolio: it holds no portfolio\.json"),
        ({"portfolio": "{}/portfolio/portfolio.json"}, PortfolioError, r"portfolio\.json' is no portfolio"),
        ({"portfolio": "{}"}, PortfolioError, r"is no portfolio: it holds no portfolio\.json"),
        ({"portfolio": "{}/portfolio", "slo_ms": "soon"}, ConfigError, r"^argument slo_ms='soon': input should be a"),
        ({"portfolio": "{}/portfolio", "slo_ms": "nan"}, ConfigError, r"^argument slo_ms="),
        ({"portfolio": "{}/portfolio", "replicas": 0}, ConfigError, r"^argument replicas=0: input should be greater"),
        ({"portfolio": "{}/portfolio", "memory": "much"}, ConfigError, r"much"),
        ({"portfolio": "{}/portfolio", "pin": "dense"}, UnknownNameError, r"^unknown variant 'dense'"),
        ({"portfolio": "{}/portfolio", "policy": "best"}, UnknownNameError, r"^unknown policy 'best'"),
        ({"portfolio": "{}/portfolio", "engine": "tea"}, UnknownNameError, r"'tea'"),
        ({"portfolio": "{}/portfolio", "token_for_all": "yes"}, ConfigError, r"^inference needs a token"),
        ({"portfolio": "~nobody-of-this-name/x"}, PortfolioError, r"~nobody-of-this-name/x' is no portfolio"),
        ({"portfolio": "a\0b"}, ConfigError, r"^'a\\x00b' is no path: it holds a null character$"),
        ({"portfolio": 3}, ConfigError, r"^argument portfolio=3: "),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line_before_anything_is_deployed(
    folder: Path,
    arguments: dict[str, Any],
    error: type[PrunitError],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PRUNIT_TOKEN", raising=False)
    monkeypatch.setattr(ray_serve, "_ray_serve", NoRay)  # which has no deployment
    given = {name: str(x).format(folder.parent) if isinstance(x, str) else x for name, x in arguments.items()}
    with pytest.raises(error, match=message) as caught:
        app(given)
    assert "\n" not in str(caught.value)


def test_without_ray_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError) as caught:
        app({"portfolio": str(folder)})
    assert str(caught.value) == "prunit.edge.ray_serve needs the package 'ray[serve]': pip install 'prunit[ray-serve]'"


def test_the_module_loads_neither_ray_nor_torch() -> None:
    import subprocess

    code = (
        "import sys, prunit.edge.ray_serve; print([name for name in ('ray', 'torch', 'onnx') if name in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


def test_a_replica_ends_with_its_answers(folder: Path) -> None:
    found: list[Replica] = []

    async def look(replica: Replica) -> None:
        found.append(replica)

    opened({"portfolio": str(folder)}, look)
    assert found[0]._service.state == "closed"
