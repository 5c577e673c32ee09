"""A build that was stopped at any moment and resumed ends with the same bytes as one that was not."""

import errno
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import prunit
from prunit.edge.portfolio import Portfolio
from prunit.errors import ConfigError, FileError
from prunit.recipe import Step
from tests.recipe.building import (
    CONFIG,
    STEPS,
    VARIANTS,
    accuracies,
    assert_same_results,
    child,
    data,
    model,
    results,
)
from tests.train.toys import Small

# For each line of input (folder, variant, stage, done) a process of its own builds until that moment, says so and waits
# to be killed. The moment is a step, or a file about to appear. Forked, so that the imports are done once.
CHILD = """
import os, sys, time
import lightning_fabric, onnx, onnxscript, torch.onnx
from prunit.recipe import build, flow
from tests.recipe.building import CONFIG, data, model

flow.check_exports = lambda *_: None

def until(out, variant, stage, done):
    def wait():
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(1)

    def on_step(step):
        if (step.variant, step.stage) == (variant, stage) and step.done == int(done):
            wait()

    def replace(source, target, appear=os.replace):
        if stage == "file" and os.path.basename(target) == variant:
            wait()
        appear(source, target)

    os.replace = replace
    build(model, data(), out, config=CONFIG, resume=True, on_step=on_step)

for line in sys.stdin:
    process = os.fork()
    if not process:
        until(*line.split())
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


def build(folder: Path, **more: Any) -> Portfolio:
    return prunit.build(model, data(), folder, **{"config": CONFIG, **more})


@pytest.fixture(autouse=True, scope="module")
def _no_trial_export() -> Iterator[None]:
    """It takes a second of each build and has its own test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prunit.recipe.flow.check_exports", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a build that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert tuple(v.name for v in build(folder).variants) == VARIANTS
    return folder


def test_build_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path: Path, reference: Path) -> None:
    folder = tmp_path / "out"
    moments = [
        ("params-1-2", "prune", 3),  # planning: the dense plan is there
        ("dense", "train", STEPS + 2),  # in the second epoch of the first variant
        ("params-1-2", "train", 2 * STEPS + 1),  # in the last epoch of the second variant
        ("params-1-2.onnx", "file", 0),  # exporting: its self-test is there, the model is not
    ]
    process = child("-c", CHILD)
    assert process.stdin
    assert process.stdout
    for variant, stage, done in moments:
        process.stdin.write(f"{folder} {variant} {stage} {done}\n")
        process.stdin.flush()
        waiting = int(process.stdout.readline() or 0)
        assert waiting > 1, process.communicate()[1]
        os.kill(waiting, signal.SIGKILL)
        assert process.stdout.readline() == f"{-signal.SIGKILL}\n"
        assert not (folder / "portfolio.json").exists()
    process.communicate()
    assert {"dense.onnx", "params-1-2.selftest.npz"} <= {p.name for p in folder.iterdir()}
    assert not (folder / "params-1-2.onnx").exists()

    build(folder, resume=True)
    assert_same_results(folder, reference)


def test_finished_build_may_be_resumed_and_trains_nothing(tmp_path: Path, reference: Path) -> None:
    before, accuracy, steps = results(reference), accuracies(reference), list[Step]()
    build(reference, resume=True, on_step=steps.append)
    assert results(reference) == before
    assert accuracies(reference) == accuracy
    assert {s.stage for s in steps} == {"check", "memory", "probe", "report"}


def test_a_build_of_an_older_version_gets_its_answers_when_it_is_resumed(reference: Path) -> None:
    before, accuracy, steps = results(reference), accuracies(reference), list[Step]()
    answers = [v.metrics.answers for v in Portfolio.read(reference).variants]
    assert None not in answers
    for name in VARIANTS:
        file = reference / ".build" / name / "variant.json"
        record = json.loads(file.read_text())
        del record["metrics"]["answers"], record["metrics"]["scores"]
        file.write_text(json.dumps(record))
    build(reference, resume=True, on_step=steps.append)
    assert [v.metrics.answers for v in Portfolio.read(reference).variants] == answers
    assert (results(reference), accuracies(reference)) == (before, accuracy)
    assert "train" not in {s.stage for s in steps}


def test_lost_files_are_made_again(tmp_path: Path, reference: Path) -> None:
    before = results(reference)
    (reference / "dense.onnx").unlink()
    (reference / "params-1-2.safetensors").unlink()
    build(reference, resume=True)
    assert results(reference) == before
    assert Portfolio.read(reference).verify(reference) == []


def test_damaged_plan_and_weights_are_named_and_kept(reference: Path) -> None:
    for name, message in (
        ("params-1-2.plan.json", r"params-1-2\.plan\.json': not a plan: no JSON"),
        ("params-1-2.safetensors", r"params-1-2\.safetensors' is not a whole \.safetensors file"),
    ):
        file = reference / name
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(prunit.PrunitError, match=message):
            build(reference, resume=True)
        assert file.read_bytes() == whole[: len(whole) // 2]
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {**CONFIG["train"], "epochs": 4}}, r"train\.epochs=3, now it is 4"),
        ({"seed": 1}, "seed=0, now it is 1"),
        ({"budgets": ["params=1/3"]}, "budgets="),
        ({"prune": {"rounds": 7}}, r"prune\.rounds=6, now it is 7"),
    ],
)
def test_other_settings_do_not_resume(reference: Path, change: dict[str, Any], message: str) -> None:
    before = results(reference)
    with pytest.raises(ConfigError, match=f"was started with {message}"):
        build(reference, config={**CONFIG, **change}, resume=True)
    assert results(reference) == before


def test_another_model_or_other_data_do_not_resume(reference: Path) -> None:
    with pytest.raises(ConfigError, match="was started with model=model, now it is Small"):
        prunit.build(model(), data(), reference, config=CONFIG, resume=True)

    def other() -> Small:
        return Small(13)

    other.__name__ = "model"
    with pytest.raises(ConfigError, match="with digest of the initial weights="):
        prunit.build(other, data(), reference, config=CONFIG, resume=True)
    brighter = data()
    brighter.train.x_BCHW.add_(1)
    with pytest.raises(ConfigError, match="with digest of the images="):
        prunit.build(model, brighter, reference, config=CONFIG, resume=True)


def test_folder_in_use_is_refused_untouched(tmp_path: Path, reference: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"is not empty: choose a folder \(--out\)"):
        build(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    before = results(reference)
    with pytest.raises(ConfigError, match="already holds a build: continue it with --resume"):
        build(reference)
    assert results(reference) == before


class Disk:
    """A disk that takes so many files and is then full, sometimes in the middle of one."""

    def __init__(self, room: int) -> None:
        self.room, self._replace, self._write = room, os.replace, Path.write_bytes

    def replace(self, source: Any, target: Any) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._replace(source, target)

    def write_bytes(self, path: Path, content: bytes) -> int:
        if self.room == 1:
            self._write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(path, content)


def test_full_disk_is_one_line_and_the_build_goes_on_when_there_is_room(tmp_path: Path, reference: Path) -> None:
    folder, full = tmp_path / "out", 0
    while True:
        disk = Disk(room=7 if full % 2 else 5)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", disk.replace)
            patch.setattr(Path, "write_bytes", lambda path, content, disk=disk: disk.write_bytes(path, content))
            try:
                build(folder, resume=True)
                break
            except FileError as error:
                assert "No space left on device; check that its folder is writable" in str(error)  # noqa: PT017
                assert "\n" not in str(error)  # noqa: PT017
        full += 1
        assert full < 20
    assert full >= 3
    assert_same_results(folder, reference)


class Enough(Exception):
    """Raised to stop a build from within."""


def test_ctrl_c_is_one_line_and_leaves_a_build_to_resume(tmp_path: Path) -> None:
    file, folder = tmp_path / "mine.py", tmp_path / "out"
    file.write_text("from tests.recipe.building import data, model\n")
    process = child(
        *("-m", "prunit", "build", f"{file}:model", "--data", f"{file}:data", "--out", str(folder)),
        *("--budget", "params=1/2", "--epochs", "500", "--device", "cpu", "--set", "train.batch_size=10"),
    )
    checkpoint = folder / ".build" / "dense" / "checkpoint.safetensors"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate()
    assert process.returncode == 130, errors
    assert out == ""
    *progress, last = errors.splitlines()
    assert last == "prunit: stopped; `prunit build … --resume` goes on where it was"
    assert all(": " in line or line.split()[0] in ("loading", "reading", "checking", "timing") for line in progress)
    assert "Traceback" not in errors

    def on_step(step: Step) -> None:
        if step.stage == "train":
            # It goes on after the epochs that were saved: the first step that it tells of is not the first of all.
            assert step.done >= STEPS
            raise Enough

    config = {"budgets": ["params=1/2"], "train": {"epochs": 500, "batch_size": 10, "device": "cpu"}}
    images = prunit.zoo.data.load(f"{file}:data")
    with pytest.raises(Enough):
        prunit.build(f"{file}:model", images, folder, config=config, resume=True, on_step=on_step)
