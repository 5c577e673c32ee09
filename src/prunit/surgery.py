"""Readings of a plan: `mask` zeroes what goes, `compact` removes it, `rectify` re-initialises what that hurt.

`compact(model, graph, plan)` and `mask(model, graph, plan)` compute the same function, in evaluation and in training
mode; that is the oracle behind the tests. So `mask` zeroes what *reads* a pruned channel, not what makes it: a zeroed
producer still emits f(batch norm's shift), which the compact model does not have.
"""

import copy
import math
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from prunit.errors import SurgeryError, unknown
from prunit.graph import ChannelGraph
from prunit.graph.running import as_inputs, meta_twins, named_tensors, standing_in, tensors_in, to_meta
from prunit.plans import Plan

Rectify = Literal["reinit", "rescale", "none", "all"]
"""How layers that lost inputs or outputs are re-initialised; see `rectify`."""


def compact(model: nn.Module, graph: ChannelGraph, plan: Plan) -> nn.Module:
    """A new, smaller model that keeps the plan's channels; `model` is left as it was.

    Each tensor is cut once and nothing dense is copied, so the extra memory is that of the result and one layer.
    Raises `PlanError` if the plan is for another model.
    """
    plan.check(graph)
    return rebuild(model, cut_tensors(graph, graph.flat_keep(plan.keep), _named_tensors(model)))


def cut_tensors(graph: ChannelGraph, keep: np.ndarray, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """New tensors with only the kept channels; `tensors` go by state-dict name and have the dense shapes.

    `keep` is what `ChannelGraph.flat_keep` gives. The tensors need not be the model's own: masks or positions do too.
    """
    cuts: dict[str, list[tuple[int, np.ndarray]]] = {}
    for axis in graph.axes:
        stays = keep[axis.where]
        if not stays.all():
            cuts.setdefault(axis.tensor, []).append((axis.dim, np.flatnonzero(stays)))
    return {name: _cut(tensor, cuts.get(name, [])) for name, tensor in tensors.items()}


def mask(model: nn.Module, graph: ChannelGraph, plan: Plan) -> nn.Module:
    """A copy of `model` in its dense shapes whose outputs are those of `compact(model, graph, plan)`."""
    twin = rebuild(model, {n: t.detach().clone() for n, t in _named_tensors(model).items()})
    mask_(twin, graph, plan)
    return twin


def mask_(model: nn.Module, graph: ChannelGraph, plan: Plan) -> None:
    """Zero, in place, every weight that reads a pruned channel. After an optimiser step, call it again."""
    plan.check(graph)
    keep = graph.flat_keep(plan.keep)
    named = _named_tensors(model)
    with torch.no_grad():
        for axis in graph.axes:
            stays = keep[axis.where]
            if axis.role == "in" and not stays.all():
                tensor = named[axis.tensor]
                gone = torch.from_numpy(np.flatnonzero(~stays)).to(tensor.device)
                tensor.index_fill_(axis.dim, gone, 0)


def rebuild(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `model` that holds `tensors` (by state-dict name) instead of its own, with layer sizes to match.

    The model's own tensors are never copied: the copy's memo already holds their replacements. Names that share one
    new tensor are tied in the copy.
    """
    memo: dict[int, Any] = {}
    parameters: dict[int, nn.Parameter] = {}
    for name, old in _named_tensors(model).items():
        new = tensors[name]
        if isinstance(old, nn.Parameter):
            new = parameters.setdefault(id(new), nn.Parameter(new, old.requires_grad))
        memo[id(old)] = new
    try:
        small = copy.deepcopy(model, memo)
    except Exception as error:
        raise SurgeryError(
            f"cannot copy {type(model).__name__}: {_one_line(error)}. A tensor that a layer keeps between calls (as"
            " torch.nn.utils.prune and the old weight_norm do) or a handle to the outside must be removed first"
        ) from error
    for path, module in small.named_modules():
        _resize(module, model.get_submodule(path))
    return small


def check_runs(model: nn.Module, compacted: nn.Module, example: Any) -> None:
    """Run the compact model on meta tensors; `SurgeryError` with file and line if a size is fixed in its code.

    In evaluation and in training mode, where some models have further outputs; also compares the output shapes with
    those of `model`.
    """
    args, kwargs = to_meta(as_inputs(example))
    for training in (False, True):
        try:
            dense = _shapes_on_meta(model, args, kwargs, training=training)
        except Exception:  # it cannot run so at all (it looks at values, a batch of one in training): nothing to say
            continue
        try:
            found = _shapes_on_meta(compacted, args, kwargs, training=training)
        except Exception as error:
            raise SurgeryError(_fixed_size(error)) from error
        if found != dense:
            raise SurgeryError(
                f"the compact model's output has shape {_listed(found)}, the dense one's {_listed(dense)}: a channel"
                " number is probably fixed in the model's forward; take it from the tensor's shape"
            )


def pin_fixed_sizes(model: nn.Module, graph: ChannelGraph, example: Any) -> ChannelGraph:
    """The graph with those groups pinned too that the model's code gives a fixed size (`view(B, 64)`), if any.

    Tried on meta tensors by cutting one channel: of all groups together, and one by one only where that does not run.
    Raises `SurgeryError` if what is left does not run together.
    """
    free = [g.name for g in graph.groups if not g.pinned]
    if _why_not(model, graph, free, example) is None:
        return graph
    for name in free:
        error = _why_not(model, graph, [name], example)
        if error is not None:
            where = _where(error.__cause__) if error.__cause__ else ""
            graph = graph.pin([name], f"the model's code fixes its size{where}")
    error = _why_not(model, graph, [g.name for g in graph.groups if not g.pinned], example)
    if error is not None:
        raise error
    return graph


def _why_not(model: nn.Module, graph: ChannelGraph, names: list[str], example: Any) -> SurgeryError | None:
    """What is wrong with a model whose groups `names` lack their last channel."""
    keep = graph.flat_keep({n: range(graph.group(n).size - 1) for n in names})
    try:
        check_runs(model, rebuild(model, cut_tensors(graph, keep, meta_twins(_named_tensors(model)))), example)
    except SurgeryError as error:
        return error
    return None


def _shapes_on_meta(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, training: bool
) -> list[tuple[int, ...]]:
    with standing_in(model, meta_twins(named_tensors(model)), training=training), torch.no_grad():
        return [tuple(leaf.shape) for leaf in tensors_in(model(*args, **kwargs))]


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))


def rectify(compacted: nn.Module, model: nn.Module, how: Rectify = "reinit", *, seed: int = 0) -> tuple[str, ...]:
    """Re-initialise, in place, the layers of `compacted` that lost inputs or outputs; the names of those layers.

    reinit   He-normal weights for the new fan-in (He et al. 2015), zero bias; batch norm back to gain 1, shift 0 and
             fresh statistics; layers with unchanged shape keep the weights that they had
    rescale  inherited weights times sqrt(old fan-in / new fan-in), which restores He-normal's deviation
    none     inherited weights as they are
    all      `reinit` for every layer, changed or not

    `model` is the dense one that `compacted` was cut from. This is the Resilient Layer Rectifier of Reconvene (Eccles
    et al. 2024); the paper's distribution is not public, so these are readings of it (see docs/cards/reconvene.md).
    """
    if how not in get_args(Rectify):
        raise unknown("rectifier", str(how), get_args(Rectify))
    if how == "none":
        return ()
    device = next((p.device for p in compacted.parameters()), torch.device("cpu"))
    generator = torch.Generator(device).manual_seed(seed)
    changed: list[str] = []
    done: set[int] = set()
    with torch.no_grad():
        for path, module in compacted.named_modules():
            old = model.get_submodule(path)
            if not isinstance(module, _ConvNd | nn.Linear | _BatchNorm):
                continue
            if how != "all" and _shapes(module) == _shapes(old):
                continue
            changed.append(path)
            weight = _weight(module)
            if isinstance(module, _BatchNorm):
                if how != "rescale":
                    module.reset_parameters()  # gain 1, shift 0, statistics of no data
            elif weight is not None and id(weight) not in done:
                done.add(id(weight))  # a weight that two layers share is treated once
                _renew(module, weight, old, how, generator)
    return tuple(changed)


def _renew(
    module: _ConvNd | nn.Linear, weight: Tensor, old: nn.Module, how: Rectify, generator: torch.Generator
) -> None:
    if how == "rescale":
        weight.mul_(math.sqrt(_fan_in(old) / _fan_in(module)))
        return
    weight.normal_(0, math.sqrt(2 / _fan_in(module)), generator=generator)
    if module.bias is not None:
        module.bias.zero_()


def _shapes(module: nn.Module) -> list[torch.Size]:
    return [t.shape for t in (*module.parameters(), *module.buffers())]


def _weight(module: nn.Module) -> Tensor | None:
    """The tensor behind `module.weight`, without computing it: a parametrisation may change its state when asked."""
    if parametrize.is_parametrized(module, "weight"):
        module, name = module.parametrizations["weight"], "original"  # pyright: ignore[reportIndexIssue]
    else:
        name = "weight"
    weight = module._parameters.get(name)
    return weight if weight is not None else module._buffers.get(name)


def _fan_in(module: nn.Module) -> int:
    weight = _weight(module)
    assert weight is not None
    if isinstance(module, _ConvTransposeNd):
        return weight.shape[0] // module.groups * math.prod(weight.shape[2:])
    return math.prod(weight.shape[1:])


def _named_tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _cut(tensor: Tensor, cuts: list[tuple[int, np.ndarray]]) -> Tensor:
    """The tensor with only the kept positions of each cut dimension; always new memory."""
    result = tensor.detach()
    # The strongest cut first, so that the step between holds as little as can be.
    for dim, kept in sorted(cuts, key=lambda c: len(c[1]) / tensor.shape[c[0]]):
        result = result.index_select(dim, torch.from_numpy(kept).to(result.device))
    if not cuts:
        return result.clone()
    format = _memory_format(tensor)
    if format is torch.contiguous_format:
        return result.contiguous()
    return torch.empty_like(result, memory_format=format).copy_(result)


def _memory_format(tensor: Tensor) -> torch.memory_format:
    # By the strides: a 1x1 kernel counts as contiguous in every format; its strides tell a convolution which is meant.
    if tensor.stride() != torch.empty(tensor.shape, device="meta").stride():
        for format in (torch.channels_last, torch.channels_last_3d):
            if tensor.ndim == (4 if format is torch.channels_last else 5) and tensor.is_contiguous(
                memory_format=format
            ):
                return format
    return torch.contiguous_format


def _resize(module: nn.Module, old: nn.Module) -> None:
    """Make the layer's size attributes say what its tensors hold."""
    weight = _weight(module)
    if isinstance(module, _ConvNd) and isinstance(old, _ConvNd) and weight is not None:
        out_dim, in_dim = (1, 0) if isinstance(module, _ConvTransposeNd) else (0, 1)
        if old.groups > 1 and old.groups == old.in_channels and out_dim == 0:  # depthwise: a group for each channel
            module.groups = weight.shape[0] // (old.out_channels // old.groups)
        other = module.groups
        module.out_channels = weight.shape[out_dim] * (other if out_dim else 1)
        module.in_channels = weight.shape[in_dim] * (1 if out_dim else other)
    elif isinstance(module, nn.Linear) and weight is not None:
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, _NormBase):
        vector = module.running_mean if isinstance(module.running_mean, Tensor) else weight
        if vector is not None:
            module.num_features = len(vector)
    elif isinstance(module, nn.PReLU) and weight is not None:
        module.num_parameters = len(weight)


def _fixed_size(error: Exception) -> str:
    return (
        f"the compact model does not run{_where(error)}: {_one_line(error)}. A channel number is probably fixed in the"
        " code there: take it from the tensor's shape, or keep the layers before it whole with pin=(…)"
    )


def _where(error: BaseException) -> str:
    """The user's line of code in which the error arose."""
    ours = (str(Path(nn.__file__).parents[1]), str(Path(__file__).parent))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    return f" at {frames[-1].filename}:{frames[-1].lineno} `{frames[-1].line}`" if frames else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
