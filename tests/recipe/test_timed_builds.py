"""Builds, sweeps and plans for a budget of time: what is timed once, what is written down, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import prunit
from prunit.cut.plans import Plan
from prunit.errors import BudgetError, MissingExtraError
from prunit.recipe import Step, deciding
from tests.recipe.building import CONFIG, data, model
from tests.recipe.nets import Plain, seeded
from tests.recipe.watches import Watches, by_macs, in_blocks

TIMED = {**CONFIG, "budgets": ["faster=2x"], "train": {"epochs": 1, "batch_size": 25, "device": "cpu"}}


@pytest.fixture
def watches(monkeypatch: pytest.MonkeyPatch) -> Watches:
    """In place of the engine's stopwatch."""
    fake = Watches(by_macs, noise=0.01)
    monkeypatch.setattr(deciding, "Stopwatch", fake)
    return fake


def plan_in(folder: Path, name: str = "faster-2x") -> Plan:
    return Plan.from_json((folder / f"{name}.plan.json").read_text())


def test_a_build_says_what_it_timed_and_times_it_once(watches: Watches, tmp_path: Path) -> None:
    steps: list[Step] = []
    out = tmp_path / "out"
    built = prunit.build(model, data(), out, config=TIMED, on_step=steps.append)
    dense, variant = built.variants
    assert (dense.name, variant.name, variant.budget) == ("dense", "faster-2x", {"faster": "2x"})
    (watch,) = watches.made
    plan = plan_in(out)
    assert 0.8 / 2 < watch.ms(plan) / watch.scale_ms <= 1.02 / 2
    assert plan.origin["budget"] == "faster=2x"
    assert variant.settings["timed"] == plan.origin["measured"]
    assert "2." in plan.origin["measured"][:2]
    tried = json.loads((out / ".build" / "faster-2x" / "candidates.json").read_text())["candidates"]
    assert [c["plan"] for c in tried if c["chosen"]] == [plan.hash]
    assert all(len(c["timings"]) == 1 and c["timings"][0]["batch"] == 1 for c in tried)
    assert [s.done for s in steps if s.stage == "measure"][-1] == len(watch.timed)
    # A build that goes on takes the plan that is there.
    (out / ".build" / "faster-2x" / "history.json").unlink()
    prunit.build(model, data(), out, config=TIMED, resume=True)
    assert (plan_in(out), len(watches.made)) == (plan, 1)


def test_what_is_asked_beside_it_holds(watches: Watches, tmp_path: Path) -> None:
    config = {**TIMED, "budgets": ["faster=1.5x,params=1/3", "params=1/2"]}
    built = prunit.build(model, data(), tmp_path / "out", config=config)
    assert [v.name for v in built.variants] == ["dense", "faster-1.5x-params-1-3", "params-1-2"]
    dense, both, _ = built.variants
    assert both.metrics.params <= dense.metrics.params // 3
    assert watches.made[0].ms(plan_in(tmp_path / "out", both.name)) <= watches.made[0].scale_ms / 1.5


def test_a_build_chooses_the_fastest_rounding_unless_it_is_told_not_to(watches: Watches, tmp_path: Path) -> None:
    watches.takes = lambda graph, widths: by_macs(graph, widths) * (1.0 if any(w % 8 for w in widths.values()) else 0.9)
    config = {**TIMED, "budgets": ["macs=0.7"], "subset": 50, "prune": {"rounds": 3}, "probe": {"seconds": 0.01}}
    prunit.build(Plain, "digits", tmp_path / "a", config=config)
    file = tmp_path / "a" / ".build" / "macs-0.7" / "candidates.json"
    tried = json.loads(file.read_text())["candidates"]
    plan = plan_in(tmp_path / "a", "macs-0.7")
    assert [c["plan"] for c in tried if c["chosen"]] == [plan.hash]
    assert tried[0]["name"] == "round_to=auto"
    timed = [c for c in tried if c["timings"]]
    assert len(timed) > 1
    assert [[t["batch"] for t in c["timings"]] for c in timed] == [[1, 32]] * len(timed)
    assert "; chosen of round_to=auto" in plan.origin["measured"]
    own = {**config, "by_variant": {"macs-0.7": {"measure": False}}}
    prunit.build(Plain, "digits", tmp_path / "b", config=own)
    assert "measured" not in plan_in(tmp_path / "b", "macs-0.7").origin
    assert not (tmp_path / "b" / ".build" / "macs-0.7" / "candidates.json").exists()
    assert len(watches.made) == 1


@pytest.mark.parametrize("budget", ["faster=1000x", "latency=1us", "params=10,faster=2x"])
def test_a_refusal_leaves_nothing_behind(watches: Watches, tmp_path: Path, budget: str) -> None:
    with pytest.raises(BudgetError, match="the closest reachable"):
        prunit.build(model, data(), tmp_path / "out", config={**TIMED, "budgets": [budget]})
    assert not (tmp_path / "out").exists()


def test_without_an_engine_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_engine(*args: Any, **settings: Any) -> Any:
        raise MissingExtraError("the runtime 'onnxruntime'", "onnxruntime", "export")

    monkeypatch.setattr(deciding, "Stopwatch", no_engine)
    with pytest.raises(MissingExtraError, match="onnxruntime"):
        prunit.build(model, data(), tmp_path / "out", config=TIMED)
    assert not (tmp_path / "out").exists()


def test_a_sweep_lets_recipes_compete_for_a_budget_of_time(watches: Watches, tmp_path: Path) -> None:
    config = {**TIMED, "budgets": ["faster=1.5x"]}
    found = prunit.sweep(model, data(), tmp_path / "out", recipes=["uniform", "global"], config=config)
    assert {trial.recipe for trial in found.trials} == {"uniform", "global"}
    assert all(trial.accuracies for trial in found.trials)
    # Each recipe once, and the one that won again when it is built.
    assert len(watches.made) == 3
    for watch in watches.made:
        assert any(watch.takes(watch.graph, widths) <= 1 / 1.5 for widths in watch.timed)


def test_a_plan_in_code_is_timed_where_the_budget_asks_for_it(watches: Watches) -> None:
    net, image = seeded(Plain), torch.zeros(1, 1, 8, 8)
    plan = prunit.plan(net, image, budget="faster=2x", config={"rounds": 3})
    (watch,) = watches.made
    assert 0.85 / 2 < watch.ms(plan) / watch.scale_ms <= 1.02 / 2
    prunit.plan(net, image, budget={"macs": 1 / 2}, config={"rounds": 3})
    assert len(watches.made) == 1


def test_the_engine_itself_meets_what_costs_nothing_and_refuses_what_cannot_be() -> None:
    net, image = seeded(Plain), torch.zeros(1, 1, 8, 8)
    plan = prunit.plan(net, image, budget="latency=1s", config={"rounds": 3})
    assert plan.widths == dict(plan.dense)
    assert "onnxruntime, 1 thread" in plan.origin["measured"]
    with pytest.raises(BudgetError, match=r"asks for at most 1e-06 ms of .* timed here at batch 1, is .*x faster"):
        prunit.plan(net, image, budget="latency=0.001us", config={"rounds": 3})


def test_times_in_blocks_are_met_too(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Watches(in_blocks(8))
    monkeypatch.setattr(deciding, "Stopwatch", fake)
    net, image = seeded(Plain), torch.zeros(1, 1, 8, 8)
    plan = prunit.plan(net, image, budget="faster=1.5x", recipe="uniform")
    assert fake.made[0].ms(plan) <= fake.made[0].scale_ms / 1.5
