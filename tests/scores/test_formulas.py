"""The formulas of the papers, redone by hand or by another way on small networks."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from prunit.batches import Batch
from prunit.errors import ScoreError
from prunit.graph import trace
from prunit.scores import score_weights
from prunit.scores.grasp import TEMPERATURE
from prunit.scores.network import Network, untouched
from prunit.scores.snip import force, snip
from tests.nets import Inverted, Plain, Residual, conv_bn, images
from tests.scores.toy import batches

W1, W2 = torch.tensor([[0.5, -1.0], [2.0, 0.25], [-0.5, 1.5]]), torch.tensor([[1.0, -0.5, 0.25], [-2.0, 0.75, 1.0]])


def linear(*weights: Tensor) -> nn.Sequential:
    """Linear layers in a row without bias, in float64."""
    layers = [nn.Linear(w.shape[1], w.shape[0], bias=False) for w in weights]
    for layer, w in zip(layers, weights, strict=True):
        layer.weight.data = w.double().clone()
    return nn.Sequential(*layers).double()


def scores(model: nn.Module, name: str, data: list[Batch], **options: float) -> dict[str, Tensor]:
    example = data[0][0] if data else torch.zeros(1, 3, 8, 8)
    dtype = next(model.parameters()).dtype
    return dict(score_weights(model, trace(model, example.to(dtype)), name, data, **options))  # pyright: ignore


def points(n: int, *, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=generator, dtype=torch.float64), torch.randint(2, (n,), generator=generator)


# ── magnitude and SNIP ──


def test_magnitude_is_the_absolute_weight() -> None:
    found = scores(linear(W1, W2), "magnitude", [points(3)])
    assert torch.equal(found["0.weight"], W1.double().abs())
    assert torch.equal(found["1.weight"], W2.double().abs())


def test_snip_is_weight_times_gradient_by_hand() -> None:
    data = [points(4), points(3, seed=1)]
    total = [torch.zeros(3, 2, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)]
    for x_BI, y_B in data:
        h_BJ = x_BI @ W1.double().T
        logits_BK = h_BJ @ W2.double().T
        # The gradient of the mean cross-entropy: softmax minus one-hot.
        d_BK = (logits_BK.exp() / logits_BK.exp().sum(1, keepdim=True) - torch.eye(2)[y_B]) / len(y_B)
        total[1] += d_BK.T @ h_BJ
        total[0] += (d_BK @ W2.double()).T @ x_BI
    found = scores(linear(W1, W2), "snip", data)
    torch.testing.assert_close(found["0.weight"], (W1 * total[0]).abs())
    torch.testing.assert_close(found["1.weight"], (W2 * total[1]).abs())


def test_snip_takes_the_absolute_value_after_summing_over_batches() -> None:
    (x_BI, _), model = points(4), linear(W1, W2)
    one, other = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    apart = [scores(model, "snip", [(x_BI, y_B)])["0.weight"] for y_B in (one, other)]
    together = scores(model, "snip", [(x_BI, one), (x_BI, other)])["0.weight"]
    assert (together < sum(apart) - 1e-3).any()


def test_snip_uses_the_statistics_of_the_batch() -> None:
    model, data = Plain().double(), batches(1)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.fill_(7.0)  # statistics that fit no batch
    reference = Plain().double()
    reference.load_state_dict(dict(model.state_dict()))
    loss = cross_entropy(reference.train()(data[0][0]), data[0][1])
    loss.backward()
    named = dict(reference.named_parameters())
    for name, s in scores(model, "snip", data).items():
        grad = named[name].grad
        assert grad is not None
        torch.testing.assert_close(s, (named[name] * grad).abs().detach())


# ── GraSP ──


def test_grasp_is_the_weight_times_the_hessian_times_the_gradient() -> None:
    data = [points(4), points(3, seed=1)]

    def loss(flat: Tensor) -> Tensor:
        w1, w2 = flat[:6].view(3, 2), flat[6:].view(2, 3)
        return torch.stack([cross_entropy(x @ w1.T @ w2.T / TEMPERATURE, y) for x, y in data]).sum()

    flat = torch.cat([W1.flatten(), W2.flatten()]).double().requires_grad_()
    hessian = torch.autograd.functional.hessian(loss, flat)
    assert isinstance(hessian, Tensor)
    (gradient,) = torch.autograd.grad(loss(flat), flat)
    wanted = (flat * (hessian @ gradient)).detach()
    found = scores(linear(W1, W2), "grasp", data)
    torch.testing.assert_close(torch.cat([found["0.weight"].flatten(), found["1.weight"].flatten()]), wanted)
    assert (wanted < 0).any()
    assert (wanted > 0).any()


def test_grasp_prunes_first_what_least_keeps_the_gradient_flowing() -> None:
    """Its sign: pruning a weight changes the squared norm of the gradient by -2 w H g, so a low score may go."""
    data, scale = [points(6)], 1e-4

    def norm(w1: Tensor) -> float:
        w1, w2 = w1.clone().requires_grad_(), W2.double().requires_grad_()
        loss = cross_entropy(data[0][0] @ w1.T @ w2.T / TEMPERATURE, data[0][1])
        return float(sum(g.square().sum() for g in torch.autograd.grad(loss, (w1, w2))))

    found = scores(linear(W1, W2), "grasp", data)["0.weight"]
    for i in range(3):
        for j in range(2):
            less = W1.double().clone()
            less[i, j] *= 1 - scale
            change = (norm(less) - norm(W1.double())) / scale
            assert change == pytest.approx(-2 * float(found[i, j]), rel=1e-2, abs=1e-12)


# ── SynFlow ──


def test_synflow_is_the_product_of_the_flow_in_and_the_flow_out() -> None:
    a1, a2 = W1.double().abs(), W2.double().abs()
    found = scores(linear(W1, W2), "synflow", [points(1)], rounds=1)
    ones = torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(found["0.weight"], a1 * torch.outer(ones @ a2, ones))
    torch.testing.assert_close(found["1.weight"], a2 * torch.outer(ones, a1 @ ones))


@pytest.mark.parametrize("act", [nn.ReLU(), nn.LeakyReLU(0.1), nn.Identity()])
def test_every_layer_of_a_row_holds_the_whole_flow(act: nn.Module) -> None:
    model = nn.Sequential(
        conv_bn(3, 7, act=act),
        nn.MaxPool2d(2),
        conv_bn(7, 7, groups=7, act=act),
        conv_bn(7, 4, 1, act=act),
        nn.Flatten(),
        nn.Linear(64, 9, bias=False),
        act,
        nn.Linear(9, 5, bias=False),
    ).double()
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight.uniform_(-1, 1)  # as in OpenLTH, and negative ones
                assert isinstance(m.running_mean, Tensor)
                m.running_mean.fill_(3.0)
    flow = [float(s.sum()) for s in scores(model, "synflow", batches(1), rounds=1).values()]
    assert len(flow) == 5
    assert flow == pytest.approx([flow[0]] * 5, rel=1e-12)
    reference = _absolute(model)
    assert flow[0] == pytest.approx(reference(torch.ones(1, 3, 8, 8, dtype=torch.float64)).sum().item(), rel=1e-12)


def _absolute(model: nn.Module) -> nn.Module:
    """The model, in place, with absolute parameters and fresh statistics, in evaluation mode."""
    with torch.no_grad():
        for p in model.parameters():
            p.abs_()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.reset_running_stats()
    return model.eval()


@pytest.mark.parametrize("net", [Residual, Inverted])
def test_synflow_of_any_network_is_its_gradient_at_the_absolute_weights(net: type[nn.Module]) -> None:
    torch.manual_seed(2)  # with which no ReLU6 saturates; to the flow it is none
    model = net().double()
    found = scores(model, "synflow", [(images(), torch.empty(0))], rounds=1)
    reference = _absolute(model)
    reference(torch.ones(1, 3, 8, 8, dtype=torch.float64)).sum().backward()
    named = dict(reference.named_parameters())
    for name, s in found.items():
        grad = named[name].grad
        assert grad is not None
        torch.testing.assert_close(s, (named[name] * grad).detach())


def test_synflow_looks_at_no_pixel_and_no_class() -> None:
    model = Plain().double()
    first = scores(model, "synflow", batches(2), rounds=3)
    second = scores(model, "synflow", [(torch.full((1, 3, 8, 8), 9.0), torch.empty(0))], rounds=3)
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_a_negative_flow_counts_by_its_size() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.LayerNorm(4), nn.Linear(4, 2, bias=False)).double()
    found = scores(model, "synflow", [(torch.ones(1, 3), torch.empty(0))], rounds=1)
    assert all((s >= 0).all() for s in found.values())


# ── float32 is left for float64 where sums of products need it ──


def deep(depth: int, *, gain: float) -> nn.Sequential:
    """A row of linear maps of width 16 whose flow grows `16 * gain` times in each."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(depth)))
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(0.5 * gain, 1.5 * gain, generator=generator)
    return model


class Power(nn.Module):
    """The first power: a call that takes the flow only as it is."""

    def forward(self, x_BC: Tensor) -> Tensor:
        return x_BC**1.0


DATA = [(torch.ones(1, 16), torch.empty(0))]


@pytest.mark.parametrize("gain", [8.0, 1e-3])
def test_a_flow_out_of_the_range_of_float32_is_scored_in_it(gain: float) -> None:
    model = deep(30, gain=gain)
    size = _absolute(deep(30, gain=gain).double())(torch.ones(1, 16, dtype=torch.float64)).sum().item()
    assert not 1e-38 < size < 1e38
    graph = trace(model, DATA[0][0])
    found = score_weights(model, graph, "synflow", DATA, rounds=1)
    wanted = score_weights(deep(30, gain=gain).double(), graph, "synflow", DATA, rounds=1)
    assert next(iter(found.values())).dtype == torch.float32
    scale = float(wanted["0.weight"].sum()) / float(found["0.weight"].double().sum())
    assert math.log2(scale) == pytest.approx(round(math.log2(scale)), abs=1e-6)  # one power of two for all
    for name, score in found.items():
        torch.testing.assert_close(score.double() * scale, wanted[name], rtol=1e-5, atol=0)


@pytest.mark.parametrize("gain", [8.0, 1e-3])
def test_it_is_computed_in_float64_where_a_call_takes_it_only_as_it_is(gain: float) -> None:
    def model() -> nn.Module:
        return nn.Sequential(deep(30, gain=gain), Power())

    seen: list[int] = []
    graph = trace(model(), DATA[0][0])
    found = score_weights(model(), graph, "synflow", DATA, rounds=3, on_round=lambda k, n: seen.append(k))
    wanted = score_weights(model().double(), graph, "synflow", DATA, rounds=3)
    assert all(torch.equal(found[n], wanted[n]) for n in wanted)
    assert seen == [1, 2, 3]  # it is known after the first look, so no round is wasted


def test_a_flow_out_of_the_range_of_float64_is_scored_too() -> None:
    found = scores(deep(40, gain=1e9), "synflow", DATA, rounds=1)
    total = [float(s.double().sum()) for s in found.values()]
    assert total == pytest.approx([total[0]] * 40, rel=1e-5)
    assert total[0] > 0


def test_where_a_call_takes_it_only_as_it_is_it_is_refused() -> None:
    with pytest.raises(
        ScoreError, match=r"score of '0.\d+\.weight' \(16, 16\) is not finite; is the model initialised"
    ):
        scores(nn.Sequential(deep(40, gain=1e9), Power()), "synflow", DATA)


def test_a_dead_network_is_ranked_all_the_same() -> None:
    model = linear(W1, torch.zeros(2, 3))
    for name in ("synflow", "iterative-snip", "force", "grasp"):
        assert all(torch.isfinite(s).all() for s in scores(model, name, [points(3)]).values())


# ── random ──


def erk_densities(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """Layer densities as Evci et al. (2020) find them: eps solves the budget, layers above 1 are dense, repeat."""
    share = {n: sum(s) / math.prod(s) for n, s in shapes.items()}
    dense: set[str] = set()
    while True:
        budget = density * sum(map(math.prod, shapes.values())) - sum(math.prod(shapes[n]) for n in dense)
        eps = budget / sum(share[n] * math.prod(shapes[n]) for n in shapes if n not in dense)
        over = {n for n in shapes if n not in dense and eps * share[n] > 1}
        if not over:
            return {n: 1.0 if n in dense else eps * share[n] for n in shapes}
        dense |= over


def convolutions() -> nn.Sequential:
    """Layers of very different sizes, one of them depthwise."""
    layers = [conv_bn(3, 16), conv_bn(16, 96), conv_bn(96, 96, groups=96), conv_bn(96, 160), conv_bn(160, 40, 1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(40 * 64, 10))


@pytest.mark.parametrize(("density", "saturated"), [(0.9, 5), (0.3, 4), (0.2, 3), (0.1, 0)])
def test_erk_after_a_global_threshold_has_the_densities_of_the_paper(density: float, saturated: int) -> None:
    found = scores(convolutions(), "random-erk", [])
    wanted = erk_densities({n: tuple(s.shape) for n, s in found.items()}, density)
    flat = torch.cat([s.flatten() for s in found.values()])
    threshold = flat.kthvalue(round((1 - density) * len(flat))).values
    assert sum(d == 1 for d in wanted.values()) == saturated
    for name, s in found.items():
        sigma = math.sqrt(wanted[name] * (1 - wanted[name]) / s.numel())
        assert float((s > threshold).double().mean()) == pytest.approx(wanted[name], abs=5 * sigma + 1e-4), name


def test_uniform_has_the_same_density_everywhere() -> None:
    found = scores(convolutions(), "random", [])
    for s in found.values():
        assert float((s > 0.7).double().mean()) == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / s.numel()))
    assert torch.cat([s.flatten() for s in found.values()]).unique().numel() > 0.95 * sum(
        map(Tensor.numel, found.values())
    )


# ── FORCE beside iterative SNIP ──


def test_force_takes_the_dense_weight_and_the_gradient_of_the_pruned_network() -> None:
    model, data = linear(W1, W2), [points(5)]
    net = Network(model, trace(model, data[0][0]))
    pruned = {"0.weight": (W1 * (W1.abs() > 0.5)).double(), "1.weight": (W2 * (W2.abs() > 0.5)).double()}
    live = {n: w.clone().requires_grad_() for n, w in pruned.items()}
    loss = cross_entropy(data[0][0] @ live["0.weight"].T @ live["1.weight"].T, data[0][1])
    gradients = dict(zip(live, torch.autograd.grad(loss, list(live.values())), strict=True))
    with untouched(model, batch_statistics=True):
        forced = force(net, pruned, data, torch.Generator())
        snipped = snip(net, pruned, data, torch.Generator())
    for name, dense in (("0.weight", W1), ("1.weight", W2)):
        torch.testing.assert_close(forced[name], (dense * gradients[name]).abs())
        torch.testing.assert_close(snipped[name], (pruned[name] * gradients[name]).abs())
        assert not snipped[name][pruned[name] == 0].any()
        assert forced[name][pruned[name] == 0].all()
