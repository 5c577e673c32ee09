"""The HTTP protocol with limits: connections, heads, bodies and slow clients, before any of our code sees a request.

uvicorn's protocol on llhttp reads what it is sent; here is what it does not limit by itself. Plain requests for tensors
go straight from here to the queue (`direct`), all others through uvicorn's ASGI call.
"""

import asyncio
import json
from typing import Any, Final, cast

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from prunit.edge.serve.direct import LONGEST_HEAD, Direct, Exchange
from prunit.edge.serve.settings import Settings

_PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
_SMALL_BYTES: Final = 65_536
"""A body of so many bytes is sent in one piece with its head; a larger one is not copied for that."""


class Guard(HttpToolsProtocol):
    """A connection. A refused one gets one answer and is closed."""

    _head_bytes = _body_bytes = 0
    _reading = _in_body = _completed = _refused = _ending = False
    _timer: asyncio.TimerHandle | None = None
    _head: bytes | None = None
    """The bytes of the head with which what came last begins, if nothing was being read before."""
    _idle_since = 0.0
    parser: Any
    cycle: Any
    """The request that is answered, None before the first; an `Exchange` if it goes the direct way."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        state = cast("Any", self.app).state
        self._limits: Settings = state.settings
        self._direct: Direct = state.direct

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self._limits.max_connections:
            self._refuse(503, "too many connections")
            return
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)
        if isinstance(self.cycle, Exchange):
            self.cycle.lost()

    def data_received(self, data: bytes) -> None:
        if self._refused or (self._rests and self._repeated(data)):
            return
        self._completed = False
        super().data_received(data)
        self._head = None
        if self.transport.is_closing():
            self._stop_timer()
            return
        if self._reading and not self._in_body:
            # Of a head that began behind other requests only what comes later counts: where it began nobody tells.
            self._head_bytes += 0 if self._completed else len(data)
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
        if self._goes_directly():
            return
        super().on_headers_complete()
        if self._ending and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.max_body_bytes:
            self._refuse(413, f"a body may have {self._limits.max_body_bytes} bytes")
        elif self._refused:
            return
        elif isinstance(self.cycle, Exchange):
            self.cycle.add(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading, self._completed = False, True
        if isinstance(self.cycle, Exchange):
            if not self._refused:
                self.cycle.complete()
        else:
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

    # ── the direct way ──

    @property
    def _rests(self) -> bool:
        """Nothing is being read, nothing is being answered: what comes now begins a request."""
        return not self._reading and (self.cycle is None or self.cycle.response_complete)

    def _repeated(self, data: bytes) -> bool:
        """Whether this is one whole request with a head that came before; then it is asked."""
        end = data.find(b"\r\n\r\n", 0, LONGEST_HEAD) + 4
        if end < 4:  # not found
            return False
        text = data[:end]
        head = self._direct.known(text)
        if head is None:
            self._head = text
            return False
        if len(data) != end + head.length:
            return False
        self._stop_timer()
        exchange = self.cycle = Exchange(self._direct, self, head, keep_alive=not self._ending)
        exchange.ask(memoryview(data)[end:])
        return True

    def _goes_directly(self) -> bool:
        """Of a head that the parser has read."""
        text, self._head = self._head, None
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            return False
        head = self._direct.read(self.url, self.headers)
        if head is None:
            return False
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        if keep_alive and text is not None:
            self._direct.remember(text, head)
        self.cycle = Exchange(self._direct, self, head, keep_alive=keep_alive and not self._ending)
        return True

    def first_lines(self, status: int) -> bytes:
        """Of an answer: its status, and the headers that all answers have."""
        return STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % each for each in self.server_state.default_headers)

    def respond(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """Send an answer; with it the request is over."""
        if self.flow.write_paused and not exchange.disconnected:
            task = self.loop.create_task(self._respond_later(exchange, head, body))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            return
        transport = self.transport
        if not exchange.disconnected and not transport.is_closing():
            if len(body) <= _SMALL_BYTES:
                transport.write(head + body)
            else:
                transport.write(head)
                transport.write(body)
        exchange.response_complete = True
        if not exchange.keep_alive:
            transport.close()
        if self.pipeline or self.flow.read_paused:
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        self._idle_since = self.loop.time()
        # One timer goes on over many requests: to make and to cancel one costs as much as to read a head.
        if self.timeout_keep_alive_task is None and not transport.is_closing():
            self._await_idle(self.timeout_keep_alive)

    async def _respond_later(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        await self.flow.drain()
        self.respond(exchange, head, body)

    def _await_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """A kept connection has not been used for a while, or the timer was set before it was used last."""
        self.timeout_keep_alive_task = None
        if not self._rests or self.transport.is_closing():
            return  # an answer sets another
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._await_idle(left_s)
        else:
            super().timeout_keep_alive_handler()

    # ── refusals ──

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
