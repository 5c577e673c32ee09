"""How far an engine may be from the stored answers of a file that it computes with fewer bits."""

from pathlib import Path
from typing import Final

import numpy as np

from prunit.edge.portfolio import Artifact
from prunit.edge.session import Array, Session, outputs_of, stored_test
from prunit.errors import ModelError
from prunit.files import inside

INT8_SHARE: Final = 0.06
"""Of the range of an output's stored values: what another engine's int8 arithmetic may be off.

Engines round the same integers differently by one step in a layer, and layers behind it carry that on: by 0 to 2.1 % of
the range for trained networks, 4.1 % for an untrained one of 53 layers. With the weights of one layer in the wrong
order it was 7.7 % or more, whichever layer that was. Figures: docs/adr/037-int8.md.
"""
_FLOOR: Final = 1e-6


def int8_tolerance(expected: Array) -> float:
    """How far an engine may be off in an output of an int8 file, given the values that ONNX Runtime answered."""
    return max(INT8_SHARE * float(np.ptp(expected)), _FLOOR)


def loosened(
    artifact: Artifact, folder: Path, session: Session, *, margin: float = 3.0, most: float = 0.1, engine: str = ""
) -> Artifact:
    """The artifact with tolerances for an engine that computes the same file with fewer bits; the files stay.

    Each output may be off by `margin` times what `session` is now, on the stored images, and at least by what it might
    before. ModelError where that difference is more than `most` of the range of the output's stored values: then the
    engine does not compute this network, and no tolerance would tell a wrong file from a right one.
    """
    x_BCHW, stored = stored_test(inside(folder, artifact.self_test), artifact)
    found = outputs_of(session, x_BCHW)
    with_ = f" in {engine}" if engine else ""
    if [values.shape for values in found] != [values.shape for values in stored]:
        raise ModelError(
            f"cannot use '{artifact.path}'{with_}: it gives outputs of shapes "
            f"{', '.join(str(values.shape) for values in found)} instead of "
            f"{', '.join(str(values.shape) for values in stored)}"
        )
    outputs = []
    for output, values, expected in zip(artifact.outputs, found, stored, strict=True):
        difference = float(np.abs(values.astype(np.float64) - expected).max(initial=0.0))
        extent = max(float(np.ptp(expected)), _FLOOR)
        if not difference <= most * extent:  # a NaN is refused too
            raise ModelError(
                f"cannot use '{artifact.path}'{with_}: '{output.name}' is off by {difference:.3g} on stored images, "
                f"{difference / extent:.0%} of its range where {most:.0%} is allowed; use the float32 variant there"
            )
        tolerance = max(output.tolerance or artifact.tolerance, margin * difference)
        outputs.append(output.model_copy(update={"tolerance": tolerance}))
    return artifact.model_copy(
        update={"outputs": tuple(outputs), "tolerance": max(one.tolerance or 0.0 for one in outputs)}
    )


def computed_in_bf16(artifact: Artifact, folder: Path, session: Session) -> Artifact:
    """The artifact as an engine that rounds to bf16 computes it, of which `session` is one with this file open."""
    return loosened(artifact, folder, session, engine="bf16")
