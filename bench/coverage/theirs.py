"""What Torch-Pruning makes of one model: half of the channels by its recommended importance, with no hints."""

import copy
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from bench._nets import count
from bench.coverage.networks import difference, images, lived_in, masked_like, outputs, step_backward, without_chance

EXACT: Final = 1e-9

Cell = dict[str, Any]
At = Callable[[str], None]


def examine(make: Callable[[], tuple[nn.Module, Tensor]], cell: Cell, at: At) -> None:
    """Fill `cell` stage by stage; raises whatever Torch-Pruning or the pruned model raises."""
    import torch_pruning as tp

    at("build")
    model, example = make()
    size = example.shape[-1]
    without_chance(model)
    example = images(size, seed=7)
    dense = lived_in(model, size)
    twin = copy.deepcopy(dense)
    macs, params = _counted(tp, twin, example)
    at("graph")
    start = time.perf_counter()
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    pruner = tp.pruner.BasePruner(
        twin, example, importance=importance, pruning_ratio=0.5, ignored_layers=classifiers(twin)
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
    left_macs, left_params = _counted(tp, twin, example)
    cell["shares"] = {"macs": left_macs / macs, "params": left_params / params}
    at("compare")
    zeroed = masked_like(dense, twin)
    cell["error"] = None if zeroed is None else difference(outputs(zeroed, example), found)
    at("backward")
    cell["backward"] = step_backward(twin, images(size))


def classifiers(model: nn.Module) -> list[nn.Module]:
    """The layers that give the class scores: what timm calls the classifier, else the last linear layer."""
    found = model.get_classifier() if hasattr(model, "get_classifier") else None
    heads = [m for m in (found if isinstance(found, tuple | list) else [found]) if isinstance(m, nn.Module)]
    layers = [m for head in heads for m in head.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return layers or [m for m in model.modules() if isinstance(m, nn.Linear)][-1:]


def _counted(tp: Any, model: nn.Module, example: Tensor) -> tuple[float, int]:
    """Macs of one image by Torch-Pruning's own counter, and parameters."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        macs, _ = tp.utils.count_ops_and_params(model, example[:1])
    return float(macs), count(model)


def verdict(cell: Cell) -> str:
    """'exact', 'wrong' (it runs, and is not the masked network), 'runs' (not comparable) or 'failed' (no gradients)."""
    if cell["backward"]:
        return "failed"
    if cell["error"] is None:
        return "runs"
    return "exact" if cell["error"] < EXACT else "wrong"
