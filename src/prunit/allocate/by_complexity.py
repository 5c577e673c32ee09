"""Complexity-driven pruning: a layer's share of the network's complexity decides how many of its channels go.

Zawish, Davy and Abraham 2024 ("Complexity-driven model compression for resource-constrained deep learning on edge",
IEEE TAI 5(8); arXiv 2208.12816): layers are drawn with their share as their weight, and each draw takes one filter.
What is public has no formulas; docs/cards/complexity.md says which reading this is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np

from prunit.allocate.cuts import fewest, ordered
from prunit.allocate.search import widest
from prunit.allocate.target import Meter, Target
from prunit.cut.plans import Widths
from prunit.errors import ConfigError
from prunit.graph import ChannelGraph
from prunit.prices.costs import CostModel, named_widths

Memory = Literal["activations", "training", "all"]
Draw = Literal["expected", "sampled"]

_ROUNDS = 400
"""How often shares are computed anew on the way to minimum widths, where they are."""


@dataclass(frozen=True)
class Setting:
    """What a mode may need to know: which memory counts, how many examples are in a batch, what a device takes."""

    memory: Memory = "activations"
    batch: int = 1
    meter: Meter | None = None


class Measure(Protocol):
    """What each layer costs in the sense of a mode, in the order of `graph.layers`; only ratios matter."""

    def __call__(self, model: CostModel, widths: np.ndarray, setting: Setting, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Mode:
    """A meaning of complexity: `what` the shares are shares of, and what the mode does in a line.

    `figure` is the one that a meter of a device has to tell, '' where layers are counted.
    """

    measure: Measure
    what: str
    line: str
    figure: str = ""


def _params(model: CostModel, widths: np.ndarray, setting: Setting) -> np.ndarray:
    return model.layers_at(widths).params


def _macs(model: CostModel, widths: np.ndarray, setting: Setting) -> np.ndarray:
    return model.layers_at(widths).macs


def _on_device(model: CostModel, widths: np.ndarray, setting: Setting) -> np.ndarray:
    if setting.meter is None:
        raise ConfigError("this mode needs the profile of a device: set prune.profile, or limit what it measures")
    return setting.meter.by_layer(widths)


def _memory(model: CostModel, widths: np.ndarray, setting: Setting) -> np.ndarray:
    """For training weights, gradients and optimiser state, and outputs twice: as the first author's profiler counts."""
    costs = model.layers_at(widths)
    outputs = costs.output_bytes * setting.batch
    if setting.memory == "activations":
        return outputs
    return costs.weight_bytes + outputs if setting.memory == "all" else 3 * costs.weight_bytes + 2 * outputs


MODES: Final[Mapping[str, Mode]] = {
    "pa": Mode(_params, "parameters", "layers lose channels by their share of the parameters (default of complexity)"),
    "fa": Mode(_macs, "multiply-adds", "by their share of the multiply-adds"),
    "ma": Mode(
        _memory,
        "memory",
        "by their share of the memory for activations (prune.memory: of training, of weights and activations)",
    ),
    "la": Mode(_on_device, "latency", "by their share of the latency on a device, from its profile", "latency_ms"),
    "ea": Mode(_on_device, "energy", "by their share of the energy on a device, from its profile", "energy_mj"),
}


class Complexity:
    """How complex each group is, at any widths: that of the layers that make its channels.

    Where these stay whole, a layer's complexity counts for the groups that it reads, by the channels that it reads of
    each: they are all that can make it cheaper. So the expansion of an inverted residual has the complexity of its
    three convolutions, and the second convolution of a bottleneck that of the third one too.
    """

    def __init__(self, target: Target, mode: Mode, setting: Setting | None = None) -> None:
        self.model, self.mode, self.setting = target.model, mode, setting or Setting()
        self.owns = _ownership(target.graph, target.floor < target.ceiling)

    def at(self, widths: np.ndarray) -> np.ndarray:
        """Complexity of each group: shape (groups,), 0 for those that stay whole."""
        return self.owns @ self.mode.measure(self.model, widths, self.setting)

    def shares(self, widths: np.ndarray) -> np.ndarray:
        """The same as shares of their sum."""
        found = self.at(widths)
        return found / max(found.sum(), np.finfo(float).tiny)


def by_complexity(
    target: Target, complexity: Complexity, *, draw: Draw = "expected", recomputed: bool = False, seed: int = 0
) -> Widths:
    """The widths when channels go by the groups' shares of the complexity until the budget holds.

    `sampled` draws groups as the paper does, one channel each time, and passes over those at their minimum. `expected`
    is what that comes to on average: all lose channels at the rate of their shares until they are at their minimum.
    With `recomputed` shares follow the widths, in steps of a four-hundredth of all channels that may go.
    """
    target.check_reachable()
    if draw == "expected":
        path = _recomputed(target, complexity) if recomputed else _static(target, complexity)
        return named_widths(target.graph, widest(target, path))
    rng = np.random.default_rng(seed)
    times = _redrawn(target, complexity, rng) if recomputed else _drawn(target, complexity, rng)

    def rank_of(group: int, lost: np.ndarray) -> np.ndarray:
        # Channels that a limit on the width takes go before any draw.
        drawn = lost - (target.graph.sizes[group] - target.ceiling[group])
        return times[group][drawn - 1]

    return named_widths(target.graph, fewest(target, ordered(target, rank_of)))


def _static(target: Target, complexity: Complexity) -> Callable[[float], np.ndarray]:
    """Widths on the way from all channels (dial 1) to the minimum (dial 0), each group falling at its own rate.

    The dial is the logarithm of time: a group with a share of 1e-5 takes 100,000 times as long as the whole network.
    """
    rates, room = complexity.shares(target.ceiling), target.ceiling - target.floor
    moving = (rates > 0) & (room > 0)
    longest = float((room[moving] / rates[moving]).max()) if moving.any() else 0.0

    def widths(dial: float) -> np.ndarray:
        time = (longest + 1) ** (1 - dial) - 1
        # What has no complexity of its own goes last, when everything else is at its minimum.
        return target.ceiling - np.where(moving, np.minimum(rates * time, room), room * (dial <= 0))

    return widths


def _recomputed(target: Target, complexity: Complexity) -> Callable[[float], np.ndarray]:
    """The same with rates that follow the widths: a path of straight pieces."""
    corners = [target.ceiling.astype(float)]
    step = float((target.ceiling - target.floor).sum()) / _ROUNDS
    while (rates := complexity.shares(corners[-1]) * (corners[-1] > target.floor)).any():
        # Where a group is nearly at its minimum the step is shorter; a rest too small to matter ends it.
        corners.append(np.maximum(corners[-1] - rates / rates.sum() * step, target.floor))
        if len(corners) > 4 * _ROUNDS:
            break
    path = np.stack([*corners, target.floor.astype(float)])

    def widths(dial: float) -> np.ndarray:
        place = (1 - dial) * (len(path) - 1)
        i = min(int(place), len(path) - 2)
        return path[i] + (place - i) * (path[i + 1] - path[i])

    return widths


def _drawn(target: Target, complexity: Complexity, rng: "np.random.Generator") -> list[np.ndarray]:
    """For each group the times at which it loses a channel, one after the other.

    Drawing groups by their shares again and again, and passing over those at their minimum, comes to the same as a
    Poisson process for each group with its share as its rate: the next event of all is that group's with that chance.
    """
    rates, room = complexity.shares(target.ceiling), target.ceiling - target.floor
    with np.errstate(divide="ignore"):  # what has no complexity of its own goes last
        return [np.cumsum(rng.exponential(size=n)) / rate for n, rate in zip(room, rates, strict=True)]


def _redrawn(target: Target, complexity: Complexity, rng: "np.random.Generator") -> list[np.ndarray]:
    """The same with shares computed anew after every so many draws."""
    widths, times, time = target.ceiling.copy(), [[] for _ in target.ceiling], 0
    each = max(1, int((target.ceiling - target.floor).sum()) // _ROUNDS)
    while (rates := complexity.shares(widths) * (widths > target.floor)).any():
        for group in rng.choice(len(rates), size=each, p=rates / rates.sum()):
            if widths[group] > target.floor[group]:
                widths[group] -= 1
                times[group].append(time)
                time += 1
    rest = target.ceiling - target.floor
    return [np.array([*t, *range(time, time + n - len(t))], dtype=float) for t, n in zip(times, rest, strict=True)]


def _ownership(graph: ChannelGraph, free: np.ndarray) -> np.ndarray:
    """Which part of each layer's complexity counts for each group: shape (groups, layers); columns sum to 1 or 0."""
    by_tensor: dict[str, list[tuple[str, np.ndarray]]] = {}
    for axis in graph.axes:
        numbers = axis.where[axis.where >= 0]
        counts = np.bincount(np.searchsorted(graph.offsets, numbers, side="right") - 1, minlength=len(free))
        by_tensor.setdefault(axis.tensor, []).append((axis.role, counts * free))
    owns = np.zeros((len(free), len(graph.layers)))
    for i, layer in enumerate(graph.layers):
        axes = by_tensor.get(layer.weight, [])
        for roles in (("out", "both", "along"), ("in",)):
            counts = sum((c for role, c in axes if role in roles), np.zeros(len(free)))
            if counts.any():
                owns[:, i] = counts / counts.sum()
                break
    return owns
