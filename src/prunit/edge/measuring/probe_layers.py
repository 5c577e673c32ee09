"""Measure what layers take on this device, at many widths: `prunit probe-device`. Needs an engine, no torch.

Each layer is measured inside a small model, behind a 1×1 convolution that leaves its output in the layout of memory
that the engine prefers: a layer that is measured alone pays for a conversion that it would not pay in a network.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from prunit.edge.measuring import onnx_writer
from prunit.edge.measuring.energy import LITERATURE, Rapl, energy_prices
from prunit.edge.measuring.layer_times import probed
from prunit.edge.measuring.probe import device
from prunit.edge.measuring.profile import DeviceProfile, Energy, LayerPoints, LayerShape, Rest, Window
from prunit.edge.runtimes.onnxruntime import OnnxRuntime
from prunit.errors import ConfigError
from prunit.version import VERSION

OnPoint = Callable[[int, int], None]
"""Called with the points measured and the points in all."""

_BEFORE: Final = "before"
_LAYER: Final = "layer"
_TINY: Final = 16
_LARGE: Final = 256
_LARGE_BYTES: Final = _LARGE * _LARGE * 9 * 4
"""Channels of the convolutions of a chain, and the bytes of weights that each large one has."""


@dataclass(frozen=True)
class LayerProbe:
    """How long to measure: each point takes `passes` turns of at least `least_runs` runs, `most_ms` each if it can."""

    threads: int = 1
    passes: int = 2
    least_runs: int = 5
    most_runs: int = 60
    most_ms: float = 30.0


class Point(NamedTuple):
    """A layer with so many channels."""

    shape: LayerShape
    inputs: int
    outputs: int


def probe_layers(
    shapes: Sequence[LayerShape], settings: LayerProbe | None = None, *, on_point: OnPoint | None = None
) -> DeviceProfile:
    """The profile of this device for these layers, those of one shape measured once.

    All points take turns, so that what else the machine does meanwhile hits none of them each time; the fastest turn
    counts.
    """
    settings = settings or LayerProbe()
    if settings.threads < 1:
        raise ConfigError(f"cannot measure with {settings.threads} threads: at least 1 is needed")
    merged = merge(shapes)
    points = [point for shape in merged for point in points_of(shape)]
    ms: dict[Point, float] = {}
    engine = OnnxRuntime()
    for turn in range(settings.passes):
        for done, point in enumerate(points):
            found = _measure(engine, point, settings)
            ms[point] = min(found, ms.get(point, found))
            if on_point:
                on_point(turn * len(points) + done + 1, settings.passes * len(points))
    layers = tuple(
        LayerPoints(shape=shape, points=tuple((p.inputs, p.outputs, round(ms[p], 6)) for p in points_of(shape)))
        for shape in merged
    )
    return DeviceProfile(
        prunit=VERSION,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device(engine.name),
        threads=settings.threads,
        rest=_rest(engine, sum(map(_weight_bytes, shapes)), settings),
        energy=_energy(engine, settings),
        layers=layers,
    )


def merge(shapes: Sequence[LayerShape]) -> list[LayerShape]:
    """Each shape once, with the most channels of all that are of its key; those with fixed channels by themselves."""
    found: dict[LayerShape, LayerShape] = {}
    for shape in shapes:
        fixed = {
            "inputs": shape.inputs if shape.inputs_fixed else 1,
            "outputs": shape.outputs if shape.outputs_fixed else 1,
            "inputs_fixed": shape.inputs_fixed,
            "outputs_fixed": shape.outputs_fixed,
        }
        key = shape.model_copy(update=fixed)
        known = found.get(key, shape)
        most = {"inputs": max(known.inputs, shape.inputs), "outputs": max(known.outputs, shape.outputs)}
        found[key] = shape.model_copy(update=most)
    return list(found.values())


def points_of(shape: LayerShape) -> Iterator[Point]:
    """The widths at which a layer is measured."""
    outputs = probed(shape.outputs, fixed=shape.outputs_fixed)
    if shape.depthwise:
        yield from (Point(shape, n, n) for n in outputs)
        return
    groups = shape.groups
    for i in probed(shape.inputs // groups, fixed=shape.inputs_fixed):
        yield from (
            Point(shape, i * groups, o * groups) for o in probed(shape.outputs // groups, fixed=shape.outputs_fixed)
        )


def _measure(engine: OnnxRuntime, point: Point, settings: LayerProbe) -> float:
    """The median of a turn, in ms."""
    model, x = layer_model(point)
    first = engine.kernel_ms(model, x, runs=3, threads=settings.threads)
    guess = statistics.median(_layer_ms(first))
    runs = int(np.clip(settings.most_ms / max(guess, 1e-3), settings.least_runs, settings.most_runs))
    return statistics.median(_layer_ms(engine.kernel_ms(model, x, runs=runs + 2, threads=settings.threads))[2:])


def _layer_ms(kernels: Mapping[str, list[float]]) -> list[float]:
    """What the layer took in each run: all but what stands before it, and conversions of layout."""
    counted = [ms for name, ms in kernels.items() if not name.startswith((_BEFORE, "Reorder"))]
    return [sum(run) for run in zip(*counted, strict=True)]


def layer_model(point: Point) -> tuple[bytes, np.ndarray]:
    """The file of a model with this layer in it, followed by a ReLU if it is a convolution, and an input for it."""
    noise = np.random.default_rng(0)
    shape = point.shape
    if shape.window is None:
        x = noise.standard_normal((shape.rows, point.inputs), dtype=np.float32)
        w = onnx_writer.weight("w", noise.standard_normal((point.inputs, point.outputs), dtype=np.float32) * 0.05)
        b = onnx_writer.weight("b", np.zeros(point.outputs, np.float32))
        nodes = [onnx_writer.node("Gemm", ["x", "w", "b"], _LAYER)]
        return onnx_writer.model(nodes, [w, b], ("x", x.shape), _LAYER), x
    chain = _Chain(noise)
    image = shape.inputs_fixed and shape.inputs <= 4
    read = (
        "x"
        if image
        else chain.convolution("x", _BEFORE, 4, point.inputs, Window(size=shape.window.size, kernel=(1, 1)))
    )
    chain.convolution(read, _LAYER, point.inputs, point.outputs, shape.window)
    x = noise.standard_normal((1, point.inputs if image else 4, *shape.window.size), dtype=np.float32)
    return onnx_writer.model(chain.nodes, chain.weights, ("x", x.shape), _LAYER), x


class _Chain:
    """Convolutions, each followed by a ReLU, that become a model."""

    def __init__(self, noise: np.random.Generator) -> None:
        self.noise = noise
        self.nodes: list[bytes] = []
        self.weights: list[bytes] = []

    def convolution(self, x: str, y: str, inputs: int, outputs: int, window: Window) -> str:
        """Appends one that reads `x`; its output after the ReLU is `y`."""
        groups = inputs if window.groups == "depthwise" else window.groups
        w = self.noise.standard_normal((outputs, inputs // groups, *window.kernel), dtype=np.float32) * 0.05
        self.weights += [onnx_writer.weight(f"{y}.w", w), onnx_writer.weight(f"{y}.b", np.zeros(outputs, np.float32))]
        attributes = {
            "kernel_shape": window.kernel,
            "strides": window.stride,
            "pads": (*window.padding, *window.padding),
            "dilations": window.dilation,
            "group": groups,
        }
        self.nodes.append(onnx_writer.node("Conv", [x, f"{y}.w", f"{y}.b"], f"{y}.conv", attributes))
        self.nodes.append(onnx_writer.node("Relu", [f"{y}.conv"], y))
        return y


def _energy(engine: OnnxRuntime, settings: LayerProbe) -> Energy:
    """Prices from a convolution that computes on what it has near, and from a chain whose weights come from afar."""
    counter = Rapl()
    if not counter.readable:
        return LITERATURE  # before a chain of 75 MB is made for nothing
    near = LayerShape(inputs=64, outputs=64, window=Window(size=(32, 32), kernel=(3, 3), padding=(1, 1)))
    computing = layer_model(Point(near, 64, 64))
    elements = 32 * 32 * (4 + 64 + 64)
    macs = 32 * 32 * (64 * 64 * 9 + 4 * 64)
    # As many multiply-adds as bytes: four positions, and four bytes for each weight.
    far = 32 * _LARGE_BYTES
    with (
        _running(engine, *computing, settings) as compute,
        _running(engine, *_chain(32, _LARGE), settings) as fetch,
    ):
        return energy_prices((compute, macs, elements * 4), (fetch, far, far), counter=counter)


@contextmanager
def _running(
    engine: OnnxRuntime, model: bytes, x: np.ndarray, settings: LayerProbe
) -> Generator[Callable[[], object], None, None]:
    """What runs a model once."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(model)
        session = engine.open(file, threads=settings.threads)
    try:
        yield lambda: session.run(x)
    finally:
        session.close()


def _rest(engine: OnnxRuntime, weight_bytes: int, settings: LayerProbe) -> Rest:
    """What chains of convolutions take beyond the time of one alone, whose weights stay in a cache.

    Each has weights of its own, so that a chain uses as many in turn as a model of that size does; the longest chain
    has `weight_bytes` of them or more.
    """
    tiny, x = _chain(1, _TINY)
    alone = statistics.median(_layer_ms(engine.kernel_ms(tiny, x, runs=200, threads=settings.threads))[20:])
    overhead = _wall_ms(engine, *_chain(16, _TINY), settings) / 16 - alone
    lengths = [2**k for k in range(1, max(math.ceil(math.log2(weight_bytes / _LARGE_BYTES + 1)), 1) + 1)]
    each = [_wall_ms(engine, *_chain(n, _LARGE), settings) / n for n in lengths]
    fetching = [max(ms - each[0], 0.0) / (_LARGE_BYTES / 1e6) for ms in each]
    # More weights are never faster to fetch: what looks so is noise.
    rising = np.maximum.accumulate(fetching)
    pairs = tuple((n * _LARGE_BYTES, round(float(ms), 6)) for n, ms in zip(lengths, rising, strict=True))
    # The engine's profiler slows an operator by more than what lies between two, on a fast core: then that is nothing.
    return Rest(per_layer_ms=round(max(overhead, 0.0), 6), fetching=pairs)


def _weight_bytes(shape: LayerShape) -> int:
    kernel = math.prod(shape.window.kernel) if shape.window else 1
    return 4 * kernel * shape.outputs * shape.inputs // shape.groups


def _wall_ms(engine: OnnxRuntime, model: bytes, x: np.ndarray, settings: LayerProbe) -> float:
    """The median time of a model by the wall clock, in the fastest of several turns."""
    turns: list[float] = []
    with _running(engine, model, x, settings) as run:
        for _ in range(settings.passes + 1):
            times: list[float] = []
            for _ in range(25):
                before = time.perf_counter_ns()
                run()
                times.append((time.perf_counter_ns() - before) / 1e6)
            turns.append(statistics.median(times[5:]))
    return min(turns)


def _chain(length: int, channels: int) -> tuple[bytes, np.ndarray]:
    """3×3 convolutions of so many channels, of an image of 2×2 positions, one after the other."""
    chain, read = _Chain(np.random.default_rng(0)), "x"
    window = Window(size=(2, 2), kernel=(3, 3), padding=(1, 1))
    for i in range(length):
        read = chain.convolution(read, f"{_LAYER}{i}", channels, channels, window)
    x = np.ones((1, channels, 2, 2), np.float32)
    return onnx_writer.model(chain.nodes, chain.weights, ("x", x.shape), read), x
