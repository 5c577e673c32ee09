"""The time of layers at any width, from the times at some: interpolated among widths of the same kind.

Engines work on blocks of channels: 64 channels may take less than 57, and 57 what 61 do. So a number of channels is of
one of three kinds, by how often two divides it, and times are interpolated linearly between measured widths of the same
kind, in the inputs and in the outputs.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from prunit.edge.measuring.profile import LayerPoints
from prunit.errors import FileError

KINDS = 3
"""Multiples of 16; of 8; all others."""


def kind_of(channels: np.ndarray) -> np.ndarray:
    """0 for multiples of 16, 1 for other multiples of 8, 2 for all others."""
    return np.where(channels % 16 == 0, 0, np.where(channels % 8 == 0, 1, 2))


def probed(most: int, *, fixed: bool = False) -> list[int]:
    """The widths at which a layer of up to `most` channels is measured: some of each kind, from few to all."""
    if fixed:
        return [most]
    blocks = [16, *(most * quarters // 64 * 16 for quarters in (1, 2, 4))]
    halves = [8, most // 32 * 16 + 8, (most - 8) // 16 * 16 + 8]
    others = [1, *(n + (n % 8 == 0) for n in (most // 16, most // 4, most // 2, most * 3 // 4)), most - 1, most]
    return sorted({n for n in (*blocks, *halves, *others) if 1 <= n <= most})


class LayerTimes:
    """Milliseconds of many layers at once, at any numbers of channels up to those that were measured."""

    def __init__(self, layers: Sequence[LayerPoints]) -> None:
        grids: list[_Grid] = [_grid(layer) for layer in layers]
        # Every layer has the same room for widths of each kind; what it does not need repeats its last one.
        wide: list[int] = [
            max((len(widths) for grid in grids for widths, _ in grid[side]), default=1) + 1 for side in (0, 1)
        ]
        self._depthwise = np.array([layer.shape.depthwise for layer in layers], dtype=bool)
        self._inputs, self._outputs = (
            np.array([[_padded(widths, wide[side]) for widths, _ in grid[side]] for grid in grids]) for side in (0, 1)
        )
        self._ms = np.zeros((len(layers), KINDS, KINDS, *wide))
        for i, (inputs, outputs, ms) in enumerate(grids):
            for a, b in np.ndindex(KINDS, KINDS):
                found = ms[inputs[a][1]][:, outputs[b][1]]
                self._ms[i, a, b] = np.pad(
                    found, [(0, n - m) for n, m in zip(wide, found.shape, strict=True)], mode="edge"
                )

    def at(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Milliseconds of each layer with so many input and output channels; parts of channels count as whole ones."""
        if not len(inputs):
            return np.zeros(0)
        # Of a depthwise layer only the outputs count: it has as many inputs.
        inputs = np.where(self._depthwise, 1, np.ceil(inputs - 1e-9))
        outputs = np.ceil(outputs - 1e-9)
        row, a, b = np.arange(len(inputs)), kind_of(inputs), kind_of(outputs)
        i, u = _place(self._inputs[row, a], inputs)
        j, v = _place(self._outputs[row, b], outputs)
        ms = [[self._ms[row, a, b, i + di, j + dj] for dj in (0, 1)] for di in (0, 1)]
        return (ms[0][0] * (1 - v) + ms[0][1] * v) * (1 - u) + (ms[1][0] * (1 - v) + ms[1][1] * v) * u


_Axis = tuple[np.ndarray, np.ndarray]
"""Measured widths of one kind, ascending, and where they stand among all measured ones."""


_Grid = tuple[list[_Axis], list[_Axis], np.ndarray]


def _grid(layer: LayerPoints) -> _Grid:
    """For each side the widths of each kind, and the times as a table of all inputs and all outputs.

    Raises `FileError` if a pair of widths was not measured.
    """
    depthwise = layer.shape.depthwise
    found = {(1 if depthwise else i, o): ms for i, o, ms in layer.points}
    sides = [np.array(sorted({pair[side] for pair in found})) for side in (0, 1)]
    missing = [pair for pair in itertools.product(*(side.tolist() for side in sides)) if pair not in found]
    if missing:
        raise FileError(
            f"the profile has no time of {layer.shape} with {missing[0][0]} inputs and {missing[0][1]} outputs"
        )
    ms = np.array([[found[int(i), int(o)] for o in sides[1]] for i in sides[0]])
    inputs, outputs = ([_of_kind(side, kind) for kind in range(KINDS)] for side in sides)
    return inputs, outputs, ms


def _of_kind(widths: np.ndarray, kind: int) -> _Axis:
    """The widths of a kind; where there is none those of the next kind that is blocked worse, else better."""
    for other in (*range(kind, KINDS), *reversed(range(kind))):
        index = np.flatnonzero(kind_of(widths) == other)
        if len(index):
            return widths[index], index
    raise AssertionError("a layer has points")


def _padded(axis: np.ndarray, to: int) -> np.ndarray:
    return np.pad(axis, (0, to - len(axis)), mode="edge")


def _place(axis: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row the position of the last width below x, and how far x is on the way to the next (0 to 1)."""
    i = np.clip((axis < x[:, None]).sum(axis=1) - 1, 0, axis.shape[1] - 2)
    row = np.arange(len(x))
    left, right = axis[row, i], axis[row, i + 1]
    return i, np.clip((x - left) / np.where(right > left, right - left, 1), 0, 1)
