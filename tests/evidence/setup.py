"""A protocol that takes seconds: a tiny residual network on a few of scikit-learn's digits."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.evidence.case import Case, case_of
from bench.evidence.filling import Places
from bench.evidence.tasks import Data, Search, Task, file_of
from prunit.train import TrainConfig

DATA = Data("digits", train=64, test=40)
TRAIN = TrainConfig(epochs=2, batch_size=32, device="cpu")
TASK = Task("smoke", "tiny", DATA, "uniform", "params=1/4", 0, TRAIN, Search(2, 1, 3), probe_s=0.001)


def task(arm: str, budget: str = "params=1/4", seed: int = 0) -> Task:
    """A task of the tiny protocol."""
    return replace(TASK, arm=arm, budget=budget, seed=seed)


def case(arm: str, budget: str = "params=1/4", seed: int = 0) -> Case:
    """Its case."""
    return case_of(task(arm, budget, seed))


def places(folder: Path) -> Places:
    """Everything in one folder."""
    return Places(folder / "scratch")


def cell(of: Task, accuracy: float, **more: Any) -> dict[str, Any]:
    """A cell as a run leaves it, with this accuracy."""
    found = {
        "digest": of.digest,
        "task": of.settings,
        "date": "2026-01-01T00:00:00+00:00",
        "device": {"cpu": "a CPU", "cores": 2, "os": "an OS", "threads": 1, "accelerator": None},
        "load_average": 0.1,
        "versions": {"python": "3", "prunit": "0", "commit": "abc", "torch": "2"},
        "plan": "0123456789abcdef",
        "widths": None,
        "note": "",
        "params": 250,
        "macs": 3000,
        "stored_params": 250,
        "activation_bytes": 100,
        "dense": {"params": 1000, "macs": 12000},
        "seconds": {"prune": 0.5, "train": 20.0},
        "accuracy": accuracy,
        "epochs": [{"loss": 1.0, "train_accuracy": 0.5, "test_accuracy": accuracy, "seconds": 20.0}],
        "train_peak_bytes": None,
        "file_bytes": 1000,
        "peak_memory_bytes": 2_000_000,
        "latency": [
            {"batch": b, "threads": 1, "n": 5, "p50_ms": b * 0.5, "p90_ms": b, "p99_ms": b, "dense_p50_ms": b * 1.0}
            for b in (1, 32)
        ],
    }
    return found | more


def stored(cells: Mapping[Task, Mapping[str, Any]], folder: Path) -> None:
    """Store cells as a run does."""
    from bench.evidence.cells import store

    for each, content in cells.items():
        store(content, each, folder)
        assert file_of(each, folder).is_file()
