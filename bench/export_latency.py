"""Latency of exported networks at width 1, 1/2 and 1/4 in ONNX Runtime, the variants of a network taking turns.

The weights are untrained: they do not change the time. Every group that may shrink keeps the same share.
"""

import tempfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from bench._common import arguments, record, write
from bench._nets import SMALL, plan_at
from prunit.cut.surgery import compact
from prunit.edge.measuring.probe import ProbeSettings, probe
from prunit.edge.portfolio import Latency
from prunit.edge.runtimes import runtime
from prunit.export import exporter
from prunit.graph import trace
from prunit.prices.costs import cost_of

WIDTHS: Final = (Fraction(1), Fraction(1, 2), Fraction(1, 4))
BATCHES: Final = (1, 32)
THREADS: Final = (1, 2)


def exported(model: nn.Module, example: Tensor, folder: Path) -> dict[str, dict[str, Any]]:
    """A variant for each width, written into `folder`: by name its file, size and cost."""
    graph = trace(model, example)
    found = {}
    for width in WIDTHS:
        plan = plan_at(model, graph, example, width)
        name = f"w{width}".replace("/", "-")
        artifact = exporter("onnx")(compact(model, graph, plan).eval(), example, folder, name=name)
        cost = cost_of(graph, plan)
        found[name] = {
            "width": str(width),
            "file": folder / artifact.path,
            "file_bytes": artifact.bytes,
            "params": cost.params,
            "macs": cost.macs,
        }
    return found


def latencies(files: Mapping[str, Path], shape: tuple[int, int, int], settings: ProbeSettings) -> dict[str, Any]:
    """Latencies by variant, from one run in which the variants take turns."""
    engine = runtime()
    sessions = {name: engine.open(file, threads=settings.threads) for name, file in files.items()}
    try:
        return probe(sessions, dict.fromkeys(files, shape), settings)
    finally:
        for session in sessions.values():
            session.close()


def measure(model: nn.Module, example: Tensor, settings: list[ProbeSettings]) -> list[dict[str, Any]]:
    """A row for each variant, threads and batch size, with its p50 as a share of the dense one's."""
    with tempfile.TemporaryDirectory() as folder:
        variants = exported(model, example, Path(folder))
        files = {name: variant.pop("file") for name, variant in variants.items()}
        rows: list[dict[str, Any]] = []
        for setting in settings:
            _, channels, height, width = example.shape
            found = latencies(files, (channels, height, width), setting)
            dense = {latency.batch: latency.p50_ms for latency in next(iter(found.values()))}
            rows += [_row(variants[n], latency, dense) for n, of_one in found.items() for latency in of_one]
    return rows


def _row(variant: Mapping[str, Any], latency: Latency, dense_ms: Mapping[int, float]) -> dict[str, Any]:
    times_faster = dense_ms[latency.batch] / latency.p50_ms
    return {**variant, **latency.model_dump(), "times_faster_than_dense": times_faster}


def main() -> None:
    options = arguments("export_latency", __doc__, seconds=8, runs=50)
    torch.set_num_threads(max(THREADS))
    settings = [
        ProbeSettings(batches=BATCHES, threads=t, min_runs=options.runs, seconds=options.seconds) for t in THREADS
    ]
    rows = []
    for key, net in SMALL.items():
        mine = [{"model": key, "title": net.title, **row} for row in measure(*net.make(), settings)]
        for row in mine:
            print(
                f"{net.title} width {row['width']}, batch {row['batch']}, {row['threads']} threads:"
                f" {row['p50_ms']:.2f} ms, {row['times_faster_than_dense']:.2f} times faster than dense"
            )
        rows += mine
    config = {"runtime": "onnxruntime", "batches": BATCHES, "seconds": options.seconds, "order": "variants in turn"}
    result = record(
        "export_latency", rows, config=config, n=min(r["n"] for r in rows), percentile="p50, p90, p99", threads=THREADS
    )
    write(result, options.json)


if __name__ == "__main__":
    main()
