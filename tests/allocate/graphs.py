"""Channel graphs written by hand: allocators need no model."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from prunit.graph import Activation, Axis, ChannelGraph, Group, Layer, TensorInfo


class Wire(NamedTuple):
    """A convolution that makes the channels of group `out` from those of `ins` side by side; -1 is the image."""

    out: int
    ins: tuple[int, ...]
    kernel: int = 9
    positions: int = 16


def wired(sizes: Sequence[int], wires: Sequence[Wire], *, pinned: Collection[int] = ()) -> ChannelGraph:
    """The graph of groups g0, g1, … with these sizes, fed by these layers in this order; the image has 3 channels."""
    offsets = np.concatenate([[0], np.cumsum(sizes)])

    def channels(group: int) -> np.ndarray:
        return np.full(3, -1) if group < 0 else np.arange(offsets[group], offsets[group + 1])

    axes, layers, tensors, activations = [], [], {}, []
    for step, wire in enumerate(wires):
        name = f"layer{step}"
        makes, reads = channels(wire.out), np.concatenate([channels(i) for i in wire.ins])
        axes += [Axis(f"{name}.weight", 0, "out", makes), Axis(f"{name}.bias", 0, "along", makes)]
        axes += [Axis(f"{name}.weight", 1, "in", reads)] if (reads >= 0).any() else []
        tensors[f"{name}.weight"] = TensorInfo((len(makes), len(reads), wire.kernel), 4, True)
        tensors[f"{name}.bias"] = TensorInfo((len(makes),), 4, True)
        layers.append(Layer(name, f"{name}.weight", "conv", wire.positions))
        readers = [i for i, later in enumerate(wires) if wire.out in later.ins]
        activations.append(Activation(makes, wire.positions, 4, step, max([step, *readers])))
    groups = tuple(
        Group(f"g{i}", size, tuple(f"layer{s}" for s, w in enumerate(wires) if w.out == i), "pin" * (i in pinned))
        for i, size in enumerate(sizes)
    )
    return ChannelGraph(groups, tuple(axes), tuple(layers), tensors, tuple(activations), ())


def chain(*sizes: int, pinned: Collection[int] = ()) -> ChannelGraph:
    """Layers in a row, each reading the one before; the last group is pinned, as an output is."""
    wires = [Wire(i, (i - 1,)) for i in range(len(sizes))]
    return wired(sizes, wires, pinned={*pinned, len(sizes) - 1})
