"""Figures of the last seconds, of one worker and of several; settings as people write them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunit.edge.serve.settings import Settings, cpus_of_text, read_token
from prunit.edge.serve.status import Board, Window, merged, percentile_ms, resident_bytes
from prunit.errors import ConfigError, FileError
from prunit.units import bytes_of_text


def test_percentiles_are_right_to_four_per_cent() -> None:
    window, rng = Window(), np.random.default_rng(0)
    latencies = rng.lognormal(1.0, 1.0, 5000)
    for ms in latencies.tolist():
        window.add(ms, ms < 5)
    counts, in_time, seconds = window.read()
    assert sum(counts) == 5000
    assert in_time == int((latencies < 5).sum())
    assert seconds >= 0.5
    for share in (0.5, 0.99):
        assert percentile_ms(counts, share) == pytest.approx(float(np.quantile(latencies, share)), rel=0.045)
    assert percentile_ms([0, 0], 0.5) is None


def test_what_is_past_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("prunit.edge.serve.status.time.monotonic", lambda: now[0])
    window = Window()
    window.add(1.0, True)
    now[0] = 105.0
    window.add(0.0, False)
    assert sum(window.read()[0]) == 2
    now[0] = 111.0
    counts, in_time, seconds = window.read()
    assert (sum(counts), in_time, seconds) == (1, 0, 9.0)
    now[0] = 130.0
    assert sum(window.read()[0]) == 0


def status(pid: int, *, bins: list[int], at: float) -> dict[str, Any]:
    return {
        "pid": pid,
        "at": at,
        "state": "ready",
        "active": "large",
        "counts": bins,
        "in_time": bins[0],
        "seconds": 2.0,
        "waiting": 1,
        "memory_bytes": 10,
        "switches": 1,
        "totals": {"answered": sum(bins)},
        "events": [{"at": at}],
    }


def test_workers_are_put_together() -> None:
    found = merged([status(1, bins=[3, 0], at=2.0), status(2, bins=[0, 1], at=1.0)])
    assert (found["rate"], found["waiting"], found["memory_bytes"], found["switches"]) == (2.0, 2, 20, 2)
    assert (found["in_time"], found["totals"]) == (0.75, {"answered": 4})
    assert [event["at"] for event in found["events"]] == [1.0, 2.0]
    assert [worker["pid"] for worker in found["workers"]] == [1, 2]
    assert found["p50_ms"] < found["p99_ms"]
    assert merged([{}]) == {}


def test_workers_read_what_the_others_lay_down(tmp_path: Path) -> None:
    mine = Board(tmp_path)
    mine.put(status(os.getpid(), bins=[1, 0], at=1.0))
    (tmp_path / "worker-1.json").write_text(json.dumps(status(1, bins=[0, 2], at=2.0)))
    (tmp_path / "worker-2.json").write_text("{cut")
    gone = tmp_path / "worker-3.json"
    gone.write_text(json.dumps(status(3, bins=[9, 9], at=3.0)))
    os.utime(gone, (1.0, 1.0))
    assert mine.read()["totals"] == {"answered": 3}
    mine.tell({"target_ms": 5.0, "pinned": None})
    assert Board(tmp_path).told() == {"target_ms": 5.0, "pinned": None}
    mine.remember()
    assert mine.history[-1]["active"] == "large"
    mine.close()
    assert not (tmp_path / f"worker-{os.getpid()}.json").exists()
    alone = Board(None)
    alone.put(status(1, bins=[1, 0], at=1.0))
    alone.tell({"pinned": "small"})
    assert (alone.read()["totals"], alone.told()) == ({"answered": 1}, {"pinned": "small"})


def test_memory_of_this_process_is_read() -> None:
    assert resident_bytes() > 10_000_000


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("200MB", 200_000_000),
        ("1.5 GB", 1_500_000_000),
        ("4096", 4096),
        ("2k", 2000),
        ("7B", 7),
        ("64KiB", 65_536),
        ("1.5Gi", 3 * 2**29),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of_text(text) == size


def test_settings_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "MB", "-5", "5 tons", "0"):
        with pytest.raises(ConfigError, match="is no size"):
            bytes_of_text(text)
    for text in ("", "a", "0-", "99999"):
        with pytest.raises(ConfigError, match="CPUs"):
            cpus_of_text(text)
    first = min(os.sched_getaffinity(0))
    assert cpus_of_text(f"{first}-{first},{first}") == (first,)
    for settings in ({"target_ms": 0.0}, {"queue": 0}, {"token": "short"}, {"token_for_all": True}):
        with pytest.raises(ConfigError):
            Settings(folder=tmp_path, **settings)  # pyright: ignore[reportArgumentType]
    monkeypatch.delenv("PRUNIT_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("PRUNIT_TOKEN", "from-the-environment")
    assert read_token(None) == "from-the-environment"
    (tmp_path / "token").write_text("from-the-file\n")
    assert read_token(tmp_path / "token") == "from-the-file"
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        read_token(tmp_path / "empty")
    with pytest.raises(FileError, match="cannot read"):
        read_token(tmp_path / "none")
