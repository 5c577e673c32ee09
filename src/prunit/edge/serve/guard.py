"""The HTTP protocol with limits: connections, heads, bodies and slow clients, before any of our code sees a request.

uvicorn's protocol on llhttp reads what it is sent; here is what it does not limit by itself.
"""

import asyncio
import json
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from prunit.edge.serve.settings import Settings

_PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class Guard(HttpToolsProtocol):
    """A connection. A refused one gets one answer and is closed."""

    _head_bytes = _body_bytes = 0
    _reading = _in_body = _refused = _ending = False
    _timer: asyncio.TimerHandle | None = None
    cycle: Any
    """The request that is answered, None before the first."""

    @property
    def _limits(self) -> Settings:
        return cast("Any", self.app).state.settings

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self._limits.max_connections:
            self._refuse(503, "too many connections")
            return
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self.transport.is_closing():
            self._stop_timer()
            return
        if self._reading and not self._in_body:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_head_bytes:
                self._refuse(431, "the request's head is too long")
                return
        if not self._reading:
            self._stop_timer()
        elif self._timer is None:
            self._await_request()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reading, self._in_body, self._head_bytes, self._body_bytes = True, False, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > self._limits.max_headers:
            self._refuse(431, "too many headers")
        elif name.lower() == b"content-length" and len(value) < 20 and int(value) > self._limits.max_body_bytes:
            self._refuse(413, f"a body may have {self._limits.max_body_bytes} bytes")

    def on_headers_complete(self) -> None:
        if self._refused:
            raise ValueError("refused")
        self._in_body = True
        super().on_headers_complete()
        if self._ending and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.max_body_bytes:
            self._refuse(413, f"a body may have {self._limits.max_body_bytes} bytes")
        elif not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot read."""
        self._refuse(400, "the request is no HTTP")

    def shutdown(self) -> None:
        """The server ends: an idle client that keeps its connection gets a moment, in which it is told to close it."""
        cast("Any", self.app).state.service.drain()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            return
        self._ending = True
        self.loop.call_later(self._limits.linger_s, super().shutdown)

    def _await_request(self) -> None:
        self._timer = self.loop.call_later(self._limits.read_timeout_s, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if not self._reading and self.cycle is None:
            self.transport.close()  # it never asked for anything
        elif self._reading:
            self._refuse(408, f"the request took more than {self._limits.read_timeout_s:g} s to come")

    def _refuse(self, status: int, message: str) -> None:
        if self._refused:
            return
        self._refused = True
        self._stop_timer()
        body = json.dumps({"error": message}).encode()
        if not self.transport.is_closing():
            head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: application/json\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
            self.transport.close()
