"""Readings of a plan: `mask` zeroes what goes, `compact` removes it, `rectify` re-initialises what that hurt.

`compact(model, graph, plan)` and `mask(model, graph, plan)` compute the same function, in evaluation and in training
mode; that is the oracle behind the tests. So `mask` zeroes what *reads* a pruned channel, not what makes it: a zeroed
producer still emits f(batch norm's shift), which the compact model does not have. What looks at all channels at once is
computed on the kept ones alone.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from prunit.cut.copying import SeesGlobal, copied_module
from prunit.cut.masking import AbsentChannels
from prunit.cut.plans import Plan
from prunit.errors import PlanError, SurgeryError, unknown
from prunit.graph import ChannelGraph
from prunit.graph.computed import computed_of, computed_weights
from prunit.graph.inverse import set_value
from prunit.graph.keeping import clear
from prunit.graph.meta import OnMeta
from prunit.graph.on_kept import compute_on_kept, settle_cut
from prunit.graph.running import (
    as_inputs,
    collecting_later,
    first_only,
    meta_twins,
    named_modules,
    named_tensors,
    standing_in,
    tensors_in,
    to_meta,
    where_in_code,
)
from prunit.graph.said import sizes_said
from prunit.graph.sizes import cut_sizes, resize, set_sizes, weight_of, weight_shape
from prunit.graph.wrappers import unwrapped

Rectify = Literal["reinit", "own", "rescale", "none", "all"]
"""How layers that lost inputs or outputs are re-initialised; see `rectify`."""

_STEP_BYTES = 1 << 20
"""Of a tensor that is cut on several dimensions, about this much is read at a time."""
_SMALL_BYTES = 1 << 17
"""What is held between the cuts of a tensor of at most this size leaves no hole that matters."""


def compact(model: nn.Module, graph: ChannelGraph, plan: Plan) -> nn.Module:
    """A new, smaller model that keeps the plan's channels; `model` is left as it was.

    Nothing dense is copied whole, so the extra memory is that of the result and less than one large layer.
    Raises `PlanError` if the plan is for another model.
    """
    _check(graph, plan)
    model = unwrapped(model)
    keep = graph.flat_keep(plan.keep)
    small = rebuild(model, cut_tensors(graph, keep, _named_tensors(model)), cut_sizes(model, graph.code_sizes, keep))
    set_sizes(small, sizes_said(model, small))
    for path, *names in graph.caches:
        clear(small.get_submodule(path), names)
    settle_cut(small, model)
    give_biases(small, plan)
    return small


def _check(graph: Any, plan: Any) -> None:
    """Raise `PlanError` for a plan of another model, and for arguments in another order."""
    if not isinstance(graph, ChannelGraph) or not isinstance(plan, Plan):
        found = f"{type(graph).__name__} for the graph and {type(plan).__name__} for the plan"
        raise PlanError(f"the arguments are (model, graph, plan), as trace and plan return them; got {found}")
    plan.check(graph)


def give_biases(model: nn.Module, plan: Plan) -> None:
    """Give a bias of zeros, in place, to each layer that has none and that the plan says needs one."""
    for path in plan.biases:
        try:
            module = model.get_submodule(path)
        except AttributeError as error:
            raise PlanError(f"plan gives '{path}' a bias, a layer that the model lacks: another model?") from error
        if not isinstance(module, _ConvNd | nn.Linear):
            raise PlanError(f"plan gives '{path}' a bias, which is a {type(module).__name__}, no layer that has one")
        if module.bias is None:
            give_bias(module)


def give_bias(module: _ConvNd | nn.Linear) -> nn.Parameter:
    """The bias of zeros that a layer without one has from now on."""
    weight = weight_of(module)
    weight = next(module.parameters()) if weight is None else weight
    outputs = module.out_channels if isinstance(module, _ConvNd) else module.out_features
    module.bias = nn.Parameter(weight.new_zeros(outputs), requires_grad=weight.requires_grad)
    return module.bias


def cut_tensors(graph: ChannelGraph, keep: np.ndarray, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """New tensors with only the kept channels; `tensors` go by state-dict name and have the dense shapes.

    `keep` is what `ChannelGraph.flat_keep` gives. The tensors need not be the model's own: masks or positions do too.
    """
    cuts: dict[str, dict[int, Tensor]] = {}
    known: dict[int, Tensor] = {}  # a convolution's outputs and its batch norm mostly share one `where`
    for axis in graph.axes:
        tensor = tensors.get(axis.tensor)
        if tensor is None:
            continue
        kept = known.get(id(axis.where))
        if kept is None:
            kept = known[id(axis.where)] = torch.from_numpy(keep[axis.where].nonzero()[0])
        if len(kept) < len(axis.where):
            cuts.setdefault(axis.tensor, {})[axis.dim] = kept if tensor.is_cpu else kept.to(tensor.device)
    results: dict[str, Tensor] = {}
    unfilled: list[str] = []
    with torch.no_grad():
        for name, tensor in tensors.items():
            where, format = cuts.get(name), _memory_format(tensor)
            if where is None:
                results[name] = tensor.clone()
            elif format is torch.contiguous_format and (len(where) == 1 or tensor.nbytes <= _SMALL_BYTES):
                results[name] = _cut(tensor, where)
            else:
                shape = [len(where[d]) if d in where else size for d, size in enumerate(tensor.shape)]
                results[name] = torch.empty(shape, dtype=tensor.dtype, device=tensor.device, memory_format=format)
                unfilled.append(name)
        # Only now that every large result has its place: what is held between two cuts would leave holes among them.
        for name in unfilled:
            _cut_in_steps(tensors[name], cuts[name], results[name])
    return results


def mask(model: nn.Module, graph: ChannelGraph, plan: Plan) -> nn.Module:
    """A copy of `model` in its dense shapes whose outputs are those of `compact(model, graph, plan)`.

    Where an operator looks at all channels of a pruned group at once, a layer norm say, the copy has hooks that compute
    it on the kept channels (see `masking`); it can be trained like any other.
    """
    _check(graph, plan)
    model = unwrapped(model)
    twin = copied(model)
    mask_(twin, graph, plan)
    if any(g.mixed and len(plan.keep[g.name]) < g.size for g in graph.groups):
        AbsentChannels(graph, graph.flat_keep(plan.keep)).attach(twin)
    return twin


def mask_(model: nn.Module, graph: ChannelGraph, plan: Plan) -> None:
    """Zero, in place, every weight that reads a pruned channel. After an optimiser step, call it again.

    A weight that a layer computes (weight norm, say) is computed on what is kept of its originals from now on.
    """
    _check(graph, plan)
    model = unwrapped(model)
    keep = graph.flat_keep(plan.keep)
    named = _named_tensors(model)
    with torch.no_grad():
        for axis in graph.axes:
            stays = keep[axis.where]
            if axis.reads and not stays.all():
                tensor = named[axis.tensor]
                gone = torch.from_numpy(np.flatnonzero(~stays)).to(tensor.device)
                tensor.index_fill_(axis.dim, gone, 0)
    compute_on_kept(model, graph, keep)


def copied(model: nn.Module) -> nn.Module:
    """A copy with tensors of its own, whose hooks and functions see itself: unlike those of `copy.deepcopy`.

    Raises `SurgeryError` with the name of what cannot be copied.
    """
    return rebuild(model, {n: t.detach().clone() for n, t in _named_tensors(model).items()})


def rebuild(model: nn.Module, tensors: Mapping[str, Tensor], sizes: Mapping[str, Any] | None = None) -> nn.Module:
    """A copy of `model` that holds `tensors` (by state-dict name) instead of its own, with layer sizes to match.

    The model's own tensors are never copied: the copy's memo already holds their replacements. Names that share one
    new tensor are tied in the copy. `sizes` are values of further attributes by module path and name, as
    `graph.sizes.noted_sizes` gives them for a compact model.
    """
    memo: dict[int, Any] = {}
    parameters: dict[int, nn.Parameter] = {}
    for name, old in _named_tensors(model).items():
        new = tensors[name]
        if isinstance(old, nn.Parameter):
            new = parameters.setdefault(id(new), nn.Parameter(new, old.requires_grad))
        memo[id(old)] = new
    computed = [item for item in computed_weights(model) if item.parts is None]
    for item in computed:  # set anew below: nobody can copy it, as it has a history of how it was computed
        memo[id(item.module.__dict__.get(item.name))] = None
    try:
        with collecting_later():
            small = copied_module(model, memo)
    except SeesGlobal as error:
        raise SurgeryError(f"cannot copy {type(model).__name__}: {error}") from error
    except Exception as error:
        raise SurgeryError(
            f"cannot copy {type(model).__name__}: {_one_line(error)}. A tensor that a layer keeps between calls"
            " or a handle to the outside must be removed first"
        ) from error
    for item in computed_weights(small) if computed else ():
        item.refresh()
    for _, module in named_modules(small):
        resize(module)
    set_sizes(small, sizes or {})
    return small


def check_runs(model: nn.Module, compacted: nn.Module, example: Any) -> None:
    """Run the compact model on meta tensors; `SurgeryError` with file and line if a size is fixed in its code.

    In both modes, as some models return more in training; also compares the output shapes with those of `model`.
    """
    model, compacted = unwrapped(model), unwrapped(compacted)
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


def _shapes_on_meta(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, training: bool
) -> list[tuple[int, ...]]:
    with standing_in(model, meta_twins(named_tensors(model)), training=training), torch.no_grad(), OnMeta():
        return [tuple(leaf.shape) for leaf in tensors_in(model(*args, **kwargs))]


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))


def rectify(compacted: nn.Module, model: nn.Module, how: Rectify = "reinit", *, seed: int = 0) -> tuple[str, ...]:
    """Re-initialise, in place, the layers of `compacted` that lost inputs or outputs; the names of those layers.

    reinit   He-normal weights for the new fan-in (He et al. 2015), zero bias; batch norm back to gain 1, shift 0 and
             fresh statistics; layers with unchanged shape keep the weights that they had
    own      like `reinit`, but normal with the deviation of the dense layer's weights times sqrt(old fan-in / new
             fan-in); batch norm keeps the gain and shift that it inherited, its statistics are fresh
    rescale  inherited weights times sqrt(old fan-in / new fan-in), which restores He-normal's deviation
    none     inherited weights as they are
    all      `reinit` for every layer, changed or not

    A weight that a layer computes is set through its parametrization's inverse, so that weight norm's gains are the
    norms of what was drawn; where the inverse is not defined the layer keeps what it inherited.

    `model` is the dense one that `compacted` was cut from. This is the Resilient Layer Rectifier of Reconvene (Eccles
    et al. 2024); the paper's distribution is not public, so these are readings of it (see docs/cards/reconvene.md).
    """
    compacted, model = unwrapped(compacted), unwrapped(model)
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
            if isinstance(module, _BatchNorm):
                if how == "own":
                    module.reset_running_stats()
                elif how != "rescale":
                    module.reset_parameters()  # gain 1, shift 0, statistics of no data
                    _set_computed(module, {"weight": 1.0, "bias": 0.0})
            elif (weight := weight_of(module)) is None or id(weight) not in done:
                done.add(id(weight))  # a weight that two layers share is treated once
                _renew(module, old, how, generator)
    return tuple(changed)


def _renew(module: _ConvNd | nn.Linear, old: nn.Module, how: Rectify, generator: torch.Generator) -> None:
    shape = weight_shape(module)
    if shape is None:
        return
    grown = math.sqrt(_fan_in(old) / _fan_in(module))
    deviation = _deviation(old) * grown if how == "own" else math.sqrt(2 / _fan_in(module))
    if not deviation:  # weights that are all the same, as those of a branch that begins at zero, are meant so
        return
    computed = next((item for item in computed_of(module) if item.name == "weight"), None)
    if computed is None:
        weight = weight_of(module)
        assert weight is not None
    elif how == "rescale":
        # By its size as it is: what a norm has scaled up already is not to be scaled up again.
        weight, before = computed.value(), next(i for i in computed_of(old) if i.name == "weight").value()
        grown *= float(_size(before) / _size(weight))
    else:
        weight = next(iter(computed.places.values())).tensor.new_empty(shape)
    if how == "rescale":
        weight.mul_(grown)
    else:
        weight.normal_(0, deviation, generator=generator)
    if computed is not None:
        set_value(computed, weight)  # where its parametrization has no inverse there, it keeps what it inherited
    if how != "rescale" and module.bias is not None:
        module.bias.zero_()
        _set_computed(module, {"bias": 0.0})


def _set_computed(module: nn.Module, values: Mapping[str, float]) -> None:
    """Fill tensors that a module computes, by name."""
    for item in computed_of(module):
        if item.name in values:
            set_value(item, torch.full_like(item.value(), values[item.name]))


def _deviation(module: nn.Module) -> float:
    weights = [item.value() for item in computed_of(module) if item.name == "weight"] or [weight_of(module)]
    return float(weights[0].detach().double().std(correction=0)) if weights[0] is not None else 0.0


def _size(weight: Tensor) -> Tensor:
    return weight.double().square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)


def _shapes(module: nn.Module) -> list[torch.Size]:
    return [t.shape for t in (*module.parameters(), *module.buffers())]


def _fan_in(module: nn.Module) -> int:
    shape = weight_shape(module)
    assert shape is not None
    if isinstance(module, _ConvTransposeNd):
        return shape[0] // module.groups * math.prod(shape[2:])
    return math.prod(shape[1:])


def _named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each under its first name."""
    return first_only(named_tensors(model))


def _cut(tensor: Tensor, cuts: Mapping[int, Tensor]) -> Tensor:
    """A new tensor of the kept positions of each cut dimension, the first ones first: those are rows in memory."""
    for dim in sorted(cuts):
        tensor = tensor.index_select(dim, cuts[dim])
    return tensor


def _cut_in_steps(tensor: Tensor, cuts: Mapping[int, Tensor], result: Tensor) -> None:
    """Fill `result` with the kept positions of each cut dimension, some rows at a time.

    What one cut leaves for the next is then small, and still in the processor's cache.
    """
    if result.is_meta:
        return
    (dim, rows), *others = sorted(cuts.items())
    step = max(1, _STEP_BYTES * tensor.shape[dim] // max(1, tensor.nbytes))
    whole = step >= len(rows)
    for some, there in [(rows, result)] if whole else zip(rows.split(step), result.split(step, dim), strict=True):
        part = _cut(tensor, {dim: some, **dict(others[:-1])})
        if others:
            torch.index_select(part, *others[-1], out=there)
        else:
            there.copy_(part)


def _memory_format(tensor: Tensor) -> torch.memory_format:
    # By the strides: a 1x1 kernel counts as contiguous in every format; its strides tell a convolution which is meant.
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        format = torch.channels_last
    elif tensor.ndim == 5 and tensor.is_contiguous(memory_format=torch.channels_last_3d):
        format = torch.channels_last_3d
    else:
        return torch.contiguous_format
    return format if tensor.stride(1) == 1 and tensor.stride(-1) == tensor.shape[1] else torch.contiguous_format


def _fixed_size(error: Exception) -> str:
    return (
        f"the compact model does not run{where_in_code(error)}: {_one_line(error)}. A channel number is probably fixed"
        " in the code there: take it from the tensor's shape, or keep the layers before it whole with pin=(…)"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
