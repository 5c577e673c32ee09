"""Around every request: its id, who may ask, what an error looks like to a client, and the log."""

import hmac
import itertools
import json
import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prunit.edge.names import today
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
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")


class Front:
    """The outermost layer. No stack trace leaves it; what nobody expected is in the log with the request's id."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        token = service.settings.token
        self._bearer = f"Bearer {token}".encode() if token else None
        self._prefix, self._numbers = uuid.uuid4().hex[:12].encode(), itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        # A client's id is taken only if it can do no harm in a log.
        request_id = given if given and _ID.fullmatch(given) else b"%s-%x" % (self._prefix, next(self._numbers))
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], _NOSNIFF, (b"x-request-id", request_id)]
            await send(message)

        try:
            self._admit(scope, headers)
            if moved := self._service.moved:
                scope = {**scope, "path": today(scope["path"], moved)}
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            status = 499
        except Exception as error:  # whatever it is, the client gets one line
            code, message, retry = _told(error)
            if code == 500:
                LOGGER.error("failed", exc_info=error, extra={"fields": {"request": request_id.decode()}})
            if code >= 429:
                told = {"request": request_id.decode(), "status": code, "why": message}
                tell("refused", told, level=logging.WARNING)
            if "infer" in scope["path"] or scope["path"] in _PHOTOS:
                self._service.count_refused(code)
            if not status:
                await _send_error(sending, code, message, retry, getattr(error, "headers", None) or {})
        finally:
            if self._service.settings.access_log:
                asked: dict[str, object] = {"request": request_id.decode(), "method": scope["method"]}
                asked |= {"path": scope["path"], "status": status, "ms": 1000 * (time.perf_counter() - began)}
                LOGGER.info("request", extra={"fields": asked})

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Refuses who may not ask."""
        settings, path = self._service.settings, scope["path"]
        name = headers.get(b"host", b"localhost").rpartition(b":")
        # A page from elsewhere whose name was pointed at this machine sends its own name.
        if settings.local and (name[0] or name[2]) not in _LOCAL_NAMES and headers.get(b"host") not in _LOCAL_NAMES:
            raise Refusal(421, "this server answers to localhost only")
        changing = path in _CHANGING
        if not changing and not (settings.token_for_all and path not in _OPEN):
            return
        if self._bearer is None:
            raise Refusal(403, "nothing can be changed: the server was started without a token")
        given = headers.get(b"authorization", b"")
        if not hmac.compare_digest(given, self._bearer):
            raise Refusal(401, "this needs the header 'Authorization: Bearer TOKEN' with the server's token")


def _told(error: Exception) -> tuple[int, str, int | None]:
    """Status, message and seconds until another try, for a client."""
    if isinstance(error, Refusal):
        return error.status, str(error), error.retry_after_s
    if isinstance(error, HTTPException):
        return error.status_code, error.detail, None
    if isinstance(error, PrunitError):
        return 503, "the server cannot do this now; its log says why", None
    return 500, "the server failed on this request; its log says why", None


async def _send_error(
    send: Send, status: int, message: str, retry_after_s: int | None, more: Mapping[str, str]
) -> None:
    body = json.dumps({"error": message}).encode()
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    headers += [(name.lower().encode(), value.encode()) for name, value in more.items()]
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    start: dict[str, Any] = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
