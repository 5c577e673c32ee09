"""Clients for bench/serving.py, in a process of their own: `python -m bench.serving_load JSON`."""

import asyncio
import json
import random
import sys
import time
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from bench._common import percentile
from prunit.edge.portfolio import Portfolio

SHAPE: Final = (3, 32, 32)
TARGET_MS: Final = 60.0
IMAGE: Final = np.random.default_rng(0).standard_normal((1, *SHAPE), dtype=np.float32)


def request(portfolio: Portfolio, *, binary: bool = True, version: str = "") -> bytes:
    """The bytes of one request for one image."""
    artifact = portfolio.variants[0].artifact
    tensor: dict[str, Any] = {"name": artifact.input_name, "datatype": "FP32", "shape": [1, *artifact.input_shape]}
    path = f"/v2/models/{portfolio.name}/" + (f"versions/{version}/" if version else "") + "infer"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
    if binary:
        tensor["parameters"] = {"binary_data_size": IMAGE.nbytes}
        text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        head += f"Inference-Header-Content-Length: {len(text)}\r\n"
        body = text + IMAGE.tobytes()
    else:
        tensor["data"] = IMAGE.ravel().tolist()
        body = json.dumps({"inputs": [tensor]}).encode()
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """One request at a time over a connection that is kept."""

    def __init__(self) -> None:
        self.waiter: asyncio.Future[int] | None = None
        self.received = b""
        self.closed = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.received[:end].lower()
        at = head.find(b"\ncontent-length: ") + 17  # and not that of the binary tensors' head
        length = int(head[at : head.find(b"\r", at)] if head.find(b"\r", at) > 0 else head[at:])
        if len(self.received) < end + 4 + length or self.waiter is None:
            return
        waiter, self.waiter, self.received = self.waiter, None, b""
        waiter.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(0)

    def ask(self, sent: bytes) -> "asyncio.Future[int]":
        """The status of the answer, 0 if the connection was lost."""
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(sent)
        return self.waiter


async def _connections(port: int, count: int) -> list[Connection]:
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(Connection, "127.0.0.1", port) for _ in range(count)]
    return [protocol for _, protocol in made]


async def closed_loop(port: int, sent: bytes, count: int, seconds: float) -> dict[str, float]:
    """Answers per second of so many connections, each of which asks again at once."""
    pool, until, answered = await _connections(port, count), time.perf_counter() + seconds, [0, 0]

    async def one(connection: Connection) -> None:
        while time.perf_counter() < until:
            status = await connection.ask(sent)
            answered[status == 200] += 1

    began = time.perf_counter()
    await asyncio.gather(*(one(connection) for connection in pool))
    return {"per_s": answered[1] / (time.perf_counter() - began), "failed": answered[0]}


class Asking(asyncio.Protocol):
    """Asks again as soon as an answer has come, at as little cost as Python allows: client and server share a machine.

    Latencies in milliseconds are added to `found`; what is no answer with status 200 counts as failed.
    """

    def __init__(self, sent: bytes, until: float, found: list[float]) -> None:
        self.sent, self.until, self.found = sent, until, found
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failed, self.received, self.needed = 0, b"", 0

    def connection_made(self, transport: Any) -> None:
        self.transport, self.asked = transport, time.perf_counter()
        transport.write(self.sent)

    def data_received(self, data: bytes) -> None:
        self.received = received = self.received + data if self.received else data
        if not self.needed:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            # Every server of the comparison writes this name in small letters; tensors have a head with such an end.
            at = received.find(b"\ncontent-length: ", 0, end) + 17
            self.needed = end + 4 + int(received[at : received.find(b"\r", at)])
        if len(received) < self.needed:
            return
        now = time.perf_counter()
        self.found.append(1000 * (now - self.asked))
        self.failed += not received.startswith(b"HTTP/1.1 200")
        self.received, self.needed = b"", 0
        if now < self.until:
            self.asked = now
            self.transport.write(self.sent)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.failed += self.needed > 0 or time.perf_counter() < self.until
        self.over.set_result(None)


async def lean_loop(port: int, sent: bytes, count: int, seconds: float) -> dict[str, Any]:
    """As `closed_loop`, with what answers took; from a client that costs a fraction of it."""
    loop, found = asyncio.get_running_loop(), list[float]()
    began = time.perf_counter()
    asking = [
        (await loop.create_connection(lambda: Asking(sent, began + seconds, found), "127.0.0.1", port))[1]
        for _ in range(count)
    ]
    await asyncio.gather(*(each.over for each in asking))
    took = time.perf_counter() - began
    ms = {f"p{p}": percentile(found, p / 100) for p in (50, 99)}
    failed = sum(each.failed for each in asking)
    return {"per_s": (len(found) - failed) / took, "ms": ms, "answered": len(found) - failed, "failed": failed}


async def open_loop(port: int, sent: bytes, rate: float, seconds: float, pids: list[int]) -> dict[str, Any]:
    """Random arrivals at a rate whether or not answers come; latencies count from the moment a request was due."""
    pool, rng = await _connections(port, 256), random.Random(0)
    free, latencies, statuses, memory = deque(pool), list[float](), dict[int, int](), list[float]()
    began = time.perf_counter()
    due, tasks, looked = began, set[asyncio.Task[None]](), began

    async def one(connection: Connection, due: float) -> None:
        try:
            if connection.closed:  # one that was not used for long: a client opens another
                (connection,) = await _connections(port, 1)
            status = await connection.ask(sent)
        except Exception:  # whatever it is, the request has no answer
            status = 0
        statuses[status] = statuses.get(status, 0) + 1
        if status == 200:
            latencies.append(1000 * (time.perf_counter() - due))
        free.append(connection)

    while True:
        due += rng.expovariate(rate)
        if due > began + seconds:
            break
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        if not free:  # more wait than there are connections: the request is as lost as one that is refused
            statuses[-1] = statuses.get(-1, 0) + 1
            continue
        task = asyncio.create_task(one(free.popleft(), due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if time.perf_counter() - looked > 5:
            looked = time.perf_counter()
            memory.append(sum(psutil.Process(pid).memory_info().rss for pid in pids) / 1e6)
    if tasks:
        await asyncio.wait(tasks, timeout=30)
    asked = sum(statuses.values()) + len(tasks)
    return {
        "asked": asked,
        "answered": statuses.get(200, 0),
        "refused": statuses.get(429, 0) + statuses.get(-1, 0),
        "lost": asked - statuses.get(200, 0) - statuses.get(429, 0) - statuses.get(-1, 0),
        "in_time": sum(ms <= TARGET_MS for ms in latencies) / max(asked, 1),
        "ms": {f"p{p}": percentile(latencies, p / 100) for p in (50, 99)},
        "memory_mb": {"first": memory[:1], "last": memory[-1:], "most": max(memory, default=0)},
    }


def load(asked: dict[str, Any]) -> dict[str, Any]:
    """In the child."""
    if asked["kind"] == "lean":
        sent = Path(asked["sent"]).read_bytes()
        work = lean_loop(asked["port"], sent, asked["connections"], asked["seconds"])
        return _run(work)
    portfolio = Portfolio.read(Path(asked["folder"]))
    sent = request(portfolio, version=asked.get("version", ""))
    if asked["kind"] == "closed":
        work = closed_loop(asked["port"], sent, asked["connections"], asked["seconds"])
    else:
        work = open_loop(asked["port"], sent, asked["rate"], asked["seconds"], asked["pids"])
    return _run(work)


def _run(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    try:
        import uvloop

        return uvloop.run(work)
    except ImportError:
        return asyncio.run(work)


if __name__ == "__main__":
    print(json.dumps(load(json.loads(sys.argv[1]))))
