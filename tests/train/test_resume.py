"""A training stopped at any moment and resumed ends the same, to the last bit, as one that was not."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prunit.train import Epoch, TrainConfig, train
from tests.train.toys import assert_same, small, stripes

EPOCHS = 4
SCHEDULES = ["onecycle", "step"]

# Trains until step 5 (the second epoch's second step), says so, and waits there to be killed.
CHILD = """
import sys
from pathlib import Path
from prunit.train import TrainConfig, train
from tests.train.toys import small, stripes

def on_step(done, steps):
    if done == 5:
        print("here", flush=True)
        sys.stdin.read()

config = TrainConfig.model_validate_json(sys.argv[1])
list(train(small(), stripes(), config, checkpoint=Path(sys.argv[2]), on_step=on_step))
"""


def config_of(schedule: str) -> TrainConfig:
    return TrainConfig.model_validate({"schedule": schedule, "epochs": EPOCHS, "batch_size": 16, "device": "cpu"})


def timeless(epochs: list[Epoch]) -> list[Epoch]:
    return [replace(epoch, seconds=0.0) for epoch in epochs]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_stopped_after_each_epoch(schedule: str, tmp_path: Path) -> None:
    config, dataset = config_of(schedule), stripes()
    whole, plain = tmp_path / "whole", small()
    expected = list(train(plain, dataset, config, checkpoint=whole))
    for stop in range(1, EPOCHS + 1):
        path = tmp_path / f"stopped-{stop}"
        epochs = train(small(), dataset, config, checkpoint=path)
        first = [next(epochs) for _ in range(stop)]
        del epochs
        torch.rand(stop)
        resumed, steps = small(seed=9), list[int]()
        again = list(train(resumed, dataset, config, checkpoint=path, on_step=lambda done, _, s=steps: s.append(done)))
        assert again[:stop] == first  # their seconds, too: they are read, not run
        assert timeless(again) == timeless(expected)
        assert steps == list(range(3 * stop, 3 * EPOCHS + 1))
        assert_same(resumed, plain)
        momenta, others = load_file(path), load_file(whole)
        assert any(name.startswith("momentum.") for name in momenta)
        assert all(torch.equal(momenta[name], others[name]) for name in others)


def start(schedule: str, path: Path) -> "subprocess.Popen[str]":
    """A process that trains with a checkpoint in `path` until the middle of the second epoch."""
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", CHILD, config_of(schedule).model_dump_json(), str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)


def test_killed_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    children = {schedule: start(schedule, tmp_path / schedule) for schedule in SCHEDULES}
    for child in children.values():
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == "here\n"
            child.kill()
        assert child.returncode == -signal.SIGKILL
    for schedule in SCHEDULES:
        plain, resumed = small(), small(seed=9)
        expected = list(train(plain, stripes(), config_of(schedule)))
        again = list(train(resumed, stripes(), config_of(schedule), checkpoint=tmp_path / schedule))
        assert timeless(again) == timeless(expected)
        assert_same(resumed, plain)


def test_what_a_killed_write_left_behind_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.with_name(".run.tmp").write_bytes(b"half a checkpoint")
    epochs = list(train(small(), stripes(), config_of("step"), checkpoint=path))
    assert len(epochs) == EPOCHS
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_a_finished_training_is_only_read(tmp_path: Path) -> None:
    path, plain, read = tmp_path / "run", small(), small(seed=9)
    first = list(train(plain, stripes(), config_of("step"), checkpoint=path))
    before = path.stat().st_mtime_ns
    assert list(train(read, stripes(), config_of("step"), checkpoint=path)) == first
    assert path.stat().st_mtime_ns == before
    assert_same(read, plain)
    assert not read.training
