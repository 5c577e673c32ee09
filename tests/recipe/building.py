"""A build that takes seconds, and how two of them are compared; importable by the processes that tests kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from prunit.batches import Dataset
from prunit.edge.portfolio import Portfolio
from tests.train.toys import Small, stripes

ROOT: Final = Path(__file__).parents[2]
VARIANTS: Final = ("dense", "params-1-2")
CONFIG: Final[dict[str, Any]] = {
    "budgets": ["params=1/2"],
    "train": {"epochs": 3, "batch_size": 10, "device": "cpu"},
    "prune": {"rounds": 6, "measure": False},
    "probe": {"seconds": 0.01, "batch": 2},
    # Timed steps decide nothing: two builds are compared byte by byte.
    "effort": {"rule": "equal-epochs"},
}
STEPS: Final = 5
"""Of each epoch."""


def model() -> Small:
    """A network for 4 classes of grey images, different from call to call unless the caller seeds."""
    return Small(12)


def data() -> Dataset:
    """50 training images of 8x8."""
    return stripes(50)


def results(folder: Path) -> dict[str, bytes]:
    """Every file whose content the settings alone decide, by name."""
    kinds = ("*.plan.json", "*.onnx", "*.selftest.npz", "*.safetensors")
    return {path.name: path.read_bytes() for kind in kinds for path in folder.glob(kind)}


def accuracies(folder: Path) -> dict[str, float | None]:
    """By variant, as the manifest has them."""
    return {v.name: v.metrics.accuracy for v in Portfolio.read(folder).variants}


def assert_same_results(folder: Path, reference: Path) -> None:
    """Weights, plans and exported files are the same bytes, accuracies equal, and nothing is left lying about."""
    ours, theirs = results(folder), results(reference)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert accuracies(folder) == accuracies(reference)
    assert Portfolio.read(folder).verify(folder) == []
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in reference.iterdir())
    assert not [p for p in folder.rglob("*") if ".tmp" in p.name or "checkpoint" in p.name]


def child(*arguments: str) -> subprocess.Popen[str]:
    """A Python process with these arguments that finds prunit and the tests, and computes as this one does."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has Ctrl-C ignored, which a child would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
