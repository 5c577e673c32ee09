"""Memory on a part is used up, and groups away from its peak stay whole."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import prunit
from prunit.allocate import Budget, Constraints, Target
from prunit.mcu.parts import part
from prunit.mcu.tflm import arena
from prunit.prices.costs import width_array
from prunit.recipe.blueprint import Blueprint
from prunit.recipe.config import PruneConfig
from prunit.recipe.deciding import decide_here
from prunit.recipe.filling import filled
from prunit.recipe.recipes import example_batch


@dataclass(frozen=True)
class Told:
    """A part that reports what a function of the widths says."""

    bytes_of: Callable[[np.ndarray], float]

    def __call__(self, widths: np.ndarray, /) -> float:
        return self.bytes_of(widths)

    exact = __call__

    def by_layer(self, widths: np.ndarray, /) -> np.ndarray:
        return np.full(1, self(widths))


def target(limit: str, figure: str, bytes_of: Callable[[np.ndarray], float]) -> Target:
    graph = prunit.trace(prunit.zoo.load("vgg11"), torch.zeros(1, 3, 32, 32))
    return Target(graph, Budget.parse(limit), Constraints(), {figure: Told(bytes_of)})


def narrow(on: Target) -> np.ndarray:
    return on.allowed.down(on.graph.sizes / 8)


def peak(widths: np.ndarray) -> float:
    """The first two groups are alive together at the largest images; each channel has a record besides."""
    return 1000 * float(widths[0] + widths[1]) + float(widths.sum())


@pytest.mark.parametrize(
    ("limit", "figure"), [("arena=1/2@tflm", "arena_bytes"), ("sram=1/2@ethos-u55-128", "sram_bytes")]
)
def test_groups_away_from_the_peak_stay_whole_and_those_at_it_fill_the_limit(limit: str, figure: str) -> None:
    on = target(limit, figure, peak)
    found = filled(on, narrow(on))
    assert (found[2:] == on.ceiling[2:]).all()
    assert 0.98 <= on.used(found) <= 1
    assert (found[:2] > narrow(on)[:2]).all()


def test_flash_is_used_up_by_all_alike() -> None:
    on = target("flash=1/2@tflm", "flash_bytes", lambda widths: float(np.square(widths.astype(float)).sum()))
    found = filled(on, narrow(on))
    assert 0.98 <= on.used(found) <= 1
    shares = found[: len(found) - 1] / on.graph.sizes[:-1]
    assert shares.min() > 0.5


def test_what_takes_too_much_or_is_about_cycles_too_stays_as_it_is() -> None:
    on = target("arena=1/2@tflm", "arena_bytes", peak)
    assert filled(on, on.ceiling) is on.ceiling or (filled(on, on.ceiling) == on.ceiling).all()
    graph = on.graph
    meters = {"arena_bytes": Told(peak), "cycles": Told(peak)}
    both = Target(graph, Budget.parse("arena=1/2@tflm,cycles=1/2@ethos-u55-128"), Constraints(), meters)
    assert (filled(both, narrow(both)) == narrow(both)).all()


def block(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


@pytest.mark.parametrize("limit", ["arena=1/2@tflm", "flash=1/3@tflm"])
def test_a_budget_is_used_up_by_the_interpreters_word(limit: str) -> None:
    pytest.importorskip("tflite_micro")
    pytest.importorskip("ai_edge_litert")
    torch.manual_seed(0)
    layers = [layer for made in ((3, 24, 1), (24, 24, 1), (24, 48, 2), (48, 48, 2)) for layer in block(*made)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(48, 4)).eval()
    image = torch.zeros(1, 3, 16, 16)
    graph = prunit.trace(model, image)
    decision = decide_here(
        *(model, graph, image, [example_batch(image)], Budget.parse(limit), PruneConfig()), measure=False
    ).decision
    assert 0.98 <= decision.used[limit] <= 1
    if limit.startswith("arena"):
        blueprint, widths = Blueprint(model, graph, image), width_array(graph, decision.plan.widths)
        most = arena(blueprint.file(graph.sizes, part("tflm"))).total_bytes / 2
        for i in np.flatnonzero(widths < graph.sizes):
            wider = widths + (np.arange(len(widths)) == i)
            assert arena(blueprint.file(wider, part("tflm"))).total_bytes > most
        assert decision.plan.widths["9"] == 48  # images of 4 x 4, far from the peak
