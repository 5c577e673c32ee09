"""One task from its untrained model to a cell: prune, train, count, export, measure."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fcntl import LOCK_EX, flock
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from torch import nn

from bench._common import device, versions
from bench.evidence.amounts import epochs_for, steps_of
from bench.evidence.arms import ARMS, HOUR
from bench.evidence.arms.masks import share_of, sparse_cost
from bench.evidence.arms.structured import random_scores
from bench.evidence.case import Case, Pruned, Trained, case_of
from bench.evidence.tasks import DENSE, Task
from prunit.cut.plans import choose
from prunit.cut.surgery import compact
from prunit.edge import runtimes
from prunit.edge.measuring.probe import ProbeSettings, peak_memory, probe
from prunit.errors import BudgetError, ScoreError, TrainingError
from prunit.export import EXPORTERS
from prunit.graph import trace
from prunit.prices.costs import Cost, cost_of, width_array
from prunit.recipe.collapse import collapse
from prunit.recipe.source import example_of
from prunit.scores import per_channel
from prunit.train import Epoch, train
from prunit.train.config import final_accuracy
from prunit.train.place import device_named

Cell = dict[str, Any]

OUTCOMES: Final = (BudgetError, ScoreError, TrainingError)
"""What may come of an arm instead of a model: it is stored as the cell's error. Anything else is a fault."""
BATCHES: Final = (1, 32)
MEASURED: Final = ("peak_memory_bytes", "latency")
"""What `measured_again` replaces in a cell, besides `measured`."""


@dataclass(frozen=True)
class Places:
    """Folders: what training leaves between two runs, and the data sets (None: PRUNIT_DATA)."""

    scratch: Path
    data: Path | None = None


def fill(task: Task, places: Places) -> Cell:
    """The cell of a task, made in this process; training goes on from a checkpoint if a run was killed."""
    cell = about(task)
    try:
        return cell | _result(case_of(task, places.data), places)
    except OUTCOMES as error:
        return cell | {"error": f"{type(error).__name__}: {error}"}


def forget(task: Task, places: Places) -> None:
    """Remove what a training left, once its cell is stored; that of the dense model stays for other arms."""
    if task.arm != "dense":
        checkpoint_of(task, places).unlink(missing_ok=True)
        checkpoint_of(task, places).with_suffix(".lock").unlink(missing_ok=True)


def about(task: Task) -> Cell:
    """What a cell says besides its result: of which task it is, where, with what and when it was made."""
    return {"digest": task.digest, "task": task.settings, **here_and_now(task)}


def here_and_now(task: Task) -> Cell:
    """The date, the machine, how busy it is, and the versions."""
    place = device_named(task.train.device)
    here = device(torch.get_num_threads())
    here["accelerator"] = torch.cuda.get_device_name(place) if place.type == "cuda" else None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": here,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": versions(),
    }


def checkpoint_of(task: Task, places: Places) -> Path:
    """Where a training is kept between two epochs, and a dense one for good: the arms that begin with it read it."""
    return places.scratch / task.protocol / f"{task.setting}.{task.arm}.s{task.seed}.{task.digest}.safetensors"


def _result(case: Case, places: Places) -> Cell:
    task, arm = case.task, ARMS[case.task.arm]
    if arm.after_training:
        case = replace(case, trained=trained_dense(case, places))
    started = time.perf_counter()
    pruned = arm.prune(case)
    seconds = {"prune": time.perf_counter() - started}
    if case.trained is not None:
        seconds["train_dense"] = case.trained.seconds
    cost = check_budget(case, pruned)
    steps = steps_of(case, pruned.model, widths_of(pruned.model, case), places.scratch) if task.arm in HOUR else None
    amount = epochs_for(arm.amount, task.epochs, cost_of(case.graph).macs / max(cost.macs, 1), steps)
    _forget_peak()
    epochs = epochs_of(pruned.model, case, task, places, epochs=amount["epochs"])
    seconds["train"] = sum(epoch.seconds for epoch in epochs)
    _check_masks(pruned)
    stored = cost_of(case.graph) if pruned.masks else cost
    return {
        "plan": pruned.hash,
        "widths": None if pruned.masks else widths_of(pruned.model, case),
        "note": pruned.note + _collapsed(case, pruned),
        "params": cost.params,
        "macs": cost.macs,
        "stored_params": stored.params,
        "activation_bytes": stored.activation_bytes,
        "dense": {"params": cost_of(case.graph).params, "macs": cost_of(case.graph).macs},
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "accuracy": final_accuracy(epochs),
        "amount": amount,
        "steps": steps,
        "epochs": [_rounded(epoch) for epoch in epochs],
        "train_peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        **deployed(case, pruned.model, places),
    }


def trained_dense(case: Case, places: Places) -> Trained:
    """The dense model after the task's training: read from the dense arm's checkpoint where there is one."""
    task = replace(case.task, arm="dense", budget=DENSE)
    model = case.make()
    epochs = epochs_of(model, case, task, places)
    return Trained(model, sum(epoch.seconds for epoch in epochs))


def epochs_of(model: nn.Module, case: Case, task: Task, places: Places, *, epochs: int | None = None) -> list[Epoch]:
    """The epochs of a training, from its checkpoint on; of several processes that want the same one, one trains."""
    config = task.training if epochs is None else task.training.model_copy(update={"epochs": epochs})
    checkpoint = checkpoint_of(task, places)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with checkpoint.with_suffix(".lock").open("w") as lock:
        flock(lock, LOCK_EX)  # the others wait, and find all epochs done; a process that is killed lets go
        return list(train(model, case.dataset, config, checkpoint=checkpoint))


def check_budget(case: Case, pruned: Pruned) -> Cost:
    """What the pruned model costs, counted on the model itself; `BudgetError` if that is more than was asked for."""
    if pruned.masks:
        params, macs = sparse_cost(case, pruned.masks)
        cost = replace(cost_of(case.graph), params=params, macs=macs)
    else:
        cost = cost_of(trace(pruned.model, example_of(case.dataset)))
    key, _, text = case.task.budget.partition("=")
    if key == "density":
        kept = sum(int(mask.sum()) for mask in pruned.masks.values())
        most = share_of(text) * sum(mask.numel() for mask in pruned.masks.values())
        found = {"weights": (kept, most)}
    elif key and ARMS[case.task.arm].within_budget:
        figures: dict[str, float] = {**_predicted(case, pruned), **cost.as_dict()}
        found = {name: (figures[name], most) for name, most in case.target.most.items()}
    else:
        found = {}
    for name, (value, most) in found.items():
        if value > most:
            raise BudgetError(f"arm '{case.task.arm}' costs {value:,} {name}; {case.task.budget} allows {most:,.0f}")
    return cost


def _predicted(case: Case, pruned: Pruned) -> dict[str, float]:
    """What the target says of the plan's widths; only it can tell what a device takes."""
    if pruned.plan is None:
        return {}
    return case.target.figures(width_array(case.graph, pruned.plan.widths))


def deployed(case: Case, model: nn.Module, places: Places) -> Cell:
    """Size, memory and latency of the exported model, which takes turns with the dense one of the same network."""
    example, task = example_of(case.dataset), case.task
    scratch = places.scratch / task.protocol
    scratch.mkdir(parents=True, exist_ok=True)
    dense = scratch / f"{task.setting}.onnx"
    with TemporaryDirectory(prefix="deployed-", dir=scratch) as folder:
        if not dense.exists():  # its weights play no part, and another process may do the same meanwhile
            EXPORTERS["onnx"](case.make(), example, Path(folder), name="dense")
            (Path(folder) / "dense.onnx").replace(dense)
        artifact = EXPORTERS["onnx"](model, example, Path(folder), name="pruned")
        files = {"pruned": Path(folder) / artifact.path, "dense": dense}
        memory = peak_memory(files["pruned"], artifact.input_shape)
        sessions = {name: runtimes.runtime().open(file) for name, file in files.items()}
        try:
            settings = ProbeSettings(batches=BATCHES, seconds=task.probe_s, min_runs=50 if task.probe_s >= 1 else 5)
            found = probe(sessions, dict.fromkeys(sessions, artifact.input_shape), settings)
        finally:
            for session in sessions.values():
                session.close()
    pairs = zip(found["pruned"], found["dense"], strict=True)
    return {
        "file_bytes": artifact.bytes,
        "peak_memory_bytes": memory,
        "latency": [
            {name: _short(value) for name, value in a.model_dump().items()} | {"dense_p50_ms": _short(b.p50_ms)}
            for a, b in pairs
        ],
    }


def widths_of(model: nn.Module, case: Case) -> dict[str, int]:
    """Channels of each group of a model that was cut, whichever tool cut it; groups go by the module's name."""
    left = {group.name: group.size for group in trace(model, example_of(case.dataset)).groups}
    return {group.name: left.get(group.name, 1) for group in case.graph.groups}  # of one channel there is no group


def measured_again(task: Task, cell: Mapping[str, Any], places: Places) -> Cell:
    """The cell with the memory and latency that its widths have here and now; weights play no part in them.

    So cells that were trained on a busy machine, or without the CPU in question, are measured on a quiet one.
    """
    case = case_of(task, places.data)
    model = rebuilt(case, cell)
    with torch.no_grad():
        for each in (p for p in model.parameters() if p.ndim == 1):
            each.uniform_(0.5, 1)  # the exporter leaves out what is 0 or 1 everywhere, as before training
    found = deployed(case, model, places)
    return {**cell, **{name: found[name] for name in MEASURED}, "measured": here_and_now(task)}


def rebuilt(case: Case, cell: Mapping[str, Any]) -> nn.Module:
    """A network of the cell's widths, with other weights."""
    model = case.make()
    if cell["widths"] is None:
        return model
    return compact(model, case.graph, choose(case.graph, random_scores(case, 0), cell["widths"]))


def timed_again(task: Task, cell: Mapping[str, Any], places: Places) -> Cell:
    """The cell with the seconds of a training step at its widths here and now, in turns with the dense model."""
    case = case_of(task, places.data)
    return {**cell, "steps": steps_of(case, rebuilt(case, cell), cell["widths"], places.scratch)}


def _check_masks(pruned: Pruned) -> None:
    """A masked weight that is not zero after training is a fault of this benchmark."""
    named = dict(pruned.model.named_parameters())
    for name, mask in pruned.masks.items():
        alive = int((named[name].detach()[~mask] != 0).sum())
        if alive:
            raise AssertionError(f"{alive} masked weights of '{name}' are not zero after training")


def _collapsed(case: Case, pruned: Pruned) -> str:
    """Whether a mask cuts the output off from the input: then the accuracy is chance, and no fault."""
    if not pruned.masks:
        return ""
    lost, at = collapse(case.graph, per_channel(case.graph, {n: m.float() for n, m in pruned.masks.items()}, "last"))
    return f"; cut off at '{lost}'" if at < 1 else ""


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _rounded(epoch: Epoch) -> dict[str, float | None]:
    names: Sequence[str] = ("loss", "train_accuracy", "test_accuracy", "seconds")
    return {name: _short(getattr(epoch, name)) for name in names}


def _short(value: Any) -> Any:
    """Six significant digits: more would be noise in the files."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def line(cell: Mapping[str, Any]) -> str:
    """A cell in a few words, for the screen."""
    if "error" in cell:
        return cell["error"]
    dense = cell["dense"]
    first = cell["latency"][0]
    return (
        f"{cell['accuracy']:.2%}, {dense['params'] / cell['params']:.1f}x fewer params,"
        f" {dense['macs'] / cell['macs']:.1f}x fewer macs, {first['dense_p50_ms'] / first['p50_ms']:.2f}x faster;"
        f" pruned in {cell['seconds']['prune']:.1f} s, trained in {cell['seconds']['train']:.1f} s"
    )
