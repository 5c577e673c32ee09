"""Layers that compute their weight (weight norm, spectral norm, prune masks, a user's own) are pruned like others."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import prunit
from prunit.cut.plans import from_zeros
from prunit.cut.store import apply_plan, load, save
from prunit.cut.surgery import check_runs, compact, mask, mask_, rectify
from prunit.errors import ModelError
from prunit.export import export_onnx
from prunit.graph import trace
from prunit.graph.computed import computed_weights
from prunit.graph.inverse import set_value
from prunit.prices.costs import cost_of
from prunit.scores import SCORES, score_channels, score_weights
from tests.computed import (
    IMAGES,
    PUT,
    Centred,
    LowRank,
    Put,
    Softplus,
    Symmetric,
    furthest,
    halved,
    new_weight_norm,
    old_weight_norm,
    own,
    plain,
    up,
    without,
)


@pytest.mark.parametrize("make", [plain, up])
@pytest.mark.parametrize("put", PUT.values(), ids=PUT)
def test_compact_and_mask_agree_in_both_modes_and_while_they_are_trained(
    put: Put, make: Callable[[Put], nn.Module]
) -> None:
    if make is up and put is PUT["standardised"]:
        pytest.skip("its statistics are those of a convolution")
    model = make(put).eval()
    graph, plan = halved(model)
    inner = [g for g in graph.groups if g.pinned != "the model's output"]
    assert inner
    assert not any(g.pinned or g.mixed for g in inner)
    small, twin = compact(model, graph, plan).eval(), mask(model, graph, plan).eval()
    check_runs(model, small, IMAGES)
    assert furthest(twin, small) < 1e-12
    optimizers = [torch.optim.SGD(m.parameters(), 1e-2, momentum=0.9) for m in (twin.train(), small.train())]
    for _ in range(3):
        assert furthest(twin, small) < 1e-10
        for m, optimizer in zip((twin, small), optimizers, strict=True):
            optimizer.zero_grad()
            m(IMAGES).square().mean().backward()
            optimizer.step()
        mask_(twin, graph, plan)
    assert furthest(twin.eval(), small.eval()) < 1e-10


@pytest.mark.parametrize("make", [plain, up])
@pytest.mark.parametrize("put", PUT.values(), ids=PUT)
def test_it_is_counted_sized_saved_loaded_and_applied(
    put: Put, make: Callable[[Put], nn.Module], tmp_path: Path
) -> None:
    if make is up and put is PUT["standardised"]:
        pytest.skip("its statistics are those of a convolution")
    model = make(put).train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph, plan = halved(model)
    small = compact(model, graph, plan).eval()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    small(IMAGES)
    for layer in small.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.shape[:2] == (layer.out_channels, layer.in_channels // layer.groups)
        elif isinstance(layer, nn.ConvTranspose2d):
            assert layer.weight.shape[:2] == (layer.in_channels, layer.out_channels)
    assert cost_of(graph, plan).params == sum(p.numel() for p in small.parameters())
    save(small, plan, tmp_path / "small.safetensors")
    assert furthest(load(tmp_path / "small.safetensors", lambda: make(put)), small) < 1e-12
    applied = apply_plan(make(put), plan).eval()
    applied.load_state_dict(small.state_dict())
    assert furthest(applied, small) < 1e-12
    assert from_zeros(mask(model, graph, plan), graph).keep == plan.keep


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_those_of_the_weight_that_comes_out(name: str) -> None:
    batches = [(IMAGES, torch.tensor([0, 1, 2]))]
    for put in PUT.values():
        model = plain(put).train()
        twin = without(model, plain())
        expected = score_weights(twin, trace(twin, IMAGES), name, batches, rounds=1)
        found = score_weights(model, trace(model, IMAGES), name, batches, rounds=1)
        for a, b in zip(expected.values(), found.values(), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-9 * float(a.abs().max()))


@pytest.mark.parametrize("put", PUT.values(), ids=PUT)
def test_the_default_recipe_plans_it_and_no_score_is_left_out(put: Put) -> None:
    model = plain(put)
    plan = prunit.plan(model, IMAGES, budget={"params": 0.5})
    graph = trace(model, IMAGES)
    assert cost_of(graph, plan).params <= 0.5 * cost_of(graph).params
    scores = score_channels(model, graph, "synflow", [(IMAGES, torch.empty(0))], density=1 / 50)
    assert all(bool(s.isfinite().all()) for s in scores.values())


@pytest.mark.parametrize("put", PUT.values(), ids=PUT)
def test_reinitialised_layers_compute_what_was_drawn(put: Put) -> None:
    model = plain(put)
    graph, plan = halved(model)
    small, other = compact(model, graph, plan), compact(plain(), *halved(plain()))
    assert rectify(small, model, "reinit") == rectify(other, plain(), "reinit") == ("0", "1", "3", "5", "7", "11")
    for item in computed_weights(small):
        drawn = other.get_parameter(f"{item.path}.weight")
        found = item.value()
        if put in (PUT["softplus"], PUT["standardised"]):  # no inverse: the original is drawn, as at first
            drawn = F.softplus(drawn) if put is PUT["softplus"] else Centred()(drawn)
        elif "spectral" in item.by.lower():  # the largest singular value is one
            drawn = drawn / torch.linalg.matrix_norm(drawn.flatten(1), 2)
        elif "mask" in str(list(item.places)):
            drawn = drawn * item.places["weight_mask"].tensor
        torch.testing.assert_close(found, drawn, rtol=0.05 if "Spectral" in item.by else 1e-9, atol=0.01)
    assert bool(small.eval()(IMAGES).isfinite().all())


def test_a_norm_is_not_scaled_up_twice() -> None:
    """`rescale` makes up for lost inputs; the gains of a weight norm have done so already."""
    model = plain(PUT["weight norm"])
    graph, plan = halved(model)
    small = compact(model, graph, plan)
    before = [item.value().norm() for item in computed_weights(small)]
    rectify(small, model, "rescale")
    for was, item in zip(before, computed_weights(small), strict=True):
        assert 0.7 < item.value().norm() / was < 1.4


def test_without_an_inverse_there_the_layer_keeps_what_it_inherited() -> None:
    class Positive(Softplus):
        def right_inverse(self, w: Tensor) -> Tensor:
            return (w.exp() - 1).log()  # of a negative weight: not a number

    model = up()
    with torch.no_grad():
        model.get_parameter("0.weight").abs_()
    own(Positive())(model.get_submodule("0"))
    graph, plan = halved(model)
    small = compact(model, graph, plan)
    (item,) = computed_weights(small)
    before = item.value()
    rectify(small, model)
    assert torch.equal(item.value(), before)
    assert not set_value(item, -before)


@pytest.mark.parametrize("put", PUT.values(), ids=PUT)
def test_an_exported_file_computes_the_same(put: Put, tmp_path: Path) -> None:
    model = plain(put)
    small = compact(model, *halved(model)).float()
    small(IMAGES.float())  # what an old hook has set may carry a history
    artifact = export_onnx(small, IMAGES[:1].float(), tmp_path, name="small")
    assert artifact.bytes > 0


class Residual(nn.Module):
    """A block of a temporal convolutional network (Bai et al. 2018), as everyone writes it."""

    def __init__(self, put: Put, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.trim = 2 * dilation
        self.conv1 = put(nn.Conv1d(inputs, outputs, 3, padding=self.trim, dilation=dilation))
        self.conv2 = put(nn.Conv1d(outputs, outputs, 3, padding=self.trim, dilation=dilation))
        self.down = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None
        self.conv1.get_parameter("bias").data.normal_(0, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)[:, :, : -self.trim].relu()
        y = self.conv2(y)[:, :, : -self.trim].relu()
        return (y + (x if self.down is None else self.down(x))).relu()


def temporal(put: Put) -> nn.Module:
    torch.manual_seed(0)
    blocks = [Residual(put, a, b, 2**i) for i, (a, b) in enumerate([(2, 8), (8, 8), (8, 12)])]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 3)).double()


@pytest.mark.parametrize("put", [PUT["weight norm"], PUT["old weight norm"], PUT["spectral norm"]])
def test_temporal_convolutions_with_weight_norm(put: Put, tmp_path: Path) -> None:
    x = torch.randn(2, 2, 32, dtype=torch.float64)
    model = temporal(put)
    graph = trace(model, x)
    plan = prunit.plan(model, x, budget={"params": 0.4})
    small = compact(model, graph, plan).eval()
    assert furthest(mask(model, graph, plan).eval(), small, x) < 1e-12
    save(small, plan, tmp_path / "small.safetensors")
    assert furthest(load(tmp_path / "small.safetensors", lambda: temporal(put)), small, x) < 1e-12


@pytest.mark.parametrize(
    ("put", "reason"),
    [
        (parametrizations.orthogonal, "Orthogonal computes 'weight' in '3'"),
        (own(Symmetric()), "Symmetric computes 'weight' in '3'"),
        (own(LowRank()), "'weight' is computed by LowRank in a way that is not followed in '3'"),
    ],
)
def test_what_cannot_be_followed_stays_whole_and_says_whose_weight_it_is(put: Put, reason: str) -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), put(nn.Conv2d(8, 8, 1)), nn.ReLU()),
        *(nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1)),
    ).double()
    graph, plan = halved(model)
    assert reason in graph.group("0").pinned
    assert not graph.group("5").pinned
    assert furthest(mask(model, graph, plan).eval(), compact(model, graph, plan).eval()) < 1e-12


@pytest.mark.parametrize("norm", [old_weight_norm(0), new_weight_norm(0)])
def test_a_mask_inside_of_a_norm_is_refused_by_name(norm: Put) -> None:
    layer = norm(nn.Conv2d(3, 4, 3))
    if hasattr(layer, "weight_v"):
        prune.l1_unstructured(layer, "weight_v", 0.5)
    else:
        prune.l1_unstructured(layer.get_submodule("parametrizations.weight"), "original1", 0.5)
    with pytest.raises(ModelError, match=r"the weight of '0' is computed \(WeightNorm\) from '(weight_v|original1)'"):
        trace(nn.Sequential(layer, nn.ReLU(), nn.Conv2d(4, 2, 1)).double(), IMAGES)
