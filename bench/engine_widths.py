"""Which widths an engine likes at each kind of layer: `python -m bench.engine_widths`, from measurement.

Each layer stands in a model as in a network: behind a 1x1 convolution of four channels, which leaves its output in the
engine's own layout of memory, and before another one where its inputs vary, so that a layer which the engine cannot run
in its layout pays for the conversions. Where its outputs vary, a mean over the positions follows, for which every width
is converted alike. A model holds several such branches of one and the same shape. The models of a kind take turns, at
the widths n + 1, n, n - 1, n - 2, n - 4 and n - 8 for each n of `WIDTHS`; a figure is the median of the turns, in CPU
time of the process, which other processes disturb less than the wall clock. What follows is `liked`'s to say.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from bench import _engines
from bench._common import RESULTS, record, take_turns, write
from prunit.edge.measuring import onnx_writer

WIDTHS: Final = (8, 16, 32, 48, 64, 128)
LESS: Final = (-1, 0, 1, 2, 4, 8)
MULTIPLES: Final = (1, 2, 4, 8, 16, 32)
NARROW: Final = 16
"""Engines take another way below their block."""
OTHER: Final = 64
"""Channels on the side that does not vary; of each part in a grouped convolution a quarter of that."""
BRANCHES: Final = 4
_FEW: Final = 4
"""Channels that the convolution before reads, and that the one behind makes."""


@dataclass(frozen=True)
class Kind:
    """A kind of layer, and the side whose width varies.

    The width is that of each part where a convolution has several: its channels are `groups` times as many.
    """

    name: str
    side: Literal["in", "out", "both"]
    kernel: int = 0
    """Height and width of a convolution's; 0 is another operator."""
    groups: int = 1
    """0 is depthwise."""

    @property
    def widths(self) -> tuple[int, ...]:
        """All that are measured, ascending; parts of grouped convolutions go to 32."""
        most = 33 if self.groups > 1 else max(WIDTHS) + 1
        return tuple(sorted({n - less for n in WIDTHS for less in LESS if 0 < n - less <= most}))

    def channels(self, width: int) -> tuple[int, int]:
        """Inputs and outputs of the layer."""
        if self.side == "both":
            return width, width
        if self.name == "first":
            return 3, width
        if self.name == "linear" and self.side == "in":
            return width, 10
        other = OTHER // 4 if self.groups > 1 else OTHER
        i, o = (width, other) if self.side == "in" else (other, width)
        return i * self.groups, o * self.groups


KINDS: Final = (
    Kind("first", "out", 3),
    Kind("conv3x3", "in", 3),
    Kind("conv3x3", "out", 3),
    Kind("conv1x1", "in", 1),
    Kind("conv1x1", "out", 1),
    Kind("grouped4", "in", 3, 4),
    Kind("grouped4", "out", 3, 4),
    Kind("grouped8", "in", 3, 8),
    Kind("grouped8", "out", 3, 8),
    Kind("depthwise", "both", 3, 0),
    Kind("maxpool", "both"),
    Kind("average", "both"),
    Kind("add", "both"),
    Kind("linear", "in"),
    Kind("linear", "out"),
)


def model_of(kind: Kind, width: int, image: int = 16, batch: int = 1) -> tuple[bytes, np.ndarray]:
    """The ONNX file of a model with `BRANCHES` such layers on images of `image`², and an input for it."""
    net = _Net()
    inputs, outputs = kind.channels(width)
    ends = [_branch(net, kind, inputs, outputs) for _ in range(BRANCHES)]
    size = () if kind.name == "linear" else (image, image)
    x = net.noise.standard_normal((batch, 3 if kind.name == "first" else _FEW, *size), dtype=np.float32)
    # Not summed, which an engine may do in a layout of its own for some widths and not for others.
    end = net.node("Concat", ends, {"axis": x.ndim - 2})
    return onnx_writer.model(net.nodes, net.weights, ("x", x.shape), end), x


def _branch(net: "_Net", kind: Kind, inputs: int, outputs: int) -> str:
    if kind.name == "linear":
        return net.linear(net.linear("x", _FEW, inputs), inputs, outputs)
    read = "x" if kind.name == "first" else net.conv("x", _FEW, inputs, 1)
    if kind.kernel:
        made = net.conv(read, inputs, outputs, kind.kernel, kind.groups or inputs)
    elif kind.name == "maxpool":
        made = net.node("MaxPool", [read], {"kernel_shape": (2, 2), "strides": (2, 2)})
    elif kind.name == "average":
        return net.node("GlobalAveragePool", [read])
    else:
        made = net.node("Add", [read, net.conv("x", _FEW, inputs, 1)])
    if kind.side == "in" or not kind.kernel:
        made = net.conv(made, outputs, _FEW, 1)
    return net.node("ReduceMean", [made], {"axes": (2, 3)})


class _Net:
    """Nodes and weights that become a model; each method gives the name of its output."""

    def __init__(self) -> None:
        self.noise = np.random.default_rng(0)
        self.nodes: list[bytes] = []
        self.weights: list[bytes] = []

    def node(self, op: str, read: Sequence[str], attributes: Mapping[str, int | Sequence[int]] | None = None) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(onnx_writer.node(op, read, name, attributes))
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        values = self.noise.standard_normal(shape, dtype=np.float32) * 0.05
        self.weights.append(onnx_writer.weight(name, values))
        return name

    def conv(self, x: str, inputs: int, outputs: int, kernel: int, groups: int = 1) -> str:
        """A convolution of stride 1 that keeps the size, and a ReLU."""
        read = [x, self.weight(outputs, inputs // groups, kernel, kernel), self.weight(outputs)]
        window = {"kernel_shape": (kernel, kernel), "pads": (kernel // 2,) * 4, "group": groups}
        return self.node("Relu", [self.node("Conv", read, window)])

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        return self.node("Relu", [self.node("Gemm", [x, self.weight(inputs, outputs), self.weight(outputs)])])


def liked(ms: Mapping[int, float], tolerance: float = 0.1) -> dict[str, Any]:
    """What the times by width say of the widths that an engine likes at a layer.

    A width is a *cliff* if a wider one that was measured takes less by more than the tolerance: nobody should use it.

    `step`         the smallest of `MULTIPLES` of which no multiple from `NARROW` on is a cliff; 0 if there is none
    `narrow_step`  the same below `NARROW`: 16 says that every narrower width should rather be 16
    `block`        the largest multiple of `step` within which hardly any time is won: from `NARROW` on, widths that
                   are no cliff save, against the next multiple, less than 40 % of the share of channels that they do
                   without; those at each distance together, as a pair alone may be noise
    `worst`        how many times as long the worst cliff takes as the best of what is wider
    """
    widths = sorted(ms)
    excess = {w: ms[w] / min((ms[v] for v in widths if v > w), default=ms[w]) for w in widths}
    cliffs = [w for w in widths if excess[w] > 1 + tolerance]
    step, narrow = (
        next((s for s in MULTIPLES if not any(w % s == 0 for w in some)), 0)
        for some in ([w for w in cliffs if w >= NARROW], [w for w in cliffs if w < NARROW])
    )
    sound = [w for w in widths if w not in cliffs and w >= NARROW]
    blocks = [b for b in MULTIPLES if step and b % step == 0 and _won(ms, sound, b) < 0.4]
    return {
        "step": step,
        "narrow_step": narrow,
        "block": max(blocks, default=step),
        "worst": round(max(excess.values()), 3),
        "cliffs": cliffs,
    }


def _won(ms: Mapping[int, float], widths: Sequence[int], block: int) -> float:
    """The share of time saved for each share of channels less, at the distance to the next multiple where it is most.

    Pairs that differ by less than 3 % of the channels do not count: noise is as large.
    """
    saved: dict[int, float] = {}
    less: dict[int, float] = {}
    for w in widths:
        full = -(-w // block) * block
        if full in ms and full - w >= 0.03 * full:
            saved[full - w] = saved.get(full - w, 0.0) + 1 - ms[w] / ms[full]
            less[full - w] = less.get(full - w, 0.0) + 1 - w / full
    return max((saved[distance] / less[distance] for distance in less), default=0.0)


def measure(
    kind: Kind,
    engine: str,
    *,
    rounds: int,
    runs: int,
    image: int = 16,
    batch: int = 1,
    clock_ns: Callable[[], int] = time.process_time_ns,
) -> dict[int, float]:
    """Median milliseconds of a branch by width; in each of the rounds every model runs `runs` times."""
    with tempfile.TemporaryDirectory() as folder, _opened(kind, engine, Path(folder), image, batch) as models:

        def turn(run: Callable[[], object]) -> float:
            start = clock_ns()
            for _ in range(runs):
                run()
            return (clock_ns() - start) / 1e6 / runs / BRANCHES

        turns = {str(width): (lambda run=run: turn(run)) for width, run in models.items()}
        found = take_turns(turns, rounds, warm_up=2, pause=False)
    return {int(width): statistics.median(times) for width, times in found.items()}


@contextmanager
def _opened(kind: Kind, engine: str, folder: Path, image: int, batch: int) -> Iterator[dict[int, Callable[[], object]]]:
    """By width what runs the model once."""
    models = {}
    for width in kind.widths:
        data, x = model_of(kind, width, image, batch)
        file = folder / f"{width}.onnx"
        file.write_bytes(data)
        models[width] = _engines.ENGINES[engine](file, x)
    yield models


def row_of(kind: Kind, engine: str, ms: Mapping[int, float]) -> dict[str, Any]:
    """A row of the result: times, what they are relative to the n that they belong to, and what follows."""
    return {
        "engine": engine,
        "kind": kind.name,
        "side": kind.side,
        "ms": {str(w): round(t, 6) for w, t in ms.items()},
        "relative": {
            str(n): {str(n - less): round(ms[n - less] / ms[n], 3) for less in LESS if less and n - less in ms}
            for n in WIDTHS
            if n in ms
        },
        **liked(ms),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine_widths", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "engine_widths.json", metavar="FILE", help="to write")
    parser.add_argument("--rounds", type=int, default=60, help="default 60")
    parser.add_argument("--runs", type=int, default=3, help="of a model in a round, one after the other; default 3")
    parser.add_argument("--image", type=int, default=16, help="height and width of the tensors; default 16")
    parser.add_argument("--batch", type=int, default=1, help="images in an input; default 1")
    parser.add_argument("--only", default="", help="kinds of layer with this in their name")
    parser.add_argument("--engines", default="", help="names, separated by commas; default all that are installed")
    options = parser.parse_args()
    engines = options.engines.split(",") if options.engines else _engines.installed()
    rows = []
    for engine in engines:
        for kind in (kind for kind in KINDS if options.only in kind.name):
            ms = measure(
                kind, engine, rounds=options.rounds, runs=options.runs, image=options.image, batch=options.batch
            )
            rows.append(row_of(kind, engine, ms))
            told = {key: rows[-1][key] for key in ("step", "narrow_step", "block", "worst")}
            print(f"{engine}, {kind.name} {kind.side}: {told}")
            for n, shares in rows[-1]["relative"].items():
                print(f"   {n}: {ms[int(n)]:.4f} ms; " + ", ".join(f"{w}: {share:.2f}" for w, share in shares.items()))
    config = {"image": options.image, "other": OTHER, "branches": BRANCHES, "batch": options.batch, "order": "in turn"}
    config["engines"] = {engine: _engines.version(engine) for engine in engines}
    write(
        record("engine_widths", rows, config=config, n=options.rounds, percentile="median (p50), CPU time", threads=1),
        options.json,
    )


if __name__ == "__main__":
    main()
