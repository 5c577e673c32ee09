"""The loop that asks a policy and switches, without and with a device's sensors."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from prunit.edge.switching.policy import Conditions, Fixed, Queue, Saver, options_of
from prunit.edge.switching.sensors import Readings
from prunit.edge.switching.steering import Load, Steering, reason
from prunit.edge.switching.switch import Switcher
from prunit.errors import ConfigError, UnknownNameError
from tests.edge.folders import portfolio_in


@pytest.fixture
def switcher(tmp_path: Path) -> Iterator[Switcher]:
    portfolio_in(tmp_path)
    with Switcher(tmp_path, start="large") as found:
        found.preload()
        yield found


def steered(switcher: Switcher, load: Load, **settings: object) -> Steering:
    policy = settings.pop("policy", Queue(dwell_s=0))
    return Steering(
        *(switcher, policy, options_of(switcher.portfolio), lambda: load),  # pyright: ignore[reportArgumentType]
        **{"target_ms": 20.0, "sensing": None, **settings},  # pyright: ignore[reportArgumentType]
    )


def test_a_queue_makes_it_switch_and_says_why(switcher: Switcher) -> None:
    steering = steered(switcher, Load(10, 10))
    steering.step()
    assert switcher.active == "small"
    assert switcher.events[-1].why.startswith("load: ")
    assert "10 waiting" in switcher.events[-1].why
    assert steering.switches == 1
    assert steering.conditions is not None
    assert steering.conditions.queue_length == 10


def test_a_pin_overrides_the_policy_until_it_is_taken_away(switcher: Switcher) -> None:
    steering = steered(switcher, Load(0, 0), policy=Fixed("large"))
    steering.pin("middle")
    steering.step()
    assert (switcher.active, switcher.events[-1].why) == ("middle", "pinned")
    steering.pin(None)
    steering.step()
    assert switcher.active == "large"
    with pytest.raises(UnknownNameError, match="did you mean 'small'"):
        steering.pin("smal")


def test_memory_and_battery_are_read_and_told(switcher: Switcher) -> None:
    """The variants take 4, 2 and 1 MB; what open ones hold counts as available."""
    steering = steered(switcher, Load(0, 0), sensing=lambda: Readings(memory_bytes=0, battery=None))
    steering.step()
    assert steering.conditions is not None
    assert steering.conditions.memory_bytes == 7_000_000
    steering = steered(switcher, Load(0, 0), sensing=lambda: Readings(memory_bytes=0), memory_bytes=2_500_000)
    steering.step()
    assert switcher.active == "middle"
    assert switcher.events[-1].why == "memory: 2 MB"
    low = steered(switcher, Load(0, 0), policy=Saver(Queue(dwell_s=0)), sensing=lambda: Readings(battery=0.05))
    low.step()
    assert switcher.active == "small"
    assert switcher.events[-1].why.startswith("battery: 5%")


def test_a_variant_that_was_put_aside_is_not_wanted_again(switcher: Switcher) -> None:
    switcher._put_aside("middle", "broken")
    steering = steered(switcher, Load(0, 0), policy=Fixed("middle"))
    steering.step()
    assert switcher.active == "large"
    steering.pinned = "middle"
    steering.step()
    assert (switcher.active, steering.errors) == ("large", [])


def test_what_is_learned_survives_other_options(switcher: Switcher) -> None:
    steering = steered(switcher, Load(0, 0))
    for _ in range(200):
        steering.observe("small", 3.0)
    steering.observe("unknown", 1000.0)
    steering.change_options(options_of(switcher.portfolio)[:2])
    assert steering.times.slowdown == pytest.approx(3.0, rel=0.01)


def test_it_asks_by_itself(switcher: Switcher) -> None:
    asked = threading.Event()
    steering = steered(switcher, Load(9, 9), step_s=0.01, on_step=asked.set)
    steering.start()
    assert asked.wait(10)
    steering.close()
    assert switcher.active == "small"
    with pytest.raises(ConfigError, match="must be more than 0"):
        steered(switcher, Load(0, 0), target_ms=0.0)


def test_reasons(switcher: Switcher) -> None:
    options = options_of(switcher.portfolio)
    now = Conditions(0.0, "middle", 9.0, 50.0, 2, 20.0, slowdown=1.5)
    assert reason(now, options, "small") == "load: 50 requests/s, 2 waiting, 1.5x slower than measured"
    assert reason(now, options, "large").startswith("relief: ")
    assert reason(replace(now, throttled=True), options, "small").startswith("heat: ")
    assert reason(replace(now, active="gone"), options, "small").startswith("relief: ")
