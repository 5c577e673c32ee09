"""The benchmark of padded widths runs on a toy network, and its lines render; no time is judged."""

from typing import Any

import torch
from torch import Tensor, nn

from bench import edge_tables, padding
from bench.default_speed import TenClasses


class Toy(TenClasses):
    """Two convolutions and a classifier."""

    def make(self) -> tuple[nn.Module, Tensor]:
        convs = (
            nn.Conv2d(3, 32, 3),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 16, 3),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(16, 4))
        return nn.Sequential(*convs, *pooled).eval(), torch.zeros(1, 3, 8, 8)


def test_a_row_has_all_arms_with_the_same_outputs() -> None:
    torch.manual_seed(0)
    row: dict[str, Any] = padding.row(Toy("toy", "toy", 8), 0.4, 0, 0.001, "cpu")
    assert list(row["arms"]) == ["off", "multiples of 4", "multiples of 16"]
    off, four, sixteen = row["arms"].values()
    assert off["spare"] == 0 < four["spare"] < sixteen["spare"]
    assert [width % 4 for width in four["widths"][:2]] == [0, 0]
    assert max(arm["difference"] for arm in row["arms"].values()) < 1e-5
    assert off["latency"]["1"]["than_off"] == 1
    assert off["latency"]["1"]["n"] >= 55
    line = edge_tables.padding_line(row)
    assert line[0] == "toy"
    assert len(line) == 7
