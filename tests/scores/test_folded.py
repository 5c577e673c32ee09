"""Equal rows and columns held once, powers of two held beside: the same flow as with all places, and its gradients."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunit import zoo
from prunit.graph import trace
from prunit.scores.flow import Homogeneous
from prunit.scores.folded import Fold, alike, size_of, stretched, total, unfolded, windowed
from prunit.scores.network import Network, untouched
from prunit.scores.products import Convolution, convolution, linear
from prunit.scores.synflow import synflow
from prunit.scores.told import Told, ones, tell, told_of
from tests.nets import Gated, Inverted, conv_bn

ROWS, COLUMNS = Fold(3, 20, 2), Fold(0, 31, 4)


def held() -> Tensor:
    """What a tensor of 25 × 35 holds when it is folded so."""
    torch.manual_seed(0)
    return torch.rand(1, 2, 6, 5, dtype=torch.float64)


@pytest.mark.parametrize("kernel", [1, 2, 3, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_window_gives_on_what_is_held_what_it_gives_on_all(
    kernel: int, stride: int, padding: int, dilation: int
) -> None:
    x, folds = held().requires_grad_(), {2: ROWS, 3: COLUMNS}
    w = torch.rand(3, 2, kernel, kernel, dtype=torch.float64, requires_grad=True)
    how = (None, stride, padding, dilation)
    whole = F.conv2d(unfolded(x, folds), w, *how)
    part, left = windowed(x, folds, dict.fromkeys((2, 3), (kernel, stride, padding, dilation)))
    found = F.conv2d(part, w, *how)
    assert size_of(found, left) == whole.shape
    assert found.numel() < whole.numel() / 2
    torch.testing.assert_close(unfolded(found, left), whole)
    for mine, theirs in zip(
        torch.autograd.grad(total(found, left, (2, 3), keepdim=False).sum(), [x, w]),
        torch.autograd.grad(whole.sum(), [x, w]),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_a_window_that_sees_edges_everywhere_gets_all_places() -> None:
    x, folds = held(), {2: ROWS, 3: COLUMNS}
    part, left = windowed(x, folds, {2: (21, 1, 10, 1), 3: (1, 1, 0, 1)})
    assert part.shape[2] == 25
    assert left == {3: COLUMNS}


def test_tensors_are_folded_alike() -> None:
    a, b = held(), torch.rand(1, 2, 25, 4, dtype=torch.float64)
    other = {3: Fold(2, 32, 1)}
    (x, y), folds = alike([(a, {2: ROWS, 3: COLUMNS}), (b, other)])
    assert folds == {3: Fold(2, 29, 4)}
    assert x.shape == y.shape == (1, 2, 25, 7)
    torch.testing.assert_close(unfolded(x + y, folds), unfolded(a, {2: ROWS, 3: COLUMNS}) + unfolded(b, other))


def test_the_gradient_of_a_middle_is_that_of_all_that_it_stands_for() -> None:
    x = torch.rand(1, 1, 6, 1, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(25, dtype=torch.float64)
    (stretched(x, {2: ROWS}, {2: ROWS}).flatten() * weights).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx(
        [*weights[:3].tolist(), float(weights[3:23].sum()), *weights[23:].tolist()]
    )


# ── layers in float32 by other ways ──

CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Convolution]] = {
    "1x1": ((1, 24, 9, 9), (16, 24, 1, 1), Convolution((1, 1), (0, 0), (1, 1), 1)),
    "1x1, few places": ((1, 24, 3, 3), (16, 24, 1, 1), Convolution((1, 1), (0, 0), (1, 1), 1)),
    "1x1, many places": ((1, 24, 40, 40), (16, 24, 1, 1), Convolution((1, 1), (0, 0), (1, 1), 1)),
    "1x1 in steps": ((1, 24, 9, 8), (16, 24, 1, 1), Convolution((2, 2), (0, 0), (1, 1), 1)),
    "3x3": ((1, 24, 9, 9), (16, 24, 3, 3), Convolution((1, 1), (1, 1), (1, 1), 1)),
    "3x3 in steps, dilated": ((1, 8, 17, 16), (6, 8, 3, 3), Convolution((2, 1), (2, 1), (2, 1), 1)),
    "depthwise, 7x7": ((1, 16, 9, 11), (16, 1, 7, 7), Convolution((1, 1), (3, 3), (1, 1), 16)),
    "depthwise, 5x3": ((1, 16, 9, 11), (16, 1, 5, 3), Convolution((1, 1), (0, 1), (1, 1), 16)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("biased", [False, True])
def test_a_convolution_is_the_same_the_other_way(case: str, biased: bool) -> None:
    shape, kernel, how = CASES[case]
    torch.manual_seed(0)
    x, w = torch.rand(shape, requires_grad=True), torch.rand(kernel, requires_grad=True)
    bias = torch.rand(kernel[0], requires_grad=True) if biased else None
    found = convolution(x, w, bias, how)
    assert found is not None or not torch.backends.mkldnn.is_available()
    if found is not None:
        same(found, F.conv2d(x, w, bias, *how), [x, w, *([] if bias is None else [bias])])


@pytest.mark.parametrize("shape", [(3, 24), (20, 24), (2, 5, 5, 24)])
def test_a_linear_layer_is_the_same_the_other_way(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, w, bias = (torch.rand(s, requires_grad=True) for s in (shape, (16, 24), (16,)))
    same(linear(x, w, bias), F.linear(x, w, bias), [x, w, bias])


def same(found: Tensor, wanted: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(found, wanted)
    g = torch.rand_like(wanted)
    # A sum over all places, as the gradient of a weight is, differs in another order by about sqrt(places) roundings.
    summed = max(1.3e-6, torch.finfo(wanted.dtype).eps * (wanted.numel() / wanted.shape[1]) ** 0.5)
    ours, pytorchs = torch.autograd.grad(found, inputs, g), torch.autograd.grad(wanted, inputs, g)
    for i, (mine, theirs) in enumerate(zip(ours, pytorchs, strict=True)):
        torch.testing.assert_close(mine, theirs, rtol=summed if i else 1.3e-6, atol=1e-5)


def test_what_is_no_single_image_in_float32_is_left_to_torch() -> None:
    x, w = torch.rand(1, 4, 9, 9), torch.rand(4, 4, 1, 1)
    how = Convolution((1, 1), (0, 0), (1, 1), 1)
    assert convolution(x.double(), w.double(), None, how) is None
    assert convolution(x.expand(2, -1, -1, -1), w, None, how) is None
    assert convolution(x, w[:, :2], None, how._replace(groups=2)) is None


# ── calls of a forward pass ──


class Net(nn.Module):
    """Convolutions, and a call between them."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second, self.call = conv_bn(3, 8), conv_bn(8, 8), call
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.call(self.first(x))).mean((2, 3)))


CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "pooling": lambda x: F.max_pool2d(x, 3, 2, 1),
    "pooling, ceil": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "average": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "average without the padding": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "its mean added": lambda x: x + x.mean((2, 3), keepdim=True),
    "its pooled self added": lambda x: x + F.adaptive_avg_pool2d(x, 1),
    "its sum": lambda x: x + x.sum(dim=(2, 3), keepdim=True),
    "rows alone": lambda x: x.mean(3, keepdim=True) + x,
    "upsampled": lambda x: F.interpolate(x, scale_factor=2),
    "concatenated": lambda x: torch.cat([F.avg_pool2d(x, 3, 1, 1), x], 1)[:, ::2],
    "split": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "shuffled": lambda x: x.view(x.shape[0], 2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
    "channels last": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2).relu(),
    "group norm": lambda x: F.group_norm(x, 2).relu(),
    "added in place": lambda x: F.avg_pool2d(x, 3, 1, 1).add_(x),
    "added to in place": lambda x: x.clone().add_(F.avg_pool2d(x, 3, 1, 1)),
    "written to": lambda x: _written(x.clone()),
    "masked": lambda x: x * (x > x.mean()),
    "positions": lambda x: x * torch.linspace(0, 1, x.size(3)),
    "constant": lambda x: 0.5 + x,
    "twice added to a constant": lambda x: torch.add(torch.ones(8, 1, 1, dtype=x.dtype), x, alpha=2),
    "padded with ones": lambda x: F.pad(x, (1, 1), value=1.0),
    "transposed": lambda x: F.conv_transpose2d(x, torch.ones(8, 8, 2, 2, dtype=x.dtype), stride=2),
    "gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "glu": lambda x: F.glu(torch.cat([x, x], 1), 1),
    "rooted": lambda x: x.sqrt(),
    "rows of tokens": lambda x: (x.flatten(2).transpose(1, 2) * 2).transpose(1, 2).unflatten(2, x.shape[2:]),
}


def _written(x: Tensor) -> Tensor:
    x[:, :, :1] = 0
    return x


def round_of(model: nn.Module, size: int, *, plainly: bool, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """One round of scores."""
    x = torch.zeros(1, 3, size, size, dtype=next(model.parameters()).dtype)
    graph = trace(model, x)
    with untouched(model, batch_statistics=False):
        net = Network(model, graph)
        net.plainly = plainly
        weights = {n: w.abs().to(dtype) for n, w in net.weights.items()}
        return synflow(net, weights, [(x, torch.empty(0))], torch.Generator())


@pytest.mark.parametrize("call", CALLS)
def test_a_folded_flow_is_the_flow(call: str) -> None:
    model = Net(CALLS[call])
    found, wanted = (round_of(model.double(), 40, plainly=plainly) for plainly in (False, True))
    assert all(s.any() for s in wanted.values())
    for name, s in wanted.items():
        torch.testing.assert_close(found[name], s, rtol=1e-10, atol=0)


@pytest.mark.parametrize("gain", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("call", sorted(CALLS.keys() - {"constant", "channels last", "group norm", "rooted"}))
def test_powers_change_scores_by_one_factor(call: str, gain: float) -> None:
    model = Net(CALLS[call]).double()
    with torch.no_grad():
        for block in (model.first, model.second):
            block[0].weight.mul_(gain)  # pyright: ignore[reportCallIssue, reportArgumentType]
    found, wanted = round_of(model, 24, plainly=False, dtype=torch.float32), round_of(model, 24, plainly=True)
    scale = sum(float(s.sum()) for s in wanted.values()) / sum(float(s.double().sum()) for s in found.values())
    for name, s in wanted.items():
        torch.testing.assert_close(found[name].double() * scale, s, rtol=1e-4, atol=1e-6 * float(s.max()))


@pytest.mark.parametrize("net", [Gated, Inverted])
def test_toy_networks_are_scored_alike_folded_and_whole(net: Callable[[], nn.Module]) -> None:
    model = net().double()
    found, wanted = (round_of(model, 32, plainly=plainly) for plainly in (False, True))
    for name, s in wanted.items():
        torch.testing.assert_close(found[name], s, rtol=1e-10, atol=0)


@pytest.mark.skipif(find_spec("torchvision") is None or find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize(
    "name", ["torchvision:densenet121", "torchvision:googlenet", "timm:efficientnet_b0", "timm:res2net50_26w_4s"]
)
def test_known_networks_are_scored_alike_folded_and_whole(name: str) -> None:
    model = zoo.load(name).eval().double()
    found, wanted = (round_of(model, 96, plainly=plainly) for plainly in (False, True))
    for key, s in wanted.items():
        torch.testing.assert_close(found[key], s, rtol=1e-9, atol=0)


def test_a_call_that_asks_for_the_shape_is_told_the_whole_one() -> None:
    seen: list[Any] = []
    x = ones((3, 30, 20), fold=True)
    told = told_of(x)
    assert told is not None
    assert x.shape == (1, 3, 1, 1)
    with Homogeneous(powers=True):
        seen += [x.shape, x.size(), x.size(2), x.numel(), x.dim(), len(x)]
    assert seen == [torch.Size((1, 3, 30, 20)), torch.Size((1, 3, 30, 20)), 30, 1800, 4, 1]


def test_flows_of_other_powers_are_added_at_the_larger_one() -> None:
    a, b = (tell(torch.full((1, 2, 1, 1), value), Told(power)) for value, power in ((3.0, 10), (5.0, 8)))
    with Homogeneous(powers=True):
        sums = [a + b, b + a, b + 256]
    assert [told_of(x) for x in sums] == [Told(10), Told(10), Told(8)]
    assert [x.flatten().tolist() for x in sums] == [[4.25, 4.25], [4.25, 4.25], [6.0, 6.0]]
