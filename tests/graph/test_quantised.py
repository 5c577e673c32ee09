"""Models prepared for quantisation-aware training: what rounds to a grid follows the channels, or says why not."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from prunit.allocate import Budget, Target
from prunit.cut.surgery import check_runs, compact, mask
from prunit.errors import BudgetError
from prunit.graph import ChannelGraph, trace
from tests.nets import furthest, random_plan


def plain() -> nn.Module:
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 4))


def prepared(engine: str, *, fused: bool = False) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, of the module's new home
        model = plain().train()
        if fused:
            model = quantization.fuse_modules_qat(model, [["0", "1", "2"], ["3", "4"]])
        model.qconfig = quantization.get_default_qat_qconfig(engine)
        return quantization.prepare_qat(model)


class Rounded(nn.Module):
    """Activations and weights rounded by functions, with one step for all or for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.register_buffer("steps", torch.linspace(0.01, 0.1, 8))
        self.register_buffer("zeros", torch.zeros(8, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.fake_quantize_per_tensor_affine(self.a(x), 0.1, 3, 0, 255)
        h = torch.fake_quantize_per_channel_affine(h, self.steps, self.zeros, 1, -128, 127)
        return self.c(
            F.conv2d(h, torch.fake_quantize_per_channel_affine(self.b.weight, self.steps, self.zeros, 0, -8, 7))
        )


def pictures(seed: int) -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def check(model: nn.Module, seed: int) -> ChannelGraph:
    for i in range(2):
        model(pictures(i))
    graph = trace(model, pictures(0))
    plan = random_plan(graph, seed=seed)
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    check_runs(model, small, pictures(0))
    for training in (False, True, False):  # in training, observers note what they see: the next call depends on it
        for i in range(3):
            assert furthest(twin.train(training), small.train(training), pictures(i)) < 1e-6
    return graph


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "make",
    [
        lambda: prepared("fbgemm"),
        lambda: prepared("x86"),
        lambda: prepared("qnnpack"),
        lambda: prepared("fbgemm", fused=True),
    ],
    ids=["each channel", "x86", "one range for a weight", "fused"],
)
def test_a_prepared_model_is_cut_like_a_plain_one(make: Callable[[], nn.Module], seed: int) -> None:
    graph = check(make(), seed)
    assert [(g.size, bool(g.pinned)) for g in graph.groups] == [(8, False), (6, False), (4, True)]
    assert graph.notes == ()


@pytest.mark.parametrize("seed", [0, 1])
def test_rounding_functions_follow_the_channels(seed: int) -> None:
    graph = check(Rounded(), seed)
    assert graph.group("a").pinned == ""
    assert [axis.tensor for axis in graph.axes_of("a") if axis.role == "along"] == ["a.bias", "steps", "zeros"]


def test_a_quantiser_that_has_not_run_keeps_its_channels() -> None:
    graph = trace(prepared("fbgemm").eval(), pictures(0))
    assert {g.pinned.partition(" in ")[0] for g in graph.groups} <= {
        "a quantiser of fixed channels, or one that has not run yet",
        "the model's output",
    }


class Orthogonal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 8, 1), nn.Linear(8, 4)
        self.b = parametrizations.orthogonal(nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).mean((2, 3))))


class Unfollowed(nn.Module):
    """No layer makes channels that can be named."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(4, 3, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, torch.logcumsumexp(self.w, 2))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Orthogonal, "operator aten.tril.* has no rule"),
        (Unfollowed, "not followed: operator aten.logcumsumexp.* has no"),
    ],
)
def test_a_budget_that_cannot_be_met_says_which_operator_was_not_followed(
    make: Callable[[], nn.Module], why: str
) -> None:
    graph = trace(make(), pictures(0))
    with pytest.raises(BudgetError, match=why):
        Target(graph, Budget.parse("macs=1/50")).check_reachable()
