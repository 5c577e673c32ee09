"""The benchmark of --jobs: what it builds, what it compares, and its table; no time is judged."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import _common, scaling, scaling_trials, tables
from prunit.recipe.config import validated


def test_no_clock_decides_what_is_built() -> None:
    found = validated(scaling.config(2, ("params=1/2", "params=1/4")))
    assert found.effort.rule == "equal-epochs"
    assert found.prune.measure is False
    assert found.train.precision == "32-true"
    assert found.budgets == ("params=1/2", "params=1/4")


def test_another_build_is_put_beside_with_the_same_and_with_all_threads(tmp_path: Path) -> None:
    assert list(scaling.arms("jobs", 2, 1)) == ["jobs 2", "alone", "default"]
    found = scaling.arms("jobs", 2, 1, tmp_path)
    theirs = [arm for arm in found.values() if arm["source"] == tmp_path.resolve()]
    assert [(arm["jobs"], arm["threads"]) for arm in theirs] == [(1, 1), (1, 0)]


def test_ray_is_put_beside_the_processes_of_jobs_with_as_many_threads() -> None:
    found = scaling.arms("ray", 2, 1)
    assert list(found) == ["jobs 2", "ray local"]
    assert (found["ray local"]["ray"], found["ray local"]["threads"]) == (True, 1)


def run(seconds: float, weights: str) -> dict[str, Any]:
    return {"seconds": seconds, "until_training": seconds / 10, "weights": {"dense": weights}}


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
    assert (
        lines[0] == "| one build | seconds | of them until training | times sooner with --jobs 2 | the same weights |"
    )
    assert lines[2:] == [
        "| jobs 2 | 51 (50 to 52) | 5 (5 to 5) |  |  |",
        "| alone | 90 (90 to 91) | 9 (9 to 9) | **1.77** (1.75 to 1.80) | yes |",
        "| default | 72 (70 to 75) | 7 (7 to 8) | **1.42** (1.40 to 1.44) | no |",
    ]
    older = {**result, "rows": [{n: v for n, v in row.items() if n != "until_training"} for row in result["rows"]]}
    assert "| jobs 2 | 51 (50 to 52) |  |  |" in scaling.told(older)
    assert "times as long as --jobs 2" in scaling.told({**result, "benchmark": scaling.RAY_NAME})


def test_parts_are_kept_beside_each_other(tmp_path: Path) -> None:
    file = tmp_path / "scaling.json"
    for part, name in (("trials", "b"), ("jobs", "a"), ("ray", "c"), ("jobs", "d")):
        file.write_text(json.dumps(scaling.kept(part, {"benchmark": name}, file)))
    found = json.loads(file.read_text())
    assert found == {"benchmark": "d", "trials": {"benchmark": "b"}, "ray": {"benchmark": "c"}}
    assert tables.part_of(found, "scaling.ray") == {"benchmark": "c"}


def test_what_trials_cost_is_told_from_when_each_was_done() -> None:
    found = scaling_trials.told_of(3, 2.0, [(10.0, 0.5), (11.0, 0.6), (14.0, 0.7)])
    assert found["first_s"] == 10
    assert found["trial_s"] == 2
    assert found["driver_share"] == pytest.approx(0.05)
    assert found["driver_trial_ms"] == pytest.approx(100)
    names = scaling_trials.config(200)["budgets"]
    assert len(set(names)) == len(set(map(str, validated(scaling_trials.config(200)).budgets))) == 200


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_short_trials_on_a_simulated_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'prunit[ray]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    result = json.loads(json.dumps(scaling_trials.measured((2, 3), 1, 1, 100)))
    assert [row["trials"] for row in result["rows"]] == [2, 3]
    assert all(0 < row["driver_share"]["median"] < 1 for row in result["rows"])
    lines = scaling_trials.told(result).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| 2", "| 3"]
    assert lines[-1].startswith("With 3 trials each takes ")


def test_a_build_that_fails_stops_the_benchmark(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = {"source": scaling.SOURCE, "jobs": 1, "threads": 1, "data": str(tmp_path), "images": 10, "tests": 0}
    with pytest.raises(SystemExit, match="a build ended with exit code 1: see above"):
        scaling.built({**asked, "config": {}}, tmp_path / "out")
    assert "cifar10" in capfd.readouterr().err
