"""A portfolio folder of tiny models that multiply their input by a number: the answer tells who gave it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from prunit.edge.measuring import onnx_writer
from prunit.edge.portfolio import Artifact, Latency, Metrics, Portfolio, Preprocessing, Variant
from prunit.edge.session import Array
from prunit.files import sha256_of

SHAPE = (3, 4, 4)
FACTORS = {"large": 4.0, "middle": 2.0, "small": 1.0}
ACCURACIES = {"large": 0.9, "middle": 0.8, "small": 0.6}
SERVICE_MS = {"large": 8.0, "middle": 3.0, "small": 1.0}
X_BCHW = np.random.default_rng(1).standard_normal((1, *SHAPE), dtype=np.float32)
"""An image."""


def gives(output: Array, x_BCHW: Array, name: str) -> bool:
    """The output is what the variant of that name makes of the input."""
    return bool(np.allclose(output, x_BCHW * FACTORS[name], atol=1e-4))


def variant_in(folder: Path, name: str, factor: float, *, shape: tuple[int, int, int] = SHAPE) -> Variant:
    """A variant whose file and self-test are written to the folder."""
    c, h, w = shape
    weight = np.zeros((c, c, 1, 1), np.float32)
    weight[range(c), range(c)] = factor
    # Larger than a kilobyte, so that the engine keeps it apart from the graph.
    filler = np.zeros((c, c, 16, 16), np.float32)
    node = onnx_writer.node("Conv", ["x", "w"], "y", {"kernel_shape": [1, 1]})
    used = onnx_writer.node("Conv", ["x", "v"], "z", {"kernel_shape": [16, 16], "pads": [8, 8, 7, 7]})
    total = onnx_writer.node("Add", ["y", "z"], "sum")
    weights = [onnx_writer.weight("w", weight), onnx_writer.weight("v", filler)]
    file = folder / f"{name}.onnx"
    file.write_bytes(onnx_writer.model([node, used, total], weights, ("x", (0, c, h, w)), "sum"))
    x_BCHW = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    np.savez(folder / f"{name}.npz", input=x_BCHW, expected=x_BCHW * np.float32(factor))
    return Variant(
        name=name,
        recipe="dense",
        keep=1.0,
        artifact=Artifact(
            path=file.name,
            sha256=sha256_of(file),
            bytes=file.stat().st_size,
            input_name="x",
            input_shape=shape,
            output_name="sum",
            self_test=f"{name}.npz",
            self_test_sha256=sha256_of(folder / f"{name}.npz"),
            tolerance=1e-4,
        ),
        metrics=Metrics(
            accuracy=ACCURACIES.get(name, 0.5),
            params=int(1000 * factor),
            macs=int(1000 * factor),
            weight_bytes=int(4000 * factor),
            activation_bytes=1000,
            file_bytes=file.stat().st_size,
            latencies=(
                Latency(
                    batch=1,
                    threads=1,
                    n=10,
                    **{f"p{p}_ms": SERVICE_MS.get(name, 5.0) * m for p, m in ((50, 1.0), (90, 1.1), (99, 1.3))},
                ),
            ),
            peak_memory_bytes=int(1e6 * factor),
        ),
    )


def portfolio_in(folder: Path, factors: Mapping[str, float] = FACTORS) -> Portfolio:
    """The portfolio, its manifest and files written to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    found = Portfolio(
        name="numbers",
        model="conv",
        data="noise",
        classes=("a", "b"),
        preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.2,) * 3, size=SHAPE[1:]),
        variants=tuple(variant_in(folder, name, factor) for name, factor in factors.items()),
        prunit_version="0.1.0",
        created="2026-07-04T12:31:44+00:00",
    )
    found.write(folder)
    return found
