"""A list of devices as goals of a build, or one line that says what is wrong with it."""

from pathlib import Path

import pytest

from prunit.errors import ConfigError, FileError, UnknownNameError
from prunit.recipe.config import validated
from prunit.recipe.fleets.goals import as_written, budgets_of, goals_of
from prunit.recipe.ladders import ladder
from prunit.recipe.request import check_request, one_budget
from prunit.recipe.sweeps import sweep
from tests.edge.measuring.test_fleet import LAYERS, listed
from tests.edge.profiles import profile

TWO = """
[[device]]
name = "pi"
host = "pi@kitchen.local"
budget = "latency=8ms, weights=500KB"

[[device]]
name = "attic"
like = "pi"
budget = "faster=2x"

[[device]]
name = "watch"
budget = "params=1/8"
"""


def profiles(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        profile(LAYERS.layers).write(folder / f"{name}.json")
    return folder


def test_limits_of_time_get_the_devices_profile_and_counts_none(tmp_path: Path) -> None:
    place = profiles(tmp_path / "profiles", "pi")
    goals = goals_of(listed(tmp_path, TWO), place)
    assert goals == {
        "pi": f"latency=8ms@{place}/pi.json,weights=500KB",
        "attic": f"faster=2x@{place}/pi.json",
        "watch": "params=1/8",
    }
    assert as_written(goals) == {"pi": "latency=8ms,weights=500KB", "attic": "faster=2x", "watch": "params=1/8"}
    budgets = check_request(validated({"fleet": {"goals": goals}}))
    assert list(budgets) == ["dense", "pi", "attic", "watch"]


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("[[device]]\nname = 'pi'", ConfigError, "says no goal for pi: give each device"),
        (
            "[[device]]\nname = 'pi'\nbudget = 'ms=8'",
            UnknownNameError,
            "budget ms=8: unknown budget key 'ms': write lat",
        ),
        ("[[device]]\nname = 'pi'\nbudget = 'latency=8'", ConfigError, "say in what unit"),
        ("[[device]]\nname = 'pi'\nbudget = 'latency=8ms@x'", ConfigError, "leave out '@…'"),
        (
            "[[device]]\nname = 'pi'\nbudget = 'cycles=1M'",
            ConfigError,
            "cycles is told by the tools of a microcontroller",
        ),
        (
            "[[device]]\nname = 'pi'\nbudget = 'cycles=250k@ethos-u55-128'",
            ConfigError,
            "cycles is told by the tools of a microcontroller",
        ),
        ("[[device]]\nname = 'new'\nbudget = 'energy=1mJ'", FileError, "there is no profile '.*new.json'"),
        ("[[device]]\nname = 'pi'\nbudget = 'latency=1ms'\nthreads = 2", ConfigError, "threads = 1, the list says 2"),
        (
            "[[device]]\nname = 'a'\nlike = 'b'\nbudget = 'macs=1/2'",
            ConfigError,
            "'a' is like 'b', which is not in the list: like names a device with a profile of its own",
        ),
        (
            TWO + "[[device]]\nname = 'x'\nlike = 'attic'",
            ConfigError,
            "'attic', which is itself like 'pi': .* are pi, watch",
        ),
        (TWO.replace('"watch"', '"Pi"'), ConfigError, "devices 'pi' and 'Pi', whose names differ in case"),
    ],
)
def test_a_list_without_good_goals_is_refused_in_one_line(
    tmp_path: Path, text: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        goals_of(listed(tmp_path, text), profiles(tmp_path / "profiles", "pi"))
    assert "\n" not in str(caught.value)


def test_the_example_is_a_good_list(tmp_path: Path) -> None:
    place = tmp_path / "profiles"
    place.mkdir()
    for name, threads in (("pi", 4), ("camera", 1)):
        profile(LAYERS.layers).model_copy(update={"threads": threads}).write(place / f"{name}.json")
    goals = goals_of(Path(__file__).parents[3] / "examples" / "fleet.toml", place)
    assert as_written(goals) == {
        "pi": "latency=8ms,weights=500KB",
        "pi-on-battery": "faster=3x",
        "camera": "latency=20ms,ram=256KB",
    }
    assert list(budgets_of(validated({"fleet": {"goals": goals}}))) == list(goals)


def test_what_is_no_profile_is_refused(tmp_path: Path) -> None:
    place = profiles(tmp_path / "profiles")
    (place / "pi.json").write_text("{}")
    with pytest.raises(FileError, match="is not a device profile"):
        goals_of(listed(tmp_path, TWO), place)
    with pytest.raises(ConfigError, match="commas part the limits"):
        goals_of(listed(tmp_path, TWO), tmp_path / "a,b")
    with pytest.raises(ConfigError, match=r"--profiles '.*pi\.json' is a file: name the folder"):
        goals_of(listed(tmp_path, TWO), place / "pi.json")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"budgets": ["macs=1/2"]}, "leave --budget out, or --fleet"),
        ({"by_variant": {"a": {"recipe": "uniform"}}}, "by_variant and a fleet"),
        ({"fleet": {"goals": {"Dense": "macs=1/2"}}}, "so is the model that is not pruned"),
        ({"fleet": {"goals": {"../a": "macs=1/2"}}}, "device '../a': write its name with letters"),
        ({"fleet": {"goals": {"a": "macs=1/2", "A": "macs=1/3"}}}, "'a' and 'A' would both have a variant 'A'"),
        (
            {"fleet": {"goals": {"a-int8": "macs=1/2", "a": "macs=1/3"}}, "precision": {"wanted": "int8"}},
            "'a-int8' and 'a' would both have a variant 'a-int8'",
        ),
        ({"fleet": {"goals": {"a": "latency=1ms"}}}, "latency=1ms needs its profile: write latency=1ms@FILE"),
        ({"fleet": {"goals": {"a": "arena=1KB@tflm"}}}, "is told by the tools of a microcontroller"),
        ({"fleet": {"goals": {"a": "macs"}}}, "device 'a': budget 'macs' is not KEY=LIMIT"),
    ],
)
def test_settings_that_do_not_go_with_a_fleet_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        budgets_of(validated({"fleet": {"goals": {"a": "macs=1/2"}}} | settings))


def test_only_builds_and_plans_serve_a_fleet(tmp_path: Path) -> None:
    config = validated({"fleet": {"goals": {"a": "macs=1/2"}}})
    with pytest.raises(ConfigError, match="not for a sweep"):
        sweep("resnet20", "digits", tmp_path / "out", config=config)
    with pytest.raises(ConfigError, match="not for a ladder"):
        ladder("resnet20", "digits", tmp_path / "out", config=config)
    with pytest.raises(ConfigError, match="not for a plan of one variant"):
        one_budget(config)
