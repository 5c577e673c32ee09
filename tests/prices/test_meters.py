"""Latency and energy from a profile: what a layer of the compact model would take, summed."""

import numpy as np
import pytest
import torch
from torch import nn

import prunit
from prunit import zoo
from prunit.cut.plans import choose
from prunit.edge.measuring.layer_times import LayerTimes
from prunit.edge.measuring.probe_layers import merge
from prunit.edge.measuring.profile import Energy, LayerShape, Rest
from prunit.errors import ModelError
from prunit.graph import trace
from prunit.prices.costs import named_widths
from prunit.prices.meters import EnergyMeter, LatencyMeter, layers_of
from tests.edge.profiles import blocks, products, profile


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2", "vgg11"])
def test_latency_is_that_of_the_compact_model_s_layers(name: str) -> None:
    model, example = zoo.load(name), torch.zeros(1, 3, 32, 32)
    graph = trace(model, example)
    meter = LatencyMeter(graph, profile(layers_of(graph), products))
    rng = np.random.default_rng(0)
    widths = np.where(graph.free, np.ceil(rng.uniform(0.1, 1, len(graph.sizes)) * graph.sizes), graph.sizes).astype(int)
    plan = choose(graph, {g.name: torch.rand(g.size) for g in graph.groups}, named_widths(graph, widths))
    small = trace(prunit.compact(model, graph, plan), example)
    layers = layers_of(small)
    assert meter(widths) == pytest.approx(sum(products(s, s.inputs, s.outputs) for s in layers))
    assert meter.by_layer(widths) == pytest.approx([products(s, s.inputs, s.outputs) for s in layers])


def test_layers_say_what_pruning_never_changes() -> None:
    graph = trace(zoo.load("mobilenetv2", num_classes=7), torch.zeros(1, 3, 32, 32))
    layers = layers_of(graph)
    assert (layers[0].inputs, layers[0].inputs_fixed, layers[0].outputs_fixed) == (3, True, False)
    assert (layers[-1].outputs, layers[-1].outputs_fixed, layers[-1].window) == (7, True, None)
    assert sum(s.depthwise for s in layers) == 17
    assert len(merge(layers)) < len(layers) / 2


def test_rows_of_a_linear_map_and_groups_of_a_convolution() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, groups=4, stride=2), nn.Linear(12, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.b(self.a(x)).flatten(2).transpose(1, 2))

    graph = trace(Net(), torch.zeros(1, 3, 9, 9))
    _, grouped, linear = layers_of(graph)
    assert (grouped.inputs, grouped.outputs, grouped.groups) == (8, 12, 4)
    assert (linear.inputs, linear.outputs, linear.rows) == (12, 5, 16)


def test_weights_that_leave_the_cache_take_longer_but_those_that_never_fit_do_not() -> None:
    graph = trace(nn.Sequential(*(nn.Linear(100, 100, bias=False) for _ in range(3))), torch.zeros(1, 100))
    shapes = layers_of(graph)
    rest = Rest(per_layer_ms=0.5, fetching=((60_000, 0.0), (120_000, 2.0)))
    plain, whole = (
        LatencyMeter(graph, profile(shapes, products, rest=r)) for r in (Rest(per_layer_ms=0, fetching=()), rest)
    )
    # Three times 40 kB: more than the cache holds, though each alone fits.
    assert whole(graph.sizes) - plain(graph.sizes) == pytest.approx(3 * 0.5 + 3 * 0.04 * 2)
    small = Rest(per_layer_ms=0, fetching=((20_000, 0.0), (40_000, 2.0)))
    assert LatencyMeter(graph, profile(shapes, products, rest=small))(graph.sizes) == pytest.approx(plain(graph.sizes))


@pytest.mark.parametrize(
    ("layer", "image", "message"),
    [
        (nn.Conv3d(3, 4, 1), (1, 3, 2, 8, 8), "layer '0' is no 2D convolution"),
        (nn.ConvTranspose2d(3, 4, 2), (1, 3, 8, 8), "layer '0' is no 2D convolution"),
        (nn.Conv2d(3, 6, 1, groups=3), (1, 3, 8, 8), "layer '0' makes 6 channels, several of each"),
    ],
)
def test_layers_that_no_profile_holds(layer: nn.Module, image: tuple[int, ...], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        layers_of(trace(nn.Sequential(layer), torch.zeros(image)))


def test_a_model_that_a_profile_does_not_cover_is_named_with_its_layers() -> None:
    resnet, vgg = (trace(zoo.load(name), torch.zeros(1, 3, 32, 32)) for name in ("resnet20", "vgg11"))
    with pytest.raises(
        ModelError, match=r"'pi\.json' has no times of 9 of 9 layers: 'features.0', a 3×3 .* and 6 more"
    ):
        LatencyMeter(vgg, profile(layers_of(resnet)), source="'pi.json'")


def test_energy_by_hand() -> None:
    graph = trace(
        nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Flatten(), nn.Linear(32, 5, bias=False)),
        torch.zeros(1, 3, 4, 4),
    )
    found = profile(layers_of(graph)).model_copy(update={"energy": Energy(pj_per_mac=2, pj_per_byte=10, source="toy")})
    conv = 2 * 4 * 216 + 10 * 4 * (216 + 2 * 32)
    linear = 2 * 160 + 10 * 4 * (160 + 2 * 5)
    meter = EnergyMeter(graph, found)
    assert meter.by_layer(graph.sizes) == pytest.approx([conv * 1e-9, linear * 1e-9])
    assert meter(graph.sizes) == pytest.approx((conv + linear) * 1e-9)


def test_times_are_those_of_the_layer_s_own_points() -> None:
    shape = LayerShape(inputs=32, outputs=32)
    (points,) = profile([shape]).points_of([shape])
    assert points is not None
    assert LayerTimes([points]).at(np.array([31]), np.array([20])) == pytest.approx(blocks(shape, 31, 20), rel=0.3)
