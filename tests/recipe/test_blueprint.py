"""A model as a network of integers at any widths: shapes that follow, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from prunit import zoo
from prunit.cut.plans import Plan
from prunit.errors import ModelError
from prunit.export.untrained import Untrained
from prunit.graph import ChannelGraph, trace
from prunit.mcu.network import IntegerNetwork
from prunit.mcu.parts import part
from prunit.prices.costs import width_array
from prunit.recipe import blueprint as drawn
from prunit.recipe.blueprint import Blueprint
from tests.recipe.nets import STYLES, seeded

pytest.importorskip("ai_edge_litert")
X_1CHW = torch.zeros(1, 1, 8, 8)


class Joined(nn.Module):
    """Channels put together, one half gated by the other's mean, laid flat with positions for a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 5, 1), nn.Conv2d(6, 7, 1)
        self.gate, self.last, self.head = nn.Conv2d(7, 7, 1), nn.Conv2d(12, 4, 3, stride=2), nn.Linear(4 * 9, 10)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = self.first(x_BCHW).relu()
        left, right = self.left(x_BCHW).relu(), self.right(x_BCHW)
        right = right * self.gate(right.mean((2, 3), keepdim=True)).sigmoid()
        return self.head(self.last(torch.cat([left, right], 1)).relu().flatten(1))


def shapes(network: IntegerNetwork) -> list[tuple[str, list[tuple[int, ...]]]]:
    return [
        (o.code, [network.by_name[name].shape for name in (*o.inputs, *o.outputs) if name]) for o in network.operators
    ]


def cut(graph: ChannelGraph, seed: int) -> Plan:
    """Each group that may shrink as narrow as chance has it."""
    chance = np.random.default_rng(seed)
    keep = {g.name: tuple(range(int(chance.integers(1, g.size + 1)))) for g in graph.groups if not g.pinned}
    return Plan(keep, {g.name: g.size for g in graph.groups})


@pytest.mark.parametrize("style", [*STYLES, "joined"])
@pytest.mark.parametrize("seed", [0, 1])
def test_shapes_follow_as_an_export_has_them(tmp_path: str, style: str, seed: int) -> None:
    model = seeded(STYLES.get(style, Joined))
    graph = trace(model, X_1CHW)
    plan = cut(graph, seed)
    network = Blueprint(model, graph, X_1CHW).at(width_array(graph, plan.widths))
    path = drawn.Path(tmp_path) / "plan.onnx"
    Untrained(model, graph, X_1CHW).write(plan, path)
    assert shapes(network) == shapes(drawn._drawn(path))


def test_weights_are_made_up_where_they_count() -> None:
    model = seeded(STYLES["residual"])
    graph = trace(model, X_1CHW)
    blueprint = Blueprint(model, graph, X_1CHW)
    whole, bare = blueprint.at(graph.sizes), blueprint.shapes_at(graph.sizes)
    assert shapes(whole) == shapes(bare)
    weights = next(t.values for t in whole.tensors if t.kind == "int8" and t.values is not None and t.values.size > 500)
    largest = np.abs(weights.reshape(len(weights), -1).astype(int)).max(axis=1)
    assert set(largest.tolist()) == {127}  # as quantisation leaves the weights of each output channel
    assert abs(float(weights.mean())) < 5
    narrow = blueprint.shapes_at(np.maximum(graph.sizes // 2, 1))
    made = next(t.values for t in narrow.tensors if t.kind == "int8" and t.values is not None and t.values.size > 100)
    assert not made.any()
    assert made.strides == (0,) * made.ndim  # of no memory
    assert blueprint.file(graph.sizes, part("tflm")) == blueprint.file(graph.sizes, part("tflm"))


def test_the_network_is_translated_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = seeded(STYLES["plain"])
    graph = trace(model, X_1CHW)
    monkeypatch.setattr(drawn, "Untrained", lambda *_, **__: pytest.fail("nobody asked"))
    blueprint = Blueprint(model, graph, X_1CHW)
    assert blueprint.layers == ("first.0", "second.0", "third.0", "head")


def test_an_operator_without_integers_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    graph = trace(model, X_1CHW)
    with pytest.raises(ModelError, match=r"cannot lower Softplus .* to integers"):
        Blueprint(model, graph, X_1CHW).at(graph.sizes)


def test_shapes_that_do_not_follow_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = seeded(STYLES["plain"])
    graph = trace(model, X_1CHW)
    right = Blueprint._sides

    def wrong(self: Blueprint, widths: np.ndarray) -> dict[str, tuple[int, int]]:
        return {name: (reads, makes + (name == "third.0")) for name, (reads, makes) in right(self, widths).items()}

    monkeypatch.setattr(Blueprint, "_sides", wrong)
    with pytest.raises(ModelError, match=r"cannot be followed .* at 'third.0' CONV_2D|would read"):
        Blueprint(model, graph, X_1CHW).at(graph.sizes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv2", "unet-tiny"])
def test_zoo_networks_are_followed(name: str) -> None:
    model = zoo.load(name)
    x_1CHW = torch.zeros(1, 3, 32, 32)
    graph = trace(model, x_1CHW)
    blueprint = Blueprint(model, graph, x_1CHW)
    widths = np.maximum(graph.sizes // 3, 1)
    assert blueprint.shapes_at(widths).constant_bytes < blueprint.shapes_at(graph.sizes).constant_bytes / 4
