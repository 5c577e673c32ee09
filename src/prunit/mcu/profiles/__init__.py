"""How cycles grow with width on each Ethos-U, and the widths that are worth having there: measured by
`python -m bench.mcu_profiles` through Vela and shipped as a file for each part.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from prunit.errors import FileError
from prunit.mcu.parts import Part

Curve = Literal["conv3x3", "conv1x1", "depthwise"]

_STEPS: Final = (1, 2, 4, 8, 16, 32)
_NARROW: Final = 16
"""Layers of fewer channels fill no block: which step is best is asked of wider ones."""

_EXTRA: Final = 0.4
"""Rounding up to a step may add so large a share of the cycles that it would add if all channels cost the same."""

_WORTH: Final = 0.03
"""A width is worth having where every wider one takes more cycles by at least this share."""


@dataclass(frozen=True)
class Steps:
    """What widths a part likes.

    Rounding a layer of more than 16 `outputs` (or `inputs`) up to a multiple of the step adds at most 40 % of the
    cycles that the added channels would cost if all cost the same, on average over widths up to 128. `widths` are those
    worth having for channels that one layer makes and the next, of the same kind, reads: every wider one measured takes
    more cycles for the two. 57 is none on a part where 64 takes no longer.
    """

    outputs: int
    inputs: int
    widths: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Profile:
    """Cycles by width 1, 2, … of a layer on images of 16x16 whose other side has 64 channels, relative to width 64.

    `outputs` and `inputs` are (W,); of a depthwise layer both are the same.
    """

    part: str
    configuration: str
    vela: str
    kind: Curve
    outputs: npt.NDArray[np.float64]
    inputs: npt.NDArray[np.float64]

    @property
    def steps(self) -> Steps:
        """The widths that are worth having, from these curves."""
        both = self.outputs + self.inputs
        return Steps(step_from(self.outputs), step_from(self.inputs), worth_having(both))


def profile_of(part: Part, kind: Curve = "conv3x3") -> Profile:
    """The shipped profile; `FileError` for a part that has none, as microcontrollers without an accelerator."""
    if part.kind != "ethos-u":
        raise FileError(f"there is no profile of '{part.name}': TensorFlow Lite Micro reports no time")
    data = _read(part.name)
    curves: dict[str, list[int]] = data["permille"][kind]
    outputs = np.array(curves["outputs"], np.float64) / 1000
    inputs = np.array(curves.get("inputs", curves["outputs"]), np.float64) / 1000
    return Profile(part.name, data["configuration"], data["vela"], kind, outputs, inputs)


def steps_of(part: Part, kind: Curve = "conv3x3") -> Steps:
    """What widths the part likes: all alike without an accelerator, where every channel less saves memory."""
    if part.kind != "ethos-u":
        return Steps(1, 1, tuple(range(1, 129)))
    return profile_of(part, kind).steps


def step_from(curve: Sequence[float] | npt.NDArray[np.float64]) -> int:
    """The largest power of two up to 32 to which widths can be rounded up at hardly any cost. A curve is by width."""
    cycles = np.asarray(curve, np.float64)
    widths = np.arange(_NARROW + 1, len(cycles) + 1)
    best = 1
    for step in _STEPS[1:]:
        rounded = -(-widths // step) * step
        kept = rounded <= len(cycles)
        added = cycles[rounded[kept] - 1] - cycles[widths[kept] - 1]
        without_blocks = (rounded[kept] - widths[kept]) * cycles[-1] / len(cycles)
        if added.mean() <= _EXTRA * without_blocks.mean():
            best = step
    return best


def worth_having(curve: Sequence[float] | npt.NDArray[np.float64]) -> tuple[int, ...]:
    """The widths for which every wider one of the curve takes more cycles, by 3 % or more; the widest is one."""
    cycles = np.asarray(curve, np.float64)
    cheapest_wider = np.append(np.minimum.accumulate(cycles[::-1])[::-1][1:], np.inf)
    return tuple(int(width) for width in np.flatnonzero(cheapest_wider >= cycles * (1 + _WORTH)) + 1)


@cache
def _read(name: str) -> dict[str, Any]:
    file = files("prunit.mcu.profiles") / f"{name}.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"the profile of '{name}' cannot be read: {error}; reinstall prunit") from None
