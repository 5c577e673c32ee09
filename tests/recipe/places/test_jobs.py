"""Variants trained beside each other, in processes of their own, end as if they were trained one after the other."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import prunit
from prunit.edge.portfolio import Portfolio
from prunit.errors import ConfigError, TrainingError, WorkerError
from prunit.recipe import Step
from prunit.recipe.places import processes
from tests.recipe.building import STEPS, assert_same_results, child, model
from tests.recipe.places.somewhere import CONFIG, LONG, MODEL, VARIANTS, data, kill, left_over, workers


def build(folder: Path, **more: Any) -> Portfolio:
    return prunit.build(more.pop("model", MODEL), data(), folder, **{"config": CONFIG, **more})


@pytest.fixture(autouse=True, scope="module")
def _no_trial_export() -> Iterator[None]:
    """It takes a second of each build and has its own test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prunit.recipe.flow.check_exports", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One after the other, in this process."""
    folder = tmp_path_factory.mktemp("whole")
    assert tuple(v.name for v in build(folder).variants) == VARIANTS
    return folder


@pytest.fixture(scope="module")
def long_reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    build(folder, config=LONG)
    return folder


def test_two_at_once_end_with_the_same_bytes(tmp_path: Path, reference: Path) -> None:
    steps: list[Step] = []
    portfolio = build(tmp_path, jobs=2, on_step=steps.append)
    assert_same_results(tmp_path, reference)
    assert left_over(tmp_path) == []
    assert [v.name for v in portfolio.variants] == list(VARIANTS)
    trained = [s for s in steps if s.stage == "train"]
    assert {s.variant for s in trained} == set(VARIANTS)
    assert {s.place for s in trained} == {1, 2}
    assert "up to 2 trainings at the same time, 1 thread each" in [s.note for s in steps if s.stage == "plan"]
    assert json.loads((tmp_path / ".build" / "threads.json").read_text()) == {"threads": 1}
    assert not (reference / ".build" / "threads.json").exists()
    # What is timed is timed alone, when all processes have ended.
    first = next(i for i, s in enumerate(steps) if s.stage == "probe")
    assert all(s.place == 0 for s in steps[first:])
    assert workers() == []


def test_variants_that_begin_trained_wait_for_the_dense_one(tmp_path: Path) -> None:
    config = {**CONFIG, "start": {"point": "trained"}, "train": {**CONFIG["train"], "epochs": 8, "distill": 0.5}}
    steps: list[Step] = []
    build(tmp_path / "one", config=config)
    build(tmp_path / "two", config=config, jobs=2, on_step=steps.append)
    assert_same_results(tmp_path / "two", tmp_path / "one")
    order = [s.variant for s in steps if s.stage == "train"]
    assert order.index("params-1-2") > max(i for i, name in enumerate(order) if name == "dense")


def test_a_failing_training_names_its_variant_and_ends_the_others(tmp_path: Path) -> None:
    config = {**LONG, "train": {**LONG["train"], "lr": 1e30}}
    with pytest.raises(TrainingError, match=r"^(dense|params-1-2): training diverged: ") as caught:
        build(tmp_path, config=config, jobs=2)
    assert "\n" not in str(caught.value)
    assert workers() == []
    assert left_over(tmp_path) == []
    assert not (tmp_path / "portfolio.json").exists()


def test_a_killed_process_is_one_line_and_its_last_epoch_is_kept(tmp_path: Path, long_reference: Path) -> None:
    def on_step(step: Step) -> None:
        if step.variant == "dense" and step.stage == "train" and 4 * STEPS < step.done:
            kill(workers()[step.place - 1])

    with pytest.raises(WorkerError) as caught:
        build(tmp_path, config=LONG, jobs=2, on_step=on_step)
    message = str(caught.value)
    assert message.startswith("dense: its process was ended by signal 9 (SIGKILL), as the system does where memory")
    assert "go on with --resume" in message
    assert "\n" not in message
    assert workers() == []

    checkpoint = tmp_path / ".build" / "dense" / "checkpoint.safetensors"
    assert checkpoint.exists() or (tmp_path / "dense.safetensors").exists()
    steps: list[Step] = []
    build(tmp_path, config=LONG, jobs=2, resume=True, on_step=steps.append)
    done = [s.done for s in steps if (s.variant, s.stage) == ("dense", "train")]
    assert not done or done[0] >= 4 * STEPS
    assert_same_results(tmp_path, long_reference)


def test_ctrl_c_ends_all_processes_and_leaves_nothing_half_written(tmp_path: Path, long_reference: Path) -> None:
    def on_step(step: Step) -> None:
        if step.variant == "params-1-2" and step.stage == "train" and step.done > 2 * STEPS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, config=LONG, jobs=2, on_step=on_step)
    assert workers() == []
    assert left_over(tmp_path) == []
    # One after the other from here on, with the threads that it began with.
    build(tmp_path, config=LONG, resume=True)
    assert_same_results(tmp_path, long_reference)


DRIVER = """
import sys
from pathlib import Path
import prunit, torch
from tests.recipe.places.somewhere import LONG, MODEL, data

def on_step(step):
    if step.stage == "train" and step.done > 10:
        print("training", flush=True)

torch.set_num_threads(1)
prunit.build(MODEL, data(), Path(sys.argv[1]), config=LONG, jobs=2, on_step=on_step)
"""


def test_a_killed_build_takes_its_processes_with_it(tmp_path: Path, long_reference: Path) -> None:
    driver = child("-c", DRIVER, str(tmp_path / "out"))
    assert driver.stdout is not None
    assert driver.stdout.readline() == "training\n", driver.communicate()[1]
    theirs = workers(driver.pid)
    assert len(theirs) == 2
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    _, alive = psutil.wait_procs(theirs, timeout=20)
    assert alive == []
    assert not (tmp_path / "out" / "portfolio.json").exists()
    build(tmp_path / "out", config=LONG, jobs=2, resume=True)
    assert_same_results(tmp_path / "out", long_reference)
    assert left_over(tmp_path / "out") == []


def test_a_finished_build_starts_no_process(tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_Worker", lambda *_: pytest.fail("a process was started"))
    finished = tmp_path / "finished"
    shutil.copytree(reference, finished)
    build(finished, jobs=3, resume=True)
    assert_same_results(finished, reference)


def test_a_model_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model was passed in: name it instead"):
        build(tmp_path, model=model, jobs=2)
    assert not (tmp_path / "portfolio.json").exists()


def test_a_model_that_draws_by_other_means_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import os, torch\n"
        "from tests.recipe.places.somewhere import network\n"
        "def make():\n"
        "    net = network()\n"
        "    torch.nn.init.constant_(net.fc.bias, os.getpid() / 1e6)\n"
        "    return net\n"
    )
    with pytest.raises(ConfigError, match="has other initial weights when another process makes it"):
        build(tmp_path / "out", model=f"{tmp_path / 'net.py'}:make", jobs=2)
    assert workers() == []


def test_code_that_leaves_by_exit_or_prints_is_heard_of(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import os, sys\n"
        "from tests.recipe.places.somewhere import network\n"
        f"HERE = {os.getpid()}\n"
        "def make():\n"
        "    print('hello from the factory')\n"
        "    net = network()\n"
        "    if os.getpid() != HERE:\n"
        "        net.forward = lambda x: sys.exit(3)\n"
        "    return net\n"
    )
    with pytest.raises(WorkerError, match=r"code that was called left by sys\.exit\(3\)"):
        build(tmp_path / "out", model=f"{tmp_path / 'net.py'}:make", jobs=2)
    assert workers() == []


@pytest.mark.parametrize("jobs", [0, -1, True, "2", 2.0])
def test_what_is_no_number_of_jobs_is_refused(tmp_path: Path, jobs: Any) -> None:
    with pytest.raises(ConfigError, match="it must be a whole number, at least 1"):
        build(tmp_path / "out", jobs=jobs)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "this build has 3 trainings that can run at once"),
        ({"effort": {"time": "90s"}}, "a time is shared out among trainings that come one after the other"),
        ({"train": {"devices": 2}}, "each of them on several devices: give one of the two"),
    ],
)
def test_jobs_that_cannot_be_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(tmp_path / "out", jobs=4, config={**CONFIG, **settings})
    assert not (tmp_path / "out").exists()


def test_ctrl_c_on_the_command_line_is_one_line(tmp_path: Path) -> None:
    settings = ["--set", "prune.rounds=2", "--set", "prune.measure=false", "--train", "equal-epochs"]
    process = child(
        *("-m", "prunit", "build", "resnet20", "--data", "digits", "--subset", "200", "--epochs", "200"),
        *("--budget", "params=1/4", "--jobs", "2", "--device", "cpu", "--out", str(tmp_path / "out"), *settings),
    )
    assert process.stderr is not None
    said = [process.stderr.readline()]
    while said[-1] and not {"dense: training\n", "params-1-4: training\n"} <= set(said):
        said.append(process.stderr.readline())
    theirs = workers(process.pid)
    assert len(theirs) == 2, said
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "prunit: stopped; `prunit build … --resume` goes on where it was"
    assert "Traceback" not in err
    assert psutil.wait_procs(theirs, timeout=20)[1] == []
    assert left_over(tmp_path) == []
