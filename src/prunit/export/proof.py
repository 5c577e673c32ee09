"""Whether an exported file gives the model's outputs, image by image, each measured by its own scale."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from prunit.edge.session import Array, Session, outputs_of
from prunit.errors import ModelError

FLOOR: Final = 1e-6
"""Below a millionth of a unit, differences are rounding, whatever the scale of the output."""
Figures = npt.NDArray[np.float64]

_ROUNDINGS: Final = 16
"""How many times further from the exact output than torch another engine may be: it adds in another order."""
_FURTHER: Final = 10
"""How many times the tolerance rounding may be, on an image that no device is held to."""


@dataclass(frozen=True)
class Trial:
    """Images (B, C, H, W) with their names, and each output that the model makes of them in torch, first dimension B.

    `stored` are those of the self-test, which every device has to meet to within one tolerance.
    """

    names: Sequence[str]
    x_BCHW: Array
    expected: Mapping[str, Array]
    stored: bool


def allowed(expected: Array, tolerance: float) -> Figures:
    """How far an output may be off for each image: a share of its largest value there, NaN and infinity left out."""
    values = np.where(np.isfinite(expected), np.abs(expected), 0).reshape(len(expected), -1)
    return np.maximum(tolerance * values.max(axis=1).astype(np.float64), FLOOR)


def prove(
    session: Session,
    trials: Sequence[Trial],
    tolerance: float,
    exact: Callable[[Array], Sequence[Figures] | None],
) -> None:
    """Raise ModelError where an output in `session` is further than `tolerance`, as a share, from torch's.

    Each output is measured by its own scale.

    Only where torch's value is finite: what it leaves undefined, another engine may give as it likes. `exact` gives the
    outputs in double precision, None if it cannot. It is asked only where one is off: where torch itself is inexact,
    a multiple of that is allowed, up to `tolerance` of the largest stored output, or some times that where the image
    is not stored.
    """
    most = {
        name: max(float(allowed(trial.expected[name], tolerance).max()) for trial in trials if trial.stored)
        for name in trials[0].expected
    }
    for trial in trials:
        outputs = outputs_of(session, trial.x_BCHW)
        if len(outputs) != len(most):
            raise ModelError(
                f"the exported file gives {len(outputs)} outputs and the model {len(most)}; nothing was written"
            )
        for index, name in enumerate(most):
            _prove(trial, index, outputs[index], tolerance, most[name], exact)


def _prove(
    trial: Trial,
    index: int,
    found: Array,
    tolerance: float,
    most: float,
    exact: Callable[[Array], Sequence[Figures] | None],
) -> None:
    """Of one output, by its index; `most` is what rounding is allowed at most on an image that is stored."""
    output, wanted = list(trial.expected.items())[index]
    at = f"at batch {len(trial.x_BCHW)} '{output}'"
    if found.shape != wanted.shape:
        raise ModelError(
            f"the exported file disagrees with the model: {at} has shape {found.shape} instead of {wanted.shape}; "
            "nothing was written"
        )
    difference = _difference(found, wanted)
    limits = allowed(wanted, tolerance)
    inexact = np.zeros(len(wanted))
    if _beyond(difference, limits).any():
        precise = exact(trial.x_BCHW)
        if precise is not None and len(precise) == len(trial.expected) and precise[index].shape == wanted.shape:
            inexact = np.nan_to_num(_largest(_difference(wanted, precise[index])), nan=0, posinf=0)
        limits = np.maximum(limits, np.minimum(_ROUNDINGS * inexact, most * (1 if trial.stored else _FURTHER)))
    beyond = _beyond(difference, limits)
    if not beyond.any():
        return
    image = int(np.argmax(beyond))
    inner = np.unravel_index(np.argmax(difference[image]), difference.shape[1:])  # argmax finds a NaN first
    worst = (image, *(int(i) for i in inner))
    value = float(found[worst])
    reason = f"off by {difference[worst]:.3g} where {limits[image]:.3g} is allowed"
    if not np.isfinite(value):
        reason = "which is not finite: a small number that the model adds or bounds by may be lost in the file"
    elif inexact[image] > limits[image] / _ROUNDINGS:
        reason += (
            f"; torch itself is off by {inexact[image]:.3g} from double precision there, so the model magnifies "
            "rounding: a larger epsilon in what it divides by helps"
        )
    raise ModelError(
        f"the exported file disagrees with the model on the image '{trial.names[image]}': {at}{list(worst)} is "
        f"{value:.6g} instead of {wanted[worst]:.6g}, {reason}; nothing was written"
    )


def _difference(found: Array | Figures, wanted: Array | Figures) -> Figures:
    """Absolute differences; none where what is wanted is not finite."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(found.astype(np.float64) - wanted)
    return np.where(np.isfinite(wanted), difference, 0)


def _largest(difference: Figures) -> Figures:
    return difference.reshape(len(difference), -1).max(axis=1)


def _beyond(difference: Figures, limits: Figures) -> npt.NDArray[np.bool_]:
    """Which images of the batch are off by more than their limit, or by NaN."""
    return ~(_largest(difference) <= limits)
