"""Where a plan's cycles go on a part, and which groups could be wider for nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from prunit.cut.plans import Plan
from prunit.mcu.network import IntegerNetwork
from prunit.mcu.parts import Part
from prunit.mcu.vela import Compiled, compiled
from prunit.prices.costs import width_array
from prunit.recipe.blueprint import Blueprint
from prunit.recipe.on_parts import BLOCK, Asked, PartMeter, figures_by_compiler, figures_of

_FREE: Final = 1.005
"""Weights that nobody computes with are still loaded: what costs no time costs some."""


@dataclass(frozen=True)
class LayerSpent:
    """An operator of the compiled network: how many channels it reads and makes, and what it takes."""

    layer: str
    operator: str
    reads: int
    makes: int
    cycles: int
    dense_cycles: int


@dataclass(frozen=True)
class Spent:
    """What a plan takes on a part, `dense` what the dense model does, both untrained.

    `free` gives for a group the most channels that it may keep at hardly more cycles (`free_widths`), by the table of
    layers; groups that could not be wider are left out.
    """

    part: Part
    tool: str
    figures: Mapping[str, float]
    dense: Mapping[str, float]
    layers: tuple[LayerSpent, ...] = ()
    free: Mapping[str, int] | None = None


def spent_on(on: Part, blueprint: Blueprint, plan: Plan) -> Spent:
    """What a plan of the blueprint's model takes on a part; `ModelError` where an operator is left to the CPU."""
    graph = blueprint.graph
    widths = width_array(graph, plan.widths)
    if on.kind == "tflm":
        own, dense = (figures_of(blueprint.file(each, on), on) for each in (widths, graph.sizes))
        return Spent(on, "tflite-micro", own, dense)
    own, dense = (compiled(blueprint.file(each, on), on) for each in (widths, graph.sizes))
    network = blueprint.shapes_at(widths)
    now, before = (cycles_by_operator(network, found) for found in (own, dense))
    layers = tuple(
        LayerSpent(
            operator.layer,
            operator.code,
            network.by_name[_image(network, operator.inputs)].shape[-1],
            network.by_name[operator.outputs[0]].shape[-1],
            now[operator.outputs[0]],
            before[operator.outputs[0]],
        )
        for operator in network.operators
        if now[operator.outputs[0]] or before[operator.outputs[0]]
    )
    tool = f"Vela {own.version}, {on.system_config}, {on.memory_mode}"
    return Spent(
        *(on, tool, figures_by_compiler(own), figures_by_compiler(dense), layers),
        free=free_widths(on, blueprint, widths),
    )


def cycles_by_operator(network: IntegerNetwork, found: Compiled) -> dict[str, int]:
    """Cycles by the tensor that an operator makes.

    The compiler makes several steps of some operators, and names each of them by the operator's tensor and an addition.
    """
    cycles = {operator.outputs[0]: 0 for operator in network.operators}
    for row in found.layers:
        names = [name for name in cycles if row.name == name or row.name.startswith(f"{name}_")]
        if names:
            cycles[max(names, key=len)] += row.cycles
    return cycles


def free_widths(on: Part, blueprint: Blueprint, widths: np.ndarray) -> dict[str, int]:
    """By group the most channels that it may keep, all others as they are, at 0.5 % more cycles at the most.

    Looked at are whole blocks of channels, and the dense width.
    """
    meter, graph = PartMeter("cycles", Asked(on, blueprint)), blueprint.graph
    now, found = meter(widths), dict[str, int]()
    for i, group in enumerate(graph.groups):
        for width in (group.size, *range(group.size - group.size % BLOCK, int(widths[i]), -BLOCK)):
            wider = widths.copy()
            wider[i] = width
            if not group.pinned and width > widths[i] and meter(wider) <= now * _FREE:
                found[group.name] = width
                break
    return found


def _image(network: IntegerNetwork, names: tuple[str, ...]) -> str:
    """The first of an operator's inputs that is no constant."""
    return next(name for name in names if name and network.by_name[name].values is None)
