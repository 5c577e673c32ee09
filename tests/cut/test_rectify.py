"""What is re-initialised after a cut, and what keeps its values."""

import pytest
import torch
from torch import nn

from prunit.cut.plans import Plan, keep_all
from prunit.cut.surgery import Rectify, compact, rectify
from prunit.errors import UnknownNameError
from prunit.graph import trace
from tests.nets import NETS, Plain, images, lived_in


def cut(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The model, and itself with three of the first convolution's six channels."""
    graph = trace(lived_in(model), images())
    keep = {"first.0": (0, 3, 5), "stem.0": (0, 3, 5), "features.0.0": (0, 3, 5)}
    keep = {n: c for n, c in keep.items() if n in graph.index}
    return model, compact(model, graph, Plan(keep, keep_all(graph).dense))


def test_reinit_treats_what_has_changed_and_nothing_else() -> None:
    model, small = cut(Plain())
    before = {n: t.clone() for n, t in small.state_dict().items()}
    assert rectify(small, model, "reinit", seed=3) == ("first.0", "first.1", "second")
    after = small.state_dict()
    assert torch.equal(after["head.fc.weight"], before["head.fc.weight"])
    assert after["first.1.weight"].tolist() == [1.0] * 3
    assert after["first.1.bias"].tolist() == [0.0] * 3
    assert after["first.1.running_mean"].tolist() == [0.0] * 3
    assert after["first.1.running_var"].tolist() == [1.0] * 3
    assert after["second.bias"].tolist() == [0.0] * 8
    assert not torch.equal(after["second.weight"], before["second.weight"])


def test_reinit_is_he_normal_for_the_new_fan_in_and_repeats_by_seed() -> None:
    model = nn.Sequential(nn.Conv2d(64, 200, 3), nn.Conv2d(200, 300, 3), nn.Conv2d(300, 2, 1))
    graph = trace(model, torch.zeros(1, 64, 8, 8))
    plan = Plan({"0": tuple(range(100))}, keep_all(graph).dense)
    weights = []
    for seed in (0, 0, 1):
        small = compact(model, graph, plan)
        rectify(small, model, seed=seed)
        weights.append(small.get_parameter("1.weight").detach().clone())
    assert float(weights[0].std()) == pytest.approx((2 / 900) ** 0.5, rel=0.02)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_rescale_restores_the_deviation() -> None:
    model, small = cut(Plain())
    before = {n: t.clone() for n, t in small.state_dict().items()}
    assert rectify(small, model, "rescale") == ("first.0", "first.1", "second")
    after = small.state_dict()
    torch.testing.assert_close(after["second.weight"], before["second.weight"] * (54 / 27) ** 0.5)
    for same in ("first.0.weight", "first.1.weight", "first.1.running_var", "second.bias"):
        assert torch.equal(after[same], before[same])


def test_none_and_all() -> None:
    model, small = cut(Plain())
    before = {n: t.clone() for n, t in small.state_dict().items()}
    assert rectify(small, model, "none") == ()
    assert all(torch.equal(t, before[n]) for n, t in small.state_dict().items())
    assert rectify(small, model, "all") == ("first.0", "first.1", "second", "head.fc")
    assert small.get_parameter("head.fc.bias").tolist() == [0.0] * 5


def test_batch_norm_without_gain_gets_fresh_statistics() -> None:
    model = Plain()
    model.first[1] = nn.BatchNorm2d(6, affine=False)
    model, small = cut(model)
    assert "first.1" in rectify(small, model)
    assert small.get_buffer("first.1.running_mean").tolist() == [0.0] * 3


def test_a_shared_weight_is_rescaled_once() -> None:
    model, small = cut(NETS["recurrent"][0]())
    before = small.get_parameter("left.weight").detach().clone()
    assert {"left", "right"} <= set(rectify(small, model, "rescale"))
    torch.testing.assert_close(small.get_parameter("left.weight").detach(), before * 2**0.5)


def test_an_unknown_rectifier_is_named() -> None:
    model, small = cut(Plain())
    how: Rectify = "rescael"  # pyright: ignore[reportAssignmentType]
    with pytest.raises(UnknownNameError, match="unknown rectifier 'rescael'; did you mean 'rescale'"):
        rectify(small, model, how)


def test_own_draws_with_the_deviation_that_the_dense_layer_has() -> None:
    model = nn.Sequential(nn.Conv2d(64, 200, 3), nn.BatchNorm2d(200), nn.Conv2d(200, 300, 3), nn.Conv2d(300, 2, 1))
    with torch.no_grad():
        model[2].weight.normal_(0, 0.02)
        model[1].weight.copy_(torch.arange(200.0))
        model[1].running_mean.fill_(3.0)
    graph = trace(model, torch.zeros(1, 64, 8, 8))
    kept = tuple(range(0, 200, 4))
    small = compact(model, graph, Plan({"0": kept}, keep_all(graph).dense))
    assert rectify(small, model, "own") == ("0", "1", "2")
    after = small.state_dict()
    assert float(after["2.weight"].std()) == pytest.approx(0.02 * 2, rel=0.02)  # of 200 channels 50 are left
    assert not torch.equal(after["2.weight"], model[2].weight[:, list(kept)] * 2)
    assert after["2.bias"].tolist() == [0.0] * 300
    assert after["1.weight"].tolist() == [float(channel) for channel in kept]
    assert after["1.running_mean"].tolist() == [0.0] * 50
    assert torch.equal(after["3.weight"], model[3].weight)


def test_own_leaves_weights_that_are_all_the_same() -> None:
    model, small = cut(Plain())
    for net in (model, small):
        nn.init.constant_(net.get_parameter("second.weight"), 0.5)
    rectify(small, model, "own")
    assert small.get_parameter("second.weight").unique().tolist() == [0.5]
