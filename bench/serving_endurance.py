"""The part `endurance` of bench/serving.py: a million requests, while variants are switched and the portfolio changes.

Sixteen clients keep asking over kept connections, which are opened anew every few seconds. Meanwhile one variant after
the other is pinned, and the manifest is replaced in turn by one with another set of variants, so that each reload opens
and tests a variant that the last one closed. What is not answered with status 200 is lost. Memory and descriptors of
the server are looked at every second.
"""

import json
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from bench.serving_load import request
from bench.serving_started import in_a_child, server
from prunit.edge.portfolio import Portfolio

_CONNECTIONS: Final = 16
_TURN_S: Final = 10.0
"""For so long a set of connections is kept."""
_LONGEST_S: Final = 3600.0
_LONGEST_RELOAD_S: Final = 20.0
_EVERY_S: Final = 1.0
_TOKEN: Final = "of the benchmark"


def endurance(
    folder: Path, names: Sequence[str], *, requests: int, switches: int, reloads: int, pace_per_s: float = 5_000
) -> dict[str, Any]:
    """Requests, switches and reloads until there were so many of each, and what was lost or left behind.

    `names` are variants, the ones that are pinned in turn first and last; those between them come and go with reloads.
    `pace_per_s` is a guess of the requests per second, from which the pace of switches and reloads follows.
    """
    length_s = requests / pace_per_s
    token = folder.parent / "token"
    token.write_text(_TOKEN, encoding="utf-8")
    token.chmod(0o600)
    every = Portfolio.read(folder)
    try:
        with server(folder, "--policy", f"fixed:{names[-1]}", "--slo-ms", "200", "--token-file", str(token)) as started:
            port, pid = started
            over = threading.Event()
            unrest = [
                _Repeated(over, 0.8 * length_s / switches, lambda n: _pin(port, (names[0], names[-1])[n % 2])),
                _Repeated(over, 0.8 * length_s / reloads, lambda n: _exchange(port, folder, every, names, n)),
            ]
            held = _Watched(over, pid)
            for thread in (*unrest, held):
                thread.start()
            try:
                answered, lost, ms = _load(folder, port, requests, switches, reloads, unrest)
            finally:
                over.set()
                for thread in (*unrest, held):
                    thread.join()
            told = _status(port)
    finally:
        every.write(folder)
    return {
        "part": "endurance",
        "requests": answered + lost,
        "lost": lost,
        "ms": ms,
        "switches": told["switches"],
        "reloads": unrest[1].done,
        "failed": sum(each.failed for each in unrest),
        "memory_mb": held.figures([each / 1e6 for each in held.memory]),
        "descriptors": held.figures(held.descriptors),
        "threads": held.figures(held.threads),
    }


def _load(
    folder: Path, port: int, requests: int, switches: int, reloads: int, unrest: Sequence["_Repeated"]
) -> tuple[int, int, dict[str, float]]:
    """Ask until all has happened often enough: answered, lost, and milliseconds (the median of the turns' figures)."""
    answered, lost, until = 0, 0, time.monotonic() + _LONGEST_S
    turns: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as place:
        sent = Path(place) / "sent"
        sent.write_bytes(request(Portfolio.read(folder)))
        asked = {"kind": "lean", "port": port, "sent": str(sent), "connections": _CONNECTIONS, "seconds": _TURN_S}
        while answered + lost < requests or unrest[0].done < switches or unrest[1].done < reloads:
            if time.monotonic() > until:
                raise RuntimeError(f"after {_LONGEST_S:.0f} s: {answered} of {requests} requests")
            found = in_a_child(asked)
            answered, lost = answered + found["answered"], lost + found["failed"]
            turns.append(found["ms"])
    return answered, lost, {p: statistics.median(each[p] for each in turns) for p in ("p50", "p99")}


class _Repeated(threading.Thread):
    """Does one thing again and again, at a steady pace."""

    def __init__(self, over: threading.Event, every_s: float, act: Callable[[int], None]) -> None:
        super().__init__()
        self._over, self._every_s, self._act = over, every_s, act
        self.done, self.failed = 0, 0

    def run(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                self._act(self.done)
                self.done += 1
            except OSError:
                self.failed += 1


class _Watched(threading.Thread):
    """What a process holds, every second."""

    def __init__(self, over: threading.Event, pid: int) -> None:
        super().__init__()
        self._over, self._process = over, psutil.Process(pid)
        self.memory: list[float] = []
        self.descriptors: list[float] = []
        self.threads: list[float] = []

    def run(self) -> None:
        while not self._over.wait(_EVERY_S):
            with self._process.oneshot():
                self.memory.append(self._process.memory_info().rss)
                self.descriptors.append(self._process.num_fds())
                self.threads.append(self._process.num_threads())

    @staticmethod
    def figures(found: Sequence[float]) -> dict[str, float]:
        """Medians of the second tenth of the time and of the last one, and the most.

        The first tenth is left out: the server opens its variants in it.
        """
        tenth = max(len(found) // 10, 1)
        first, last = found[tenth : 2 * tenth] or found, found[-tenth:]
        return {"first": statistics.median(first), "last": statistics.median(last), "most": max(found)}


def _exchange(port: int, folder: Path, every: Portfolio, names: Sequence[str], number: int) -> None:
    """Leave out all variants between the first and the last but one of them, by turns; until the server serves that."""
    between = names[1:-1]
    kept = {names[0], names[-1], between[number % len(between)]}
    variants = tuple(variant for variant in every.variants if variant.name in kept)
    every.model_copy(update={"variants": variants}).write(folder)
    until = time.monotonic() + _LONGEST_RELOAD_S
    while {variant["name"] for variant in _status(port)["variants"]} != kept:
        if time.monotonic() > until:
            raise TimeoutError(f"not reloaded in {_LONGEST_RELOAD_S:.0f} s")
        time.sleep(0.2)


def _pin(port: int, name: str) -> None:
    head = {"Content-Type": "application/json", "Authorization": f"Bearer {_TOKEN}"}
    body = json.dumps({"variant": name}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/v1/pin", body, head)) as answer:
        answer.read()


def _status(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status") as answer:
        return json.load(answer)
