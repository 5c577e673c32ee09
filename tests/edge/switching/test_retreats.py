"""Near the capacity of a variant: what was too slow for a load is not tried again and again while it lasts."""

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from prunit.edge.switching.policy import Conditions, Option, Queue
from prunit.edge.switching.retreats import Retreats
from prunit.edge.switching.steering import Load, Steering
from prunit.edge.switching.wishes import Wish

OPTIONS = [Option("large", 0.9, 4.0), Option("middle", 0.8, 2.0), Option("small", 0.7, 1.0)]


def test_a_retreat_lasts_longer_each_time_and_ends_with_the_load() -> None:
    mine, now = Retreats(), 0.0
    assert not mine.hold_back(4.0, now)
    for wait_s in (8.0, 24.0, 72.0, 180.0, 180.0):
        mine.gave_up(4.0, 200.0, now)
        assert mine.hold_back(4.0, now + wait_s - 0.1)
        assert mine.hold_back(5.0, now + 1.0)  # slower ones as well
        assert not mine.hold_back(2.0, now + 1.0)
        now += wait_s
        assert not mine.hold_back(4.0, now)
    now += 400.0
    mine.gave_up(4.0, 200.0, now)
    assert not mine.hold_back(4.0, now + 8.0)  # long ago: it begins anew
    mine.gave_up(4.0, 200.0, now)
    for _ in range(40):  # ten seconds
        mine.arrived(100.0, 0.25)
    assert not mine.hold_back(4.0, now)


class Modelled:
    """Steps of a quarter of a second: random arrivals, a queue, and answers that take longer than the engine's time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rate: float, around_ms: float) -> None:
        self.now, self.active, self.failed = 0.0, "large", dict[str, str]()
        self.rate, self.around_ms = rate, around_ms
        self.arrived, self.waiting, self.late, self.switched = 0, 0.0, 0, list[tuple[float, str]]()
        monkeypatch.setattr("prunit.edge.switching.steering.time.perf_counter", lambda: self.now)
        self.rng = random.Random(0)
        told = lambda: Load(self.arrived, round(self.waiting))  # noqa: E731
        self.steering = Steering(cast("Any", self), Queue(), OPTIONS, told, target_ms=50.0, sensing=None)
        self.residents, self.portfolio = (), SimpleNamespace(variants=())

    def switch(self, name: str, *, why: str = "") -> Wish:
        self.active = name
        self.switched.append((self.now, name))
        wish = Wish(name, 0)
        wish.end(ms=0.0)
        return wish

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            self.now += 0.25
            come = round(self.rng.gauss(self.rate / 4, (self.rate / 4) ** 0.5))
            service_ms = next(o.service_ms for o in OPTIONS if o.name == self.active) + self.around_ms
            self.arrived += come
            self.waiting = max(self.waiting + come - 250 / service_ms, 0.0)
            self.late += come * (self.waiting * service_ms > 50)
            self.steering.step()


def test_at_a_steady_load_just_above_what_a_variant_can_answer_it_hardly_switches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the engine's time alone `large` holds 250 requests a second, with what is around it 200."""
    with monkeypatch.context() as patched:
        patched.setattr(Retreats, "hold_back", lambda self, service_ms, now_s: False)
        without = Modelled(patched, rate=205.0, around_ms=1.0)
        without.run(600)
    model = Modelled(monkeypatch, rate=205.0, around_ms=1.0)
    model.run(600)
    assert len(without.switched) > 120
    assert without.late > 0.02 * without.arrived
    assert len([at for at, _ in model.switched if at <= 60]) <= 5
    assert len([at for at, _ in model.switched if at > 60]) <= 9  # of nine minutes
    assert model.late <= 0.01 * model.arrived


def test_a_burst_costs_accuracy_no_longer_than_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Modelled(monkeypatch, rate=50.0, around_ms=0.5)
    model.run(30)
    assert model.active == "large"
    for _ in range(3):
        model.rate = 400.0
        model.run(5)
        assert model.active != "large"
        model.rate = 50.0
        model.run(20)
        assert model.active == "large"


def test_what_is_around_an_answer_counts() -> None:
    """On one core it takes turns with the engine; beside it the slower of both sets the pace."""
    now = Conditions(0.0, "large", 60.0, 150.0, 0, 50.0)
    choose = Queue()
    assert choose(now, OPTIONS) == "large"
    assert choose(replace(now, around_ms=3.0), OPTIONS) == "large"
    assert choose(replace(now, around_ms=3.0, alongside=False), OPTIONS) == "middle"
    assert (
        choose(replace(now, around_ms=6.5), OPTIONS) == choose(replace(now, arrival_rate=160.0), OPTIONS[2:]) == "small"
    )
