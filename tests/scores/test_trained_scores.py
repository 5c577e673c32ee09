"""What a trained network offers: Taylor importance, batch-norm gains and activations, redone by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import cross_entropy

import prunit
from prunit.batches import Batch
from prunit.cut.plans import Scores, unread
from prunit.cut.surgery import compact, cut_tensors
from prunit.errors import ScoreError
from prunit.graph import trace
from prunit.scores import SCORES, score_channels, score_weights
from prunit.scores.network import Network, untouched
from tests.nets import Residual, images, lived_in
from tests.scores.toy import CLASSIFIERS, batches, built, graph_of

NEW = ("taylor", "bn-scale", "activation")


class Small(nn.Module):
    """A layer with batch norm and a gate behind it, one with a bias, and a classifier."""

    gate: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-12)
        self.second, self.fc = nn.Conv2d(4, 5, 3), nn.Linear(5, 5)
        self.register_buffer("gate", torch.ones(4, 1, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = (self.norm(self.first(x_BCHW)) * self.gate).relu()
        return self.fc(self.second(x_BCHW).relu().mean((2, 3)))


def channels(model: nn.Module, name: str, data: list[Batch]) -> Scores:
    return score_channels(model, trace(model, data[0][0]), name, data)


def close(found: Tensor, wanted: Tensor, *, rtol: float = 1e-6) -> None:
    torch.testing.assert_close(found.double(), wanted.detach().double(), rtol=rtol, atol=1e-12)


# ── Taylor ──


def test_taylor_of_a_channel_is_the_squared_gradient_of_its_gate_averaged_over_batches() -> None:
    model, data = lived_in(Small()), batches(3)
    model.gate.fill_(1.0)
    found = channels(model, "taylor", data)
    wanted: list[Tensor] = [torch.zeros(4).double(), torch.zeros(5).double()]
    with untouched(model, batch_statistics=True):
        for x_BCHW, y_B in data:
            gates = [torch.ones(n, 1, 1, dtype=torch.float64, requires_grad=True) for n in (4, 5)]
            x = (model.norm(model.first(x_BCHW)) * gates[0]).relu()
            loss = cross_entropy(model.fc((model.second(x) * gates[1]).relu().mean((2, 3))), y_B)
            for w, g in zip(wanted, torch.autograd.grad(loss, gates), strict=True):
                w += g.flatten() ** 2 / 3
    close(found["first"], wanted[0])
    close(found["second"], wanted[1])
    assert (wanted[0] > 0).all()


def test_taylor_adds_up_what_is_added_to_a_residual_stream() -> None:
    model, data = lived_in(Residual()), batches(1)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eps = 1e-12
    found = channels(model, "taylor", data)["stem.0"]
    with untouched(model, batch_statistics=True):
        norms = [model.stem[1], model.a2[1]]
        own = [p for norm in norms for p in (norm.weight, norm.bias)]
        gradients = torch.autograd.grad(cross_entropy(model(data[0][0]), data[0][1]), own)
    close(found, torch.stack([p * g for p, g in zip(own, gradients, strict=True)]).sum(0) ** 2)


def test_taylor_of_linear_layers_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 2, bias=False)).double()
    model[0].weight.data = torch.tensor([[2.0, -1.0]]).double()
    model[1].weight.data = torch.tensor([[1.0], [-1.0]]).double()
    x_BI = torch.tensor([[1.0, 1.0]]).double()
    # h = 2 - 1 = 1, logits (1, -1), softmax (s, 1 - s); for class 0: dL/dh = (s - 1) - (1 - s) = 2s - 2.
    s = 1 / (1 + torch.tensor(-2.0).double().exp())
    g0, g1 = 2 * s - 2, 2 * s  # for class 1
    data = [(x_BI, torch.tensor([0])), (x_BI, torch.tensor([1]))]
    found = score_weights(model, trace(model, x_BI), "taylor", data)["0.weight"]
    channel = (g0**2 + g1**2) / 2  # h = 1
    # The weights' terms are 2g and -g: two thirds and a third of the channel's score.
    close(found, torch.stack([channel * 2 / 3, channel / 3])[None])


def test_taylor_squares_before_it_averages() -> None:
    model = lived_in(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    x_BI = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one, other = (x_BI, torch.zeros(6).long()), (x_BI, torch.ones(6).long())
    both = channels(model, "taylor", [one, other])["0"]
    close(both, (channels(model, "taylor", [one])["0"] + channels(model, "taylor", [other])["0"]) / 2)


def test_taylor_in_front_of_a_closed_gain_is_shared_equally() -> None:
    model, data = lived_in(Small()), batches(2)
    with torch.no_grad():
        model.norm.weight[1] = 0
        model.norm.bias[1] = 0.5
    graph = trace(model, data[0][0])
    found = score_weights(model, graph, "taylor", data)["first.weight"][1]
    assert found.min() > 0
    close(found.max(), found.min())
    with untouched(model, batch_statistics=True):
        of_bias = [
            torch.autograd.grad(cross_entropy(model(x_BCHW), y_B), model.norm.bias)[0][1] for x_BCHW, y_B in data
        ]
    close(channels(model, "taylor", data)["first"][1], (0.5 * torch.stack(of_bias)).square().mean())


# ── batch-norm scale ──


def test_bn_scale_is_the_gain_and_of_several_their_mean() -> None:
    model = lived_in(Residual())
    found = score_channels(model, trace(model, images()), "bn-scale", [])
    close(found["a1.0"], model.a1[1].weight.abs())
    close(found["stem.0"], (model.stem[1].weight.abs() + model.a2[1].weight.abs()) / 2)
    close(found["b2.0"], (model.b2[1].weight.abs() + model.project[1].weight.abs()) / 2)


def test_bn_scale_is_the_same_for_all_weights_of_a_channel() -> None:
    model = lived_in(Residual())
    found = score_weights(model, trace(model, images()), "bn-scale", [])["a1.0.weight"]
    close(found, model.a1[1].weight.abs()[:, None, None, None].expand(found.shape))


def test_bn_scale_without_a_batch_norm_is_the_norm_of_the_filter() -> None:
    model = lived_in(Small())
    found = score_channels(model, trace(model, images()), "bn-scale", [])
    close(found["first"], model.norm.weight.abs())
    close(found["second"], model.second.weight.flatten(1).norm(dim=1))


def test_another_norm_is_no_batch_norm() -> None:
    model = lived_in(nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.Conv2d(4, 5, 3)))
    found = score_channels(model, trace(model, images()), "bn-scale", [])
    close(found["0"], model[0].weight.flatten(1).norm(dim=1))


# ── activation ──


def test_activation_is_taken_behind_batch_norm_and_nonlinearity() -> None:
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model, data = lived_in(nn.Sequential(*layers)), batches(2)
    found = channels(model, "activation", data)
    with untouched(model, batch_statistics=True), torch.no_grad():
        wanted = torch.stack([model[:3](x_BCHW).abs().mean((0, 2, 3)) for x_BCHW, _ in data]).mean(0)
    close(found["0"], wanted)


def test_activation_is_taken_in_front_of_anything_else() -> None:
    model, data = lived_in(Small()), batches(2)
    model.gate.fill_(2.0)  # a product is no nonlinearity
    found = channels(model, "activation", data)
    with untouched(model, batch_statistics=True), torch.no_grad():
        wanted = torch.stack([model.norm(model.first(x)).abs().mean((0, 2, 3)) for x, _ in data]).mean(0)
    close(found["first"], wanted)


class AddedInPlace(nn.Module):
    """A residual block as torchvision writes it: `out += x`, then a ReLU in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x), inplace=True)
        out = self.conv(x)
        out += x
        return self.fc(F.relu(out, inplace=True).mean((2, 3)))


def test_activation_of_a_residual_stream_is_the_mean_of_what_its_layers_add() -> None:
    model, data = lived_in(AddedInPlace()), batches(1)
    with torch.no_grad():
        x_BCHW = model.stem(data[0][0]).relu()
        wanted = (x_BCHW.mean((0, 2, 3)) + model.conv(x_BCHW).abs().mean((0, 2, 3))) / 2
    close(channels(model, "activation", data)["stem"], wanted)


def test_activation_of_a_transposed_convolution_and_of_a_sequence() -> None:
    up = lived_in(
        nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    )
    data = batches(1)
    with torch.no_grad():
        close(channels(up, "activation", data)["0"], up[:2](data[0][0]).abs().mean((0, 2, 3)))

    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.fc = nn.Linear(3, 7), nn.Linear(7, 5)

        def forward(self, x_BCHW: Tensor) -> Tensor:
            return self.fc(F.gelu(self.up(x_BCHW.flatten(2).transpose(1, 2)))).mean(1)

    model = lived_in(Sequence())
    with torch.no_grad():
        wanted = F.gelu(model.up(data[0][0].flatten(2).transpose(1, 2))).abs().mean((0, 1))
    close(channels(model, "activation", data)["up"], wanted)


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.point = nn.Conv2d(3, 6, 3), nn.Parameter(torch.randn(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,oc->bohw", self.stem(x), self.point).mean((2, 3))


def test_activation_refuses_what_it_cannot_see() -> None:
    with pytest.raises(
        ScoreError, match=r"'activation' sees .*; 'point' of shape \(5, 6\) is used by another .*'taylor'"
    ):
        channels(lived_in(Einsum()), "activation", batches(1))


# ── all three ──


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("net", ["residual", "inverted", "grouped", "concatenated", "flattened"])
def test_a_network_that_shrank_scores_as_the_dense_one_does(name: str, net: str) -> None:
    """As rounds of rescoring ask: channels that nobody reads are cut, and all others score the same."""
    model, data = built(net), batches(1)
    graph = graph_of(CLASSIFIERS[net])
    dense = Network(model, graph)
    first = graph.groups[0].name
    alive = {n: torch.ones_like(w, dtype=torch.bool) for n, w in dense.weights.items()}
    for axis in graph.axes_of(first, "in"):
        gone = torch.from_numpy(((axis.where >= 0) & (axis.where == graph.offsets[0])).nonzero()[0])
        alive[axis.tensor].index_fill_(axis.dim, gone, False)
    weights = {n: w * alive[n] for n, w in dense.weights.items()}
    plan = unread(graph, alive)
    keep = graph.flat_keep(plan.keep)
    assert not keep.all()
    small = Network(compact(model, graph, plan), graph, keep)
    saliency, generator = SCORES[name].saliency, torch.Generator()
    with untouched(model, batch_statistics=True), untouched(small.model, batch_statistics=True):
        whole = saliency(dense, weights, data, generator)
        found = saliency(small, cut_tensors(graph, keep, weights), data, generator)
    wanted = cut_tensors(graph, keep, whole)
    assert found.keys() == wanted.keys()
    for n, s in found.items():
        torch.testing.assert_close(s, wanted[n], rtol=1e-6, atol=1e-12, msg=n)


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize(
    ("recipe", "config"),
    [
        ("global", {}),
        ("uniform", {}),
        ("complexity", {}),
        ("reconvene", {"evaluator": "emptied"}),
        ("reconvene", {"evaluator": "density"}),
        ("reconvene", {"evaluator": "none"}),
    ],
)
def test_any_recipe_takes_them(name: str, recipe: str, config: dict[str, str]) -> None:
    model, data = built("residual").float(), batches(1, dtype=torch.float32)
    plan = prunit.plan(
        model, data[0][0], budget="macs=0.7", recipe=recipe, score=name, batches=data, config={**config, "round_to": 1}
    )
    assert plan.widths != dict(plan.dense)
