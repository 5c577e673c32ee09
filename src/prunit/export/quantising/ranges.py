"""Between which values the tensors of a network lie, on images: out of that come the 256 steps of an int8."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prunit.edge.runtimes import runtime
from prunit.edge.session import Array, engine, outputs_of
from prunit.errors import ConfigError, DataError, ModelError
from prunit.export.quantising.network import Network

Batches = Callable[[], Iterable[Array]] | Sequence[Array]
"""Images as the model takes them, normalised float32 (B, C, H, W): batches, or what gives them anew at each call."""
Span = tuple[float, float]

_BINS: Final = 2048
_CHUNK_BYTES: Final = 128_000_000
"""How much the tensors of a network may take at once; the images go through in pieces."""
_SHARES: Final = np.linspace(0.1, 1.0, 91)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a tensor held: the least and largest value, and how often each of 2048 equal steps between came up.

    Values of exactly 0, which an integer tells without an error, are not counted.
    """

    low: float
    high: float
    counts: npt.NDArray[np.int64]


def images_of(batches: Batches, shape_CHW: tuple[int, int, int], *, what: str) -> Array:
    """All images in one array; DataError if there are none, of another shape, or with NaN."""
    found: list[Array] = []
    for number, batch in enumerate(batches() if callable(batches) else batches):
        x_BCHW = np.ascontiguousarray(batch, np.float32)
        if x_BCHW.ndim != 4 or x_BCHW.shape[1:] != shape_CHW:
            raise DataError(
                f"{what} {number} has shape {x_BCHW.shape}; the model takes (B, {', '.join(map(str, shape_CHW))})"
            )
        if not np.isfinite(x_BCHW).all():
            raise DataError(f"{what} {number} holds NaN or infinite values; no range can be found in it")
        found.append(x_BCHW)
    if not sum(map(len, found)):
        raise DataError(f"{what}es hold no images: int8 needs some, normalised as in training, to find ranges in")
    return np.concatenate(found)


def observed(network: Network, tensors: Sequence[str], x_BCHW: Array) -> dict[str, Seen]:
    """What the tensors hold when the network answers the images; ModelError where that is not finite."""
    run = _running(network, tensors)
    lows, highs = np.full(len(tensors), np.inf), np.full(len(tensors), -np.inf)
    for values in _pieces(run, x_BCHW):
        for i, tensor in enumerate(values):
            lows[i], highs[i] = min(lows[i], tensor.min(initial=np.inf)), max(highs[i], tensor.max(initial=-np.inf))
            if not (np.isfinite(lows[i]) and np.isfinite(highs[i])) or np.isnan(tensor).any():
                raise ModelError(
                    f"cannot quantise: on the images for calibration '{tensors[i]}' is NaN or infinite; "
                    "the float model computes that, so train or export it anew"
                )
    counts = np.zeros((len(tensors), _BINS), np.int64)
    for values in _pieces(run, x_BCHW):
        for i, tensor in enumerate(values):
            counts[i] += _counted(tensor, lows[i], highs[i])
    return {
        name: Seen(float(low), float(high), of_one)
        for name, low, high, of_one in zip(tensors, lows, highs, counts, strict=True)
    }


def span(seen: Seen, method: str) -> Span:
    """Where a tensor's steps begin and end, 0 always included.

    `minmax`: at the extremes. `mse`: where cutting off costs as much as coarser steps would, so that the mean squared
    error of all values is least.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if method == "minmax" or not seen.counts.any():
        return low, high
    edges = np.linspace(seen.low, seen.high, _BINS + 1)
    if method == "mse":
        middles = (edges[1:] + edges[:-1]) / 2
        for _ in range(2):  # one end after the other, the first once more
            high = _best([(low, high_now) for high_now in max(seen.high, 0.0) * _SHARES], seen, middles)[1]
            low = _best([(low_now, high) for low_now in min(seen.low, 0.0) * _SHARES], seen, middles)[0]
        return low, high
    raise ConfigError(f"no way to find ranges is called '{method}': minmax or mse")


def _best(spans: Sequence[Span], seen: Seen, middles: npt.NDArray[np.float64]) -> Span:
    """The widest of those spans with the least squared error."""
    errors = []
    for low, high in spans:
        beyond = np.maximum(middles - high, 0) + np.maximum(low - middles, 0)
        errors.append(float((seen.counts * (beyond**2 + ((high - low) / 255) ** 2 / 12)).sum()))
    least = min(errors)
    return next(one for one, error in zip(reversed(spans), reversed(errors), strict=True) if error <= least)


def _counted(tensor: Array, low: float, high: float) -> npt.NDArray[np.int64]:
    values = tensor[tensor != 0].astype(np.float64)
    if high <= low:
        return np.bincount(np.zeros(values.size, np.int64), minlength=_BINS)
    bins = np.minimum(((values - low) * (_BINS / (high - low))).astype(np.int64), _BINS - 1)
    return np.bincount(bins, minlength=_BINS)


def _pieces(run: Callable[[Array], list[Array]], x_BCHW: Array) -> Iterator[list[Array]]:
    """The tensors for the images, as many of these at a time as memory allows."""
    first = run(x_BCHW[:1])
    size = max(1, _CHUNK_BYTES // max(1, sum(tensor.nbytes for tensor in first)))
    del first
    for start in range(0, len(x_BCHW), size):
        yield run(x_BCHW[start : start + size])


def _running(network: Network, tensors: Sequence[str]) -> Callable[[Array], list[Array]]:
    """The network with these tensors as its outputs, open in ONNX Runtime."""
    onnx: Any = engine("onnx", extra="train")
    open_up = onnx.ModelProto()
    open_up.CopyFrom(network.proto)
    inputs = {value.name for value in open_up.graph.input}
    made = [name for name in tensors if name not in inputs]
    del open_up.graph.output[:]
    open_up.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in made)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "open.onnx"
        onnx.save(open_up, path)
        session = runtime("onnxruntime").open(path)

    def run(x_BCHW: Array) -> list[Array]:
        values: Mapping[str, Array] = dict(zip(made, outputs_of(session, x_BCHW), strict=True))
        return [values.get(tensor, x_BCHW) for tensor in tensors]

    return run
