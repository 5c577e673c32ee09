"""The steps in which an engine likes each group of a graph to be narrowed, by the layers that make and read it."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from prunit.edge.runtimes.widths import Kind, Liking, liking, step_of
from prunit.graph import ChannelGraph, Layer


class Liked(NamedTuple):
    """For each group the channels of one step, and the fewest that are worth it: powers of two, 1 where all is one."""

    steps: np.ndarray
    least: np.ndarray


def liked(graph: ChannelGraph, engine: str) -> Liked:
    """What the engine likes best at all layers that make or read a group.

    A channel that stands k times in a layer (in a grouped convolution, once in each part) counts k times there.
    `UnknownNameError` for an engine that was not measured.
    """
    return _by_layers(graph, liking(engine), step_of)


def fitting(graph: ChannelGraph, engine: str, widths: Mapping[str, int], *, blocks: bool = False) -> dict[str, int]:
    """The next widths, by group, that no layer is slow with, or those of whole blocks; at most the dense ones.

    For widths that are given: where they are ours to choose, `liked` has the steps.
    """
    likes = liking(engine)
    found = _by_layers(graph, likes, lambda like, channels: _step(like.block if blocks else like.step, channels))
    return {
        group.name: min(-(-widths[group.name] // int(step)) * int(step), group.size)
        for group, step in zip(graph.groups, found.steps, strict=True)
        if not group.pinned and group.name in widths
    }


def _step(step: int, channels: int) -> int:
    """1 where not even all channels of a layer are one step."""
    return step if channels >= step else 1


def _by_layers(graph: ChannelGraph, likes: Mapping[Kind, Liking], step: Callable[[Liking, int], int]) -> Liked:
    """What `step` says of each layer that makes or reads a group and of its channels there, put together."""
    layers = {layer.weight: layer for layer in graph.layers}
    found = Liked(*(np.ones(len(graph.groups), dtype=np.int64) for _ in range(2)))
    for i, group in enumerate(graph.groups):
        most_macs = 0
        for axis in graph.axes_of(group.name):
            layer = layers.get(axis.tensor)
            if layer is None or group.pinned or not (axis.makes or axis.reads):
                continue
            kind, parts = _kind_of(graph, layer)
            channels = int(((graph.offsets[i] <= axis.where) & (axis.where < graph.offsets[i + 1])).sum())
            # The inputs of a grouped convolution's weight are those of one part.
            in_part = channels // parts if axis.makes else channels
            times = max(1, in_part // group.size)
            own = step(likes[kind], in_part)
            found.steps[i] = max(found.steps[i], own // math.gcd(own, times))
            macs = math.prod(graph.tensors[layer.weight].shape) * layer.positions
            if axis.reads and macs > most_macs:
                # A small layer beside, as the one of a shortcut, says nothing of what a channel is worth.
                most_macs, least = macs, likes[kind].least
                found.least[i] = least // math.gcd(least, times)
    return found


def _kind_of(graph: ChannelGraph, layer: Layer) -> tuple[Kind, int]:
    """The kind of a layer, and in how many parts it works, each of which an engine computes by itself."""
    geometry = layer.geometry
    pointwise = geometry is not None and set(geometry.kernel) == {1}
    if layer.kind == "linear" or (pointwise and layer.positions == 1):
        return "linear", 1
    if geometry is None or geometry.groups == 1:
        return ("pointwise" if pointwise else "conv"), 1
    return ("depthwise", 1) if graph.tensors[layer.weight].shape[1] == 1 else ("grouped", geometry.groups)
