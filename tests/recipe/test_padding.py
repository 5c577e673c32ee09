"""Widths padded for an engine: which are tried, when they are taken, what is said of it. No clock but a fake one."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunit.allocate.liked import fitting
from prunit.cut.plans import Plan
from prunit.cut.zeros import difference, remove_zeros
from prunit.edge.runtimes import runtime
from prunit.edge.session import outputs_of
from prunit.errors import ConfigError, ModelError
from prunit.export import EXPORTERS
from prunit.graph import ChannelGraph, trace
from prunit.recipe import ladder
from prunit.recipe.config import SparseConfig, validated
from prunit.recipe.deciding import Clock
from prunit.recipe.padding import Padding, fastest, without_zeros
from tests.recipe import building
from tests.recipe.test_ladder import CONFIG
from tests.recipe.watches import Watches, by_macs, in_blocks, odd_cost

IMAGE = torch.zeros(1, 3, 8, 8)


class Net(nn.Module):
    """Two streams of three layers, a depthwise layer, a concatenation and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.back = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 24), (24, 32), (32, 24)))
        self.depthwise, self.other = nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 16, 1)
        self.last, self.grouped = nn.Conv2d(40, 32, 1), nn.Conv2d(32, 32, 3, groups=2)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (x + self.back(self.inner(x).relu())).relu()
        x = torch.cat([self.depthwise(x).relu(), self.other(x).relu()], 1)
        return self.head(self.grouped(self.last(x).relu()).relu().mean((2, 3)))


def emptied() -> Net:
    """`Net` with 15 of 32, 3 of 24 and 7 of 16 filters without weights, so that widths are odd."""
    torch.manual_seed(0)
    model = Net().eval()
    with torch.no_grad():
        for layer, rows in ((model.inner, 15), (model.other, 7)):
            layer.weight[:rows] = 0
        for layer in (model.stem, model.back, model.depthwise):
            layer.weight[:3] = 0
    return model


def found(watches: Watches, **settings: Any) -> Padding:
    model = emptied()
    graph = trace(model, IMAGE)
    return without_zeros(model, IMAGE, graph=graph, **{"clock": Clock(watches=watches), **settings})


@pytest.fixture
def widths() -> dict[str, int]:
    return remove_zeros(emptied(), IMAGE).plan.widths


def test_odd_widths_are_padded_where_they_cost_time(widths: dict[str, int]) -> None:
    watches = Watches(odd_cost)
    padding = found(watches)
    grown = {n: (widths[n], w) for n, w in padding.removed.plan.widths.items() if w > widths[n]}
    assert dict(padding.at_least) == {n: w for n, (_, w) in grown.items()}
    assert widths["inner"] % 4
    assert all(after % 4 == 0 and after - before < 4 for before, after in grown.values())
    assert padding.removed.spare == sum(after - before for before, after in grown.values())
    assert f"padded {len(grown)} of " in padding.told
    assert "groups to multiples of 4" in padding.told
    assert "more parameters, the same outputs; " in padding.told
    assert "x at batch 1 and " in padding.told
    assert padding.told.endswith("x at batch 32 faster here (in onnxruntime, 1 thread)")
    assert padding.faster is not None
    assert padding.faster[1] == pytest.approx(2, rel=0.2)
    # The plan without padding took part, at both batch sizes.
    assert watches.made[0].batches == (1, 32)
    assert watches.made[0].timed[0] == widths


def test_they_are_not_where_they_are_as_fast(widths: dict[str, int]) -> None:
    padding = found(Watches(by_macs))
    assert padding.removed.plan.widths == widths
    assert padding.at_least == {}
    assert padding.removed.spare == 0
    assert padding.told.startswith("not padded: no faster here (multiples of 4 0.")


def test_whole_blocks_are_taken_where_only_these_are_faster() -> None:
    def whole(graph: ChannelGraph, widths: Mapping[str, int]) -> float:
        return in_blocks(16)(graph, widths) * (1 + (widths["inner"] != 32))

    assert found(Watches(whole)).removed.plan.widths["inner"] == 32


def test_what_must_be_is_decided_by_no_clock(widths: dict[str, int]) -> None:
    watches = Watches(odd_cost)
    off = found(watches, pad="off")
    assert (off.removed.plan.widths, off.told) == (widths, "")
    eights = found(watches, pad=8)
    sizes = eights.removed.plan.dense
    assert all(w % 8 == 0 or w in (sizes[n], widths[n]) for n, w in eights.removed.plan.widths.items())
    assert eights.removed.plan.widths["inner"] == 24
    assert found(watches, pad=1).told == "nothing to pad: no more widths can be multiples of 1"
    other = found(watches, engine="openvino")
    assert other.removed.plan.widths == widths
    assert other.told == "not padded: plans are timed in onnxruntime, and the models are for openvino"
    assert watches.made == []


def test_off_is_what_there_was_before() -> None:
    model, plain = emptied(), remove_zeros(emptied(), IMAGE)
    off = without_zeros(model, IMAGE, graph=trace(model, IMAGE), pad="off").removed
    assert off.plan.to_json() == plain.plan.to_json()
    before, after = plain.model.state_dict(), off.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_model_that_cannot_be_timed_is_not_padded_and_says_why(widths: dict[str, int]) -> None:
    class Broken(Watches):
        def __call__(self, *arguments: Any, **settings: Any) -> nullcontext[Any]:  # type: ignore[override]
            raise ModelError("the model has an operator that ONNX lacks")

    padding = found(Broken(odd_cost))
    assert padding.removed.plan.widths == widths
    assert padding.told == ("not padded, since nothing can be timed here: the model has an operator that ONNX lacks")


def test_the_outputs_are_the_same_in_torch_and_in_the_engine(tmp_path: Path) -> None:
    model, small = emptied(), found(Watches(odd_cost)).removed
    x_BCHW = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert small.error < 1e-5
    assert difference(model, small.model, x_BCHW) < 1e-5
    artifact = EXPORTERS["onnx"](small.model, IMAGE, tmp_path, name="small")
    session = runtime("onnxruntime").open(tmp_path / artifact.path)
    (answer,) = outputs_of(session, x_BCHW.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(answer, model(x_BCHW).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("faster", "best"),
    [
        ({"four": {1: 1.2, 32: 1.0}}, "four"),
        ({"four": {1: 1.0, 32: 1.2}}, "four"),
        ({"four": {1: 1.04, 32: 1.04}}, None),  # no more than two timings of one file differ
        ({"four": {1: 1.4, 32: 0.9}}, None),  # slower at a batch size
        ({"four": {1: 1.2, 32: 1.2}, "sixteen": {1: 1.22, 32: 1.4}}, "four"),  # fewer channels first
        ({"four": {1: 1.2, 32: 1.2}, "sixteen": {1: 1.3, 32: 1.2}}, "sixteen"),
    ],
)
def test_the_fastest_that_is_slower_at_no_batch_size(faster: dict[str, dict[int, float]], best: str | None) -> None:
    assert fastest(faster) == best


def test_the_next_widths_by_hand() -> None:
    layers = (nn.Conv2d(3, 40, 3), nn.Conv2d(40, 64, 1), nn.Conv2d(64, 64, 3, groups=2))
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3))
    graph = trace(nn.Sequential(*layers, *pooled), torch.zeros(1, 3, 9, 9))
    given = {"0": 21, "1": 17, "2": 17, "5": 3}
    # A group of a grouped convolution stands once in each part, which wants whole blocks; the output is not asked for.
    assert fitting(graph, "onnxruntime", given) == {"0": 24, "1": 32, "2": 32}
    assert fitting(graph, "onnxruntime", given, blocks=True) == {"0": 32, "1": 32, "2": 32}
    assert fitting(graph, "onnxruntime", {**given, "0": 37}, blocks=True)["0"] == 40  # there are no more
    assert fitting(graph, "openvino", given) == {"0": 21, "1": 17, "2": 17}


def test_what_may_be_set() -> None:
    assert SparseConfig().pad == "auto"
    assert validated({"sparse": {"pad": "8"}}).sparse.pad == 8
    assert validated({"sparse": {"pad": "OFF"}}).sparse.pad == "off"
    for wrong in ("often", 0, True, 1.5):
        with pytest.raises(ConfigError, match=r"sparse\.pad=.*a whole number of channels, at least 1, 'auto' or 'off'"):
            validated({"sparse": {"pad": wrong}})


def test_a_ladder_pads_once_and_says_so(tmp_path: Path) -> None:
    def wide(graph: ChannelGraph, widths: Mapping[str, int]) -> float:
        """The fewer channels the slower."""
        return 2 - sum(widths.values()) / sum(group.size for group in graph.groups)

    sparse = {**CONFIG["sparse"], "densities": ["1/64"], "fraction": 0.8, "pad": "auto"}
    out, watches = tmp_path / "out", Watches(wide)
    portfolios = []
    for _ in range(2):
        torch.manual_seed(0)
        portfolios.append(
            ladder(
                *(building.model(), building.data(), out),
                config={**CONFIG, "sparse": sparse},
                resume=out.exists(),
                watches=watches,
            )
        )
    assert len(watches.made) == 1
    first, again = (portfolio.variants[1] for portfolio in portfolios)
    assert first.settings["padded"].startswith("padded ")
    assert again.artifact == first.artifact
    plan = Plan.from_json((out / "density-1-64.plan.json").read_text())
    assert plan.origin["padded"] == first.settings["padded"]
