"""What a server is told when it is started, and errors that become answers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prunit.edge import cpus
from prunit.errors import ConfigError, FileError

TOKEN_VARIABLE: Final = "PRUNIT_TOKEN"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Settings:
    """Everything but the portfolio; the limits protect a small device from a large or slow client.

    `queue` requests wait at most (more get 429), `max_batch` images are answered together at most. `read_timeout_s` is
    from a request's first byte to its last; `drain_s` for what is being answered when the server is told to end;
    `linger_s` of it for clients that keep a connection and are told to close it; `reload_s` between two looks at the
    manifest. `engine` is one for all variants, else each runs in that of its route. `token` changes things (and is
    needed for all requests but health with `token_for_all`).
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8000
    target_ms: float = 20.0
    policy: str = "queue"
    threads: int = 1
    workers: int = 1
    cpus: tuple[int, ...] = ()
    memory_bytes: int | None = None
    cache: Path | None = None
    engine: str | None = None
    queue: int = 256
    max_batch: int = 16
    max_body_bytes: int = 16_000_000
    max_pixels: int = 20_000_000
    max_connections: int = 512
    max_head_bytes: int = 16_384
    max_headers: int = 64
    read_timeout_s: float = 10.0
    keep_alive_s: float = 75.0
    drain_s: float = 10.0
    linger_s: float = 0.5
    reload_s: float = 1.0
    token: str | None = None
    token_for_all: bool = False
    access_log: bool = False
    shared: Path | None = None
    """Where several workers tell each other of their state; None: there is one."""
    changed_elsewhere: str = ""
    """Where target and pin are set if not over HTTP, as a client is told."""

    def __post_init__(self) -> None:
        for name in ("target_ms", "threads", "workers", "queue", "max_batch", "max_body_bytes", "max_pixels"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be more than 0")
        if self.token is not None and len(self.token) < 8:
            raise ConfigError("the token is shorter than 8 characters: make one with `openssl rand -hex 16`")
        if self.token_for_all and self.token is None:
            raise ConfigError(f"inference needs a token, and there is none: set {TOKEN_VARIABLE} or give a token file")

    @property
    def local(self) -> bool:
        """Only programs on this machine can connect."""
        return self.host in _LOOPBACK


class Refusal(Exception):
    """A request that is not answered: the status code, one line for the client, and more headers."""

    def __init__(
        self, status: int, message: str, retry_after_s: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after_s, self.headers = status, retry_after_s, headers


def cpus_of_text(text: str) -> tuple[int, ...]:
    """CPU numbers as people write them: 0,2-3. Raises `ConfigError` for what this process may not use."""
    found: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            found += range(int(first), int(last if dash else first) + 1)
    except ValueError as error:
        raise ConfigError(f"'{text}' are no CPUs: write 0,2-3") from error
    allowed = cpus.usable()
    if not found or not set(found) <= allowed:
        raise ConfigError(f"CPUs '{text}': this process may use {', '.join(map(str, sorted(allowed)))}")
    return tuple(dict.fromkeys(found))


def read_token(file: Path | None) -> str | None:
    """The token in a file, else that of the environment, else None."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read the token file '{file}': {error}") from error
    if not token:
        raise ConfigError(f"the token file '{file}' is empty")
    return token
