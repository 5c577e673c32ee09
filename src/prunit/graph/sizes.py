"""Sizes that stand outside of tensors: in the attributes of layers, and in whatever else a module's code reads.

A layer of torch.nn says how wide it is in attributes; `resize` makes them say what its tensors hold. Other modules
note sizes for their own code: `torch.split(x, self.width, 1)`. The tracer finds which attributes hold the size that an
operator was given (`holders`); what they must become follows from what a plan keeps (`cut_sizes`).
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from prunit.errors import SurgeryError
from prunit.graph.computed import Computed, computed_of
from prunit.graph.records import CodeSize
from prunit.graph.written import set_view, sizes_of_view

Sizes = dict[str, dict[str, Any]]
"""Values of attributes by module path and name: ints, lists and tuples of ints."""

SET: Final = "_prunit_sizes"
"""Attribute of a compact model: the sizes that were set on its modules, for whoever stores it."""

LAYERS: Final = (_ConvNd, nn.Linear, _NormBase, nn.PReLU, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
_RESIZED: Final = frozenset(
    "in_channels out_channels groups in_features out_features num_features num_parameters normalized_shape"
    " num_channels num_groups kernel_size stride padding dilation output_padding"
    " _reversed_padding_repeated_twice".split()
)


def weight_of(module: nn.Module) -> Tensor | None:
    """The tensor behind `module.weight`, without computing it: a parametrisation may change its state when asked.

    Of a weight that is computed from several tensors it is the one of its shape, None where there is none such.
    """
    item = _computed_weight(module)
    if item is not None:
        return item.places[item.main.removeprefix(item.prefix)].tensor if item.main else None
    weight = module._parameters.get("weight")
    return weight if weight is not None else module._buffers.get("weight")


def weight_shape(module: nn.Module) -> torch.Size | None:
    """The shape of `module.weight`, None if it has none; a weight that the layer computes is not computed for it."""
    item = _computed_weight(module)
    if item is not None:
        return item.shape
    weight = weight_of(module)
    return None if weight is None else weight.shape


def _has_weight(module: nn.Module) -> bool:
    """It has a weight, of whatever kind; nothing is computed, as a tracer may be looking on."""
    return _computed_weight(module) is not None or weight_of(module) is not None


def _computed_weight(module: nn.Module) -> Computed | None:
    if not module._forward_pre_hooks and "parametrizations" not in module._modules:
        return None
    return next((item for item in computed_of(module) if item.name == "weight"), None)


def resize(module: nn.Module) -> None:
    """Make the size attributes of a layer say what its tensors hold."""
    if not isinstance(module, LAYERS):
        return
    weight = weight_shape(module)
    if isinstance(module, _ConvNd) and weight is not None:
        out_dim, in_dim = (1, 0) if isinstance(module, _ConvTransposeNd) else (0, 1)
        # Depthwise: a group for each channel.
        if module.groups > 1 and module.groups == module.in_channels:
            each = 1 if out_dim else module.out_channels // module.groups
            module.groups = weight[0] // each
        other = module.groups
        module.out_channels = weight[out_dim] * (other if out_dim else 1)
        module.in_channels = weight[in_dim] * (1 if out_dim else other)
    elif isinstance(module, nn.Linear) and weight is not None:
        module.out_features, module.in_features = weight
    elif isinstance(module, _NormBase):
        mean = module.running_mean
        vector = mean.shape if isinstance(mean, Tensor) else weight
        if vector is not None:
            module.num_features = vector[0]
    elif isinstance(module, nn.PReLU) and weight is not None:
        module.num_parameters = weight[0]
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm) and weight is not None:
        module.normalized_shape = tuple(weight)
    elif isinstance(module, nn.GroupNorm) and weight is not None:
        if module.num_groups == module.num_channels:  # each channel is a group
            module.num_groups = weight[0]
        module.num_channels = weight[0]


def holders(module: nn.Module, value: int) -> Iterable[tuple[str, int | None]]:
    """Attributes of a module, and entries of its lists and tuples, that hold this size and that `resize` leaves."""
    skipped = _RESIZED if isinstance(module, LAYERS) and _has_weight(module) else ()
    for name, held in module.__dict__.items():
        kind = type(held)
        if kind is int:
            if held == value and name not in skipped:
                yield name, None
        elif isinstance(held, list | tuple) and held and name not in skipped:
            yield from ((name, i) for i, entry in enumerate(held) if type(entry) is int and entry == value)


def cut_sizes(model: nn.Module, code_sizes: Iterable[CodeSize], keep: np.ndarray) -> Sizes:
    """What the attributes must become when the channels in `keep` stay (as `ChannelGraph.flat_keep` gives them)."""
    found: Sizes = {}
    counts: dict[tuple[str, str, int | None], int] = {}
    for size in code_sizes:
        count = int(keep[size.where].sum())
        place = (size.module, size.name, size.index)
        if counts.setdefault(place, count) != count:
            raise SurgeryError(
                f"'{size.module}.{size.name}' counts {counts[place]} channels in one place and {count} in another:"
                " use two attributes, or pin the layers before it",
                size.module,
            )
        held = sizes_of_view(size.name) or getattr(model.get_submodule(size.module), size.name)
        mine = found.setdefault(size.module, {})
        if size.index is None:
            mine[size.name] = count
        else:
            entries = list(mine.get(size.name, held))
            entries[size.index] = count
            mine[size.name] = type(held)(entries)
    return found


def set_sizes(model: nn.Module, sizes: Mapping[str, Mapping[str, Any]]) -> None:
    """Set the attributes, and note them on the model for whoever stores it; lists become tuples where they were."""
    for path, values in sizes.items():
        module = model.get_submodule(path)
        for name, value in values.items():
            if sizes_of_view(name):
                set_view(module, name, value)
                continue
            held = getattr(module, name, None)
            setattr(module, name, type(held)(value) if isinstance(held, list | tuple) else value)
    noted = {path: dict(values) for path, values in getattr(model, SET, {}).items()}
    for path, values in sizes.items():
        noted.setdefault(path, {}).update(values)
    if noted:
        model.__dict__[SET] = noted


def noted_sizes(model: nn.Module) -> Sizes:
    """The sizes that were set on a compact model."""
    return {path: dict(values) for path, values in getattr(model, SET, {}).items()}
