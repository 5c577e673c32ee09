"""Zeros in weights that a layer computes: removed exactly or refused by name; kept in training."""

import pytest
import torch
from torch import nn

from prunit.cut.zeros import remove_zeros, without_small_filters
from prunit.errors import ModelError, SurgeryError
from prunit.graph import trace
from prunit.graph.computed import computed_weights
from prunit.graph.inverse import set_value
from prunit.prices.costs import cost_of
from prunit.train.sparse import KeptZero, zeroed
from tests.computed import IMAGES, PUT, Put, furthest, up, without


def empty(model: nn.Module) -> nn.Module:
    """Without the weights of every third filter, and of those that read the second channel of the first layer."""
    with torch.no_grad():
        for item in computed_weights(model):
            weight = item.value()
            weight[::3] = 0
            weight[:, 1] = 0 if weight.shape[1] == 8 else weight[:, 1]
            assert set_value(item, weight)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.bias)
    return model


def deep(put: Put) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(put(nn.Conv2d(3, 8, 3, padding=1)), nn.BatchNorm2d(8), nn.ReLU()),
        *(put(nn.Conv2d(8, 12, 3, padding=1)), nn.Sigmoid(), put(nn.Conv2d(12, 8, 1, bias=False)), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), put(nn.Linear(8, 4))),
    ).double()


EXACT = [n for n in PUT if "spectral" not in n and n not in ("softplus", "standardised")]


@pytest.mark.parametrize("padded", ["merge", "keep"])
@pytest.mark.parametrize("put", [PUT[n] for n in EXACT], ids=EXACT)
def test_zeros_are_removed_exactly(put: Put, padded: str) -> None:
    model = empty(deep(put)).eval()
    if padded == "merge" and "prune" in str(next(iter(PUT[n] is put and n for n in EXACT if PUT[n] is put))):
        with pytest.raises(SurgeryError, match=r"'3' cannot keep its weight"):  # its mask holds zeros where it would go
            remove_zeros(model, IMAGES, padded="merge")
        return
    removed = remove_zeros(model, IMAGES, padded=padded)  # pyright: ignore[reportArgumentType]
    assert removed.constants + removed.merged > 3
    assert furthest(model, removed.model) < 1e-10
    other = remove_zeros(without(model, deep(lambda layer: layer)).eval(), IMAGES, padded=padded)  # pyright: ignore[reportArgumentType]
    assert removed.plan.keep == other.plan.keep
    assert removed.plan.biases == other.plan.biases
    assert cost_of(trace(model, IMAGES), removed.plan).params == sum(p.numel() for p in removed.model.parameters())


@pytest.mark.parametrize("put", [PUT["spectral norm"], PUT["old spectral norm"]])
def test_a_norm_that_changes_without_the_zeros_is_refused_by_name_or_stays_exact(put: Put) -> None:
    """Zeros do not change the largest singular value; but what is merged into other weights does."""
    model = empty(deep(put)).eval()
    for item in computed_weights(model):
        assert item.value().flatten(1).isfinite().all()
    with pytest.raises(SurgeryError, match=r"cannot keep its weight without the zeros: SpectralNorm computes another"):
        remove_zeros(model, IMAGES)


@pytest.mark.parametrize("put", [PUT["weight norm"], PUT["old weight norm over outputs"], PUT["scale and direction"]])
def test_small_filters_go_and_the_model_stays(put: Put) -> None:
    model = deep(put)
    (first, *_) = computed_weights(model)
    weight = first.value()
    weight[2] *= 1e-6
    assert set_value(first, weight)
    twin = without_small_filters(model, 1e-3)
    assert not computed_weights(twin)[0].value()[2].any()
    assert computed_weights(model)[0].value()[2].any()


@pytest.mark.parametrize(
    "put", [PUT["weight norm"], PUT["old weight norm"], PUT["weight norm of all"], PUT["prune mask"]]
)
def test_single_weights_stay_zero_in_training_and_an_empty_filter_is_finite(put: Put) -> None:
    model = deep(put)
    masks = {}
    for item in computed_weights(model):
        masks[item.main] = torch.rand(item.shape, generator=torch.Generator().manual_seed(1)) > 0.5
        masks[item.main][0] = False
    zeroed(model, masks)
    kept = KeptZero(model, masks)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        model(IMAGES).square().mean().backward()
        optimizer.step()
    kept.end()
    for item in computed_weights(model):
        value = item.value()
        assert bool(value.isfinite().all())
        assert not value[~masks[item.main]].any()
        assert value[masks[item.main]].any()


def test_single_weights_that_cannot_stay_zero_are_refused_by_name() -> None:
    model = up(PUT["softplus"])
    masks = {item.main: torch.zeros(item.shape, dtype=torch.bool) for item in computed_weights(model)}
    with pytest.raises(ModelError, match=r"cannot keep single weights of '0' at zero: Softplus computes its weight"):
        zeroed(model, masks)
