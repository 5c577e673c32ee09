"""Flow that is lost when one layer alone is narrowed, checked by hand on two linear layers."""

import pytest
import torch
from torch import Tensor, nn

from prunit.batches import Batch
from prunit.errors import ScoreError
from prunit.graph import ChannelGraph, trace
from prunit.sensitivity import flow_lost
from tests.nets import Gated

# Flow through channel j of the first layer: (sum of |row j| of the first) times (sum of |column j| of the second).
FIRST = [[1.0, -2.0], [0.5, 0.5], [-3.0, 1.0]]  # rows: 3, 1, 4
SECOND = [[1.0, -1.0, 0.0], [2.0, 4.0, -0.5]]  # columns: 3, 5, 0.5
FLOWS = (9.0, 5.0, 2.0)
EXAMPLE: Batch = (torch.zeros(1, 2), torch.empty(0, dtype=torch.int64))


def linear() -> tuple[nn.Module, ChannelGraph]:
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        for layer, weight in zip(model, (FIRST, SECOND), strict=True):
            layer.get_parameter("weight").copy_(torch.tensor(weight))
    return model, trace(model, EXAMPLE[0])


def scores(*values: float) -> dict[str, Tensor]:
    return {"0": torch.tensor(values), "1": torch.ones(2)}


@pytest.mark.parametrize(
    ("values", "width", "gone"),
    [((1, 2, 3), 2, (0,)), ((2, 1, 3), 2, (1,)), ((3, 2, 1), 2, (2,)), ((3, 1, 2), 1, (1, 2)), ((1, 3, 2), 1, (0, 2))],
)
def test_share_of_the_flow_through_the_channels_that_go(
    values: tuple[float, ...], width: int, gone: tuple[int, ...]
) -> None:
    model, graph = linear()
    lost = flow_lost(model, graph, scores(*values), {"0": width}, EXAMPLE)
    assert lost == {"0": pytest.approx(sum(FLOWS[j] for j in gone) / sum(FLOWS))}


def test_groups_that_are_not_narrowed_or_pinned_are_left_out() -> None:
    model, graph = linear()
    assert flow_lost(model, graph, scores(1, 2, 3), {"0": 3, "1": 2}, EXAMPLE) == {}
    pinned = graph.pin(["0"], "asked for")
    assert flow_lost(model, pinned, scores(1, 2, 3), {"0": 1}, EXAMPLE) == {}


def test_each_group_is_narrowed_alone() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3)))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(-1.0)
    graph = trace(model, torch.zeros(1, 4))
    lost = flow_lost(
        model, graph, {n: torch.arange(4.0) for n in "01"}, {"0": 3, "1": 1}, (torch.zeros(1, 4), EXAMPLE[1])
    )
    assert lost == {"0": pytest.approx(1 / 4), "1": pytest.approx(3 / 4)}


@pytest.mark.parametrize("act", [nn.ReLU6(), nn.Hardswish(), nn.Tanh()])
def test_an_activation_that_saturates_cuts_no_flow(act: nn.Module) -> None:
    first, second = linear()[0].children()
    model = nn.Sequential(first, act, second)
    with torch.no_grad():
        model.get_parameter("0.weight").mul_(1000)
    lost = flow_lost(model, trace(model, EXAMPLE[0]), {"0": torch.arange(3.0)}, {"0": 1}, EXAMPLE)
    assert lost == {"0": pytest.approx((FLOWS[0] + FLOWS[1]) / sum(FLOWS))}


def test_narrowing_a_gate_loses_no_flow() -> None:
    model = Gated()
    narrowed = {"stem.0": torch.arange(8.0), "squeeze": torch.arange(3.0)}
    image = (torch.zeros(1, 3, 8, 8), EXAMPLE[1])
    lost = flow_lost(model, trace(model, image[0]), narrowed, {"stem.0": 4, "squeeze": 1}, image)
    assert lost["squeeze"] == pytest.approx(0, abs=1e-12)
    assert 0 < lost["stem.0"] < 1


def test_model_and_random_state_stay_as_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU(), nn.Conv2d(4, 2, 3)).train()
    x_BCHW = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    graph = trace(model, x_BCHW[:1])
    before = {n: t.clone() for n, t in model.state_dict().items()}
    state = torch.get_rng_state()
    lost = flow_lost(model, graph, {"0": torch.arange(4.0)}, {"0": 2}, (x_BCHW, torch.zeros(2, dtype=torch.int64)))
    assert 0 < lost["0"] < 1
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_network_without_flow_is_refused_and_left_as_it_was() -> None:
    model, graph = linear()
    with torch.no_grad():
        model.get_submodule("1").get_parameter("weight").zero_()
    with pytest.raises(ScoreError, match=r"the synaptic flow of Sequential is 0\.0"):
        flow_lost(model.train(), graph, scores(1, 2, 3), {"0": 2}, EXAMPLE)
    assert model.training
    assert float(model.get_submodule("0").get_parameter("weight").detach().sum()) == pytest.approx(-2.0)
