"""What a server is doing, as plain data: of one worker, and of several put together."""

import json
import math
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from prunit.edge.session import engine

SECONDS: Final = 10
"""Rates and percentiles are those of so many last seconds."""
_LEAST_MS, _STEP, _BINS = 0.02, 1.04, 400
_LOG_STEP = math.log(_STEP)
_STALE_S: Final = 5.0
_HISTORY: Final = 300

Status = dict[str, Any]


class Window:
    """Latencies of the last seconds in bins 4 % apart: of a fixed size, however many requests come."""

    def __init__(self) -> None:
        # Lists: to count one request in an array takes several times as long.
        self._counts = [[0] * _BINS for _ in range(SECONDS)]
        self._in_time = [0] * SECONDS
        self._second = [-1] * SECONDS
        self._began = time.monotonic()

    def add(self, latency_ms: float, in_time: bool) -> None:
        """An answer came so long after its request."""
        row = self._row()
        bin_ = int(math.log(max(latency_ms, _LEAST_MS) / _LEAST_MS) / _LOG_STEP)
        self._counts[row][min(bin_, _BINS - 1)] += 1
        self._in_time[row] += in_time

    def read(self) -> tuple[list[int], int, float]:
        """Counts by bin, how many of them were in time, and over how many seconds."""
        self._row()
        oldest = int(time.monotonic()) - SECONDS
        recent = [row for row, second in enumerate(self._second) if second > oldest]
        seconds = min(float(SECONDS - 1) + time.monotonic() % 1, time.monotonic() - self._began)
        counts = np.sum([self._counts[row] for row in recent], axis=0).tolist()
        return counts, sum(self._in_time[row] for row in recent), max(seconds, 0.5)

    def _row(self) -> int:
        second = int(time.monotonic())
        row = second % SECONDS
        if self._second[row] != second:
            self._second[row], self._counts[row], self._in_time[row] = second, [0] * _BINS, 0
        return row


def percentile_ms(counts: Sequence[int], share: float) -> float | None:
    """The latency below which that share of the counted ones lies, to 4 %; None if there is none."""
    total = sum(counts)
    if not total:
        return None
    bin_ = int(np.searchsorted(np.cumsum(counts), share * total))
    return round(_LEAST_MS * _STEP ** (bin_ + 0.5), 3)


class Board:
    """Where workers lay down what they are doing, and read what the others do; a folder if there are several."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._file = folder, folder / f"worker-{os.getpid()}.json" if folder else None
        self._mine: Status = {}
        self._control = folder / "control.json" if folder else None
        self._told: Mapping[str, Any] = {}
        self.history: deque[Status] = deque(maxlen=_HISTORY)

    def put(self, status: Status) -> None:
        """What this worker does now; a full disk keeps the others from knowing, nothing else."""
        self._mine = status
        if self._file:
            with suppress(Exception):
                _replace(self._file, json.dumps(status))

    def tell(self, told: Mapping[str, Any]) -> None:
        """Settings that all workers are to take: `target_ms` and `pinned`."""
        self._told = told
        if self._control:
            _replace(self._control, json.dumps(told))

    def told(self) -> Mapping[str, Any]:
        """The settings that any worker was told last."""
        if self._control:
            with suppress(OSError, ValueError):
                self._told = json.loads(self._control.read_text(encoding="utf-8"))
        return self._told

    def read(self) -> Status:
        """All workers put together."""
        return merged([self._mine, *self._others()])

    def remember(self) -> None:
        """Keep a point of this second for the timeline."""
        now = self.read()
        keys = ("at", "active", "rate", "p50_ms", "p99_ms", "waiting", "target_ms")
        self.history.append({key: now.get(key) for key in keys})

    def close(self) -> None:
        """This worker is gone."""
        if self._file:
            with suppress(OSError):
                self._file.unlink()

    def _others(self) -> list[Status]:
        found: list[Status] = []
        for file in self._folder.glob("worker-*.json") if self._folder else ():
            with suppress(OSError, ValueError):
                if file != self._file and time.time() - file.stat().st_mtime < _STALE_S:
                    found.append(json.loads(file.read_text(encoding="utf-8")))
        return found


def merged(parts: Sequence[Status]) -> Status:
    """One status of several: what is counted is added, else the first worker's holds; events of all in their order."""
    first = parts[0] if parts else {}
    if not first:
        return {}
    counts = np.sum([part["counts"] for part in parts if part], axis=0).tolist()
    answered = sum(counts)
    in_time = sum(part["in_time"] for part in parts)
    seconds = max(part["seconds"] for part in parts)
    rest = {key: value for key, value in first.items() if key not in ("counts", "in_time", "seconds", "pid")}
    events = sorted((event for part in parts for event in part["events"]), key=lambda event: event["at"])
    return {
        **rest,
        "at": time.time(),
        "rate": round(answered / seconds, 2),
        "p50_ms": percentile_ms(counts, 0.5),
        "p99_ms": percentile_ms(counts, 0.99),
        "in_time": round(in_time / answered, 4) if answered else None,
        "waiting": sum(part["waiting"] for part in parts),
        "memory_bytes": sum(part["memory_bytes"] for part in parts),
        "switches": sum(part["switches"] for part in parts),
        "totals": {key: sum(part["totals"][key] for part in parts) for key in first["totals"]},
        "events": events[-50:],
        "workers": [{key: part[key] for key in ("pid", "active", "waiting", "state")} for part in parts],
    }


def _replace(file: Path, text: str) -> None:
    """Whole or not at all for readers; it need not outlive the machine, so it is not forced to the disk."""
    staged = file.with_name(f".{file.name}.{os.getpid()}")
    staged.write_text(text, encoding="utf-8")
    staged.replace(file)


def resident_bytes() -> int:
    """Memory that this process holds."""
    return int(engine("psutil", extra="edge").Process().memory_info().rss)
