"""The benchmark of --jobs: what it builds, what it compares, and its table; no time is judged."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import _common, scaling, tables
from prunit.recipe.config import validated


def test_no_clock_decides_what_is_built() -> None:
    found = validated(scaling.config(2, ("params=1/2", "params=1/4")))
    assert found.effort.rule == "equal-epochs"
    assert found.prune.measure is False
    assert found.train.precision == "32-true"
    assert found.budgets == ("params=1/2", "params=1/4")


def test_another_build_is_put_beside_with_the_same_and_with_all_threads(tmp_path: Path) -> None:
    assert list(scaling.arms(2, 1, None)) == ["jobs 2", "alone", "default"]
    assert scaling.arms(2, 1, None, ray=True)["ray local"]["ray"] is True
    found = scaling.arms(2, 1, tmp_path)
    theirs = [arm for arm in found.values() if arm["source"] == tmp_path.resolve()]
    assert [(arm["jobs"], arm["threads"]) for arm in theirs] == [(1, 1), (1, 0)]


def run(seconds: float, weights: str) -> dict[str, Any]:
    return {"seconds": seconds, "weights": {"dense": weights}}


def test_the_table_has_ratios_and_says_where_weights_differ() -> None:
    found = {
        "jobs 2": [run(50.0, "a"), run(52.0, "a")],
        "alone": [run(90.0, "a"), run(91.0, "a")],
        "default": [run(70.0, "b"), run(75.0, "a")],
    }
    rows = [scaling.row_of(name, "jobs 2", found) for name in found]
    assert [row.get("same_weights") for row in rows] == [None, True, False]
    stored = _common.record("scaling", rows, config={"jobs": 2}, n=2, percentile="medians", threads=1)
    result = json.loads(json.dumps(stored))
    empty = "# Words\n<!-- bench:scaling -->\nold\n<!-- /bench:scaling -->\n"
    page = tables.render(empty, {"scaling": result}, tables.ON_SCALING)
    assert tables.render(page, {"scaling": result}, tables.ON_SCALING) == page
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert lines[0] == "| one build | seconds | times sooner with --jobs 2 | the same weights |"
    assert lines[2:] == [
        "| jobs 2 | 51 (50 to 52) |  |  |",
        "| alone | 90 (90 to 91) | **1.77** (1.75 to 1.80) | yes |",
        "| default | 72 (70 to 75) | **1.42** (1.40 to 1.44) | no |",
    ]


def test_a_build_that_fails_stops_the_benchmark(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = {"source": scaling.SOURCE, "jobs": 1, "threads": 1, "data": str(tmp_path), "images": 10, "tests": 0}
    with pytest.raises(SystemExit, match="a build ended with exit code 1: see above"):
        scaling.built({**asked, "config": {}}, tmp_path / "out")
    assert "cifar10" in capfd.readouterr().err
