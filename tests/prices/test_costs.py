"""Costs that a person can redo by hand, and that agree with a count of the compact model."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunit.cut.plans import Plan, keep_all
from prunit.cut.surgery import compact
from prunit.errors import PlanError, UnknownNameError
from prunit.graph import trace
from prunit.prices.costs import Cost, CostModel, cost_of, named_widths, shares, width_array
from tests.nets import NETS, Concatenated, Plain, images, lived_in, random_plan


class Small(nn.Module):
    """3 x 8 x 8 → conv 3x3 (bias) 4 x 8 x 8 → relu → pool 4 x 4 x 4 → conv 1x1 2 x 4 x 4 → linear 5."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1, bias=False)
        self.norm, self.fc = nn.BatchNorm2d(2), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.a(x)), 2)
        return self.fc(F.relu(self.norm(self.b(x))).flatten(1))


def test_dense_cost_by_hand() -> None:
    graph = trace(Small(), images(batch=3).float())
    params = (4 * 3 * 9 + 4) + 2 * 4 + 2 * 2 + (32 * 5 + 5)
    buffers = 2 * 2 * 4 + 8  # batch norm's statistics and its int64 count of batches
    assert cost_of(graph) == Cost(
        params=params,
        macs=64 * 4 * 3 * 9 + 16 * 2 * 4 + 32 * 5,
        activation_bytes=4 * (3 * 64 + 4 * 64),  # the first convolution, its input and output alive
        weight_bytes=4 * params + buffers,
    )


def test_cost_at_widths_by_hand() -> None:
    graph = trace(Small(), images(batch=3).float())
    params = (3 * 3 * 9 + 3) + 1 * 3 + 2 * 1 + (16 * 5 + 5)
    expected = Cost(
        params=params,
        macs=64 * 3 * 3 * 9 + 16 * 1 * 3 + 16 * 5,
        activation_bytes=4 * (3 * 64 + 3 * 64),
        weight_bytes=4 * params + 2 * 1 * 4 + 8,
    )
    assert cost_of(graph, {"a": 3, "b": 1}) == expected
    assert cost_of(graph, Plan({"a": (0, 1, 3), "b": (1,)}, keep_all(graph).dense)) == expected
    assert cost_of(graph, keep_all(graph)) == cost_of(graph, {}) == cost_of(graph)


def test_macs_of_grouped_depthwise_and_transposed_convolutions() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1),  # 64 positions
        nn.Conv2d(6, 6, 3, padding=1, groups=6),  # 9 weights per channel
        nn.Conv2d(6, 4, 1, groups=2),  # each output reads 3 channels
        nn.ConvTranspose2d(4, 2, 2, stride=2),  # each input pixel feeds 2 x 2 x 2
    )
    assert cost_of(trace(model, images().float())).macs == 64 * (3 * 6 + 6 * 9 + 4 * 3 + 4 * 2 * 4)


def test_a_module_called_twice_computes_twice_and_is_stored_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 2, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.conv(self.conv(x)))

    cost = cost_of(trace(Twice(), images().float()))
    assert cost.params == 9 + 6
    assert cost.macs == 64 * (2 * 9 + 6)


def test_a_shortcut_stays_alive_and_an_in_place_step_costs_nothing() -> None:
    class Shortcut(nn.Module):
        def __init__(self, keep: bool) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)
            self.keep = keep

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x).relu().sigmoid()
            y = self.c(self.b(x).relu())
            return x + y if self.keep else y

    straight, shortcut = (cost_of(trace(Shortcut(k), images().float())).activation_bytes for k in (False, True))
    assert straight == 4 * 64 * (16 + 8)
    assert shortcut == 4 * 64 * (8 + 16 + 8)


def test_half_precision_halves_the_bytes() -> None:
    full, half = (cost_of(trace(Plain().to(t), images(dtype=t))) for t in (torch.float32, torch.bfloat16))
    assert half.activation_bytes * 2 == full.activation_bytes
    assert (half.macs, half.params) == (full.macs, full.params)


def test_a_model_without_weights_costs_only_its_activations() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    graph = trace(Nothing(), images().float())
    assert cost_of(graph) == Cost(0, 0, 3 * 64 * 4, 0)
    assert cost_of(graph, keep_all(graph)) == cost_of(graph)


def test_attention_between_activations_is_counted() -> None:
    class Correlation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x).flatten(2)
            return x @ x.mT

    assert cost_of(trace(Correlation(), images().float())).macs == 64 * 12 + 4 * 64 * 4


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_the_cost_of_a_plan_is_that_of_the_compact_model(name: str, seed: int) -> None:
    factory, example = NETS[name]
    model = lived_in(factory())
    graph = trace(model, example)
    plan = random_plan(graph, seed=seed, least=2)
    small = compact(model, graph, plan)
    cost = cost_of(graph, plan)
    assert cost == cost_of(trace(small, example))
    assert cost == cost_of(graph, plan.widths)
    assert cost.params == sum(p.numel() for p in small.parameters())
    assert cost.weight_bytes == sum(t.nbytes for t in {*small.parameters(), *small.buffers()})


def test_torch_counts_as_many_macs() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for name in ("residual", "grouped", "inverted", "unet", "flattened", "perceptron"):
        factory, example = NETS[name]
        model = factory().double()
        with FlopCounterMode(display=False) as counter:
            model(example)
        assert cost_of(trace(model, example)).macs * len(example) * 2 == counter.get_total_flops(), name


def test_widths_as_an_array_and_back() -> None:
    graph = trace(Concatenated(), images().float())
    array = width_array(graph, {"b.0": 2})
    assert array.tolist() == [4, 2, 6, 5]
    assert named_widths(graph, array) == {"a.0": 4, "b.0": 2, "c": 6, "head.fc": 5}
    assert CostModel(graph).at(array) == cost_of(graph, {"b.0": 2})


@pytest.mark.parametrize(
    ("widths", "error", "message"),
    [
        ({"a.0": 0}, PlanError, "group 'a.0' has 4 channels, asked for 0"),
        ({"a.0": 5}, PlanError, "group 'a.0' has 4 channels, asked for 5"),
        ({"head.fc": 2}, PlanError, r"cannot cut group 'head.fc' to 2: it is pinned \(the model's output\)"),
        ({"d": 1}, UnknownNameError, "unknown group 'd'"),
    ],
)
def test_impossible_widths_are_refused(widths: dict[str, int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cost_of(trace(Concatenated(), images().float()), widths)


def test_shares_of_the_dense_cost() -> None:
    dense = Cost(params=100, macs=1000, activation_bytes=0, weight_bytes=400)
    assert shares(Cost(25, 500, 0, 100), dense) == {
        "params": 0.25,
        "macs": 0.5,
        "activation_bytes": 1.0,
        "weight_bytes": 0.25,
    }


def test_what_is_no_graph_is_told() -> None:
    model = Plain()
    lived_in(model)
    plan = keep_all(trace(model, images()))
    for wrong, name in ((model, "Plain"), (plan, "Plan")):
        with pytest.raises(PlanError, match=rf"as trace\(model, example\) returns it; got a {name}"):
            cost_of(wrong)  # type: ignore[arg-type]
