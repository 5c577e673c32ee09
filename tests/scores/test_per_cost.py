"""Scores for each multiply-add: what a mask keeps where those are limited."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from prunit.graph import trace
from prunit.scores import SCORES, score_weights
from prunit.scores.per_cost import macs_per_weight, per_cost


class TwoScales(nn.Module):
    """A convolution at 64 positions, one of the same shape at 4, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.late, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = nn.functional.avg_pool2d(torch.relu(self.wide(x_BCHW)), 4)
        return self.head(torch.relu(self.late(x_BCHW)).mean((2, 3)))


@pytest.fixture
def traced() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return TwoScales(), torch.randn(2, 4, 8, 8)


def test_macs_of_a_weight_by_hand(traced: tuple[nn.Module, torch.Tensor]) -> None:
    model, x_BCHW = traced
    assert macs_per_weight(trace(model, x_BCHW)) == {"wide.weight": 64, "late.weight": 4, "head.weight": 1}


def test_one_shot_scores_are_divided_by_the_cost(traced: tuple[nn.Module, torch.Tensor]) -> None:
    model, x_BCHW = traced
    graph, batches = trace(model, x_BCHW), [(x_BCHW, torch.tensor([0, 1]))]
    plain = score_weights(model, graph, "snip", batches)
    dear = score_weights(model, graph, per_cost(SCORES["snip"], macs_per_weight(graph)), batches)
    for name, macs in macs_per_weight(graph).items():
        torch.testing.assert_close(dear[name] * macs, plain[name])


@pytest.mark.parametrize("name", ["synflow", "iterative-snip"])
def test_weights_at_many_positions_go_first(traced: tuple[nn.Module, torch.Tensor], name: str) -> None:
    model, x_BCHW = traced
    graph, batches = trace(model, x_BCHW), [(x_BCHW, torch.tensor([0, 1]))]
    method = replace(SCORES[name], rounds=20)

    def left(score: object) -> float:
        """Density of the wide layer where half of all weights are left."""
        found = score_weights(model, graph, score, batches, density=0.3)  # type: ignore[arg-type]
        order = torch.cat([s.reshape(-1) for s in found.values()]).sort().values
        return float((found["wide.weight"] > order[len(order) // 2]).float().mean())

    assert left(per_cost(method, macs_per_weight(graph))) < left(method)


def test_equal_costs_change_nothing(traced: tuple[nn.Module, torch.Tensor]) -> None:
    model, x_BCHW = traced
    graph = trace(model, x_BCHW)
    equal = per_cost(SCORES["synflow"], dict.fromkeys(macs_per_weight(graph), 7))
    batches = [(x_BCHW, torch.empty(0, dtype=torch.int64))]
    plain, same = (score_weights(model, graph, score, batches) for score in ("synflow", equal))
    assert all(torch.equal(plain[name], same[name]) for name in plain)
