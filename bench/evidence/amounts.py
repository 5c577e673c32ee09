"""How long an arm is trained: for the dense model's epochs, or for as many as cost what its training does."""

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from torch import nn

from bench.evidence.arms import Amount
from bench.evidence.case import Case
from bench.evidence.tasks import plain
from prunit.files import write_atomically
from prunit.recipe.effort import MOST, stretched
from prunit.train import step_seconds

_PROBES: Final = 4
"""Steps of each model are timed for so many times as long as an answer of the exported one."""


def epochs_for(amount: Amount, dense: int, macs: float, steps: Mapping[str, Any] | None) -> dict[str, Any]:
    """The ratio and the epochs of a training, where the dense model is trained for `dense` and costs `macs` times the
    multiply-adds."""
    if amount == "time":
        assert steps is not None, "an arm that is trained for equal time belongs into HOUR: its steps are timed"
        ratio = stretched(steps["dense_s"] / steps["pruned_s"])
    else:
        ratio = min(stretched(macs), MOST) if amount == "macs" else 1.0
    return {"equal": amount, "ratio": ratio, "epochs": max(1, round(ratio * dense))}


def steps_of(case: Case, model: nn.Module, widths: Mapping[str, int], scratch: Path) -> dict[str, Any]:
    """Seconds of a training step of the dense model and of this one, in turns.

    Timed once for all arms of a seed with these widths, and kept: a training that was stopped goes on for as many
    epochs as it began with, and arms that differ in their start alone are trained for equally many.
    """
    digest = hashlib.sha256(json.dumps(sorted(widths.items())).encode()).hexdigest()[:16]
    task = case.task
    file = scratch / task.protocol / f"{task.setting}.{plain(task.budget)}.s{task.seed}.{digest}.steps.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    models = {"dense": case.make(), "pruned": model}
    seconds = step_seconds(models, case.dataset, task.training, seconds=_PROBES * task.probe_s)
    found = {f"{name}_s": float(f"{each:.4g}") for name, each in seconds.items()} | {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    write_atomically(file, json.dumps(found))
    return found
