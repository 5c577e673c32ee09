"""Who may ask, a request's id, what an error looks like to a client, and the log: the same on both ways in.

Requests come as ASGI calls (`front`), those for tensors also straight from the connection (`direct`).
"""

import hmac
import itertools
import json
import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Final, NamedTuple

from starlette.exceptions import HTTPException

from prunit.edge.serve.logs import LOGGER, tell
from prunit.edge.serve.service import Service
from prunit.edge.serve.settings import Refusal
from prunit.errors import PrunitError

_ID: Final = re.compile(rb"[\w.:-]{1,64}")
_OPEN: Final = ("/v2/health/live", "/v2/health/ready", "/", "/page.css", "/page.js", "/photo.js")
"""What needs no token even where everything else does: health for those who start it, the page that asks for one."""
_PHOTOS: Final = ("/v1/classify", "/v1/predict")
_CHANGING: Final = ("/v1/pin", "/v1/target")
_LOCAL_NAMES: Final = (b"localhost", b"127.0.0.1", b"[::1]")
NOSNIFF: Final = (b"x-content-type-options", b"nosniff")

Headers = list[tuple[bytes, bytes]]


class Told(NamedTuple):
    """An error as a client gets it."""

    status: int
    headers: Headers
    body: bytes


class Gate:
    """No stack trace leaves it; what nobody expected is in the log with the request's id."""

    def __init__(self, service: Service) -> None:
        self._service = service
        token = service.settings.token
        self._bearer = f"Bearer {token}".encode() if token else None
        self._prefix, self._numbers = uuid.uuid4().hex[:12].encode(), itertools.count(1)

    def given_id(self, headers: Mapping[bytes, bytes]) -> bytes | None:
        """A client's own id of its request, if it can do no harm in a log."""
        given = headers.get(b"x-request-id", b"")
        return given if given and _ID.fullmatch(given) else None

    def new_id(self) -> bytes:
        """One that no other request has."""
        return b"%s-%x" % (self._prefix, next(self._numbers))

    def admit(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Refuses who may not ask."""
        settings = self._service.settings
        name = headers.get(b"host", b"localhost").rpartition(b":")
        # A page from elsewhere whose name was pointed at this machine sends its own name.
        if settings.local and (name[0] or name[2]) not in _LOCAL_NAMES and headers.get(b"host") not in _LOCAL_NAMES:
            raise Refusal(421, "this server answers to localhost only")
        changing = path in _CHANGING
        if not changing and not (settings.token_for_all and path not in _OPEN):
            return
        if changing and settings.changed_elsewhere:
            raise Refusal(403, settings.changed_elsewhere)
        if self._bearer is None:
            raise Refusal(403, "nothing can be changed: the server was started without a token")
        given = headers.get(b"authorization", b"")
        if not hmac.compare_digest(given, self._bearer):
            raise Refusal(401, "this needs the header 'Authorization: Bearer TOKEN' with the server's token")

    def refusal(self, error: Exception, request_id: bytes, path: str) -> Told:
        """What a client is told of an error, which is logged and counted: whatever it is, the client gets one line."""
        status, message, retry_after_s = _told(error)
        if status == 500:
            LOGGER.error("failed", exc_info=error, extra={"fields": {"request": request_id.decode()}})
        if status >= 429:
            fields = {"request": request_id.decode(), "status": status, "why": message}
            tell("refused", fields, level=logging.WARNING)
        if "infer" in path or path in _PHOTOS:
            self._service.count_refused(status)
        body = json.dumps({"error": message}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        more: Mapping[str, str] = getattr(error, "headers", None) or {}
        headers += [(name.lower().encode(), value.encode()) for name, value in more.items()]
        if retry_after_s is not None:
            headers.append((b"retry-after", str(retry_after_s).encode()))
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        return Told(status, headers, body)

    def log(self, request_id: bytes, method: str, path: str, status: int, began: float) -> None:
        """A line for a request that began at that time (`time.perf_counter`), if they are wanted."""
        if self._service.settings.access_log:
            asked: dict[str, object] = {"request": request_id.decode(), "method": method}
            asked |= {"path": path, "status": status, "ms": 1000 * (time.perf_counter() - began)}
            LOGGER.info("request", extra={"fields": asked})


def _told(error: Exception) -> tuple[int, str, int | None]:
    """Status, message and seconds until another try, for a client."""
    if isinstance(error, Refusal):
        return error.status, str(error), error.retry_after_s
    if isinstance(error, HTTPException):
        return error.status_code, error.detail, None
    if isinstance(error, PrunitError):
        return 503, "the server cannot do this now; its log says why", None
    return 500, "the server failed on this request; its log says why", None
