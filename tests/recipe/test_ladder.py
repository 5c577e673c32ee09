"""A ladder of sparse trainings: its levels, its variants, and that a stopped one goes on to the same end."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunit.cut.plans import Plan
from prunit.cut.store import load
from prunit.cut.zeros import without_small_filters
from prunit.edge.answers import pairs
from prunit.edge.portfolio import Portfolio
from prunit.errors import ConfigError, UnknownNameError
from prunit.graph import trace
from prunit.recipe import ladder
from prunit.recipe import ladders as module
from prunit.recipe.config import SparseConfig, validated
from prunit.recipe.ladders import prunable, rewind_of, rungs_of, smallest_dropped
from prunit.recipe.source import example_of
from tests.recipe import building

CONFIG: dict[str, Any] = {
    **building.CONFIG,
    "train": {**building.CONFIG["train"], "epochs": 3},
    "sparse": {"densities": ["1/4", "1/64"], "fraction": 0.5, "rewind": 1, "pad": "off"},
}


def run(out: Path, **sparse: Any) -> Portfolio:
    config = {**CONFIG, "sparse": {**CONFIG["sparse"], **sparse}}
    torch.manual_seed(0)
    return ladder(building.model(), building.data(), out, config=config, resume=out.exists())


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Portfolio]:
    folder = tmp_path_factory.mktemp("ladder") / "out"
    return folder, run(folder)


def test_variants_are_small_and_have_the_outputs_of_the_sparse_models(climbed: tuple[Path, Portfolio]) -> None:
    folder, portfolio = climbed
    assert [v.name for v in portfolio.variants] == ["dense", "density-1-4", "density-1-64"]
    assert portfolio.verify(folder) == []
    dense, quarter, least = portfolio.variants
    assert quarter.settings == {"method": "imp", "density": "0.25"}
    assert least.recipe == "dnnshifter"
    assert least.metrics.params < dense.metrics.params
    assert least.seconds["levels"] > quarter.seconds["levels"] > 0
    example = example_of(building.data())
    sparse = building.model()
    sparse.load_state_dict(torch_tensors(folder / ".build" / "ladder" / "level-6.safetensors"), strict=False)
    small = load(folder / "density-1-64.safetensors", building.model)
    with torch.no_grad():
        torch.testing.assert_close(small(example), sparse.eval()(example), rtol=1e-4, atol=1e-5)
    assert (folder / "report.html").exists()
    assert pairs(least.metrics.answers, dense.metrics.answers) is not None


def torch_tensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def test_levels_start_from_the_weights_of_the_rewinding(climbed: tuple[Path, Portfolio]) -> None:
    folder, _ = climbed
    state = folder / ".build" / "ladder"
    names = prunable(trace(building.model(), example_of(building.data())))
    levels = [torch_tensors(state / f"level-{n}.safetensors") for n in range(7)]
    for n, (before, after) in enumerate(pairwise(levels)):
        alive = [sum(int((level[name] != 0).sum()) for name in names) for level in (before, after)]
        assert alive[1] == alive[0] - round(alive[0] / 2), n
        assert all(not after[name][before[name] == 0].any() for name in names)


@pytest.mark.parametrize("stop", ["level 0", "level 1", "export"])
def test_a_stopped_ladder_goes_on_to_the_same_end(
    stop: str, climbed: tuple[Path, Portfolio], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppedError(Exception):
        pass

    def stopping(step: Any) -> None:
        training = (step.variant, step.stage) == (stop, "train") and step.done >= 7  # in the second epoch
        if training or (stop, step.variant, step.stage) == ("export", "density-1-4", "export"):
            raise StoppedError

    out = tmp_path / "out"
    torch.manual_seed(0)
    with pytest.raises(StoppedError):
        ladder(building.model(), building.data(), out, config=CONFIG, on_step=stopping)
    again = run(out)
    first = climbed[1]
    for one, other in zip(first.variants, again.variants, strict=True):
        assert one.metrics.accuracy == other.metrics.accuracy
        assert one.weights is not None
        assert other.weights is not None
        assert one.weights.sha256 == other.weights.sha256
    with pytest.raises(ConfigError, match=r"started with sparse\.fraction=0\.5, now it is 0\.4"):
        run(out, fraction=0.4)


def test_a_mask_at_initialisation_is_trained_for_each_density(tmp_path: Path) -> None:
    portfolio = run(tmp_path / "out", method="magnitude", densities=["1/4", "1/32"])
    found = [float(v.settings["density"]) for v in portfolio.variants[1:]]
    assert found == pytest.approx([1 / 4, 1 / 32], rel=0.1)
    assert portfolio.variants[2].settings["method"] == "magnitude"
    assert portfolio.variants[2].metrics.params < portfolio.variants[0].metrics.params


def test_rungs_are_the_levels_that_come_closest() -> None:
    densities = ["1/2", "1/4", "1/8", "1/16", "1/32", "1/64", "1/128", "1/256"]
    found = rungs_of(validated({"sparse": {"densities": densities}}))
    # DNNShifter's own levels for these compression ratios.
    assert [rung.level for rung in found] == [3, 6, 9, 12, 16, 19, 22, 25]
    assert found[0].name == "density-1-2"
    assert rungs_of(validated({"sparse": {"densities": "5%"}}))[0].name == "density-5-percent"
    assert rewind_of(SparseConfig(), 160) == 5
    assert rewind_of(SparseConfig(), 30) == 1


@pytest.mark.parametrize(
    ("sparse", "error", "message"),
    [
        ({"densities": ["2"]}, ConfigError, "it must lie between 0 and 1"),
        ({"densities": ["few"]}, ConfigError, "write a share of the weights, for example 1/16 or 5%"),
        ({"densities": ["1/0"]}, ConfigError, "write a share"),
        ({"densities": ["0.5", "0.51"]}, ConfigError, "the same model"),
        ({"method": "imq"}, UnknownNameError, "did you mean 'imp'"),
        ({"rewind": 30}, ConfigError, "must be less than train.epochs=30"),
        ({"fraction": 1.0}, ConfigError, "sparse.fraction"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(
    sparse: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        ladder("resnet20", "digits", tmp_path / "out", config={"sparse": sparse, "train": {"epochs": 30}})
    assert not (tmp_path / "out").exists()


def test_the_smallest_weights_of_all_layers_go() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[0].weight.data.copy_(torch.tensor([[1.0, -2.0], [3.0, 4.0]]))
    model[1].weight.data.copy_(torch.tensor([[-0.5, 5.0], [6.0, 7.0]]))
    names = ["0.weight", "1.weight"]
    masks = smallest_dropped(model, names, {}, 0.25)
    assert masks["0.weight"].tolist() == [[False, True], [True, True]]
    assert masks["1.weight"].tolist() == [[False, True], [True, True]]
    masks = smallest_dropped(model, names, masks, 0.5)
    assert sum(int(mask.sum()) for mask in masks.values()) == 3


def test_filters_up_to_a_tolerance_go_but_never_all() -> None:
    conv = nn.Conv2d(1, 3, 1)
    conv.weight.data.copy_(torch.tensor([1.0, 0.05, -0.2]).view(3, 1, 1, 1))
    assert without_small_filters(conv, 0.1).weight.flatten().tolist()[1] == 0  # type: ignore[operator]
    assert int((without_small_filters(conv, 0.99).weight != 0).sum()) == 1  # type: ignore[operator]
    assert conv.weight.all()


def test_the_plan_of_a_variant_tells_where_it_comes_from(climbed: tuple[Path, Portfolio]) -> None:
    folder, _ = climbed
    plan = Plan.from_json((folder / "density-1-64.plan.json").read_text())
    assert plan.origin["recipe"] == module.RECIPE
    assert plan.origin["method"] == "imp"
