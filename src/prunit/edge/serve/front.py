"""Around every request that comes as an ASGI call: admission, its id, errors, the log."""

import time
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prunit.edge.names import today
from prunit.edge.serve.gate import NOSNIFF, Gate
from prunit.edge.serve.service import Service


class Front:
    """The outermost layer."""

    def __init__(self, app: ASGIApp, service: Service, gate: Gate) -> None:
        self._app, self._service, self._gate = app, service, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = self._gate.given_id(headers) or self._gate.new_id()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], NOSNIFF, (b"x-request-id", request_id)]
            await send(message)

        try:
            self._gate.admit(scope["path"], headers)
            if moved := self._service.moved:
                scope = {**scope, "path": today(scope["path"], moved)}
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            status = 499
        except Exception as error:
            told = self._gate.refusal(error, request_id, scope["path"])
            if not status:
                start: dict[str, Any] = {"type": "http.response.start", "status": told.status, "headers": told.headers}
                await sending(start)
                await sending({"type": "http.response.body", "body": told.body})
        finally:
            self._gate.log(request_id, scope["method"], scope["path"], status, began)
