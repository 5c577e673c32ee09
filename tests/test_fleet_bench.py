"""The benchmark of fleets on a toy network: what it plans and measures, and its tables; no time is judged."""

import json
from typing import Any

import pytest

from bench import _common, fleet, tables
from prunit.graph import trace
from prunit.prices.meters import layers_of
from prunit.recipe.config import PruneConfig
from tests.edge.profiles import products, profile
from tests.test_bench import toy


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model, example = toy()
    folder = tmp_path_factory.mktemp("profiles")
    profiles = {threads: folder / f"t{threads}.json" for threads in fleet.THREADS}
    shapes = layers_of(trace(model, example))
    for threads, file in profiles.items():  # with two threads everything takes two thirds of the time
        scaled = profile(shapes, lambda shape, i, o, n=threads: products(shape, i, o) / (1 + (n - 1) / 2))
        scaled.write(file)
    rows = fleet.rows_of("toy", model, example, profiles, 0.01, fleet.SHARES[0], PruneConfig(rounds=4))
    return json.loads(json.dumps(_common.record("fleet", rows, config={}, n=20, percentile="p50", threads=[1, 2])))


def test_devices_are_served_and_what_they_get_is_run(result: dict[str, Any]) -> None:
    rows = result["rows"]
    assert [row["slack"] for row in rows] == list(fleet.SLACKS)
    counts = [row["variants"] for row in rows]
    assert counts == sorted(counts, reverse=True)  # who gives up more needs no more variants
    (measured,) = (row["found"] for row in rows if "found" in row)
    for each in measured:
        assert each["measured_ms"] > 0
        assert each["n"] >= 20
        assert each["predicted_ms"] <= each["limit_ms"] * (1 + 1e-9)
        assert each["kept"] >= 0.9


def test_tables(result: dict[str, Any]) -> None:
    empty = "".join(f"<!-- bench:{name} -->\nold\n<!-- /bench:{name} -->\n" for name in ("fleet", "fleet.times"))
    page = tables.render(empty, {"fleet": result, "fleet.times": result})
    assert "old" not in page
    for row in result["rows"]:
        told = f"| toy | {row['slack']:.0%} | {row['served']} of 6 | {row['variants']} |"
        assert told in page
    assert "| toy | t1-75 |" in page
