"""The acceptance benchmark of a build's default: its cells, what must hold, the table; no time is judged."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import _common, default_speed, default_summary, tables
from bench._nets import Net
from bench.default_speed import Dense
from prunit.allocate import Budget
from prunit.edge.measuring.probe import ProbeSettings
from prunit.recipe import deciding
from prunit.recipe.choosing import Candidate
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import Decision, Scored
from prunit.recipe.stopwatch import Timing


def toy() -> tuple[nn.Module, Tensor]:
    """A convolution, a depthwise and a pointwise one, a classifier, with the same weights each time; and an image."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = _toy()
    return net.eval(), torch.zeros(1, 3, 8, 8)


def _toy() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(32, 4)),
    )


class Toy(Net):
    def make(self) -> tuple[nn.Module, Tensor]:
        return toy()


TOY = Toy("toy", "toy", 8)
ASKED = {"arms": ["1", "4"], "seconds": 1e-6, "clock": "wall"}


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two turns of each, at batch sizes 1 and 2."""
    monkeypatch.setattr(default_speed, "LEAST", 2)
    monkeypatch.setattr(default_speed, "BATCHES", (1, 2))
    monkeypatch.setattr(default_summary, "BATCHES", ("1", "2"))


def arm(one: float, many: float, *, first: float = 1.0, params: int = 50) -> dict[str, Any]:
    """An arm of a cell that is so many times faster at batch 1 and 32, and at both than the first arm."""
    latency = {"n": 9, "p50_ms": 1.0, "p90_ms": 1.5, "than_first": first}
    both = {batch: {**latency, "times_faster": times} for batch, times in (("1", one), ("32", many))}
    return {"plan": "", "params": params, "macs": 1, "decide_s": 0.0, "latency": both}


def cell(title: str, budget: str, *, depthwise: bool = False, **arms: dict[str, Any]) -> dict[str, Any]:
    dense = {b: {"n": n, "p50_ms": ms, "p90_ms": 2 * ms} for b, n, ms in (("1", 99, 2.0), ("32", 9, 60.0))}
    return {
        "net": title,
        "title": title,
        "budget": budget,
        "depthwise": depthwise,
        "dense": {"params": 100, "macs": 10, "latency": dense},
        "arms": arms,
        "scoring_s": 1.0,
        "writing_s": 2.0,
    }


ROWS = [
    cell("a", "macs=1/4", any=arm(2, 2), auto=arm(2.5, 4.0)),
    cell("b", "macs=1/4", any=arm(0.9, 2), auto=arm(2.7, 2.8)),
    cell("c", "macs=1/4", depthwise=True, any=arm(1.1, 0.7), auto=arm(2.4, 2.9, first=2.2)),
    cell("c", "macs=1/2", depthwise=True, any=arm(1.1, 1.7), auto=arm(9, 9, first=1.6)),
    cell("d", "params=1/8", any={"refused": "cannot be met"}, auto={"refused": "cannot be met"}),
]


def test_what_must_hold_is_told_for_each_arm() -> None:
    told = default_summary.criteria(ROWS).splitlines()
    first = told[: told.index("arm auto: 4 variants, 0 of 8 times slower than dense (must be 0)")]
    assert first[0] == "arm any: 4 variants, 2 of 8 times slower than dense (must be 0)"
    assert first[1:3] == ["    slower: b, macs=1/4, batch 1: 0.90×", "    slower: c, macs=1/4, batch 32: 0.70×"]
    assert "    refused: d, params=1/8" in first
    auto = told[len(first) :]
    # Medians of 2.5, 2.7, 2.4 and of 4.0, 2.8, 2.9; over all budgets of depthwise networks of 2.2 and 1.6.
    assert "    median at macs=1/4, batch 1: 2.50× (must be 2.5×): met" in auto
    assert "    median at macs=1/4, batch 32: 2.90× (must be 3.0×): NOT met" in auto
    assert "    depthwise networks, of the first arm's speed, batch 1: 1.90× (must be 1.8×): met" in auto


def test_a_cell_in_a_line() -> None:
    told = default_summary.line(ROWS[1])
    assert told.startswith("b, macs=1/4: dense 2.00 / 60.00 ms; any: 0.90 / 2.00× (50.0% params), auto: 2.70 / 2.80×")
    refused = default_summary.line({**ROWS[4], "dense": {"params": 1, "macs": 1, "latency": {}}})
    assert refused.startswith("d, params=1/8: any: refused, auto: refused [")


def test_the_table_has_a_row_for_each_cell_and_marks_what_is_slower() -> None:
    config = {"arms": ["any", "auto"]}
    result = _common.record("default_speed", ROWS, config=config, n=9, percentile="p50 and p90", threads=1)
    text = tables.TABLES["default_speed"](json.loads(json.dumps(result)))
    shown = (
        "| b | macs=1/4 | 2.00 (4.00) | 60.00 (120.00) | **0.90×** / 2.00× | 2.70× / 2.80× | 50.0% | 50.0% | 99 / 9 |"
    )
    assert shown in text
    assert "| d | params=1/8 | 2.00 (4.00) | 60.00 (120.00) | refused | refused |  |  | 99 / 9 |" in text
    assert "arm any: 4 variants, 2 of 8 times slower than dense" in text


def test_in_short_each_budget_has_its_median_network() -> None:
    rows = [
        cell("a", "macs=1/4", **{"1": arm(1.5, 1.0), "chosen": arm(3.0, 4.0)}),
        cell("b", "macs=1/4", **{"1": arm(0.5, 2.0), "chosen": arm(2.0, 3.0)}),
        cell("c", "macs=1/4", **{"1": arm(1.0, 3.0), "chosen": arm(5.0, 8.0)}),
        cell("c", "macs=1/2", **{"1": {"refused": "why"}, "chosen": arm(5.0, 8.0)}),
    ]
    text = default_summary.in_short({"config": {"arms": ["1", "chosen"]}, "rows": rows})
    told = "1.0× (0.5 to 1.5) | 2.0× (1.0 to 3.0) | 3.0× (2.0 to 5.0) | 4.0× (3.0 to 8.0) |"
    assert f"| macs=1/4 | 3 | {told}" in text
    assert "macs=1/2" not in text  # both must be there to be compared


def test_networks_and_budgets_are_those_that_were_promised() -> None:
    nets = default_speed.nets()
    assert len(nets) == 15
    assert [net.image_size for net in nets.values()] == [32] * 7 + [96] * 8
    assert {net.classes for net in nets.values()} == {10}
    assert default_speed.BUDGETS == ("macs=1/2", "macs=1/4", "params=1/8")


@pytest.mark.usefixtures("brief")
def test_a_cell_has_costs_and_latencies_of_each_arm(tmp_path: Path) -> None:
    dense = Dense(*toy(), tmp_path)
    found = default_speed.cell(dense, "macs=1/2", ["1", "4"], 1e-6)
    assert found["depthwise"]
    for one in found["arms"].values():
        assert one["macs"] <= found["dense"]["macs"] / 2
        assert {batch: one["latency"][batch]["n"] for batch in ("1", "2")} == {"1": 2, "2": 1}
        assert (tmp_path / f"{one['plan']}.onnx").exists()
    assert found["arms"]["1"]["latency"]["1"]["than_first"] == 1
    assert default_summary.line({"title": "toy", **found}).startswith("toy, macs=1/2: dense ")


@pytest.mark.usefixtures("brief")
def test_arms_that_come_to_one_plan_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    turns = default_speed.turns

    def counted(sessions: Any, shapes: Any, settings: ProbeSettings, **more: Any) -> Any:
        asked.append(len(sessions))
        return turns(sessions, shapes, settings, **more)

    monkeypatch.setattr(default_speed, "turns", counted)
    monkeypatch.setitem(default_speed.ARMS, "same", default_speed.ARMS["4"])
    found = default_speed.cell(Dense(*toy(), tmp_path), "macs=1/2", ["4", "same"], 1e-6)
    assert asked == [2]
    assert found["arms"]["4"]["latency"] == found["arms"]["same"]["latency"]


def test_a_budget_that_cannot_be_met_is_an_answer(tmp_path: Path) -> None:
    found = default_speed.cell(Dense(*toy(), tmp_path), "params=1/5000", ["1", "4"], 1e-6)
    assert {arm: list(one) for arm, one in found["arms"].items()} == {"1": ["refused"], "4": ["refused"]}
    assert "cannot be met" in found["arms"]["1"]["refused"]
    assert found["dense"]["latency"] == {}


def test_an_arm_alone_may_be_refused(tmp_path: Path) -> None:
    plans, _ = default_speed.decided(Dense(*toy(), tmp_path), "macs=1/8", ["1", "16"])
    assert not isinstance(plans["1"], str)
    assert isinstance(plans["16"], str)


@pytest.mark.usefixtures("brief")
def test_cells_are_kept_and_measured_again_only_for_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = list(default_speed.cells([("toy", TOY)], ["macs=1/2"], tmp_path, ASKED))
    made = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.onnx")}
    with monkeypatch.context() as patch:
        patch.setattr(default_speed, "cell", lambda *_, **__: pytest.fail("it is there already"))
        assert list(default_speed.cells([("toy", TOY)], ["macs=1/2"], tmp_path, ASKED)) == first
    ticks = itertools.count(0, 1_000_000)
    monkeypatch.setitem(default_speed.CLOCKS, "cpu", lambda: next(ticks))
    (again,) = default_speed.cells([("toy", TOY)], ["macs=1/2"], tmp_path, {**ASKED, "clock": "cpu"})
    # By a clock that goes on by one millisecond whenever it is read nothing is faster than anything else.
    assert again["arms"]["1"]["latency"]["1"] == {"n": 2, "p50_ms": 1, "p90_ms": 1, "times_faster": 1, "than_first": 1}
    assert len(made) == 3
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.onnx")} == made
    monkeypatch.setattr(default_speed, "commit", lambda: "another")
    monkeypatch.setattr(default_speed, "cell", lambda *_, **__: {"measured": "again"})
    (anew,) = default_speed.cells([("toy", TOY)], ["macs=1/2"], tmp_path, ASKED)
    assert anew["measured"] == "again"


def test_the_command_line_names_arms_that_are_there(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["default_speed", "--arms", "1 7"])
    with pytest.raises(SystemExit):
        default_speed.main()
    assert "no arm 7: there are 1, 4, 8, 16, auto, chosen" in capsys.readouterr().err


@pytest.mark.usefixtures("brief")
def test_chosen_is_the_fastest_of_what_competes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[list[str]] = []

    class Watch:
        """Of the plans that it times the last is twice as fast."""

        def __init__(self, *_: Any, batches: tuple[int, ...], **__: Any) -> None:
            self.batches = batches

        def __enter__(self) -> "Watch":
            return self

        def __exit__(self, *_: Any) -> None: ...

        def __call__(self, plans: dict[str, Any]) -> dict[str, tuple[Timing, ...]]:
            timed.append(list(plans))
            return {
                name: tuple(Timing(b, 1, 9, 1.0, 1.0, 1.0, 2.0 if name == timed[-1][-1] else 1.0) for b in self.batches)
                for name in plans
            }

    def competing(scored: Scored, default: Decision, budget: Budget, _: PruneConfig) -> list[Candidate]:
        other = scored.decide(budget, PruneConfig(round_to=4))
        out = scored.decide(budget, PruneConfig(round_to=2))
        return [Candidate("default", default), Candidate("4", other), Candidate("2", out, out="has 10% of the params")]

    monkeypatch.setattr(deciding, "Stopwatch", Watch)
    monkeypatch.setattr(deciding, "candidates_of", competing)
    plans, _ = default_speed.decided(Dense(*toy(), tmp_path), "macs=1/2", ["4", "chosen"])
    assert timed == [["default", "4"]]
    assert plans["chosen"].plan.hash == plans["4"].plan.hash  # pyright: ignore[reportAttributeAccessIssue]


def test_nothing_is_timed_where_nothing_competes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "Stopwatch", lambda *_, **__: pytest.fail("there is no choice"))
    monkeypatch.setattr(deciding, "candidates_of", lambda scored, default, *_: [Candidate("default", default)])
    plans, _ = default_speed.decided(Dense(*toy(), tmp_path), "macs=1/2", ["chosen"])
    assert not isinstance(plans["chosen"], str)
