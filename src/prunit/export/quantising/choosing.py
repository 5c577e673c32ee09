"""Which layers of a network stay float, and how ranges are found: candidates are made, and measured on images."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from prunit.edge.measuring.probe import ProbeSettings, turns
from prunit.edge.runtimes import runtime
from prunit.edge.session import Array, Session, outputs_of
from prunit.errors import ModelError, unknown
from prunit.export.quantising.network import Layer, Network
from prunit.export.quantising.ranges import Seen, span
from prunit.export.quantising.writing import int8_bytes

METHODS: Final = ("minmax", "mse")
NARROW: Final = 16
"""Channels: below so many in and out an integer layer is slower than a float one."""


@dataclass(frozen=True)
class Tried:
    """A candidate: how its ranges were found, which layers it left float, how far it is off and how long it takes.

    `error` is that of the output which is worst: the root mean square of the difference to the float model as a share
    of how much that output varies from image to image. `agreement` is the share of images that get the same class, None
    where the model does not answer with one row of scores. `ms` is the median of a single image, None if not timed.
    """

    method: str
    float_layers: tuple[str, ...]
    data: bytes
    error: float
    agreement: float | None = None
    ms: float | None = None


def float_sets(layers: Sequence[Layer], wanted: Sequence[str] | None = None) -> list[tuple[Layer, ...]]:
    """Which layers candidates leave float: none; the first and the last; those and the narrow ones."""
    if wanted is not None:
        known = {name for layer in layers for name in (layer.name, layer.node)}
        for name in wanted:
            if name not in known:
                raise unknown("layer", name, {layer.name for layer in layers})
        return [tuple(layer for layer in layers if layer.name in wanted or layer.node in wanted)]
    first_last = {layers[0].node, layers[-1].node}
    narrow = {layer.node for layer in layers if max(layer.inputs, layer.outputs) < NARROW}
    sets = [set(), {layers[-1].node}, first_last, narrow, first_last | narrow]
    found = dict.fromkeys(tuple(layer for layer in layers if layer.node in nodes) for nodes in sets)
    return [one for one in found if len(one) < len(layers)]


def measured(
    network: Network,
    seen: Mapping[str, Seen],
    method: str,
    stay_float: Sequence[Layer],
    x_BCHW: Array,
    expected: Sequence[Array],
    *,
    reduced: bool = False,
) -> Tried:
    """The candidate with these settings, its error measured on images for which the float outputs are given."""
    chosen = [layer for layer in network.layers if layer not in stay_float]
    data = int8_bytes(network, chosen, {name: span(one, method) for name, one in seen.items()}, reduced=reduced)
    with tempfile.TemporaryDirectory() as folder:
        found = answers(opened(data, Path(folder)), x_BCHW)
    return Tried(
        method,
        tuple(layer.name for layer in stay_float),
        data,
        error=max(error_of(a, b) for a, b in zip(found, expected, strict=True)),
        agreement=agreement(found, expected),
    )


def best(tried: Sequence[Tried], *, enough: float, worse: float) -> Tried:
    """The fastest of those that are not clearly worse; where none was timed, the one with the fewest float layers.

    Not clearly worse: with an error of at most `enough`, or of at most `worse` times the least one. Of those within
    5 % of the fastest, which another run might well put in another order, the most accurate.
    """
    least = min(one.error for one in tried)
    good = [one for one in tried if one.error <= max(enough, worse * least)]
    times = [one.ms for one in good if one.ms is not None]
    if len(times) < len(good):
        return min(good, key=lambda one: (len(one.float_layers), one.error))
    return min((one for one in good if (one.ms or 0.0) <= 1.05 * min(times)), key=lambda one: one.error)


def timed(tried: Sequence[Tried], shape_CHW: tuple[int, int, int], *, seconds: float) -> list[Tried]:
    """The candidates with the time of a single image each, measured in turns on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        sessions = {str(i): opened(one.data, Path(folder), str(i)) for i, one in enumerate(tried)}
        settings = ProbeSettings(batches=(1,), seconds=seconds * len(tried), min_runs=20, limit_seconds=30)
        ns = turns(sessions, dict.fromkeys(sessions, shape_CHW), settings)[1]
        for session in sessions.values():
            session.close()
    return [replace(one, ms=median(ns[str(i)]) / 1e6) for i, one in enumerate(tried)]


def opened(data: bytes, folder: Path, name: str = "candidate") -> Session:
    """A session of these bytes; ModelError where the engine refuses them."""
    path = folder / f"{name}.onnx"
    path.write_bytes(data)
    return runtime("onnxruntime").open(path)


def answers(session: Session, x_BCHW: Array, *, batch: int = 16) -> tuple[Array, ...]:
    """All outputs for the images, some at a time."""
    parts = [outputs_of(session, x_BCHW[start : start + batch]) for start in range(0, len(x_BCHW), batch)]
    return tuple(np.concatenate(of_one) for of_one in zip(*parts, strict=True))


def error_of(found: Array, expected: Array) -> float:
    """How far an output is off, as a share of how much it varies from image to image."""
    if found.shape != expected.shape:
        raise ModelError(f"the int8 file gives an output of shape {found.shape}, the float one of {expected.shape}")
    wanted = expected.astype(np.float64)
    difference = float(np.sqrt(np.mean((found - wanted) ** 2)))
    varies = float(np.sqrt(np.mean((wanted - wanted.mean(axis=0)) ** 2)))
    scale = varies or float(np.abs(wanted).max(initial=0.0)) or 1.0
    return difference / scale


def agreement(found: Sequence[Array], expected: Sequence[Array]) -> float | None:
    """The share of images whose largest score is of the same class, None where outputs are no row of scores."""
    if len(expected) != 1 or expected[0].ndim != 2 or expected[0].shape[1] < 2:
        return None
    return float(np.mean(found[0].argmax(axis=1) == expected[0].argmax(axis=1)))
