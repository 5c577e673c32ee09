"""A translated network carried over to other widths: other tensors, and the numbers in it that count channels.

A network here is an `onnx_ir.Model`; `tensors` are those of a torch model by the names of the initializers.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from torch import Tensor, nn

from prunit.cut.plans import Plan
from prunit.export.translation import name_of_value, quiet
from prunit.graph import ChannelGraph
from prunit.graph.computed import computed_weights
from prunit.graph.running import named_tensors

Place = tuple[int, str]
"""A node by its position, and its attribute; an initializer by its name, at position -1."""

_CONVOLUTIONS: Final = ("Conv", "ConvTranspose")
_FEW: Final = 16
"""A constant of more numbers than this is data, not a shape."""


@dataclass(frozen=True)
class Count:
    """Number `index` at a place, which is `factor` times the size of dimension `dim` of a tensor.

    `others` are further tensors, dimensions and factors that would explain it as well.
    """

    place: Place
    index: int
    tensor: str
    dim: int
    factor: Fraction
    others: tuple[tuple[str, int, Fraction], ...] = ()


def fill(network: Any, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put other tensors in place of those of the same names, and the groups of the model's convolutions.

    Sizes of what lies between are forgotten: they are inferred anew.
    """
    import onnx_ir

    for name, value in network.graph.initializers.items():
        tensor = tensors.get(name)
        if tensor is not None:
            value.const_value = onnx_ir.tensor(tensor.detach().contiguous().numpy(), name=name)
            value.shape = onnx_ir.Shape(tensor.shape)
    modules = dict(model.named_modules(remove_duplicate=False))
    outputs = set(network.graph.outputs)
    for node in _nodes(network):
        for value in node.outputs:
            if value not in outputs:
                value.shape = None
        if node.op_type in _CONVOLUTIONS and "group" in node.attributes:
            module = modules.get(str(node.inputs[1].name).rpartition(".")[0])
            groups = getattr(module, "groups", None)
            if isinstance(groups, int):
                node.attributes["group"] = onnx_ir.AttrInt64("group", groups)


def effective(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model by the names that they have in a translation, with what layers compute."""
    return named_tensors(model) | {name_of_value(item): item.value() for item in computed_weights(model)}


def spread_plan(graph: ChannelGraph) -> Plan:
    """A plan of as many different widths as there can be, at least half of each group that may shrink."""
    taken: set[int] = set()
    keep: dict[str, tuple[int, ...]] = {}
    for group in graph.groups:
        if group.pinned or group.size < 2:
            continue
        widths = range(group.size - 1, max(1, group.size // 2) - 1, -1)
        width = next((w for w in widths if w not in taken), widths[len(taken) % len(widths)])
        taken.add(width)
        keep[group.name] = tuple(range(width))
    return Plan(keep, {g.name: g.size for g in graph.groups})


def infer_shapes(network: Any) -> None:
    """Find the sizes of what lies between, which some rewrites ask for; left open where they do not fit together."""
    import onnx_ir.passes.common as passes

    order = list(network.graph.initializers)
    with quiet():
        passes.ShapeInferencePass(data_prop=True)(network)
    for name in order:  # it puts large ones aside, and back at the end
        network.graph.initializers[name] = network.graph.initializers.pop(name)


def counts(
    network: Any, other: Any, tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]
) -> tuple[Count, ...] | None:
    """The numbers that follow the widths, besides what `fill` sets; None where more differs.

    `network` is a translation of the model with `tensors`, filled with `others`; `other` is the translation of the
    model with `others`. A number is taken for a multiple of a tensor's size where it is so in both: the widths should
    differ from group to group, lest one is taken for another.
    """
    if _wiring(network) != _wiring(other):
        return None
    here, there = _constants(network, tensors), _constants(other, others)
    if here.keys() != there.keys():
        return None
    sizes = _sizes(tensors, others)
    found: list[Count] = []
    for place, constant in here.items():
        changed = there[place]
        if constant.dtype != changed.dtype or constant.shape != changed.shape:
            return None
        differing = np.flatnonzero(constant.ravel() != changed.ravel())
        if len(differing) and (constant.dtype != np.int64 or constant.size > _FEW):
            return None
        for index in map(int, differing):
            count = _count(place, index, int(constant.flat[index]), int(changed.flat[index]), sizes)
            if count is None:
                return None
            found.append(count)
    return tuple(found)


def set_counts(network: Any, found: tuple[Count, ...], tensors: Mapping[str, Tensor], *, certain: bool = False) -> None:
    """Set these numbers to the sizes of the given tensors; `ValueError` where one would be a fraction.

    With `certain` also where another explanation of a number would give another one.
    """
    import onnx_ir

    by_place: dict[Place, list[Count]] = defaultdict(list)
    for count in found:
        by_place[count.place].append(count)
    nodes = list(_nodes(network)) if found else []
    for (position, name), of_place in by_place.items():
        holder = network.graph.initializers[name] if position < 0 else nodes[position].attributes[name]
        array = _array(holder.const_value if position < 0 else holder.value)
        for count in of_place:
            number = count.factor * tensors[count.tensor].shape[count.dim]
            if number.denominator != 1:
                raise ValueError(f"'{name}' is {count.factor} of {count.tensor}: {number} is no whole number")
            if certain and any(factor * tensors[tensor].shape[dim] != number for tensor, dim, factor in count.others):
                others = sorted({tensor for tensor, _, _ in count.others})[:3]
                raise ValueError(f"'{name}' may follow {count.tensor} or {', '.join(others)}")
            array.flat[count.index] = int(number)
        if position < 0:
            holder.const_value = onnx_ir.tensor(array, name=name)
        elif holder.type == onnx_ir.AttributeType.TENSOR:
            nodes[position].attributes[name] = onnx_ir.AttrTensor(name, onnx_ir.tensor(array))
        elif holder.type == onnx_ir.AttributeType.INT:
            nodes[position].attributes[name] = onnx_ir.AttrInt64(name, int(array))
        else:
            nodes[position].attributes[name] = onnx_ir.AttrInt64s(name, array.tolist())


def _nodes(network: Any) -> Iterator[Any]:
    """All nodes, those of inner graphs too, always in one order."""
    import onnx_ir

    return iter(onnx_ir.traversal.RecursiveGraphIterator(network.graph))


def _wiring(network: Any) -> list[tuple[Any, ...]]:
    """What two translations of the same code share: the nodes, and where each input comes from.

    Not the names of what lies between: the exporter numbers them as it goes.
    """
    wiring: list[tuple[Any, ...]] = []
    made: dict[Any, tuple[int, int]] = {}
    for position, node in enumerate(_nodes(network)):
        inputs = tuple(made.get(value, value.name) if value is not None else None for value in node.inputs)
        wiring.append((node.domain, node.op_type, inputs, tuple(node.attributes)))
        made |= {value: (position, i) for i, value in enumerate(node.outputs)}
    return wiring


def _constants(network: Any, tensors: Mapping[str, Tensor]) -> dict[Place, np.ndarray]:
    """The numbers that stand in a network beside the tensors of the model."""
    import onnx_ir

    kinds = onnx_ir.AttributeType
    found: dict[Place, np.ndarray] = {
        (-1, name): _array(value.const_value)
        for name, value in network.graph.initializers.items()
        if name not in tensors
    }
    for position, node in enumerate(_nodes(network)):
        for name, attribute in node.attributes.items():
            if attribute.type in (kinds.GRAPH, kinds.GRAPHS):
                continue
            found[position, name] = _array(attribute.value)
    return found


def _array(value: Any) -> np.ndarray:
    """A copy of what an attribute or initializer holds."""
    return np.array(value.numpy() if hasattr(value, "numpy") else value)


def _sizes(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """Where a size was cut: sizes before and after, and the tensors and dimensions where it was so."""
    found: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    for name, tensor in tensors.items():
        for dim, pair in enumerate(zip(tensor.shape, others[name].shape, strict=True)):
            if pair[0] != pair[1]:
                found[pair].append((name, dim))
    return found


def _count(
    place: Place, index: int, dense: int, cut: int, sizes: Mapping[tuple[int, int], Sequence[tuple[str, int]]]
) -> Count | None:
    """The number as a multiple of a size, by the plainest factor."""
    fits = [
        (*where, factor)
        for (before, after), places in sizes.items()
        if (factor := Fraction(dense, before)) == Fraction(cut, after)
        for where in places
    ]
    if not fits:
        return None
    tensor, dim, factor = first = min(fits, key=lambda fit: fit[2].numerator * fit[2].denominator)
    return Count(place, index, tensor, dim, factor, tuple(fit for fit in fits if fit is not first))
