"""How long variants are trained: by a rule, or within a time."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from prunit.errors import ConfigError
from prunit.recipe import effort
from prunit.recipe.effort import Effort, Pacer, ratios, stretched
from prunit.train import Epoch
from prunit.units import seconds_of


@pytest.mark.parametrize(
    ("ratio", "steps"), [(0.4, 1), (1.1, 1), (1.2, 1.25), (1.9, 2), (2.2, 2), (2.3, 2.5), (4.4, 4), (6.7, 7)]
)
def test_ratios_go_in_steps_and_never_below_one(ratio: float, steps: float) -> None:
    assert stretched(ratio) == steps


def test_rules() -> None:
    macs, step_s = {"dense": 100, "small": 10, "tiny": 1}, {"dense": 0.3, "small": 0.1, "tiny": 0.08}
    assert ratios("equal-epochs", macs, {}) == {"dense": 1, "small": 1, "tiny": 1}
    assert ratios("equal-macs", macs, {}) == {"dense": 1, "small": effort.MOST, "tiny": effort.MOST}
    assert ratios("equal-time", macs, step_s) == {"dense": 1, "small": 3, "tiny": 4}


def test_epochs_follow_from_the_dense_models() -> None:
    assert Effort({"dense": 1, "a": 1.25, "b": 3}).epochs(3) == {"dense": 3, "a": 4, "b": 9}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """What lets time pass; it stands still else."""
    now = [1000.0]
    monkeypatch.setattr(effort, "perf_counter", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def epochs(number: int, seconds: float) -> list[Epoch]:
    return [Epoch(i, number, 1.0, 0.5, 0.5, 0.1, seconds) for i in range(1, number + 1)]


def pacer(file: Path, limit_s: float | None = 100.0, began: float = 1000.0) -> Pacer:
    found = Effort({"dense": 1, "small": 2}, {"dense": 2.0, "small": 1.0})
    return Pacer(file, found, dense=5, limit_s=limit_s, probe_s=4.0, started=began)


def test_a_rule_says_the_same_again(tmp_path: Path, clock: Callable[[float], None]) -> None:
    first = pacer(tmp_path / "effort.json", limit_s=None)
    assert (first.epochs("dense"), first.epochs("small")) == (5, 10)
    assert "dense 5 epochs, small 10 epochs: about 20s" in first.told()
    kept = Pacer.kept(tmp_path / "effort.json")
    assert kept == first.effort
    again = Pacer(tmp_path / "effort.json", kept, dense=7, limit_s=None, probe_s=0, started=1000.0)
    assert again.epochs("small") == 10


def test_a_time_is_shared_out_and_what_is_left_again(tmp_path: Path, clock: Callable[[float], None]) -> None:
    # 100 s less 4 for the probe and 4 for each export, and 3 % for what nobody foresees: 85.4 s, 4 s for each 1 + 2.
    first = pacer(tmp_path / "effort.json")
    assert first.planned() == {"dense": 21, "small": 42}
    clock(60.0)  # of which half was lost before the training began
    assert first.epochs("dense") == 6
    clock(24.0)
    first.trained("dense", epochs(6, 4.0))  # twice as long as timed
    assert not first.over
    assert first.epochs("small") == int(0.97 * (100 - 84 - 4 - 4) / 2)
    clock(100.0)
    assert pacer(tmp_path / "effort.json").epochs("small") == 3, "what was said holds, and one epoch would be the least"
    first.trained("small", epochs(3, 1.0))
    assert first.over


def test_slow_trainings_make_later_ones_shorter(tmp_path: Path, clock: Callable[[float], None]) -> None:
    first = pacer(tmp_path / "effort.json", limit_s=1000.0)
    assert first.epochs("dense") == 239
    clock(600.0)
    first.trained("dense", epochs(239, 600 / 239))
    left_s = 0.97 * (400 - 4 - 4)
    assert first.epochs("small") == int(left_s / (600 / 478))


def test_the_time_of_earlier_runs_counts(tmp_path: Path, clock: Callable[[float], None]) -> None:
    first = pacer(tmp_path / "effort.json", limit_s=1000.0)
    clock(300.0)
    first.epochs("dense")
    assert json.loads((tmp_path / "effort.json").read_text())["spent_s"] == pytest.approx(300)
    later = pacer(tmp_path / "effort.json", limit_s=1000.0, began=1300.0)
    assert later.planned()["small"] == int(0.97 * (1000 - 300 - 4 - 4) / 1.0)


def test_a_time_too_short_for_one_epoch_each_is_refused(tmp_path: Path, clock: Callable[[float], None]) -> None:
    with pytest.raises(ConfigError, match=r"time=14s is too short: one epoch of each of 2 models takes 4s") as told:
        pacer(tmp_path / "effort.json", limit_s=14.0).planned()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1h30m", 5400), ("2 hours", 7200), ("10min", 600), ("45sec", 45)],
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "", "-5m", "half an hour", "3x", "0s", "5m30"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError, match="duration"):
        seconds_of(text)
