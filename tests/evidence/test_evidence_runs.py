"""The grid, a run that is killed and continued, cells that are out of date, and cells of several machines."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.evidence import __main__ as command
from bench.evidence import amounts, cells, filling, protocols, running
from bench.evidence.arms import ARMS
from bench.evidence.case import network
from bench.evidence.protocols import PROTOCOLS, Grid, Protocol, chosen, protocol
from bench.evidence.tasks import Task, file_of
from prunit.allocate import Budget
from prunit.batches import Dataset, Split
from prunit.errors import ConfigError, FileError, UnknownNameError
from prunit.graph import trace
from prunit.recipe.config import PruneConfig
from prunit.recipe.places.processes import Processes
from prunit.recipe.recipes import decide
from tests.evidence.setup import DATA, TASK, TRAIN, cell, places, stored, task

TINY = Protocol(
    "smoke",
    "a test",
    DATA,
    ((TRAIN, Grid(("tiny",), ("params=1/4",), ("uniform", "l1-trained", "mask-snip"), seeds=(0, 1))),),
    TASK.search,
    probe_s=0.001,
)


# ── the grid ──


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_declares_cells_of_its_own(name: str) -> None:
    tasks = protocol(name).tasks()
    assert len({t.key for t in tasks}) == len({t.digest for t in tasks}) == len(tasks)
    assert {t.protocol for t in tasks} == {name}
    settings = {t.setting for t in tasks}
    for setting in settings:  # a dense model for each seed that anything else has
        seeds = {t.seed for t in tasks if t.setting == setting}
        assert seeds == {t.seed for t in tasks if t.setting == setting and t.arm == "dense"}
    if name != "smoke":
        assert all(len({t.seed for t in tasks if t.setting == setting}) >= 3 for setting in settings)


@pytest.mark.parametrize("name", ["smoke", "cpu", "gpu"])
def test_every_arm_is_in_the_grid(name: str) -> None:
    counted = {arm for arm, about in ARMS.items() if about.budgets != ("latency",)}
    assert {t.arm for t in protocol(name).tasks()} == counted


@pytest.mark.parametrize("task", {t.model: t for t in protocol("latency").tasks() if t.arm == "complexity-la"}.values())
def test_the_shipped_profile_covers_the_networks_whose_latency_is_limited(task: Task) -> None:
    images = Split(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(1, dtype=torch.long))
    model = network(task.model, Dataset("", images, images, tuple("0123456789"), (0.5,) * 3, (0.2,) * 3), seed=0)
    graph = trace(model, torch.zeros(1, 3, 16, 16))
    config = PruneConfig(recipe="complexity", mode="la")
    decision = decide(model, graph, [], Budget.parse(task.budget), config)
    assert 0.9 < decision.used[task.budget] <= 1  # this engine likes multiples of 8 and 16: they are far apart


def test_equal_params_and_equal_macs() -> None:
    for name in ("cpu", "gpu", "tiny"):
        arms = {key: {t.arm for t in protocol(name).tasks() if t.budget.startswith(key)} for key in ("params", "macs")}
        assert arms["params"] == arms["macs"]


def test_what_needs_a_trained_model_comes_last() -> None:
    tasks = TINY.tasks()
    assert [t.arm for t in tasks if t.seed == 0] == ["dense", "mask-snip", "uniform", "l1-trained"]


def test_a_task_is_known_by_what_decides_its_result() -> None:
    assert TASK.key == "smoke/tiny-digits-onecycle2/params-1-4/uniform.s0"
    others = [
        replace(TASK, seed=1),
        replace(TASK, budget="params=1/8"),
        replace(TASK, train=TRAIN.model_copy(update={"epochs": 3})),
        replace(TASK, data=replace(DATA, train=65)),
        replace(TASK, search=replace(TASK.search, proxies=4)),
    ]
    assert len({t.digest for t in (TASK, *others)}) == 6
    elsewhere = replace(TASK, train=TRAIN.model_copy(update={"device": "cuda"}), probe_s=9.0)
    assert elsewhere.digest == TASK.digest
    assert TASK.training.seed == 0
    assert (TASK.training.precision, TASK.training.lr) == ("32-true", 0.2)  # also where defaults say otherwise
    assert replace(TASK, seed=1).training.seed == 1


def test_cells_are_chosen_by_arm_or_by_name() -> None:
    tasks = TINY.tasks()
    assert {t.arm for t in chosen(tasks, "l1-trained, mask-*")} == {"l1-trained", "mask-snip"}
    assert chosen(tasks, "tiny-*/params-1-4/uniform.s1.json") == [t for t in tasks if t.arm == "uniform" and t.seed]
    with pytest.raises(ConfigError, match="--only nothing fits none of 8 cells; the arms are dense, mask-snip"):
        chosen(tasks, "nothing")
    with pytest.raises(UnknownNameError, match="unknown protocol 'gpus'"):
        protocol("gpus")
    with pytest.raises(UnknownNameError, match="unknown arm 'uniforms'"):
        protocols.matching(("uniforms",))


# ── a run ──


def same(a: Any, b: Any) -> bool:
    """Equal but for what a clock says."""
    keys = ("digest", "plan", "widths", "params", "macs", "accuracy", "file_bytes")
    losses = [[epoch["loss"] for epoch in one["epochs"]] for one in (a, b)]
    return all(a[key] == b[key] for key in keys) and losses[0] == losses[1]


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = filling.fill(task("uniform"), places(tmp_path / "whole"))
    real = filling.train

    def killed(*arguments: Any, **options: Any) -> Any:
        epochs = real(*arguments, **options)
        yield next(epochs)
        raise KeyboardInterrupt

    monkeypatch.setattr(filling, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        running.run([task("uniform")], tmp_path / "cells", places(tmp_path))
    assert not list((tmp_path / "cells").rglob("*"))  # nothing that looks like a result
    monkeypatch.setattr(filling, "train", real)
    asked: list[int] = []
    monkeypatch.setattr(filling, "train", lambda *a, **k: real(*a, **k, on_step=lambda done, total: asked.append(done)))
    assert running.run([task("uniform")], tmp_path / "cells", places(tmp_path)) == (1, [])
    assert asked == [2, 3, 4]  # two steps an epoch: the first epoch came from the checkpoint
    found = cells.read(file_of(task("uniform"), tmp_path / "cells"))
    assert same(whole, found)
    assert not list((tmp_path / "scratch").rglob("*.safetensors"))


def test_the_dense_model_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = filling.fill(task("dense", ""), places(tmp_path))
    trained: list[str] = []
    real = filling.train

    def counted(*arguments: Any, checkpoint: Path, **options: Any) -> Any:
        trained.append("found" if checkpoint.exists() else "anew")
        return real(*arguments, checkpoint=checkpoint, **options)

    monkeypatch.setattr(filling, "train", counted)
    found = filling.fill(task("l1-trained"), places(tmp_path))
    assert trained == ["found", "anew"]
    assert found["seconds"]["train_dense"] == pytest.approx(dense["seconds"]["train"], abs=1e-3)


def test_what_an_arm_cannot_do_is_a_result_and_a_fault_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    impossible = task("mask-random", "params=1/200")

    def broken(case: Any) -> Any:
        raise ValueError("no such thing")

    monkeypatch.setattr(filling, "ARMS", {**ARMS, "uniform": replace(ARMS["uniform"], prune=broken)})
    made, failed = running.run([impossible, task("uniform")], tmp_path, places(tmp_path))
    assert made == 1
    assert failed == [f"{task('uniform').key}: ValueError: no such thing"]
    said = cells.read(file_of(impossible, tmp_path))
    assert said is not None
    assert "biases and norms" in said["error"]
    assert not file_of(task("uniform"), tmp_path).exists()
    assert "[2/2," in capsys.readouterr().out


def test_no_cell_is_begun_when_the_time_is_over(tmp_path: Path) -> None:
    assert running.run(TINY.tasks(), tmp_path, places(tmp_path), minutes=0) == (0, [])


@pytest.mark.slow
def test_several_processes_give_the_same_cells(tmp_path: Path) -> None:
    tasks = [task("l1-trained"), task("group-norm-trained")]  # both want the same dense model
    assert running.run(tasks, tmp_path / "two", places(tmp_path), executor=Processes(2)) == (2, [])
    assert running.run(tasks, tmp_path / "one", places(tmp_path)) == (2, [])
    for each in tasks:
        assert same(*(cells.read(file_of(each, tmp_path / name)) for name in ("one", "two")))


def test_the_whole_protocol_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A cell of each kind: dense, masked, cut, and cut after training.
    grids = ((TRAIN, replace(TINY.grids[0][1], seeds=(1,))),)
    for module in (protocols, command):
        monkeypatch.setattr(module, "PROTOCOLS", {"smoke": replace(TINY, grids=grids)})
    places_ = ["--work", str(tmp_path / "work"), "--page", str(tmp_path / "evidence.md")]
    assert command.main(["run", "smoke", *places_]) == 0
    assert "smoke: 4 cells made, 0 of 4 missing" in capsys.readouterr().out
    assert command.main(["run", "smoke", *places_]) == 0  # nothing is done again
    assert "smoke: 0 cells made, 0 of 4 missing" in capsys.readouterr().out
    assert command.main(["list", *places_]) == 0
    assert "4 of 4 cells, 0 out of date" in capsys.readouterr().out
    file = tmp_path / "work" / "cells" / "smoke" / "tiny-digits-onecycle2" / "params-1-4" / "uniform.s1.json"
    assert command.main(["again", str(file), *places_]) == 0
    was, now = capsys.readouterr().out.splitlines()[1:]
    assert was.split(";")[0].replace("was", "now").split(", ")[:3] == now.split(";")[0].split(", ")[:3]
    before = cells.read(file)
    assert command.main(["latency", "smoke", "--only", "uniform", *places_]) == 0
    after = cells.read(file)
    assert before is not None
    assert after is not None
    assert after["measured"].keys() == {"date", "device", "load_average", "versions"}
    assert same(before, after)
    assert command.main(["table", "smoke", *places_]) == 0
    assert "| uniform |" in (tmp_path / "evidence.md").read_text("utf-8")
    assert command.main(["plot", "smoke", *places_]) == 0
    assert "Plotly.newPlot" in (tmp_path / "work" / "smoke.html").read_text("utf-8")
    assert command.main(["run", "nothing", *places_]) == 2
    assert "error: unknown protocol 'nothing'" in capsys.readouterr().err


def test_an_arm_of_equal_time_goes_on_for_as_many_epochs_as_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amounts, "step_seconds", lambda *_, **__: {"dense": 0.3, "pruned": 0.2})
    found = filling.fill(task("equal-time"), places(tmp_path))
    assert found["amount"] == {"equal": "time", "ratio": 1.5, "epochs": 3}
    assert len(found["epochs"]) == 3
    monkeypatch.setattr(amounts, "step_seconds", None)  # timed once, also for the arm that differs in its start alone
    other = filling.fill(task("trained-start-equal-time"), places(tmp_path))
    assert (other["widths"], other["steps"]) == (found["widths"], found["steps"])
    assert (len(other["epochs"]), found["seconds"].keys() ^ other["seconds"].keys()) == (3, {"train_dense"})
    assert filling.fill(task("equal-macs"), places(tmp_path))["amount"]["epochs"] > 3


def test_epochs_are_stretched_in_steps() -> None:
    assert [amounts.stretched(ratio) for ratio in (0.4, 1.1, 1.4, 2.3, 3.8, 4.4, 9.6)] == [1, 1, 1.5, 2.5, 4, 4, 10]
    assert amounts.epochs_for("macs", 8, 30.0, None) == {"equal": "macs", "ratio": 8.0, "epochs": 64}
    assert amounts.epochs_for("epochs", 8, 30.0, None)["epochs"] == 8


def test_steps_are_timed_for_cells_that_were_made_without(tmp_path: Path) -> None:
    made = filling.fill(task("l1-trained"), places(tmp_path / "made"))
    again = filling.timed_again(task("l1-trained"), {**made, "steps": None}, places(tmp_path))
    assert again["steps"]["dense_s"] > 0
    assert {**again, "steps": None} == {**made, "steps": None}


# ── cells ──


def test_cells_of_other_settings_are_out_of_date(tmp_path: Path) -> None:
    stored({TASK: cell(TASK, 0.5), task("snap"): cell(task("snap"), 0.5)}, tmp_path)
    changed = replace(TASK, train=TRAIN.model_copy(update={"lr": 0.3}))
    assert changed.key == TASK.key
    found = cells.find([changed, task("snap"), task("3sp")], tmp_path)
    assert (list(found.cells), found.missing, found.stale) == ([task("snap")], (task("3sp"),), (changed,))
    assert found.tasks == 3


def test_a_file_that_is_no_cell_is_said(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"digest": "0')
    with pytest.raises(FileError, match=r"half.json' is no cell.*remove it, and run it again"):
        cells.read(tmp_path / "half.json")
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(FileError, match=r"it lacks digest, task or versions"):
        cells.read(tmp_path / "other.json")


def test_cells_of_several_machines_merge(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    a, b, c, d = (task("uniform", seed=seed) for seed in range(4))
    old = replace(d, train=TRAIN.model_copy(update={"lr": 0.3}))
    stored({a: cell(a, 0.5), b: cell(b, 0.5), old: cell(old, 0.1)}, here)
    stored({a: cell(a, 0.6), b: cell(b, 0.6, plan="another"), c: cell(c, 0.6), d: cell(d, 0.6)}, there)
    added, told = cells.merge([a, b, c, d], there, here)
    assert added == 2
    assert told == [f"{b.key}: plan 0123456789abcdef is there, another in '{there}'; kept the first"]
    accuracies = [json.loads(file_of(t, here).read_text())["accuracy"] for t in (a, b, c, d)]
    assert accuracies == [0.5, 0.5, 0.6, 0.6]


def test_a_cell_says_where_it_comes_from() -> None:
    about = filling.about(TASK)
    assert about["digest"] == TASK.digest
    assert {"python", "prunit", "commit", "torch", "onnxruntime"} <= about["versions"].keys()
    assert about["device"].keys() >= {"cpu", "cores", "threads", "accelerator"}
    assert isinstance(json.loads(json.dumps(about["task"]))["train"]["epochs"], int)


def test_task_of_a_cell_whose_protocol_has_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other: Task = replace(TASK, model="gone")
    stored({other: cell(other, 0.5)}, tmp_path)
    assert command.main(["again", str(file_of(other, tmp_path))]) == 2
    assert "no longer has: it is out of date" in capsys.readouterr().err
