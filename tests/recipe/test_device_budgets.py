"""Budgets that a device sets: met as its profile predicts, by every recipe, or refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunit import zoo
from prunit.allocate import Budget, Constraints, Target, closer
from prunit.edge.measuring.profile import DeviceProfile
from prunit.errors import BudgetError, ConfigError, FileError, ModelError
from prunit.graph import ChannelGraph, trace
from prunit.prices.meters import LatencyMeter, layers_of
from prunit.recipe import RECIPES, decide
from prunit.recipe.config import BuildConfig, PruneConfig
from prunit.recipe.request import check_request, variant_name
from tests.edge.profiles import blocks, profile
from tests.recipe.nets import STYLES, batch, seeded

Net = tuple[torch.nn.Module, ChannelGraph]
IMAGES = [(torch.zeros(1, 3, 32, 32), torch.empty(0))]


@pytest.fixture(scope="module")
def vgg11() -> Net:
    model = zoo.load("vgg11", image_size=32)
    return model, trace(model, torch.zeros(1, 3, 32, 32))


def written(graph: ChannelGraph, folder: Path) -> Path:
    profile(layers_of(graph), blocks).write(folder / "toy device.json")
    return folder / "toy device.json"


def widths_of(graph: ChannelGraph, plan_widths: object) -> np.ndarray:
    return np.array([dict(plan_widths)[g.name] for g in graph.groups])  # type: ignore[call-overload]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("style", STYLES)
def test_every_recipe_meets_a_latency_budget(style: str, recipe: str, tmp_path: Path) -> None:
    model = seeded(STYLES[style])
    graph = trace(model, batch()[0][:1])
    file = written(graph, tmp_path)
    meter = LatencyMeter(graph, DeviceProfile.read(file))
    budget = Budget.parse(f"latency=60%@{file},params=0.9")
    config = PruneConfig(recipe=recipe, rounds=4, min_share=0.02, min_width=1)
    decision = decide(model, graph, [batch()], budget, config)
    predicted = meter(widths_of(graph, decision.plan.widths))
    assert predicted <= 0.6 * meter(graph.sizes) * (1 + 1e-9)
    assert decision.used[f"latency=60%@{file}"] == pytest.approx(predicted / (0.6 * meter(graph.sizes)))
    assert str(file) in decision.plan.origin["budget"]


def test_widths_that_cost_the_device_nothing_are_kept(vgg11: Net, tmp_path: Path) -> None:
    model, graph = vgg11
    file = written(graph, tmp_path)
    meter = LatencyMeter(graph, DeviceProfile.read(file))
    config = PruneConfig(recipe="uniform")
    decision = decide(model, graph, IMAGES, Budget.parse(f"latency=1/3@{file}"), config)
    found = widths_of(graph, decision.plan.widths)
    assert meter(found) <= meter(graph.sizes) / 3
    # Outputs come in blocks of 16 on this device, and inputs that fill no block take longer.
    assert (found[graph.free] % 16 == 0).mean() > 0.5
    for i in np.flatnonzero(found < graph.sizes):
        wider = found.copy()
        wider[i] = (found[i] // 16 + 1) * 16
        assert meter(wider) > meter(found)


def test_closer_gives_groups_what_is_free_and_no_more(vgg11: Net, tmp_path: Path) -> None:
    _, graph = vgg11
    meter = LatencyMeter(graph, DeviceProfile.read(written(graph, tmp_path)))
    limits = Constraints(limits={"features.0": [20, 30]})
    target = Target(graph, Budget.parse("latency=1/2@x"), limits, {"latency_ms": meter})
    before = np.where(graph.free, np.maximum(graph.sizes // 3 - 1, target.floor), graph.sizes)
    before = target.allowed.down(before)
    after = closer(target, before)
    assert (after >= before).all()
    assert (after > before).any()
    assert meter(after) <= meter(before)
    assert target.allowed.hold(after)


@pytest.mark.parametrize(("mode", "key"), [("la", "latency"), ("ea", "energy")])
def test_modes_of_a_device_go_by_its_shares(mode: str, key: str, vgg11: Net, tmp_path: Path) -> None:
    model, graph = vgg11
    file = written(graph, tmp_path)
    config = PruneConfig(recipe="complexity", mode=mode)  # type: ignore[arg-type]
    by_budget = decide(model, graph, IMAGES, Budget.parse(f"{key}=1/2@{file}"), config)
    named = config.model_copy(update={"profile": str(file)})
    by_setting = decide(model, graph, IMAGES, Budget.parse("macs=1/2"), named)
    for decision in (by_budget, by_setting):
        assert decision.plan.origin["mode"] == mode
        assert any("% of the " + key in why for why in decision.why.values())
    with pytest.raises(ConfigError, match=f"the mode '{mode}' needs the profile of a device: set prune.profile=FILE"):
        decide(model, graph, IMAGES, Budget.parse("macs=1/2"), config)


def test_what_cannot_be_met_or_predicted_is_refused(vgg11: Net, tmp_path: Path) -> None:
    model, graph = vgg11
    file = written(graph, tmp_path)
    with pytest.raises(
        BudgetError, match=r"latency=1us@.* asks for at most 0.001 ms of .* ms; the closest reachable is"
    ) as caught:
        decide(model, graph, IMAGES, Budget.parse(f"latency=1us@{file}"), PruneConfig())
    assert caught.value.closest["latency_ms"] > 0.001
    resnet = zoo.load("resnet20")
    other = trace(resnet, torch.zeros(1, 3, 32, 32))
    with pytest.raises(ModelError, match=r"'.*toy device\.json' has no times of"):
        decide(resnet, other, IMAGES, Budget.parse(f"latency=1/2@{file}"), PruneConfig())


def test_a_build_refuses_a_wrong_profile_before_anything_else(vgg11: Net, tmp_path: Path) -> None:
    _, graph = vgg11
    file = written(graph, tmp_path)
    good = BuildConfig(budgets=(f"latency=1/2@{file}",))
    assert list(check_request(good)) == ["dense", "latency-1-2"]
    with pytest.raises(FileError, match="there is no device profile"):
        check_request(BuildConfig(budgets=("latency=1/2@nowhere.json",)))
    data = json.loads(file.read_text())
    data["device"]["engine"] = "openvino"
    file.write_text(json.dumps(data))
    with pytest.raises(FileError, match="was measured with openvino"):
        check_request(good)


def test_one_latency_on_two_devices_is_refused_instead_of_lost() -> None:
    with pytest.raises(ConfigError, match=r"latency=5ms@a\.json and latency=5ms@b\.json would both be called"):
        check_request(BuildConfig(budgets=("latency=5ms@a.json", "latency=5ms@b.json")))


def test_a_variant_s_name_leaves_the_device_out() -> None:
    assert variant_name(Budget.parse("latency=5ms@/some/pi 4.json,params=1/4")) == "latency-5ms-params-1-4"


@pytest.mark.parametrize("budget", ["latency=50%", "faster=2x"])
def test_the_profile_is_of_the_engine_that_will_run_the_models(vgg11: Net, budget: str, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.json" for name in ("onnxruntime", "openvino")}
    for name, file in files.items():
        data = json.loads(written(vgg11[1], tmp_path).read_text())
        data["device"]["engine"] = name
        file.write_text(json.dumps(data))
    for name, other in (("onnxruntime", "openvino"), ("openvino", "onnxruntime")):
        config = PruneConfig(recipe="uniform", engine=name)
        assert decide(*vgg11, IMAGES, Budget.parse(f"{budget}@{files[name]}"), config).cost.macs
        with pytest.raises(FileError, match=f"was measured with {other} 1; the models will run in {name}"):
            decide(*vgg11, IMAGES, Budget.parse(f"{budget}@{files[other]}"), config)
