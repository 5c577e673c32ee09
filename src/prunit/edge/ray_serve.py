"""`prunit serve` as an application of Ray Serve: `serve run prunit.edge.ray_serve:app portfolio=/shared/portfolio`.

A replica is one `Service` with its addresses, as a worker of `prunit serve` is: queue, steering and the watch over the
folder are its own, and the weights of all replicas on a node are mapped from the same files. Ray's proxies take the
place of the socket; the limits that `prunit serve` sets there are theirs, but for the length of a body. What all
replicas are to keep to (the target, a pin) is Ray's to hand out: the deployment's `user_config`.
"""

import asyncio
import hashlib
import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prunit.edge.records import Record
from prunit.edge.serve import logs
from prunit.edge.serve.app import make
from prunit.edge.serve.service import Service, check_served
from prunit.edge.serve.settings import Refusal, Settings, read_token
from prunit.errors import ConfigError, MissingExtraError, PrunitError, unknown
from prunit.units import bytes_of_text

_Read = TypeVar("_Read", bound=Record)

NAME: Final = "Portfolio"
"""The deployment, as Ray's status and Serve's configuration call it."""
_ELSEWHERE: Final = (
    "this replica is one of several: set slo_ms and pin for all of them in the deployment's user_config, and"
    " `serve deploy` again"
)


class Wanted(Record):
    """What all replicas keep to, and what may change while they run (`user_config`).

    `slo_ms` is from a request's arrival at a replica to its answer; `pin` a variant's name, None for what the policy
    chooses.
    """

    slo_ms: PositiveFloat = 20.0
    pin: str | None = None


class Arguments(Wanted):
    """What an application is told; names and meanings are those of `prunit serve --help`.

    `replicas` are processes; each takes `threads` CPUs of its node.
    """

    portfolio: Path
    policy: str = "queue"
    memory: str | None = None
    threads: PositiveInt = 1
    queue: PositiveInt = 256
    max_batch: PositiveInt = 16
    max_body: str = "16MB"
    cache: Path | None = None
    engine: str | None = None
    token_file: Path | None = None
    token_for_all: bool = False
    access_log: bool = False
    replicas: int = Field(default=1, ge=1)

    def settings(self) -> Settings:
        """As the server takes them. Raises `ConfigError`, `FileError`."""
        return Settings(
            folder=self.portfolio,
            host="0.0.0.0",  # under which name it is asked is for Ray's proxies to say
            target_ms=self.slo_ms,
            policy=self.policy,
            memory_bytes=bytes_of_text(self.memory) if self.memory else None,
            threads=self.threads,
            queue=self.queue,
            max_batch=self.max_batch,
            max_body_bytes=bytes_of_text(self.max_body),
            cache=self.cache and self.cache / _own_name(self.portfolio),
            engine=self.engine,
            token=read_token(self.token_file),
            token_for_all=self.token_for_all,
            access_log=self.access_log,
            changed_elsewhere=_ELSEWHERE,
        )


def app(args: Mapping[str, Any]) -> Any:
    """The application of Ray Serve for these `Arguments`: what `import_path` and `serve run` name.

    What cannot be served is told here, before anything is deployed. Raises `ConfigError`, `UnknownNameError`,
    `PortfolioError`, `FileError`, and `MissingExtraError` without Ray.
    """
    try:
        return _application(args)
    except PrunitError as error:
        raise _as_told(error) from None


def _application(args: Mapping[str, Any]) -> Any:
    serve = _ray_serve()
    given = _read(Arguments, args, "argument")
    # Replicas have other working directories than whoever asks for them.
    paths = {name: _absolute(path) for name, path in given if isinstance(path, Path)}
    asked = given.model_copy(update=paths)
    portfolio = check_served(asked.settings())
    _check_pin(asked.pin, [variant.name for variant in portfolio.variants])
    deployment = serve.deployment(
        name=NAME,
        num_replicas=asked.replicas,
        user_config={"slo_ms": asked.slo_ms, "pin": asked.pin},
        ray_actor_options={"num_cpus": asked.threads},
        # Twice what may wait here: who is too many is told by the replica (429), and not kept waiting by Ray.
        max_ongoing_requests=2 * asked.queue,
        # A replica ends only when another has taken its place: a portfolio that cannot be opened costs nothing.
        max_surge_percent=100,
        health_check_period_s=2,  # a replica that died is missed for so long, by default for 10
        logging_config={"enable_access_log": False},  # `access_log` writes ours
    )(serve.ingress()(Replica))
    return deployment.bind(asked.model_dump(mode="json"))


class Replica:
    """A `Service` in a process of Ray's, which calls these methods; `arguments` are `Arguments` as plain data."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        logs.begin()
        # The token is read here: Ray would keep it, as all that it hands over.
        self._app = make(_read(Arguments, arguments, "argument").settings(), open_first=True)
        self._service: Service = self._app.state.service

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The same addresses as `prunit serve`'s."""
        return _Bounded(self._app, self._service.settings.max_body_bytes)

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Take over what all replicas keep to. What is wrong with it is logged, and what was before holds.

        Ray would end a replica that raises here, and start it again with the same configuration.
        """
        if self._service.error is not None:  # it is not open, which `check_health` tells
            return
        try:
            wanted = _read(Wanted, config, "key of user_config")
            _check_pin(wanted.pin, [variant.name for variant in self._service.portfolio.variants])
            change = partial(self._service.change, target_ms=wanted.slo_ms, pinned=wanted.pin, unpin=wanted.pin is None)
            await asyncio.to_thread(change)
        except (PrunitError, Refusal) as error:
            logs.tell("user_config was not taken over", {"why": str(error)}, level=logging.WARNING)
            return
        logs.tell("user_config", {"slo_ms": wanted.slo_ms, "pin": wanted.pin})

    async def check_health(self) -> None:
        """Raises while the service is not ready, which makes Ray start another replica: the reason is in its status."""
        if self._service.error is not None:
            raise self._service.error
        if self._service.state != "ready":
            raise ConfigError(f"the service is {self._service.state}")


class _Bounded:
    """An application whose requests have bodies of so many bytes at the most; of its own server that is `Guard`'s."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app, self._most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = self._most_bytes

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise Refusal(413, f"a body may have {self._most_bytes} bytes")
            return message

        await self._app(scope, bounded, send)


def _read(kind: type[_Read], given: Mapping[str, Any], what: str) -> _Read:
    """The values in plain data, where text stands for what it says."""
    if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] # Ray hands over what it is given
        raise ConfigError(f"{given!r} holds no names with values: each {what} is one")
    try:
        return kind.model_validate({str(name): value for name, value in given.items()})
    except ValidationError as error:
        # A name that is none is why another one is missing.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise unknown(what, name, kind.model_fields) from None
        if first["type"] == "missing":
            raise ConfigError(f"the {what} '{name}' is missing: {name}=/path/to/a/portfolio") from None
        told = first["msg"][0].lower() + first["msg"][1:]
        raise ConfigError(f"{what} {name}={first['input']!r}: {told}") from None


def _own_name(folder: Path) -> str:
    """Of a portfolio's part of a cache: while one takes the place of another, both are used."""
    return f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def _absolute(path: Path) -> Path:
    if "\0" in str(path):
        raise ConfigError(f"{str(path)!r} is no path: it holds a null character")
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 # that of Path raises where there is no such home


def _check_pin(pin: str | None, names: list[str]) -> None:
    if pin is not None and pin not in names:
        raise unknown("variant", pin, names)


def _ray_serve() -> Any:
    try:
        import ray.serve as serve  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError("prunit.edge.ray_serve", "ray[serve]", "ray-serve") from error
    return cast("Any", serve)


def _as_told(error: PrunitError) -> Exception:
    """Ray's command shows errors of its own kind in a line; all others with the way they came."""
    click = cast("Any", sys.modules.get("click"))
    if click is None or click.get_current_context(silent=True) is None:
        return error
    return click.ClickException(str(error))
