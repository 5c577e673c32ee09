"""Scales of what flows between layers: each tensor's own, one for tensors whose kernels move integers as they are."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from prunit.errors import ModelError
from prunit.export.quantising.network import Network
from prunit.export.quantising.ranges import Span
from prunit.export.quantising.writing import widened
from prunit.export.tflite.reading import FLAGS, FREE, Cut, FloatGraph, Step, float_graph

LEAST: Final = -128
"""The smallest int8: what stands for 0 in a tensor that holds nothing below."""


@dataclass(frozen=True)
class Quant:
    """How an int8 tensor holds a real value r: as r / scale + zero point."""

    scale: float
    zero_point: int


FIXED: Final[Mapping[str, Quant]] = {
    "Sigmoid": Quant(1 / 256, LEAST),
    "Softmax": Quant(1 / 256, LEAST),
    "Tanh": Quant(1 / 128, 0),
}
"""Operators whose kernels demand just this of their answer."""
_MOVING: Final = (
    "MaxPool",
    "AveragePool",
    "Pad",
    "Resize",
    "Slice",
    "Split",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
)
"""Kernels that take integers over as they are, or average them."""
_FLAGS_OF: Final[Mapping[str, tuple[Cut, ...]]] = {"ConvTranspose": (FREE,), "Relu": ((0.0, math.inf), (0.0, 6.0))}
"""Of operators with fewer kernels than `FLAGS`: where they can cut off. Elsewhere the answer's range has to do it."""


def averages_image(step: Step, graph: FloatGraph) -> bool:
    """Is this the mean of each channel over the whole image?"""
    if step.operator == "GlobalAveragePool":
        return True
    shape = graph.shapes.get(step.input(0), ())
    if len(shape) != 4:
        return False
    if step.operator == "AveragePool":
        whole = tuple(step.attributes["kernel_shape"]) == shape[2:]
        return whole and not any(step.attributes.get("pads", ())) and graph.shape(step.output)[2:] == (1, 1)
    axes = graph.constants.get(step.input(1), np.array(step.attributes.get("axes", ())))
    return step.operator == "ReduceMean" and sorted(axis % 4 for axis in axes.reshape(-1).tolist()) == [2, 3]


def quant_of(span: Span) -> Quant:
    """256 steps over a span, 0 one of them; the scale is a float32's, as files hold it."""
    low, high = widened(span)
    scale = float(np.float32((high - low) / 255))
    return Quant(scale, int(np.clip(np.rint(LEAST - low / scale), LEAST, 127)))


def quants(graph: FloatGraph, spans: Mapping[str, Span]) -> dict[str, Quant]:
    """How each activation is held. ModelError for a tensor without a span, or with one that is not finite."""
    groups = _Groups()
    pinned: dict[str, Step] = {}  # those whose range is not free to grow
    for step in graph.steps:
        if step.operator in FIXED or step.cut not in _FLAGS_OF.get(step.operator, FLAGS):
            pinned[step.output] = step
    for step in graph.steps:
        if step.operator in _MOVING and not averages_image(step, graph):
            groups.join([step.input(0), *step.outputs])
    held = {groups.root(name): step for name, step in pinned.items()}
    for step in graph.steps:
        if step.operator == "Concat":
            roots = {groups.root(name) for name in step.inputs if name not in graph.constants}
            kinds = {held[root].operator for root in roots & {*held}}
            alike = roots <= {*held} and len(kinds) == 1 and kinds <= {*FIXED}
            groups.join([step.output, *sorted(roots if alike else roots - {*held})])
            held |= {groups.root(name): step for name, step in pinned.items()}
    found: dict[str, Quant] = {}
    for members in groups.of([*graph.inputs, *(name for step in graph.steps for name in step.outputs)]):
        holder = held.get(groups.root(members[0]))
        if holder is not None and holder.operator in FIXED:
            quant = FIXED[holder.operator]
        elif holder is not None:
            quant = quant_of(_span(graph, spans, holder.output))
        else:
            ends = [_span(graph, spans, name) for name in members]
            quant = quant_of((min(low for low, _ in ends), max(high for _, high in ends)))
        found |= dict.fromkeys(members, quant)
    return found


def stand_in_spans(network: Network) -> dict[str, Span]:
    """Made-up ranges, where only shapes matter: from -1 to 1, and from 0 after what gives nothing less.

    No image is run. What compilers say of memory and time depends on shapes, not on these.
    """
    graph = float_graph(network)
    found: dict[str, Span] = dict.fromkeys(graph.inputs, (-1.0, 1.0))
    for step in graph.steps:
        low, high = max(-1.0, step.cut[0]), min(1.0, step.cut[1])
        if step.operator in (*_MOVING, "Concat") and all(name in found for name in step.inputs[:1]):
            ends = [found[name] for name in step.inputs if name in found]
            low, high = min(end[0] for end in ends), max(end[1] for end in ends)
        elif step.operator in ("Sigmoid", "Softmax", "HardSigmoid"):
            low = 0.0
        found |= dict.fromkeys(step.outputs, (low, high))
    return found


def _span(graph: FloatGraph, spans: Mapping[str, Span], name: str) -> Span:
    step = graph.makers.get(name)
    about = f"'{name}'" if step is None else f"'{name}', the answer of {step.operator} in '{step.layer}'"
    if name not in spans:
        raise ModelError(f"cannot lower to integers: no range is given for {about}; observe all float tensors")
    low, high = spans[name]
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ModelError(
            f"cannot lower to integers: the range of {about}, is {low} to {high}; train or export the model anew"
        )
    least, largest = step.cut if step is not None else FREE
    return max(low, least), min(high, largest)


class _Groups:
    """Tensors that share a scale."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def root(self, name: str) -> str:
        while (parent := self._parents.get(name, name)) != name:
            name = parent
        return name

    def join(self, names: Iterable[str]) -> None:
        first, *others = [self.root(name) for name in names]
        for name in others:
            if name != first:
                self._parents[name] = first

    def of(self, names: Iterable[str]) -> list[list[str]]:
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(self.root(name), []).append(name)
        return list(found.values())
