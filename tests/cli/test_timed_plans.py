"""Budgets of time and the table of timed plans on the command line, in the engine itself: no figure is asserted."""

import json
from pathlib import Path

import pytest

from prunit.cut.plans import Plan
from tests.cli.running import prunit

ASKED = ("--input", "1x8x8", "--classes", 5, "--set", "prune.rounds=4")


def test_plan_shows_what_it_timed(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut.json"
    result = prunit("plan", f"{net}:network", *ASKED, "--budget", "params=1/2", "--measure", "--out", out)
    assert result.code == 0, result.err
    for text in ("timed here", "batch 1", "batch 32", "p50 ms", "x faster", "chosen", "round_to="):
        assert text in result.out
    assert ": timing plans" in result.err
    plan = Plan.from_json(out.read_text())
    assert "x faster than dense at batch 1 (" in plan.origin["measured"]
    assert "measured=" in prunit("inspect", out).out


def test_plan_as_json_has_the_candidates(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut.json"
    asked = ("plan", f"{net}:network", *ASKED, "--budget", "params=1/2", "--round-to", 4, "--out", out, "--json")
    result = prunit(*asked, "--measure", "--set", "probe.batch=2", "--set", "probe.threads=1")
    found = json.loads(result.out)
    # A number that was given leaves nothing to choose from; it is timed all the same.
    (only,) = found["candidates"]
    assert (only["name"], only["plan"], only["chosen"], only["out"]) == ("round_to=4", found["hash"], True, "")
    assert [(t["batch"], t["threads"]) for t in only["timings"]] == [(1, 1), (2, 1)]
    assert found["measured"] == only["timings"]
    assert all(t["p50_ms"] > 0 and t["dense_p50_ms"] > 0 and t["times_faster"] > 0 for t in only["timings"])
    assert json.loads(prunit(*asked).out)["candidates"] == []


def test_plan_for_a_latency_without_a_profile(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut.json"
    asked = ("plan", f"{net}:network", *ASKED, "--out", out)
    result = prunit(*asked, "--budget", "latency=10s,params=1/2")
    assert result.code == 0, result.err
    assert "params=1/2 is the limit that binds" in result.out
    assert "batch 1:" in result.out
    plan = Plan.from_json(out.read_text())
    assert plan.origin["budget"] == "latency=10s,params=1/2"
    found = json.loads(prunit(*asked, "--budget", "latency=10s", "--json").out)
    assert found["cost"]["compact"] == found["cost"]["dense"]


@pytest.mark.parametrize("command", ["plan", "build"])
@pytest.mark.parametrize("budget", ["faster=1000000x", "latency=0.001us"])
def test_what_no_width_reaches_is_one_line_and_writes_nothing(
    net: Path, tmp_path: Path, command: str, budget: str
) -> None:
    out = tmp_path / ("cut.json" if command == "plan" else "out")
    options = ("--data", "digits", "--subset", 50, "--epochs", 1) if command == "build" else ("--input", "1x8x8")
    quick = ("--device", "cpu", "--set", "prune.rounds=2", "--out", out)
    result = prunit(command, f"{net}:network", *options, *quick, "--budget", budget)
    assert (result.code, result.out) == (2, "")
    assert f"budget cannot be met: {budget} asks for at most" in result.complaint
    assert "the closest reachable, timed here at batch 1, is" in result.complaint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("faster=1x", "faster=1x: write how many times faster than the dense model, more than 1"),
        ("faster=1/2", "a share of the time is latency=1/2"),
        ("faster=2x@no.json", "there is no device profile 'no.json'"),
        ("speedup=2", "write faster=2x"),
        ("latency=3", "say in what unit, us, ms, s"),
    ],
)
def test_a_budget_that_was_written_wrongly_is_refused_at_once(
    net: Path, tmp_path: Path, budget: str, said: str
) -> None:
    result = prunit("build", f"{net}:network", "--data", "digits", "--out", tmp_path / "out", "--budget", budget)
    assert (result.code, result.out) == (2, "")
    assert said in result.complaint
    assert list(tmp_path.iterdir()) == []
