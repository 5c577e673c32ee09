"""What prunit makes of one model: traced, halved, cut, run, trained a step, and compared with the mask."""

import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from bench._nets import count
from bench.coverage.networks import (
    IMAGES,
    Draw,
    difference,
    disturbed,
    drawn,
    hand_on_statistics,
    in_type,
    lived_in,
    masked_like,
    outputs,
    settle,
    shapes,
    single,
    step_backward,
    without_chance,
)
from prunit.allocate import Budget, Target, uniform
from prunit.cut.plans import Plan, choose
from prunit.cut.surgery import compact, mask
from prunit.errors import BudgetError, PlanError
from prunit.export.onnx import export_onnx
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_of, named_widths, shares

EXACT: Final = 1e-10
"""Relative error in float64 up to which the compact network counts as equal to the masked one."""

LEAST: Final = 1e-6
"""Outputs that differ less than this from image to image, relative to the largest, say nothing."""
MOST: Final = 1e-6
"""Rounding excuses no larger error than this."""
ONNX_EXACT: Final = 1e-4
"""The same for an exported model in float32."""
ONNX_MOST: Final = 1e-2
"""The most that rounding to float32 excuses there."""
ERRORS: Final = ("eval_error", "train_error", "uneven_eval_error", "uneven_train_error")

Cell = dict[str, Any]
"""What was found about one model, as JSON; `stage` is what was being done last."""
At = Callable[[str], None]
"""Told the name of each stage as it begins."""


def random_scores(graph: ChannelGraph, seed: int = 0) -> dict[str, Tensor]:
    """Uniform draws: what is kept lies anywhere, and not in front as with equal scores."""
    generator = torch.Generator().manual_seed(seed)
    return {g.name: torch.rand(g.size, generator=generator) for g in graph.groups}


def halved(graph: ChannelGraph) -> tuple[Plan, bool]:
    """The uniform plan of half the macs, and whether they are met; otherwise each free group at its minimum."""
    target = Target(graph, Budget.parse("macs=1/2"))
    try:
        return choose(graph, random_scores(graph), uniform(target, {})), True
    except BudgetError:
        return choose(graph, random_scores(graph), named_widths(graph, target.floor)), False


def uneven(graph: ChannelGraph, seed: int = 1) -> Plan | None:
    """A plan of widths drawn at random between one channel and all but one; None where not every width is allowed."""
    rng = np.random.default_rng(seed)
    free = [g for g in graph.groups if not g.pinned and g.size > 1]
    try:
        return choose(graph, random_scores(graph, seed), {g.name: int(rng.integers(1, g.size)) for g in free})
    except PlanError:
        return None


def examine(make: Callable[[], tuple[nn.Module, Draw]], cell: Cell, at: At) -> None:
    """Fill `cell` stage by stage; raises what prunit raises. `make` gives the model and what draws images for it."""
    at("build")
    model, draw = make()
    example = single(draw)
    cell["inputs"], cell["params"] = shapes(drawn(draw, batch=1)), count(model)
    without_chance(model)
    at("trace")
    graph, cell["trace_ms"] = _timed(lambda: trace(model, example))
    cell["groups"] = len(graph.groups)
    cell["mixed"] = sum(bool(g.mixed) for g in graph.groups)
    cell["pinned"] = [[g.name, g.size, g.pinned] for g in graph.groups if g.pinned]
    cell["notes"] = list(graph.notes)
    at("plan")
    plan, cell["halved"] = halved(graph)
    dense, cost = cost_of(graph), cost_of(graph, plan)
    cell["shares"] = dict(shares(cost, dense))
    cell["dense"], cell["predicted"] = dense.as_dict(), cost.as_dict()
    at("compact")
    small, cell["compact_ms"] = _timed(lambda: compact(model, graph, plan))
    at("forward")
    found = [x.shape for x in outputs(small, example)]
    at("backward")
    cell["backward"] = step_backward(small, single(draw, batch=IMAGES))
    at("cost")
    cell["counted"] = {"params": count(small), "macs": cost_of(trace(small, example)).macs}
    same = found == [x.shape for x in outputs(mask(model, graph, plan), example)]
    cell["as_predicted"] = same and all(cell["counted"][key] == cell["predicted"][key] for key in cell["counted"])
    at("compare")
    lived_in(model, draw)
    cell |= compared(model, graph, plan, draw)
    odd = uneven(graph)
    if odd is not None:
        at("compare uneven widths")
        # Cut to its minimum, a layer norm of one channel gives the same for all images.
        found = compared(model, graph, odd, draw, errors_only=cell["variation"] >= LEAST)
        if found.pop("finite"):
            cell |= {f"uneven_{key}": value for key, value in found.items()}


def runs_uncut(make: Callable[[], tuple[nn.Module, Draw]]) -> None:
    """Raises where the model itself cannot do what is asked of the small one; a model of its own is used up for it."""
    model, draw = make()
    without_chance(model)
    outputs(model, single(draw))
    error = step_backward(model, single(draw, batch=IMAGES))
    if error:
        raise ValueError(error)
    lived_in(model, draw)
    for training in (False, True):
        outputs(model, drawn(draw), training=training)


def compared(model: nn.Module, graph: ChannelGraph, plan: Plan, draw: Draw, *, errors_only: bool = False) -> Cell:
    """How far the compact model is from the masked one, and what says that the comparison means anything.

    `rounding` and `train_rounding` are how much the masked model's outputs differ once its images are changed by a few
    units of the last place, `variation` how much they differ between two batches, `moved` how much from the uncut
    model's. `second_error` and `second_train_error` are a check without prunit's mask: how far the compact model is
    from the uncut one in which every weight is zero that is not found in the compact model by its value. Norms over
    channels count those zeros, so they are large where there are some.
    """
    inputs = drawn(draw, seed=7)
    zeroed = mask(model, graph, plan)
    # The dense network's statistics would let what is left fade from layer to layer, down to nothing in deep networks.
    settle(zeroed, drawn(draw, seed=1))
    hand_on_statistics(zeroed, model)
    small = compact(model, graph, plan)
    second = None if errors_only else masked_like(model, small)
    near = disturbed(inputs, seed=8)
    wanted, found = outputs(zeroed, inputs), outputs(small, inputs)
    cell: Cell = {"eval_error": difference(wanted, found)}
    if not errors_only:
        cell["rounding"] = difference(wanted, outputs(zeroed, near))
        cell["variation"] = difference(wanted, outputs(zeroed, drawn(draw, seed=9)))
        cell["moved"] = difference(outputs(model, inputs), wanted)
        cell["second_error"] = None if second is None else difference(outputs(second, inputs), found)
    trained, trained_small = outputs(zeroed, inputs, training=True), outputs(small, inputs, training=True)
    cell["train_error"] = difference(trained, trained_small)
    cell["train_rounding"] = difference(trained, outputs(zeroed, near, training=True))
    if second is not None:
        cell["second_train_error"] = difference(outputs(second, inputs, training=True), trained_small)
    cell["finite"] = all(bool(x.isfinite().all()) for x in (*wanted, *trained))
    return cell


def verdict(cell: Cell) -> str:
    """What a finished cell says, the worst first.

    wrong       the compact network ran and gave other outputs than the masked one
    miscounted  it has other parameters or macs than predicted, or another output shape
    failed      it cannot be trained a step
    unclear     the masked network itself gives no finite numbers, or the same for every image
    exact       none of these
    """
    if not cell["finite"] or max(cell["variation"], cell.get("uneven_variation", 0.0)) < LEAST:
        return "unclear"
    if not all(cell.get(key, 0.0) < _allowed(cell, key) for key in ERRORS):
        return "wrong"
    if not cell["as_predicted"]:
        return "miscounted"
    return "failed" if cell["backward"] else "exact"


def _allowed(cell: Cell, key: str) -> float:
    """EXACT, or ten times what a change in the last place does: batch statistics of few images can magnify it a lot."""
    return max(EXACT, min(MOST, 10 * cell.get(key.replace("error", "rounding"), 0.0)))


def export(make: Callable[[], tuple[nn.Module, Draw]], cell: Cell, at: At) -> None:
    """Export the compact model of the same plan, checked in ONNX Runtime; if that fails, say whether the dense does."""
    at("build")
    model, draw = make()
    without_chance(model)
    graph = trace(model, single(draw))
    plan, _ = halved(graph)
    lived_in(model, draw)
    small = compact(model, graph, plan)
    at("rounding")
    cell["float_rounding"] = rounding = _rounding(small, draw)
    tolerance = max(ONNX_EXACT, min(ONNX_MOST, 10 * rounding))
    example = single(draw, batch=1)
    small.float()
    with tempfile.TemporaryDirectory() as folder:
        at("export")
        try:
            start = time.perf_counter()
            record = export_onnx(small, example, Path(folder), name="compact", tolerance=tolerance)
            cell |= {"onnx_bytes": record.bytes, "onnx_s": time.perf_counter() - start}
        except Exception:
            at("export dense")
            try:
                export_onnx(model.float(), example, Path(folder), name="dense", tolerance=tolerance)
                cell["dense_exports"] = True
            except Exception as error:
                cell["dense_exports"] = False
                cell["dense_error"] = first_line(error)
            at("export")
            raise


def _rounding(model: nn.Module, draw: Draw) -> float:
    """What float32 changes of the outputs in float64, relative to the largest: the most of some batches."""
    twin = copy.deepcopy(model).float()
    worst = 0.0
    for seed in range(8):
        inputs = single(draw, seed=seed, batch=IMAGES)
        found = [x.double() for x in outputs(twin, inputs)]
        worst = max(worst, difference(outputs(model, in_type(inputs, torch.float64)), found))
    return worst


def first_line(error: BaseException) -> str:
    """The error's class and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = run()
    return result, (time.perf_counter() - start) * 1e3
