"""SynFlow through activations that saturate and through gates: what flows in flows out, and nothing scores zero."""

from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunit
from prunit import zoo
from prunit.graph import trace
from prunit.scores import WeightScores, score_weights
from tests.nets import Gated, Inverted, conv_bn

Act = Callable[[Tensor], Tensor]


def flow(model: nn.Module, *shape: int) -> WeightScores:
    """SynFlow's scores in one round for an input of that shape, without the batch."""
    x = torch.zeros(1, *shape)
    graph = trace(model, x.to(next(model.parameters())))
    return score_weights(model, graph, "synflow", [(x, torch.empty(0))], rounds=1)


def totals(scores: WeightScores) -> list[float]:
    return [float(s.double().sum()) for s in scores.values()]


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Act) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def row(act: nn.Module | Act, *, size: float = 1.0) -> nn.Module:
    """conv-bn-activation three times, one of them depthwise; gains of `size` make the flow larger or smaller."""
    torch.manual_seed(0)
    module = act if isinstance(act, nn.Module) else Call(act)
    blocks = conv_bn(3, 8, act=module), conv_bn(8, 8, groups=8, act=module), conv_bn(8, 6, 1, act=module)
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5, bias=False)).double()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.constant_(m.weight, size)
    return model


ACTIVATIONS: dict[str, nn.Module | Act] = {
    "ReLU6": nn.ReLU6(),
    "ReLU6 in place": nn.ReLU6(inplace=True),
    "Hardtanh": nn.Hardtanh(),
    "Hardswish": nn.Hardswish(),
    "Hardsigmoid": nn.Hardsigmoid(),
    "Sigmoid": nn.Sigmoid(),
    "Tanh": nn.Tanh(),
    "SiLU": nn.SiLU(inplace=True),
    "GELU": nn.GELU(),
    "ELU": nn.ELU(),
    "Mish": nn.Mish(),
    "Softplus": nn.Softplus(),
    "F.relu6": F.relu6,
    "torch.clamp": lambda x: torch.clamp(x, 0, 6),
    "clamp_": lambda x: x.clamp_(max=6),
    "sigmoid_": lambda x: x.sigmoid_(),
    "swish by hand": lambda x: x * torch.sigmoid(x),
    "swish by hand, in place": lambda x: x.mul_(torch.sigmoid(x)),
}


@pytest.mark.parametrize("size", [1e-3, 1e3])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_an_activation_is_relu_to_the_flow(act: str, size: float) -> None:
    found, wanted = flow(row(ACTIVATIONS[act], size=size), 3, 8, 8), flow(row(nn.ReLU(), size=size), 3, 8, 8)
    for name, s in wanted.items():
        torch.testing.assert_close(found[name], s, rtol=1e-12, atol=0)
    total = totals(found)
    assert total == pytest.approx([total[0]] * 4, rel=1e-12)


def test_scores_of_a_relu6_network_are_those_of_the_relu_network() -> None:
    wanted = Inverted().double()
    six = Inverted().double()
    six.load_state_dict(wanted.state_dict())
    wanted.expand[2], wanted.depth[2] = nn.ReLU(), nn.ReLU()
    with torch.no_grad():
        for p in (*wanted.parameters(), *six.parameters()):
            p.mul_(100)
    found, scores = flow(six, 3, 8, 8), flow(wanted, 3, 8, 8)
    assert all(torch.equal(found[n], scores[n]) for n in scores)


def test_every_weight_of_mobilenetv2_is_scored() -> None:
    scores = flow(zoo.load("mobilenetv2"), 3, 32, 32)
    assert len(scores) == 53
    assert all((s > 0).all() for s in scores.values())
    # What is on every path holds the whole flow; a residual block lets some of it pass by.
    stem, *_, head, classifier = totals(scores)
    assert stem == pytest.approx(classifier, rel=1e-6)
    assert head == pytest.approx(classifier, rel=1e-6)


def test_mobilenetv2_is_narrowed_by_its_flow() -> None:
    model, example = zoo.load("mobilenetv2"), torch.zeros(1, 3, 32, 32)
    plan = prunit.plan(
        model, example, recipe="reconvene", budget={"params": 1 / 16}, config={"evaluator": "emptied", "rounds": 10}
    )
    free = [g.name for g in prunit.trace(model, example).groups if not g.pinned and not g.coupled]
    kept = [plan.widths[name] / plan.dense[name] for name in free]
    # Shallow layers have few weights for the same flow: they stay wide, the deep ones bear the cut.
    assert max(kept) == 1
    assert min(kept) < 0.1
    assert sum(kept[:5]) > 3 * sum(kept[-5:])
    assert not any("before it cuts the network" in reason for reason in plan.origin["why"].values())


@pytest.mark.parametrize("end", [nn.LogSoftmax(1), nn.Softmax(1), nn.Sigmoid()])
def test_what_turns_outputs_into_probabilities_changes_no_score(end: nn.Module) -> None:
    bare = row(nn.ReLU())
    found, wanted = flow(nn.Sequential(bare, end), 3, 8, 8), flow(bare, 3, 8, 8)
    assert all(torch.equal(found[f"0.{n}"], wanted[n]) for n in wanted)


# ── products of two flows ──


class Gate(nn.Module):
    """A linear layer, squeeze and excitation around it, and a linear layer."""

    def __init__(self, gated: Callable[[Tensor, Tensor], Tensor] = torch.mul) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.gated = gated
        self.inward, self.squeeze = nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)
        self.excite, self.outward = nn.Linear(2, 4, bias=False), nn.Linear(4, 3, bias=False)
        for p in self.double().parameters():
            nn.init.normal_(p, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inward(x)
        return self.outward(self.gated(h, self.excite(F.relu(self.squeeze(h)))))


def times_in_place(x: Tensor, g: Tensor) -> Tensor:
    x = x * 1
    x *= g.sigmoid()
    return x


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sigmoid": lambda x, g: x * torch.sigmoid(g),
    "hard sigmoid": lambda x, g: x.mul(F.hardsigmoid(g)),
    "tanh": lambda x, g: torch.mul(x, g.tanh()),
    "in place": times_in_place,
    "glu": lambda x, g: F.glu(torch.cat([x, g], 1), 1),
    "nothing": lambda x, g: x * g,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_gate_is_open_and_answers_for_half_of_the_flow(way: str) -> None:
    model = Gate(WAYS[way])
    found = flow(model, 3)
    inward, squeeze, excite, outward = (p.detach().abs() for p in model.parameters())
    h_C = inward.sum(1)
    z_C = excite @ squeeze @ h_C
    through_C = outward.sum(0) * h_C
    back_C = through_C / z_C  # half of it reaches each unit of gate
    torch.testing.assert_close(found["outward.weight"], outward * h_C)
    torch.testing.assert_close(found["excite.weight"], excite * torch.outer(back_C, squeeze @ h_C) / 2)
    torch.testing.assert_close(found["squeeze.weight"], squeeze * torch.outer(excite.T @ back_C, h_C) / 2)
    down_C = (outward.sum(0) + squeeze.T @ excite.T @ back_C) / 2
    torch.testing.assert_close(found["inward.weight"], inward * down_C[:, None])
    whole = float(through_C.sum())
    assert totals(found) == pytest.approx([whole, whole / 2, whole / 2, whole], rel=1e-12)


def test_the_larger_factor_passes_whatever_the_order() -> None:
    class Net(nn.Module):
        def __init__(self, turned: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.gate, self.turned = conv_bn(3, 6), nn.Conv2d(6, 6, 1, bias=False), turned
            self.fc = nn.Linear(6, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            g = self.gate(F.adaptive_avg_pool2d(x, 1)).sigmoid()
            return self.fc((g * x if self.turned else x * g).mean((2, 3)))

    found, turned = flow(Net(False).double(), 3, 8, 8), flow(Net(True).double(), 3, 8, 8)
    assert all(torch.equal(found[n], turned[n]) for n in found)
    whole, gate, out = totals(found)
    assert whole == pytest.approx(out, rel=1e-12)
    assert gate == pytest.approx(whole / 2, rel=1e-12)


def test_a_gate_without_input_is_a_constant() -> None:
    model = Gate(WAYS["sigmoid"])
    nn.init.zeros_(model.squeeze.weight)
    found = flow(model, 3)
    inward, outward = model.inward.weight.detach().abs(), model.outward.weight.detach().abs()
    torch.testing.assert_close(found["inward.weight"], inward * outward.sum(0)[:, None])
    assert not found["squeeze.weight"].any()
    assert not found["excite.weight"].any()


def test_parameters_and_masks_multiply_as_ever() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)
            self.scale = nn.Parameter(torch.tensor([0.5, -2.0, 0.0, 1.0]))

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.b(x * (x > 0) * self.scale)

    model = Net().double()
    found = flow(model, 3)
    a, b, scale = model.a.weight.detach().abs(), model.b.weight.detach().abs(), model.scale.detach().abs()
    torch.testing.assert_close(found["a.weight"], a * (b.sum(0) * scale)[:, None])


def test_the_flow_through_many_gates_stays_in_range() -> None:
    """As a product it would be of degree 2 to the power of 40."""
    model = nn.Sequential(*(Gate(WAYS["sigmoid"]) for _ in range(40))).float()
    for p in model.parameters():
        nn.init.uniform_(p, 0.2, 0.4)
    total = totals(flow(model, 3))
    assert total[0::4] == pytest.approx([total[-1]] * 40, rel=1e-4)
    assert total[1::4] == pytest.approx([total[-1] / 2] * 40, rel=1e-4)


def test_the_softmax_of_attention_stays() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.q, self.k, self.v = (nn.Linear(4, 4, bias=False) for _ in range(3))

        def forward(self, x_BTC: Tensor) -> Tensor:
            x_BTC = x_BTC.cumsum(1)  # or all positions would be alike
            return (self.q(x_BTC) @ self.k(x_BTC).mT).softmax(-1) @ self.v(x_BTC)

    model = Attention().double()
    found = flow(model, 5, 4)
    with torch.no_grad():
        for p in model.parameters():
            p.abs_()
    model(torch.ones(1, 5, 4, dtype=torch.float64)).sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(found[name], (p * p.grad).detach().abs())


def test_a_batch_norm_whose_gains_start_at_zero_lets_the_flow_pass() -> None:
    """torchvision's and timm's way to start residual branches."""

    class Block(nn.Module):
        def __init__(self, gain: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.fc = conv_bn(3, 4), conv_bn(4, 3, act=nn.Identity()), nn.Linear(3, 2)
            norm = self.b[1]
            assert isinstance(norm, nn.BatchNorm2d)
            nn.init.constant_(norm.weight, gain)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc((x + self.b(self.a(x))).mean((2, 3)))

    found, wanted = flow(Block(0), 3, 8, 8), flow(Block(1), 3, 8, 8)
    assert all(torch.equal(found[n], wanted[n]) for n in wanted)
    assert all(s.any() for s in found.values())


# ── networks with gates ──


def test_a_toy_gate_is_scored_to_the_last_weight() -> None:
    assert all((s > 0).all() for s in flow(Gated(), 3, 8, 8).values())


@pytest.mark.skipif(find_spec("torchvision") is None or find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "timm:efficientnet_b0", "timm:regnety_002"])
def test_gates_of_known_networks_hold_their_share(name: str) -> None:
    """Both layers of a gate half of what its block's other layers hold, give or take their biases."""
    scores = flow(zoo.load(name).eval(), 3, 64, 64)
    total = {n: float(s.double().sum()) for n, s in scores.items()}
    assert all(total.values())
    names = list(total)
    gates = [n for n in names if ".fc1." in n or ".conv_reduce." in n]
    assert len(gates) >= 9
    for n in gates:
        i = names.index(n)
        assert total[n] == pytest.approx(total[names[i + 1]], rel=0.1)  # squeeze and excitation
        assert total[n] == pytest.approx(total[names[i - 1]] / 2, rel=0.1)  # and the layer before
    assert total[names[0]] == pytest.approx(total[names[-1]], rel=0.01)
