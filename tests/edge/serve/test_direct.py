"""Requests for tensors, which go straight from the connection to the queue: as others are answered, whatever comes."""

import json
import re
import socket
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from prunit.edge.portfolio import Portfolio
from prunit.edge.serve.direct import Direct
from prunit.edge.serve.gate import Gate
from prunit.edge.serve.guard import Guard
from prunit.edge.serve.service import Service
from prunit.edge.serve.settings import Settings
from tests.edge.folders import SHAPE, X_BCHW, gives, portfolio_in
from tests.edge.serving import TOKEN, Served, binary, output_of, serving, wait_for

PATH = "/v2/models/numbers/infer"
OTHER_WAY = {"Content-Encoding": "identity"}
"""Says nothing about a request, and has it go as an ASGI call."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("direct")
    portfolio_in(folder)
    arguments = ["--policy", "fixed:large", "--max-body", "100KB", "--slo-ms", "1000", "--access-log"]
    with serving(folder, *arguments, "--read-timeout", "2") as found:
        yield found


def raw(body: bytes, headers: dict[str, str] | None = None, path: str = PATH, first: str = "POST {} HTTP/1.1") -> bytes:
    told = {"Host": "localhost", "Content-Length": str(len(body)), **(headers or {})}
    lines = [first.format(path), *(f"{name}: {value}" for name, value in told.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def tensors(x_BCHW: Any = X_BCHW, **headers: str) -> bytes:
    body, told = binary(x_BCHW)
    return raw(body, {**told, **headers})


class Link:
    """A connection on which answers are read one by one; all are closed when their test is over."""

    every: ClassVar[list["Link"]] = []

    def __init__(self, port: int) -> None:
        self.every.append(self)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._received = b""

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)
            if len(pieces) > 1:
                time.sleep(0.02)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self._received:
            self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        told = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        length = int(told.get("content-length", "0"))
        while len(self._received) < length:
            self._more()
        body, self._received = self._received[:length], self._received[length:]
        return int(lines[0].split()[1]), told, body

    def ended(self) -> bool:
        return self.socket.recv(1) == b""

    def _more(self) -> None:
        found = self.socket.recv(65536)
        assert found, "the connection ended"
        self._received += found


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    while Link.every:
        Link.every.pop().socket.close()


def as_json(data: Any, **more: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, *SHAPE], "data": data}
    return json.dumps({"inputs": [{**tensor, **more}]}).encode()


def asked(what: str) -> tuple[bytes, dict[str, str], str]:
    """Body, headers and address of a request."""
    flat = X_BCHW.ravel().tolist()
    body, told = binary(X_BCHW)
    late, late_told = binary(X_BCHW, timeout=1)
    cases: dict[str, tuple[bytes, dict[str, str], str]] = {
        "binary": (body, told, PATH),
        "JSON": (as_json(flat), {}, PATH),
        "whole numbers": (as_json([1] * 48), {}, PATH),
        "rows": (as_json(X_BCHW.tolist()), {}, PATH),
        "a whole number beyond 64 bits": (as_json([2**70, *flat[1:]]), {}, PATH),
        "a whole number that is too large": (as_json([10**60, *flat[1:]]), {}, PATH),
        "a number that is too large": (as_json(flat).replace(str(flat[0]).encode(), b"1e400"), {}, PATH),
        "true": (as_json([True] * 48), {}, PATH),
        "true among numbers": (as_json([True, *flat[1:]]), {}, PATH),
        "a text": (as_json(["1", *flat[1:]]), {}, PATH),
        "NaN": (as_json([float("nan")] * 48), {}, PATH),
        "too few": (as_json(flat[1:]), {}, PATH),
        "no JSON": (b"{", {}, PATH),
        "nothing": (b"", {}, PATH),
        "UTF-16": (as_json(flat).decode().encode("utf-16"), {}, PATH),
        "an id": (body, {**told, "X-Request-Id": "mine-1"}, PATH),
        "an id that harms": (body, {**told, "X-Request-Id": "mi ne"}, PATH),
        "a version": (body, told, "/v2/models/numbers/versions/small/infer"),
        "a version, escaped": (body, told, "/v2/models/numbers/versions/sm%61ll/infer"),
        "no version": (body, told, "/v2/models/numbers/versions/none/infer"),
        "no model": (body, told, "/v2/models/none/infer"),
        "a query": (body, told, f"{PATH}?a=b"),
        "a length that is none": (body, {"Inference-Header-Content-Length": "x"}, PATH),
        "a length that is too long": (body, {"Inference-Header-Content-Length": "9999"}, PATH),
        "another host": (body, {**told, "Host": "elsewhere.example"}, PATH),
        "over before its turn": (late, late_told, PATH),
        "the last of the connection": (body, {**told, "Connection": "close"}, PATH),
    }
    return cases[what]


CASES = re.findall(r'^        "([^"]+)": \(', Path(__file__).read_text(encoding="utf-8"), re.MULTILINE)


def _plain(told: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """Without what differs from one request to the next."""
    told = {name: value for name, value in told.items() if name not in ("date", "content-length")}
    if "-" in told["x-request-id"] and told["x-request-id"] != "mine-1":
        told["x-request-id"] = "new"
    told["inference-header-content-length"] = "some" if "inference-header-content-length" in told else "none"
    return told, re.sub(rb'"(queue_ms|compute_ms|batch)":[0-9.e-]+', rb'"\1":0', body)


@pytest.mark.parametrize("what", CASES)
def test_both_ways_give_the_same_answer(served: Served, what: str) -> None:
    body, headers, path = asked(what)
    found: list[Any] = []
    for more in ({}, {}, OTHER_WAY):  # the second time the head is known
        link = Link(served.port)
        link.send(raw(body, {**headers, **more}, path))
        status, told, answer = link.answer()
        found.append((status, *_plain(told, answer)))
        link.socket.close()
    assert found[0] == found[1] == found[2]
    assert (found[0][0] == 200) == (
        what
        in (
            *("binary", "JSON", "whole numbers", "rows", "true among numbers", "UTF-16", "an id", "an id that harms"),
            *("a version", "a version, escaped", "a query", "the last of the connection"),
            "a whole number beyond 64 bits",
        )
    )


def test_requests_sent_at_once_are_answered_in_their_order(served: Served) -> None:
    """Both ways, good and bad ones, on one connection."""
    link, bad = Link(served.port), as_json([1.0])
    images = [np.full((1, *SHAPE), value, np.float32) for value in range(4)]
    live = raw(b"", path="/v2/health/live", first="GET {} HTTP/1.1")
    sent = [tensors(images[0]), tensors(images[1]), raw(bad), live, tensors(images[2], **OTHER_WAY), tensors(images[3])]
    for pieces in ([b"".join(sent)], sent, [part for one in sent for part in (one[:70], one[70:])]):
        link.send(*pieces)
        found = [link.answer() for _ in sent]
        assert [status for status, _, _ in found] == [200, 200, 400, 200, 200, 200]
        for at, number in ((0, 0), (1, 1), (4, 2), (5, 3)):
            assert gives(output_of(*found[at][1:])[1], images[number], "large")


def test_a_client_that_reads_nothing_for_a_while_gets_every_answer(served: Served) -> None:
    """What it has not read piles up at first in the system and then in the server, which waits."""
    link, count = Link(served.port), 3000
    link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sent = as_json(X_BCHW.ravel().tolist())
    link.socket.settimeout(0.5)
    unsent = memoryview(raw(sent) * count)
    while unsent:
        try:
            unsent = unsent[link.socket.send(unsent[:500_000]) :]
        except TimeoutError:
            break
    assert served.ask("GET", "/v2/health/ready")[0] == 200  # others do not notice
    link.socket.settimeout(20)
    whole = count - -(-len(unsent) // len(raw(sent)))
    for _ in range(whole):
        status, _, body = link.answer()
        assert status == 200
        assert json.loads(body)["outputs"][0]["shape"] == [1, *SHAPE]


def test_numbers_behind_json_that_came_before_are_read_anew(served: Served) -> None:
    link, other = Link(served.port), np.arange(48, dtype=np.float32).reshape(1, *SHAPE)
    broken = X_BCHW.copy()
    broken[0, 0, 0, 0] = np.nan
    changed = tensors().replace(b'"FP32"', b'"FP99"')  # as long, and says something else
    sent = [
        tensors(),
        tensors(other),
        tensors(broken),
        changed,
        tensors(np.concatenate([other, other])),
        tensors(other),
    ]
    found: list[tuple[int, dict[str, str], bytes]] = []
    for one in sent:
        link.send(one)
        found.append(link.answer())
    assert [status for status, _, _ in found] == [200, 200, 400, 400, 200, 200]
    assert b"not finite" in found[2][2]
    assert gives(output_of(*found[1][1:])[1], other, "large")
    assert output_of(*found[4][1:])[1].shape == (2, *SHAPE)
    assert gives(output_of(*found[5][1:])[1], other, "large")


def test_who_goes_early_harms_nobody(served: Served) -> None:
    sent = tensors()
    for length, more in ((len(sent) - 10, 0), (len(sent), 1)):
        for _ in range(20):
            link = Link(served.port)
            link.send(sent[:length] + b"POST"[:more])
            link.socket.close()
    assert served.told("request", status=499, path=PATH)["method"] == "POST"
    assert gives(served.infer()[1], X_BCHW, "large")


def test_limits_hold_on_the_direct_way(served: Served) -> None:
    link = Link(served.port)
    link.send(tensors()[:-5])
    assert link.answer()[0] == 408
    assert link.ended()
    link = Link(served.port)
    link.send(raw(b"", {"Content-Length": "100001"}))
    assert link.answer()[0] == 413
    link = Link(served.port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    body = as_json(X_BCHW.ravel().tolist())
    link.send(head, *(b"%x\r\n%b\r\n" % (len(body[i : i + 300]), body[i : i + 300]) for i in range(0, len(body), 300)))
    link.send(b"0\r\n\r\n")
    assert link.answer()[0] == 200
    link.send(head, *[b"4e20\r\n" + b"x" * 20_000 + b"\r\n"] * 6)
    assert link.answer()[0] == 413


def test_an_old_client_is_told_that_the_connection_ends(served: Served) -> None:
    body, told = binary(X_BCHW)
    for _ in range(2):
        link = Link(served.port)
        link.send(raw(body, told, first="POST {} HTTP/1.0"))
        status, headers, _ = link.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert link.ended()


def test_a_head_that_was_good_with_a_token_is_none_for_others(tmp_path: Path) -> None:
    portfolio_in(tmp_path)
    with serving(tmp_path, "--token-for-all") as served:
        link = Link(served.port)
        for token, status in ((TOKEN, 200), ("wrong", 401), (TOKEN, 200), ("", 401)):
            link.send(tensors(**({"Authorization": f"Bearer {token}"} if token else {})))
            assert link.answer()[0] == status


class Clock:
    """An event loop whose time is set by hand."""

    def __init__(self) -> None:
        self.now, self.timers = 100.0, list[tuple[float, Any]]()

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, what: Any) -> Any:
        self.timers.append((self.now + seconds, what))
        return what


def test_a_kept_connection_is_closed_when_it_was_idle_for_long() -> None:
    """One timer, set by the first answer, goes on over the later ones."""
    guard, clock, closed = Guard.__new__(Guard), Clock(), list[bool]()
    guard.loop = cast("Any", clock)
    guard.transport = cast(
        "Any",
        SimpleNamespace(is_closing=lambda: bool(closed), close=lambda: closed.append(True), write=lambda data: None),
    )
    guard.flow, guard.pipeline = cast("Any", SimpleNamespace(write_paused=False, read_paused=False)), deque()
    guard.server_state = cast("Any", SimpleNamespace(total_requests=0))
    guard.timeout_keep_alive, guard.timeout_keep_alive_task = 75, None
    for now in (100.0, 120.0, 130.0):
        clock.now = now
        guard.cycle = cast("Any", SimpleNamespace(keep_alive=True, disconnected=False, response_complete=False))
        guard.respond(guard.cycle, b"head", b"body")
    assert [at for at, _ in clock.timers] == [175.0]
    clock.now = 175.0
    clock.timers[0][1]()
    assert (closed, [at for at, _ in clock.timers]) == ([], [175.0, 205.0])
    clock.now = 205.0
    clock.timers[1][1]()
    assert closed == [True]


def test_a_known_head_is_read_anew_when_the_portfolio_is_another(tmp_path: Path) -> None:
    portfolio = portfolio_in(tmp_path)
    with serving(tmp_path, "--policy", "fixed:large", "--slo-ms", "1000") as served:
        link = Link(served.port)
        body, told = binary(X_BCHW)
        small = raw(body, told, "/v2/models/numbers/versions/small/infer")
        for sent in (tensors(), small) * 2:
            link.send(sent)
            assert link.answer()[0] == 200
        left = tuple(v for v in portfolio.variants if v.name != "small")
        portfolio.model_copy(update={"variants": left}).write(tmp_path)
        served.told("reloaded")
        wait_for(lambda: served.ask("POST", "/v2/models/numbers/versions/small/infer", body, told)[0] == 404)
        link.send(small)
        assert link.answer()[0] == 404
        link.send(tensors())
        assert link.answer()[0] == 200


def test_only_heads_that_end_where_the_parser_says_are_remembered(tmp_path: Path) -> None:
    portfolio_in(tmp_path)
    service = Service(Settings(tmp_path))
    direct = Direct(service, Gate(service))

    good = tensors().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    service.state = "ready"
    service.switcher = cast("Any", SimpleNamespace(portfolio=Portfolio.read(tmp_path), failed={}))
    headers = [(b"host", b"localhost"), (b"content-length", b"10")]
    head = direct.read(PATH.encode(), headers)
    assert head is not None
    assert (head.length, head.json_length, head.variant) == (10, None, None)
    assert direct.read(PATH.encode(), [*headers, (b"host", b"localhost")]) is None
    assert direct.read(PATH.encode(), [*headers, (b"expect", b"100-continue")]) is None
    for text in (b"\r\n\r\n", good.replace(b"\r\n", b"\n", 1), b"\r\n" + good):
        direct.remember(text, head)
        assert direct.known(text) is None
    direct.remember(good, head._replace(length=-1))
    assert direct.known(good) is None
    direct.remember(good, head)
    assert direct.known(good) is head
    service.state = "closed"
    assert direct.known(good) is None
    service.state = "ready"
    for number in range(1000):
        direct.remember(good[:-2] + b"x: %d\r\n\r\n" % number, head)
    assert len(direct._heads) <= 256
