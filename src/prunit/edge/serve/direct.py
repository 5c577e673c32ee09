"""Requests for tensors straight from the connection: without an ASGI call, a task and a router for each of them.

A plain `POST …/infer` that may be answered comes this way. Whatever is unusual about its head, and every refusal that
its head alone deserves, goes the way of all other requests (`front`, `app`); what both have in common is in `gate` and
here, so that a client cannot tell one from the other but by the time that they take.
"""

import re
import time
from typing import Final, NamedTuple, Protocol
from urllib.parse import unquote

from prunit.edge.names import today
from prunit.edge.portfolio import Artifact, Portfolio, Variant
from prunit.edge.serve import protocol
from prunit.edge.serve.batching import Outcome, Result
from prunit.edge.serve.gate import NOSNIFF, Gate, Headers
from prunit.edge.serve.service import Service
from prunit.edge.serve.settings import Refusal

_PLAIN: Final = re.compile(rb"/v2/models/[\w.~%:=,+@/-]+/infer")
_ADDRESS: Final = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_HEADER: Final = protocol.HEADER.encode()
_ELSEWHERE: Final = (b"expect", b"upgrade", b"content-encoding")
"""Headers of requests that need more than this."""
_BINARY: Final = (
    b"x-prunit-variant: %b\r\n" + _HEADER + b": %d\r\ncontent-length: %d\r\ncontent-type: application/octet-stream\r\n"
)
_HEAD_OF_ANSWER: Final = b"%b%b" + b"%b: %b\r\n" % NOSNIFF + b"x-request-id: %b\r\n%b\r\n"
_HEADS: Final = 256
_FORMS: Final = 16
_LONGEST_JSON: Final = 1024
"""Of JSON before binary data that is remembered."""
LONGEST_HEAD: Final = 2048
"""Of a head that is remembered."""


class Head(NamedTuple):
    """What the head of a request says, and against what it was read."""

    portfolio: Portfolio
    moved: object
    variant: Variant | None
    artifact: Artifact
    json_length: int | None
    length: int
    """Of the body; -1 if the head does not tell."""
    request_id: bytes | None
    path: str
    forms: dict[bytes, protocol.Form]
    """What the JSON in bodies behind this head said, by its bytes."""


class Connection(Protocol):
    """Over which a request came."""

    def first_lines(self, status: int) -> bytes:
        """Of an answer: its status, and the headers that all answers have."""
        ...

    def respond(self, exchange: "Exchange", head: bytes, body: bytes) -> None:
        """Send an answer; with it the request is over."""
        ...


class Direct:
    """Reads heads, and remembers them: a client sends the same one with each of its requests.

    What a head means depends on its bytes alone, on the portfolio, and on settings that never change. So one that was
    read by the parser and found good needs neither parser nor address nor admission when the same bytes come again.
    """

    def __init__(self, service: Service, gate: Gate) -> None:
        self.service, self.gate = service, gate
        self._heads: dict[bytes, Head] = {}

    def known(self, text: bytes) -> Head | None:
        """What the bytes of a head mean, if they were remembered and it still holds."""
        head = self._heads.get(text)
        return head if head is not None and self._holds(head) else None

    def remember(self, text: bytes, head: Head) -> None:
        """These bytes, which begin a request and came together, were read by the parser as this head."""
        # Each line ends in CR LF: so its first empty line is where the parser saw the end as well.
        whole = text.startswith(b"POST /v2/") and text.count(b"\n") == text.count(b"\r\n")
        if whole and head.length >= 0 and head.request_id is None:
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            self._heads[text] = head

    def read(self, url: bytes, headers: Headers) -> Head | None:
        """What the head of a POST means; None: it has to go the other way."""
        given = dict(headers)
        if not _PLAIN.fullmatch(url) or len(given) != len(headers) or any(given.get(name) for name in _ELSEWHERE):
            return None
        service, moved = self.service, self.service.moved
        path = unquote(url.decode("ascii"))
        length, text = given.get(b"content-length", b""), given.get(_HEADER)
        if text is not None and not (text.isdigit() and len(text) <= 12):
            return None
        try:
            self.gate.admit(path, given)
            path = today(path, moved)
            found = _ADDRESS.fullmatch(path)
            if found is None or service.state not in ("ready", "draining") or found[1] != service.portfolio.name:
                return None
            variant = service.check(found[2]) if found[2] else None
        except Refusal:
            return None
        portfolio = service.portfolio
        return Head(
            portfolio=portfolio,
            moved=moved,
            variant=variant,
            artifact=(variant or portfolio.variants[0]).artifact,
            json_length=None if text is None else int(text),
            length=int(length) if length.isdigit() and b"transfer-encoding" not in given else -1,
            request_id=self.gate.given_id(given),
            path=path,
            forms={},
        )

    def _holds(self, head: Head) -> bool:
        service = self.service
        return (
            service.state in ("ready", "draining")
            and head.portfolio is service.portfolio
            and head.moved is service.moved
            and (head.variant is None or head.variant.name not in service.switcher.failed)
        )


class _Ignored:
    """What uvicorn's protocol wakes when something happens to a request."""

    def set(self) -> None:
        """Nobody waits."""


class Exchange:
    """One request and its answer. To uvicorn's protocol it looks like one of its own: pipelines and ends are alike."""

    __slots__ = (
        *("_asked", "_began", "_connection", "_direct", "_head", "_id", "_parts"),
        *("disconnected", "keep_alive", "response_complete", "whole"),
    )
    message_event = _Ignored()

    def __init__(self, direct: Direct, connection: Connection, head: Head, keep_alive: bool) -> None:
        self._direct, self._connection, self._head = direct, connection, head
        self._began = time.perf_counter()
        self._id = head.request_id or direct.gate.new_id()
        self._asked: protocol.InferRequest | None = None
        self._parts: list[bytes] = []
        self.keep_alive = keep_alive
        self.disconnected = self.response_complete = self.whole = False

    def add(self, body: bytes) -> None:
        """A piece of the body has come."""
        self._parts.append(body)

    def complete(self) -> None:
        """All of the body has come."""
        parts, self._parts = self._parts, []
        self.ask(parts[0] if len(parts) == 1 else b"".join(parts))

    def ask(self, body: bytes | memoryview) -> None:
        """Have a whole body answered."""
        self.whole = True
        service, head = self._direct.service, self._head
        try:
            asked = self._asked = _formed(head, body) or self._parsed(body)
            service.ask(asked.x_BCHW, head.variant.name if head.variant else None, asked.timeout_ms, self.tell)
        except Exception as error:  # whatever it is, the client gets one line
            self._refuse(error)

    def _parsed(self, body: bytes | memoryview) -> protocol.InferRequest:
        head = self._head
        asked, length = parsed(self._direct.service, body, head.json_length, head.artifact), head.json_length
        if length is not None and length <= _LONGEST_JSON and not asked.id:
            form = protocol.Form.of(asked, len(body) - length)
            if form is not None:
                if len(head.forms) >= _FORMS:
                    head.forms.clear()
                head.forms[bytes(body[:length])] = form
        return asked

    def tell(self, outcome: Outcome) -> None:
        """What came of it."""
        service, asked = self._direct.service, self._asked
        assert asked is not None
        try:
            if isinstance(outcome, Exception):
                raise outcome
            body, length = written(service, asked, outcome, self._head.artifact)
            service.count(outcome, 1000 * (time.perf_counter() - self._began))
        except Exception as error:  # whatever it is, the client gets one line
            self._refuse(error)
            return
        variant = outcome.variant.encode()
        if length is None:
            headers = b"x-prunit-variant: %b\r\ncontent-length: %d\r\ncontent-type: application/json\r\n"
            self._respond(200, headers % (variant, len(body)), body)
        else:
            self._respond(200, _BINARY % (variant, length, len(body)), body)

    def lost(self) -> None:
        """The client has gone."""
        if not self.whole:
            self._direct.gate.log(self._id, "POST", self._head.path, 499, self._began)

    def _refuse(self, error: Exception) -> None:
        status, headers, body = self._direct.gate.refusal(error, self._id, self._head.path)
        self._respond(status, b"".join(b"%b: %b\r\n" % header for header in headers), body)

    def _respond(self, status: int, headers: bytes, body: bytes) -> None:
        self._asked = None  # an idle connection keeps its last exchange, which is to hold no tensors
        close = b"" if self.keep_alive else b"connection: close\r\n"
        first = self._connection.first_lines(status)
        self._connection.respond(self, _HEAD_OF_ANSWER % (first, headers, self._id, close), body)
        self._direct.gate.log(self._id, "POST", self._head.path, status, self._began)


def _formed(head: Head, body: bytes | memoryview) -> protocol.InferRequest | None:
    """The request in a body whose JSON came before; None if it did not."""
    if not head.forms or head.json_length is None:
        return None
    view = memoryview(body)
    form = head.forms.get(bytes(view[: head.json_length]))
    return (
        form.filled(view[head.json_length :])
        if form is not None and form.bytes == len(view) - head.json_length
        else None
    )


def parsed(
    service: Service, body: bytes | memoryview, json_length: int | None, artifact: Artifact
) -> protocol.InferRequest:
    """The request in a body."""
    preprocessing, most = service.portfolio.preprocessing, service.settings.max_batch
    return protocol.parse(body, json_length, artifact, preprocessing, most)


def written(
    service: Service, asked: protocol.InferRequest, found: Result, artifact: Artifact
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON if binary data follow it."""
    portfolio = service.portfolio
    figures = {
        "queue_ms": round(found.queue_ms, 3),
        "compute_ms": round(found.compute_ms, 3),
        "batch": found.batch,
    }
    return protocol.answer(
        *(asked, found.outputs, artifact, portfolio.classes),
        model=portfolio.name,
        variant=found.variant,
        figures=figures,
    )
