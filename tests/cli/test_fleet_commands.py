"""`--fleet` of plan and build, and what becomes of it: one build for devices of several speeds."""

import json
import shutil
from pathlib import Path

import pytest

from prunit.cut.plans import Plan
from prunit.edge.measuring.profile import DeviceProfile, LayerList
from prunit.edge.portfolio import Portfolio
from prunit.edge.served import FILE, Fleet
from prunit.prices.meters import LatencyMeter
from tests.cli.conftest import one_thread
from tests.cli.running import Result, prunit
from tests.edge.profiles import products, profile

SPEEDS = {"fast": 1.0, "mid": 2.5, "slow": 6.0}
"""So many times as slow as the first."""
OPTIONS = ("--data", "digits", "--subset", "100", "--epochs", "1", "--device", "cpu", "--train", "equal-epochs")
QUICK = ("--set", "probe.seconds=0.01", "--set", "prune.rounds=4", "--set", "train.batch_size=50")


def listed(goals: dict[str, str]) -> str:
    return "".join(f"[[device]]\nname = '{name}'\nbudget = '{goal}'\n" for name, goal in goals.items())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the profiles of devices that are one like the other, and slower."""
    folder = tmp_path_factory.mktemp("fleet")
    layers = folder / "layers.json"
    assert prunit("layers", "resnet20", "--input", "1x8x8", "--out", layers).code == 0
    shapes = LayerList.read(layers).layers
    (folder / "profiles").mkdir()
    for name, times in SPEEDS.items():
        there = profile(shapes, lambda shape, inputs, outputs, times=times: times * products(shape, inputs, outputs))
        there.write(folder / "profiles" / f"{name}.json")
    return folder


@pytest.fixture(scope="module")
def fleet(place: Path) -> tuple[str, ...]:
    """The options of a fleet of four: two goals that are alike, one that nothing meets, one that all meets."""
    goals = {"fast": "latency=85%", "mid": "latency=85%", "slow": "latency=0.1us", "large": "params=1M"}
    (place / "fleet.toml").write_text(listed(goals))
    return "--fleet", str(place / "fleet.toml"), "--profiles", str(place / "profiles")


@pytest.fixture(scope="module")
def built_for_fleet(place: Path, fleet: tuple[str, ...]) -> tuple[Path, Result]:
    """The folder of one build for that fleet, and what the command said."""
    folder = place / "portfolio"
    with one_thread():
        return folder, prunit("build", "resnet20", *OPTIONS, *QUICK, *fleet, "--out", folder)


def test_a_plan_shows_who_is_served_by_what_and_trains_nothing(
    place: Path, fleet: tuple[str, ...], tmp_path: Path
) -> None:
    found = prunit("plan", "resnet20", "--input", "1x8x8", "--set", "prune.rounds=4", *fleet, "--json")
    assert found.code == 1, found.err  # one device is left out
    told = {each["device"]: each for each in json.loads(found.out)["devices"]}
    assert {name: each["variant"] for name, each in told.items()} == {
        "fast": "fast",
        "mid": "fast",
        "slow": "",
        "large": "dense",
    }
    out = tmp_path / "plans"
    shown = prunit("plan", "resnet20", "--input", "1x8x8", "--set", "prune.rounds=4", *fleet, "--out", out)
    assert "2 variants serve 3 of 4 devices" in shown.out
    assert "slow is served by no variant: budget cannot be met" in shown.out
    assert sorted(path.name for path in out.iterdir()) == ["fast.plan.json", FILE]
    assert "latency=85%" in Plan.from_json((out / "fast.plan.json").read_text()).origin["budget"]


def test_a_plan_without_data_says_what_images_it_assumed(fleet: tuple[str, ...]) -> None:
    told = prunit("plan", "resnet20", *fleet).complaint
    assert "without --data images of 3x32x32 and 10 classes are assumed (--input, --classes; or name the data)" in told
    assert "fast.json' has no times of" in told
    one = prunit("plan", "resnet20", "--budget", f"latency=1/2@{Path(fleet[-1]) / 'fast.json'}").complaint
    assert "without --data images of 3x32x32" in one


def test_one_build_serves_all_and_says_so_everywhere(built_for_fleet: tuple[Path, Result]) -> None:
    folder, result = built_for_fleet
    assert result.code == 1, result.err
    assert "no variant for device 'slow': budget cannot be met" in result.err
    assert (result.err + result.out).count("budget cannot be met") == 1
    assert "2 variants for 3 devices: fast for fast, mid; dense for large" in result.err
    portfolio, found = Portfolio.read(folder), Fleet.read(folder)
    assert found is not None
    assert [variant.name for variant in portfolio.variants] == ["dense", "fast"]
    assert found.variants == ("fast", "dense")
    report = (folder / "report.html").read_text()
    for text in ("A fleet", "of its own plan", "slow is served by no variant"):
        assert text in report
    inspected = prunit("inspect", folder)
    assert inspected.code == 0, inspected.err
    assert "2 variants serve 3 of 4 devices" in inspected.out
    assert json.loads(prunit("inspect", folder, "--json").out)["fleet"] == found.model_dump(mode="json")


def test_predictions_in_it_are_those_of_the_profiles(place: Path, built_for_fleet: tuple[Path, Result]) -> None:
    import torch

    from prunit import zoo
    from prunit.graph import trace
    from prunit.prices.costs import width_array

    folder, _ = built_for_fleet
    graph = trace(zoo.load("resnet20", num_classes=10, in_channels=1, image_size=8), torch.zeros(1, 1, 8, 8))
    widths = width_array(graph, Plan.from_json((folder / "fast.plan.json").read_text()).widths)
    found = Fleet.read(folder)
    assert found is not None
    for name in ("fast", "mid"):
        meter = LatencyMeter(graph, DeviceProfile.read(place / "profiles" / f"{name}.json"))
        assert found.device(name).figures["latency_ms"] == pytest.approx(meter(widths))
        assert meter(widths) <= 0.85 * meter(graph.sizes)


def test_a_device_is_given_its_variants(built_for_fleet: tuple[Path, Result], tmp_path: Path) -> None:
    folder, to = built_for_fleet[0], tmp_path / "mid"
    result = prunit("install", folder, to, "--device", "mid")
    assert result.code == 0, result.err
    assert "for mid: fast" in result.out
    assert "1 of 1 variants installed" in result.out
    assert [variant.name for variant in Portfolio.read(to).variants] == ["fast"]
    assert prunit("inspect", to).code == 0
    assert "fast: installing" in result.err
    again = prunit("install", folder, to, "--device", "mid", "--json")
    assert list(json.loads(again.out)["variants"]) == ["fast"]
    assert "1 of 1 variants installed" in prunit("install", to, "--device", "mid").out
    refused = prunit("install", folder, "--device", "large", "--cache", tmp_path / "cache").complaint
    assert f"prunit install {folder} DIR --device large" in refused
    assert not (tmp_path / "cache").exists()
    brought = prunit("install", f"file://{folder}", tmp_path / "brought", "--device", "large")
    assert "for large: dense" in brought.out, brought.err
    assert [variant.name for variant in Portfolio.read(tmp_path / "brought").variants] == ["dense"]
    assert "no variant of" in prunit("install", folder, "--device", "slow").complaint
    assert "did you mean 'mid'" in prunit("install", folder, "--device", "mit").complaint
    assert "is not empty" in prunit("install", folder, to).complaint


def test_a_build_that_was_stopped_goes_on_with_what_it_had_found(
    built_for_fleet: tuple[Path, Result], fleet: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "portfolio"
    shutil.copytree(built_for_fleet[0], folder)
    for name in ("portfolio.json", "fast.onnx", ".build/fast/history.json"):
        (folder / name).unlink()
    command = ("build", "resnet20", *OPTIONS, *QUICK, *fleet, "--out", folder, "--resume")
    result = prunit(*command)
    assert result.code == 1, result.err
    assert "scoring" not in result.err
    assert (result.err + result.out).count("budget cannot be met") == 1
    assert Portfolio.read(folder).verify(folder) == []
    for name in ("fast.safetensors", "fast.plan.json", FILE):
        assert (folder / name).read_bytes() == (built_for_fleet[0] / name).read_bytes()
    # Stopped before it had said who is served by what: it finds the same again.
    for name in ("portfolio.json", FILE):
        (folder / name).unlink()
    assert prunit(*command).code == 1
    assert (folder / FILE).read_bytes() == (built_for_fleet[0] / FILE).read_bytes()
    assert "was started with fleet.slack=0.1" in prunit(*command, "--slack", "0.2").complaint


def test_what_is_said_of_the_fleet_may_be_damaged(built_for_fleet: tuple[Path, Result], tmp_path: Path) -> None:
    folder = tmp_path / "portfolio"
    shutil.copytree(built_for_fleet[0], folder)
    (folder / FILE).write_text("{}")
    assert "does not say which variants serve which devices" in prunit("inspect", folder).complaint
    assert "does not say which variants serve which devices" in prunit("install", folder, "--device", "mid").complaint
    assert prunit("install", folder, "--cache", tmp_path / "cache").code == 0
