"""What Torch-Pruning makes of one model: half of the channels by its recommended importance, with no hints."""

import copy
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from bench._nets import count
from bench.coverage import ours
from bench.coverage.networks import (
    Draw,
    difference,
    disturbed,
    drawn,
    lived_in,
    masked_like,
    outputs,
    precision,
    run,
    step_backward,
    without_chance,
)
from prunit.graph.running import tensors_in

EXACT: Final = 1e-9
ERRORS: Final = ("error", "train_error")

Cell = dict[str, Any]
At = Callable[[str], None]


def examine(make: Callable[[], tuple[nn.Module, Draw]], cell: Cell, at: At) -> None:
    """Fill `cell` stage by stage; raises whatever Torch-Pruning or the pruned model raises."""
    import torch_pruning as tp

    at("build")
    model, draw = make()
    without_chance(model)
    example = drawn(draw, seed=7)
    dense = lived_in(model, draw)
    twin = copy.deepcopy(dense)
    macs, params = _counted(tp, twin, draw)
    at("graph")
    start = time.perf_counter()
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    ignored = classifiers(twin) if hasattr(twin, "get_classifier") else last_layers(twin, example)
    with precision(torch.float64):
        pruner = tp.pruner.BasePruner(
            twin,
            _as_inputs(example),
            importance=importance,
            pruning_ratio=0.5,
            ignored_layers=ignored,
            output_transform=lambda out: [x for x in tensors_in(out) if x.grad_fn is not None],
        )
    cell["graph_ms"] = (time.perf_counter() - start) * 1e3
    at("prune")
    start = time.perf_counter()
    pruner.step()
    cell["prune_ms"] = (time.perf_counter() - start) * 1e3
    at("forward")
    found = outputs(twin, example)
    if [x.shape for x in found] != [x.shape for x in outputs(dense, example)]:
        raise ValueError(f"the outputs now have shape {tuple(found[0].shape)}")
    left_macs, left_params = _counted(tp, twin, draw)
    cell["shares"] = {"params": left_params / params}
    if macs and left_macs:
        cell["shares"]["macs"] = left_macs / macs
    at("compare")
    zeroed = masked_like(dense, twin)
    cell["error"] = None
    if zeroed is not None:
        near, wanted = disturbed(example, seed=8), outputs(zeroed, example)
        cell["error"] = difference(wanted, found)
        cell["rounding"] = difference(wanted, outputs(zeroed, near))
        at("compare training")
        wanted = outputs(zeroed, example, training=True)
        cell["train_error"] = difference(wanted, outputs(twin, example, training=True))
        cell["train_rounding"] = difference(wanted, outputs(zeroed, near, training=True))
    at("backward")
    cell["backward"] = step_backward(twin, drawn(draw))


def classifiers(model: nn.Module) -> list[nn.Module]:
    """The layers that give the class scores: what timm calls the classifier, else the last linear layer."""
    found: Any = model.get_classifier() if hasattr(model, "get_classifier") else None  # pyright: ignore[reportCallIssue]
    heads = [m for m in (found if isinstance(found, tuple | list) else [found]) if isinstance(m, nn.Module)]
    layers = [m for head in heads for m in head.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return layers or [m for m in model.modules() if isinstance(m, nn.Linear)][-1:]


def last_layers(model: nn.Module, inputs: Any) -> list[nn.Module]:
    """The layers from which an output comes without another layer in between: their channels are the outputs' own."""
    owner = {id(p): module for module in model.modules() for p in module.parameters(recurse=False)}
    for module in model.modules():
        parametrized = getattr(module, "parametrizations", None)
        if isinstance(parametrized, nn.ModuleDict):
            owner |= {id(p): module for p in parametrized.parameters()}
    model.eval()
    waiting = [x.grad_fn for x in run(model, inputs) if x.grad_fn is not None]
    seen, found = set(waiting), dict[nn.Module, None]()
    while waiting:
        step = waiting.pop()
        before = [parent for parent, _ in step.next_functions if parent is not None]
        weights = _WEIGHTS.get(step.name().removesuffix("0"))
        if weights is not None:
            leaves = [leaf for n in weights for leaf in _leaves(step.next_functions[n][0])]
            layers = [owner[id(leaf)] for leaf in leaves if id(leaf) in owner]
            found |= dict.fromkeys(layers)
            if layers:
                continue
        new = [parent for parent in before if parent not in seen]
        seen.update(new)
        waiting += new
    return list(found)


_WEIGHTS: Final = {"ConvolutionBackward": (1,), "AddmmBackward": (2,), "MmBackward": (1,)}
"""Where among the inputs of what a layer computes its weight is, by PyTorch's name of the backward step."""
_DEPTH: Final = 6


def _leaves(step: Any, depth: int = 0) -> list[Tensor]:
    """The parameters that a weight is made of, where no more than a few steps lie between (a transpose, a norm)."""
    if step is None or depth == _DEPTH or step.name().removesuffix("0") in _WEIGHTS:
        return []
    own = [step.variable] if hasattr(step, "variable") else []
    return own + [leaf for parent, _ in step.next_functions for leaf in _leaves(parent, depth + 1)]


def _as_inputs(example: Any) -> Any:
    """An example as Torch-Pruning takes it: a tensor alone would be tried as so many inputs first."""
    return example if isinstance(example, dict | tuple | list) else (example,)


def _counted(tp: Any, model: nn.Module, draw: Draw) -> tuple[float | None, int]:
    """Macs of one image by Torch-Pruning's own counter, None where that fails, and parameters."""
    example = drawn(draw, batch=1)
    try:
        with warnings.catch_warnings(), torch.no_grad(), precision(torch.float64):
            warnings.simplefilter("ignore")
            macs, _ = tp.utils.count_ops_and_params(model, _as_inputs(example))
    except Exception:  # its counter knows neither all inputs nor all layers, which is not what is measured here
        return None, count(model)
    return float(macs), count(model)


def verdict(cell: Cell) -> str:
    """'exact', 'wrong' (it runs, and is not the masked network), 'runs' (not comparable) or 'failed' (no gradients)."""
    if cell["backward"]:
        return "failed"
    if cell["error"] is None:
        return "runs"
    return "exact" if all(cell.get(key, 0.0) < _allowed(cell, key) for key in ERRORS) else "wrong"


def _allowed(cell: Cell, key: str) -> float:
    """EXACT, or what rounding alone makes, as for prunit."""
    return max(EXACT, min(ours.MOST, 10 * cell.get(key.replace("error", "rounding"), 0.0)))
