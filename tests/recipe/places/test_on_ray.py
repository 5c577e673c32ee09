"""Trainings on Ray: on this machine; on several simulated nodes of it, one of which is killed; after a killed build.

Where Ray is not installed these tests are skipped: it is an extra of 240 MB.
"""

import gc
import json
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import prunit
from prunit.edge.portfolio import Portfolio
from prunit.errors import ConfigError, WorkerError
from prunit.recipe import OnRay, Step, sweep
from tests.recipe.building import STEPS, assert_same_results, child
from tests.recipe.places.somewhere import CONFIG, LONG, MODEL, data, left_over

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'prunit[ray]'")
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.slow]


def build(folder: Path, **more: Any) -> Portfolio:
    return prunit.build(more.pop("model", MODEL), data(), folder, **{"config": CONFIG, **more})


@pytest.fixture(autouse=True, scope="module")
def _no_trial_export() -> Iterator[None]:
    """It takes a second of each build and has its own test."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("flow", "sweeps"):
            patch.setattr(f"prunit.recipe.{module}.check_exports", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def long_reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One after the other, in this process."""
    folder = tmp_path_factory.mktemp("long")
    build(folder, config=LONG)
    return folder


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that trains nothing, and two nodes with one CPU each; ended with all its processes."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": 0, "object_store_memory": 100 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=100 << 20)
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        del made
        with warnings.catch_warnings():  # Ray leaves the files of its processes to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


def test_on_this_machine_the_bytes_are_the_same_and_ray_is_left(tmp_path: Path, long_reference: Path) -> None:
    steps: list[Step] = []
    build(tmp_path, config=LONG, jobs=OnRay("local"), on_step=steps.append)
    assert_same_results(tmp_path, long_reference)
    assert left_over(tmp_path) == []
    assert not (tmp_path / ".build" / "told").exists()
    assert {s.variant for s in steps if s.stage == "train"} == {"dense", "params-1-2", "params-1-3"}
    assert not ray.is_initialized()


def test_code_that_leaves_by_exit_is_run_once_and_named(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import os, pathlib, sys\n"
        "from tests.recipe.places.somewhere import network\n"
        f"HERE, SEEN = {os.getpid()}, pathlib.Path({str(tmp_path)!r})\n"
        "def make():\n"
        "    net = network()\n"
        "    if os.getpid() != HERE:\n"
        "        (SEEN / f'seen-{os.getpid()}').touch()\n"
        "        net.forward = lambda x: sys.exit(3)\n"
        "    return net\n"
    )
    with pytest.raises(WorkerError, match=r"code that was called left by sys\.exit\(3\)"):
        build(tmp_path / "out", model=f"{tmp_path / 'net.py'}:make", jobs=OnRay("local", jobs=1))
    assert len(list(tmp_path.glob("seen-*"))) == 1
    assert not ray.is_initialized()


def test_a_process_that_dies_every_time_is_given_up_by_name(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import os\n"
        "from tests.recipe.places.somewhere import network\n"
        f"HERE = {os.getpid()}\n"
        "def make():\n"
        "    if os.getpid() != HERE:\n"
        "        os._exit(9)\n"
        "    return network()\n"
    )
    notes: list[str] = []
    with pytest.raises(WorkerError, match=r"^dense: its process on Ray was lost 3 times") as caught:
        build(
            tmp_path / "out",
            model=f"{tmp_path / 'net.py'}:make",
            jobs=OnRay("local", jobs=1),
            on_step=lambda step: notes.append(step.note),
        )
    assert "\n" not in str(caught.value)
    assert sum("was lost; it goes on" in note for note in notes) == 2


def test_a_training_that_no_node_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no node of Ray has them: the largest has .* CPUs and 0 GPUs"):
        build(tmp_path / "out", jobs=OnRay("local", gpus=0.25))
    with pytest.raises(ConfigError, match="a training takes 4096 CPUs"):
        build(tmp_path / "out", jobs=OnRay("local", cpus=4096))
    assert list(tmp_path.iterdir()) == []
    assert not ray.is_initialized()


GATED = """
import os, time
from pathlib import Path
from tests.train.toys import Small

HERE, FOLDER = {here}, Path({folder!r})
trained = 0

class Gated(Small):
    def forward(self, x):
        global trained
        if self.training and os.getpid() != HERE:
            trained += 1
            if trained > {steps} and not (FOLDER / "go").exists():
                (FOLDER / f"waits-{{os.getpid()}}").touch()
                until = time.monotonic() + 120
                while time.monotonic() < until and not (FOLDER / "go").exists():
                    time.sleep(0.05)
        return super().forward(x)

def make():
    return Gated(12)
"""
"""A network whose trainings, in other processes than this one, wait after so many steps until a file is there."""


def until(there: Callable[[], Any], *, seconds: float = 90) -> Any:
    """What it gives as soon as that is something."""
    ends = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < ends, "nothing came"
        time.sleep(0.05)
    return found


def node_of(cluster: Any, process: int) -> Any:
    """The node of a simulated cluster that started a process."""
    above = {parent.pid for parent in psutil.Process(process).parents()}
    nodes = [n for n in cluster.list_all_nodes() if {p.process.pid for p in n.all_processes["raylet"]} & above]
    assert len(nodes) == 1
    return nodes[0]


def test_a_node_that_is_killed_costs_one_epoch(tmp_path: Path, cluster: Any) -> None:
    (tmp_path / "net.py").write_text(GATED.format(here=os.getpid(), folder=str(tmp_path), steps=4 * STEPS))
    model, out = f"{tmp_path / 'net.py'}:make", tmp_path / "out"
    build(tmp_path / "reference", model=model, config=LONG)
    steps: list[Step] = []
    killed: list[str] = []

    def on_step(step: Step) -> None:
        steps.append(step)
        if step.stage == "train" and not killed:
            state = out / ".build"
            process = json.loads((state / "told" / f"train_{step.variant}" / ".lock").read_text())["pid"]
            until((tmp_path / f"waits-{process}").exists)
            assert (state / step.variant / "checkpoint.safetensors").exists()
            cluster.remove_node(node_of(cluster, process), allow_graceful=False)
            cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
            killed.append(step.variant)
            steps.clear()
            (tmp_path / "go").touch()

    build(out, model=model, config=LONG, jobs=OnRay(cluster.address), on_step=on_step)
    assert_same_results(out, tmp_path / "reference")
    assert [s.note.partition(":")[0] for s in steps if "was lost; it goes on" in s.note] == killed
    # The first step of a training is always told: it was done again from its last whole epoch on.
    lost = next(i for i, s in enumerate(steps) if "was lost; it goes on" in s.note)
    assert next(s.done for s in steps[lost:] if (s.variant, s.stage) == (killed[0], "train")) >= 4 * STEPS
    assert left_over(out) == []


DRIVER = """
import sys
from pathlib import Path
import prunit, torch
from prunit.recipe import OnRay
from tests.recipe.places.somewhere import LONG, MODEL, data

def on_step(step):
    if step.stage == "train" and step.done > 10:
        print("training", flush=True)

torch.set_num_threads(1)
prunit.build(MODEL, data(), Path(sys.argv[1]), config=LONG, jobs=OnRay(sys.argv[2]), on_step=on_step)
"""


def test_a_build_that_is_killed_goes_on(tmp_path: Path, cluster: Any, long_reference: Path) -> None:
    driver = child("-c", DRIVER, str(tmp_path / "out"), cluster.address)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "training\n", driver.communicate()[1]
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    assert not (tmp_path / "out" / "portfolio.json").exists()
    build(tmp_path / "out", config=LONG, jobs=OnRay(cluster.address), resume=True)
    assert_same_results(tmp_path / "out", long_reference)


def test_a_sweep_finds_the_same(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"recipes": ("uniform", "reconvene"), "config": CONFIG, "eta": 2}
    one = sweep(MODEL, data(), tmp_path / "one", **asked)
    two = sweep(MODEL, data(), tmp_path / "two", jobs=OnRay("local"), **asked)
    assert two.trials == one.trials
    assert_same_results(tmp_path / "two" / "portfolio", tmp_path / "one" / "portfolio")
    assert not ray.is_initialized()
