"""Portfolios written by hand, with figures that a person can redo."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunit.edge.answers import Answers
from prunit.edge.portfolio import Artifact, Device, Latency, Metrics, Portfolio, Preprocessing, Variant

HASH = "0123456789ab" + "0" * 52
WIDTHS = {"stem.conv": (16, 16), "layer1.conv": (32, 32)}


@dataclass(frozen=True)
class Epoch:
    """What a training reports, as far as the report looks at it."""

    index: int
    loss: float
    train_accuracy: float
    test_accuracy: float | None
    watched: bool = False


HISTORY = [Epoch(1, 2.25, 0.25, 0.375), Epoch(2, 1.5, 0.5, 0.625)]


def latency(
    p50_ms: float, *, batch: int = 1, threads: int = 1, p90: float = 1.5, p99: float = 2.0, n: int = 500
) -> Latency:
    """A latency with its other percentiles as multiples of the median."""
    return Latency(batch=batch, threads=threads, n=n, p50_ms=p50_ms, p90_ms=p90 * p50_ms, p99_ms=p99 * p50_ms)


def answers(*right: tuple[int, int], images: int = 1000, commonest: int = 100, test_set: str = "0" * 16) -> Answers:
    """Those from one place up to another are right: answers((0, 900)) has the first 900 of the images."""
    right_N = np.zeros(images, np.bool_)
    for first, end in right:
        right_N[first:end] = True
    return Answers.of(right_N, commonest=commonest, test_set=test_set)


def variant(
    name: str,
    *,
    accuracy: float | None = 0.5,
    cost: int = 1000,
    latencies: Sequence[Latency] = (),
    widths: dict[str, tuple[int, int]] | None = None,
    keep: float = 0.5,
    answers: Answers | None = None,
) -> Variant:
    """A variant of `cost` params, that many thousand macs, and that many bytes on disk and in memory.

    With `answers` they say how accurate it is.
    """
    return Variant(
        name=name,
        recipe="dense" if keep == 1 else "reconvene",
        settings={} if keep == 1 else {"score": "synflow", "rectifier": "reinit"},
        budget={} if keep == 1 else {"params": "1/4"},
        keep=keep,
        widths=WIDTHS if widths is None else widths,
        artifact=Artifact(
            path="model.onnx",
            sha256=HASH,
            bytes=cost,
            input_name="x",
            input_shape=(3, 32, 32),
            output_name="y",
            self_test="test.npz",
            self_test_sha256=HASH,
            tolerance=1e-4,
        ),
        metrics=Metrics(
            accuracy=answers.accuracy if answers else accuracy,
            answers=answers,
            params=cost,
            macs=1000 * cost,
            weight_bytes=4 * cost,
            activation_bytes=64,
            file_bytes=cost,
            latencies=tuple(latencies),
            peak_memory_bytes=cost if latencies else None,
        ),
        seconds={"prune": 0.5, "train": 90.0, "export": 2.0},
        epochs=2,
        seed=7,
    )


def dense(
    *,
    accuracy: float | None = 0.9,
    cost: int = 8000,
    latencies: Sequence[Latency] = (),
    answers: Answers | None = None,
) -> Variant:
    return variant("dense", accuracy=accuracy, cost=cost, latencies=latencies, keep=1.0, answers=answers)


def portfolio(*variants: Variant, name: str = "resnet20-cifar10", model: str = "resnet20") -> Portfolio:
    return Portfolio(
        name=name,
        model=model,
        data="cifar10",
        classes=tuple("abcdefghij"),
        preprocessing=Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), size=(32, 32)),
        variants=variants,
        device=Device(name="Test CPU", cores=2, engine="onnxruntime", engine_version="1.2", os="Linux", python="3.11"),
        prunit_version="0.1.0",
        created="2026-07-04T12:31:44+00:00",
    )


def usual() -> Portfolio:
    """Dense, a good half and a quarter that is smaller, faster and 2 points worse; another is beaten by the half."""
    half, quarter = {"stem.conv": (16, 12), "layer1.conv": (32, 20)}, {"stem.conv": (16, 8), "layer1.conv": (32, 9)}
    return portfolio(
        variant("quarter", accuracy=0.88, cost=2000, latencies=(latency(1), latency(20, batch=32)), widths=quarter),
        dense(latencies=(latency(4), latency(100, batch=32))),
        variant("half", accuracy=0.89, cost=4000, latencies=(latency(2), latency(50, batch=32)), widths=half),
        variant("poor", accuracy=0.7, cost=4000, latencies=(latency(3), latency(60, batch=32)), widths=half),
    )


def mixed() -> Portfolio:
    """One variant of each kind: a good one, a slower, a guessing, a beaten one, and one measured on a busy machine."""

    def times(one: float, many: float, **percentiles: float) -> tuple[Latency, Latency]:
        return latency(one, p90=percentiles.get("p90", 1.1)), latency(many, batch=32, p90=1.02, p99=1.1)

    return portfolio(
        dense(latencies=times(4, 100), answers=answers((0, 900))),
        variant("good", cost=4000, latencies=times(2, 40), answers=answers((20, 915))),
        variant("slow", cost=1500, latencies=times(5, 240), answers=answers((0, 860))),
        variant("lost", cost=500, latencies=times(0.5, 10), answers=answers((0, 105))),
        variant("beaten", cost=5000, latencies=times(3, 60), answers=answers((20, 890))),
        variant("busy", cost=2000, latencies=times(1, 30, p90=2.4), answers=answers((0, 880))),
    )
