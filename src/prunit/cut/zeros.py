"""From a sparse model to a small one with the same outputs: channels that do nothing go, and what they did is kept.

DNNShifter (Eccles et al. 2024) deletes filters whose weights are all zero, but such a filter still emits a constant,
batch norm's shift through the activation, and the authors' code drops it. Here it is added to the biases (or the batch
norms) of the layers that read it. A convolution that pads its input with zeros adds less of it at the border, where no
bias can follow; there one constant channel stays and stands for all the others, exactly. Also what nobody reads goes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from prunit.cut.constants import uses_of
from prunit.cut.idle import Padded, Reading
from prunit.cut.plans import Plan
from prunit.cut.spare import with_spare
from prunit.cut.surgery import compact, copied
from prunit.errors import ModelError, SurgeryError, unknown
from prunit.graph import ChannelGraph, trace
from prunit.graph.computed import computed_weights
from prunit.graph.finite import check_finite
from prunit.graph.inputs import noise_of
from prunit.graph.inverse import set_exactly
from prunit.graph.running import as_inputs, tensors_in
from prunit.graph.wrappers import unwrapped
from prunit.shown import Shown


@dataclass(frozen=True, eq=False, repr=False)
class Removed(Shown):
    """The small model, the plan that cut it, and how many channels went for which reason.

    unread     no weight that is not zero reads it
    constants  it is constant wherever it is read, and zero or added to the readers' biases there
    merged     it is constant, and its weights now read another constant channel
    `error` is the largest difference between the outputs of both models, relative to the largest output. `spare` is how
    many channels stayed although they do nothing, since `at_least` asked for them.
    """

    model: nn.Module
    plan: Plan
    unread: int
    constants: int
    merged: int
    error: float
    spare: int = 0


def remove_zeros(
    model: nn.Module,
    example: Any,
    *,
    graph: ChannelGraph | None = None,
    padded: Padded = "merge",
    at_least: Mapping[str, int] | None = None,
) -> Removed:
    """A smaller model whose outputs in evaluation mode are those of `model`, which is left as it was.

    `example` is an input as `trace` takes it, with which the outputs are compared too. `padded` says what becomes of
    constants that a padded convolution reads: "merge" (default) is exact, "keep" is exact and removes less, "fold" is
    not exact near the border (what removal without a look at the padding comes to).

    `at_least` has by group how many channels it shall keep, for an engine that is slow at odd widths: so many of those
    that do nothing stay, as they are and with the same outputs. A group that has too few of them keeps what it must.

    Raises `SurgeryError` where the outputs differ although they should not, and `ModelError` where the model's weights
    or outputs are not finite. In training mode batch norm would compute statistics of constants: train first, then
    remove.
    """
    if padded not in get_args(Padded):
        raise unknown("treatment of padded constants", str(padded), get_args(Padded))
    model = unwrapped(model)
    check_finite(model)
    graph = trace(model, example) if graph is None else graph
    args, kwargs = noise_of(as_inputs(example))
    uses, expected = uses_of(model, args, kwargs)
    reading = Reading(model, graph, uses, padded)
    least = reading.settle()
    settled = with_spare(reading, least, at_least) if at_least else least
    keep = settled.keep
    plan = _plan(graph, keep)
    small = compact(model, graph, plan)
    if not all(bool(tensor.isfinite().all()) for tensor in expected):
        raise ModelError(
            f"the outputs of {type(model).__name__} on noise are not finite, although its weights are: nothing can be"
            " compared with them; look for a division by zero or a logarithm in its forward"
        )
    reading.give_back(small, keep)
    biases = reading.fold(small, settled)
    plan = replace(plan, biases=biases)
    error = _difference(expected, _outputs(small, args, kwargs))
    if padded != "fold" and not error <= _allowed(model):
        raise SurgeryError(
            f"after the removal of zeros the outputs differ by {error:.2g} of the largest one: a layer uses its weights"
            " in a way that was not understood. Please report the model; prunit.cut.plans.from_zeros removes less"
        )
    gone = np.flatnonzero(~keep[:-1])
    read = reading.read_by(settled.right)
    merged = sum(bool(read[channel]) for channel in settled.into)
    unread = int((~read[gone]).sum())
    spare = int(keep.sum() - least.keep.sum())
    return Removed(small, plan, unread, len(gone) - unread - merged, merged, error, spare)


def without_small_filters(model: nn.Module, tolerance: float) -> nn.Module:
    """A copy of the model without the filters whose largest weight is at most `tolerance` of their layer's largest.

    Of convolutions alone, and lossy: measure the accuracy afterwards. The largest filter of a layer always stays.
    """
    twin = copied(unwrapped(model))
    computed = {item.path: item for item in computed_weights(twin) if item.name == "weight"}
    with torch.no_grad():
        for path, module in twin.named_modules():
            if isinstance(module, _ConvNd) and not module.transposed:
                weight = computed[path].value() if path in computed else module.weight
                largest = weight.abs().flatten(1).amax(1)
                gone = largest <= tolerance * largest.max()
                weight[gone] = 0
                if path in computed and gone.any():
                    set_exactly(computed[path], weight)
    return twin


def difference(model: nn.Module, small: nn.Module, example: Any) -> float:
    """The largest difference between the outputs of two models in evaluation mode, relative to the largest output.

    On noise of the example's shapes where it is of floating point, else on the example.
    """
    args, kwargs = noise_of(as_inputs(example))
    return _difference(_outputs(model, args, kwargs), _outputs(small, args, kwargs))


def _outputs(model: nn.Module, args: Any, kwargs: Any) -> list[Tensor]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return tensors_in(model(*args, **kwargs))
    finally:
        for module, training in modes:
            module.training = training


def _difference(expected: list[Tensor], found: list[Tensor]) -> float:
    pairs = [(a.double(), b.double()) for a, b in zip(expected, found, strict=True) if a.is_floating_point()]
    largest = max((a.abs().max().item() for a, _ in pairs if a.numel()), default=0.0)
    differences = [(a - b).abs().max().item() for a, b in pairs if a.numel()]
    return max(differences, default=0.0) / max(largest, torch.finfo(torch.float64).tiny)


def _allowed(model: nn.Module) -> float:
    """Rounding may differ: a thousand times what the least precise weight resolves."""
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return 1000 * max((torch.finfo(kind).eps for kind in kinds), default=0.0)


def _plan(graph: ChannelGraph, keep: np.ndarray) -> Plan:
    kept = {
        group.name: tuple(np.flatnonzero(keep[start : start + group.size]).tolist())
        for group, start in zip(graph.groups, graph.offsets, strict=False)
    }
    origin = {"recipe": "zeros"}
    sizes = {g.name: g.size for g in graph.groups}
    return Plan(kept, sizes, origin, inputs=graph.inputs, training_inputs=graph.training_inputs)
