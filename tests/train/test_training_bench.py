"""The benchmarks of training on a toy network; their tables render, and no time is judged."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from torch import Tensor, nn

from bench import _common, bf16_accuracy, tables, training_step
from tests.test_bench import toy


@dataclass(frozen=True)
class Toy:
    """Stands for a `bench._nets.Net`."""

    title: str = "toy"
    image_size: int = 8
    classes: int = 4

    def make(self) -> tuple[nn.Module, Tensor]:
        return toy()


def page_of(name: str, rows: list[dict[str, Any]]) -> str:
    result = json.loads(json.dumps(_common.record(name, rows, config={}, n=1, percentile="medians", threads=1)))
    empty = f"<!-- bench:{name} -->\n<!-- /bench:{name} -->\n"
    return tables.render(empty, {name: result}, tables.TABLES)


def test_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_step, "resolved_precision", lambda *_: "bf16-mixed")
    monkeypatch.setattr(training_step, "BATCH", 4)
    monkeypatch.setitem(training_step.WIDTHS, "multiples of 8", {"round_to": 2})  # it has no more than two steps of 8
    rows = training_step.rows_of(Toy(), 1, 1)  # pyright: ignore[reportArgumentType]
    assert len(rows) == 2 * (1 + 2 * 3)
    dense = [row for row in rows if row["budget"] == "none"]
    assert [(row["precision"], row["of_dense"]) for row in dense] == [("32-true", 1.0), ("bf16-mixed", 1.0)]
    assert dense[0]["of_dense_float32"] == 1.0
    page = page_of("training_step", rows)
    assert "| toy | 1 | dense | float32 |" in page
    assert "| toy | 1 | macs=1/4, single channels | bfloat16 |" in page


def test_differences_by_hand() -> None:
    pairs = {seed: {"32-true": {"accuracy": 50.0}, "bf16-mixed": {"accuracy": 50.0 + seed}} for seed in (1, 2, 3)}
    found = {"resnet20": {**pairs, 4: {"32-true": {"accuracy": 9.0}}}}  # half a pair does not count
    rows = bf16_accuracy.rows_of(found)  # pyright: ignore[reportArgumentType]
    # Mean 2, deviation 1, and 4.30 is the quantile of t with two degrees of freedom: 2 ± 4.30 / sqrt(3).
    assert "| ResNet-20 | 3 | 50.00 | 52.00 | +2.00 (-0.48 to +4.48) | undecided |" in page_of("bf16_accuracy", rows)
