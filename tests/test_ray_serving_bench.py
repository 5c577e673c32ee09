"""The benchmark of serving on Ray: what is compared, its table, and that it runs where Ray Serve is."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bench import _common, ray_serving, tables
from bench.ray_serving import BARE, OURS, PLAIN
from bench.serving_load import Asking


def turns(per_s: float, p99: float) -> list[dict[str, Any]]:
    return [{"per_s": x * per_s, "ms": {"p50": 1.0, "p99": x * p99}, "failed": 0} for x in (0.9, 1.0, 1.2)]


def test_the_table_says_how_many_times_worse_than_bare_in_pairs() -> None:
    row = ray_serving.row_of({PLAIN: turns(1000, 4), OURS: turns(80, 24), BARE: turns(100, 20)})
    assert row["times_fewer"]["of_medians"] == pytest.approx(1.25)
    assert row["times_longer"]["paired"]["max"] == pytest.approx(1.2)
    rows = [{"encoding": "binary", "connections": 16, "n": 3, **row}]
    result = json.loads(json.dumps(_common.record("ray_serving", rows, config={}, n=3, percentile="p99", threads=1)))
    empty = "# Words\n<!-- bench:ray_serving -->\nold\n<!-- /bench:ray_serving -->\n"
    page = tables.render(empty, {"ray_serving": result}, tables.ON_SCALING)
    assert tables.render(page, {"ray_serving": result}, tables.ON_SCALING) == page
    assert (
        "| binary, 16 | 1,000 | 100 | 80 | **1.25** (1.25 to 1.25) | 4.0 | 20.0 | 24.0 | **1.20** (1.20 to 1.20) |"
        in page
    )


def test_the_page_has_a_place_for_it() -> None:
    page = tables.SCALING.read_text(encoding="utf-8")
    assert all(page.count(f"<!-- bench:{name} -->") == 1 for name in tables.ON_SCALING)


def test_clients_read_the_length_of_the_body_and_no_other() -> None:
    head = b"HTTP/1.1 200 OK\r\ninference-header-content-length: 2\r\ncontent-length: 6\r\n\r\n"

    class Line:
        def write(self, data: bytes) -> None:
            pass

        def close(self) -> None:
            pass

    async def read() -> tuple[int, int]:
        found: list[float] = []
        client = Asking(b"", 0.0, found)
        client.connection_made(Line())
        client.data_received(head)
        client.data_received(b"{}12")
        early = len(found)
        client.data_received(b"34")
        return early, len(found)

    assert asyncio.run(read()) == (0, 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_it_runs_where_ray_serve_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'prunit[ray-serve]'")
    from bench.serving import KEPT, portfolio_in

    portfolio_in(tmp_path)
    monkeypatch.setattr(ray_serving, "CONNECTIONS", (2,))
    rows = list(ray_serving.measure(tmp_path, KEPT[-1], seconds=0.3, rounds=1))
    assert [(row["encoding"], row["connections"]) for row in rows] == [("binary", 2), ("json", 2)]
    assert all(row["per_s"][name]["median"] > 0 for row in rows for name in (PLAIN, OURS, BARE))
