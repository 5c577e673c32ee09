"""Policies: always a variant that exists, and the right one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunit.edge.switching.policy import (
    POLICIES,
    Accurate,
    Conditions,
    Delivered,
    Fixed,
    Option,
    Queue,
    Saver,
    Schedule,
    ServiceTimes,
    late_share,
    options_of,
    policy,
)
from prunit.edge.switching.simulate import departures
from prunit.errors import ConfigError, UnknownNameError
from tests.edge.folders import portfolio_in

OPTIONS = (
    Option("large", 0.9, 10.0, memory_bytes=100, energy=100.0),
    Option("middle", 0.8, 4.0, memory_bytes=40, energy=40.0),
    Option("small", 0.6, 1.0, memory_bytes=10, energy=10.0),
)
QUIET = Conditions(now_s=0, active="large", active_for_s=60, arrival_rate=1, queue_length=0, target_ms=50)
NAMED = {"fixed": Fixed("small"), "schedule": Schedule(((8, "small"), (20, "large")))}


@given(
    st.sampled_from(sorted(POLICIES)),
    st.floats(0, 1e4),
    st.integers(0, 10_000),
    st.floats(0.1, 1e3),
    st.one_of(st.none(), st.integers(0, 200)),
    st.one_of(st.none(), st.floats(0, 1)),
    st.booleans(),
    st.sampled_from([o.name for o in OPTIONS]),
)
def test_every_policy_names_a_variant_that_exists(
    name: str, rate: float, queue: int, target: float, memory: int | None, battery: float | None, hot: bool, active: str
) -> None:
    conditions = Conditions(rate, active, rate, rate, queue, target, memory, battery, hot)
    chosen = NAMED.get(name) or policy(name)
    assert chosen(conditions, OPTIONS) in {o.name for o in OPTIONS}
    assert chosen(conditions, OPTIONS) == chosen(conditions, OPTIONS)


@pytest.mark.parametrize("chosen", [Accurate(), Queue()])
def test_more_requests_need_a_faster_variant(chosen: Accurate | Queue) -> None:
    found = [chosen(replace(QUIET, arrival_rate=rate), OPTIONS) for rate in (1, 120, 600, 5000)]
    assert found == ["large", "middle", "small", "small"]
    tight = [chosen(replace(QUIET, target_ms=target), OPTIONS) for target in (50, 8, 2, 0.5)]
    assert tight == ["large", "middle", "small", "small"]
    assert chosen(replace(QUIET, memory_bytes=50), OPTIONS) == "middle"
    assert chosen(replace(QUIET, memory_bytes=5), OPTIONS) == "small"
    assert chosen(replace(QUIET, slowdown=6.0), OPTIONS) == "middle"


def test_a_queue_is_drained_and_no_sooner_left_than_it_holds() -> None:
    chosen = Queue(dwell_s=2.0)
    assert chosen(replace(QUIET, queue_length=20), OPTIONS) == "small"
    assert Accurate()(replace(QUIET, queue_length=20), OPTIONS) == "large"
    small = replace(QUIET, active="small")
    assert chosen(replace(small, active_for_s=1.0), OPTIONS) == "small"
    assert chosen(replace(small, active_for_s=2.0), OPTIONS) == "large"
    assert chosen(replace(QUIET, queue_length=20, active_for_s=0.1), OPTIONS) == "small"  # down at once
    # Up only with something to spare: what is just enough to stay is not enough to go there.
    rate = next(r for r in range(1, 200) if late_share(r, 10.0, 50) > 0.005)
    assert chosen(replace(QUIET, arrival_rate=rate), OPTIONS) == "large"
    assert chosen(replace(small, arrival_rate=rate), OPTIONS) == "middle"


def test_what_is_delivered_counts_late_answers_and_poor_ones() -> None:
    chosen = Delivered()
    # 2 % of the large one's answers are late: less than the middle one's lower accuracy costs.
    rate = next(r for r in range(1, 100) if late_share(r, 10.0, 50) > 0.02)
    conditions = replace(QUIET, arrival_rate=rate)
    assert chosen(conditions, OPTIONS) == "large"
    assert Accurate()(conditions, OPTIONS) == "middle"
    assert [chosen(replace(QUIET, arrival_rate=r), OPTIONS) for r in (120, 600, 5000)] == ["middle", "small", "small"]
    assert chosen(replace(QUIET, queue_length=20), OPTIONS) == "small"
    assert chosen(replace(QUIET, queue_length=90, arrival_rate=250), OPTIONS) == "small"
    assert chosen(replace(QUIET, active="small", active_for_s=1.0), OPTIONS) == "small"
    assert chosen(replace(QUIET, active="small"), OPTIONS) == "large"
    assert chosen(replace(QUIET, memory_bytes=50), OPTIONS) == "middle"


def test_an_emptier_battery_allows_cheaper_variants() -> None:
    chosen = Saver()
    found = [chosen(replace(QUIET, battery=b), OPTIONS) for b in (None, 0.9, 0.25, 0.1, 0.0)]
    assert found == ["large", "large", "middle", "small", "small"]
    assert chosen(replace(QUIET, throttled=True), OPTIONS) == "middle"
    assert chosen(replace(QUIET, battery=0.9, queue_length=20), OPTIONS) == "small"


def test_a_schedule_goes_by_the_hour() -> None:
    chosen = Schedule(((8.0, "small"), (20.0, "large")))
    found = [chosen(replace(QUIET, now_s=3600 * hour), OPTIONS) for hour in (0, 7.9, 8, 19, 20, 26, 33)]
    assert found == ["large", "large", "small", "small", "large", "large", "small"]


def test_policies_are_read_from_texts() -> None:
    assert policy("queue:dwell_s=5,late=0.05") == Queue(late=0.05, dwell_s=5)
    assert policy("saver:dwell_s=5") == Saver(Queue(dwell_s=5))
    assert policy("fixed:small") == Fixed("small")
    assert policy("schedule:20=large, 8=small") == Schedule(((8.0, "small"), (20.0, "large")))
    assert Fixed()(QUIET, OPTIONS) == "large"
    for text, error, message in (
        ("quue", UnknownNameError, "unknown policy 'quue'; did you mean 'queue'"),
        ("queue:dwell=5", ConfigError, "unexpected keyword"),
        ("queue:dwell_s=long", ConfigError, "settings are numbers"),
        ("schedule:", ConfigError, "give hours and variants"),
        ("schedule:eight=small", ConfigError, "settings are numbers"),
    ):
        with pytest.raises(error, match=message):
            policy(text)
    with pytest.raises(UnknownNameError, match="did you mean 'small'"):
        Fixed("smal")(QUIET, OPTIONS)


@pytest.mark.parametrize("busy", [0.1, 0.3, 0.5, 0.7, 0.85])
def test_the_share_of_late_answers_is_that_of_a_queue(busy: float) -> None:
    """Against a long simulated queue; the estimate is one for long waits."""
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(0.010 / busy, 400_000))
    waits_ms = 1000 * (departures(arrivals, np.full(len(arrivals), 0.010), 0.0) - arrivals)
    target = float(np.percentile(waits_ms, 98))
    assert late_share(100 * busy, 10.0, target) == pytest.approx(0.02, rel=0.3)
    assert late_share(101, 10.0, 1e6) == 1
    assert late_share(1, 10.0, 9.0) == 1
    assert late_share(999.9999999999999, 1.0, 50.0) == 1
    assert late_share(99.999, 10.0, 50.0) == pytest.approx(1, abs=1e-3)
    assert late_share(0, 10.0, 20.0) == 0


def test_slower_answers_are_learned() -> None:
    times = ServiceTimes({"large": 10.0, "small": 1.0}, weight=0.1)
    for _ in range(100):
        times.observe("small", 2.0)
    assert times.slowdown == pytest.approx(2.0, rel=1e-3)
    times.observe("large", 20.0)
    assert times.slowdown == pytest.approx(2.0, rel=1e-3)


def test_options_come_from_the_manifest(tmp_path: Path) -> None:
    portfolio = portfolio_in(tmp_path)
    found = options_of(portfolio)
    assert [o.name for o in found] == ["large", "middle", "small"]
    assert (found[0].service_ms, found[0].accuracy, found[0].energy) == (8.0, 0.9, 4000.0)
    metrics = portfolio.variants[0].metrics.model_copy(update={"latencies": ()})
    bare = portfolio.model_copy(update={"variants": (portfolio.variants[0].model_copy(update={"metrics": metrics}),)})
    with pytest.raises(ConfigError, match="variant 'large' has no latency in the manifest: run prunit bench"):
        options_of(bare)
