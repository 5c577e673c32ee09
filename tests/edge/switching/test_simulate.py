"""Traces, the simulation of a queue, and the same for real."""

import bz2
import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from prunit.edge.switching.link import Link
from prunit.edge.switching.policy import Conditions, Fixed, Option, Queue
from prunit.edge.switching.replay import replay
from prunit.edge.switching.simulate import Service, Simulation, departures, services_of
from prunit.edge.switching.switch import Switcher
from prunit.edge.switching.traces import arrivals_of, bandwidth_of, rates_of
from prunit.errors import ConfigError, FileError
from tests.edge.folders import portfolio_in

OPTIONS = (Option("large", 0.9, 10.0, energy=10.0), Option("small", 0.6, 1.0, energy=1.0))
EXACT = {"large": Service(10.0, 10.0, 10.0), "small": Service(1.0, 1.0, 1.0)}


def one_by_one(arrivals: np.ndarray, took: np.ndarray, free_s: float) -> np.ndarray:
    """The queue as it is written in words."""
    found = []
    for arrival, seconds in zip(arrivals, took, strict=True):
        free_s = max(arrival, free_s) + seconds
        found.append(free_s)
    return np.array(found)


def test_departures_are_those_of_a_queue() -> None:
    rng = np.random.default_rng(0)
    for free_s in (0.0, 3.0):
        arrivals, took = np.sort(rng.random(500) * 10), rng.random(500) * 0.04
        np.testing.assert_allclose(departures(arrivals, took, free_s), one_by_one(arrivals, took, free_s))
    assert len(departures(np.empty(0), np.empty(0), 1.0)) == 0


def test_one_variant_in_steps_is_one_long_queue() -> None:
    arrivals = arrivals_of(np.full(60, 95.0))
    found = Simulation(OPTIONS, EXACT, target_ms=30.0).run(Fixed("large"), arrivals)
    latency_ms = 1000 * (one_by_one(arrivals, np.full(len(arrivals), 0.010), 0.0) - arrivals)
    assert found.requests == len(arrivals)
    assert found.in_time == pytest.approx(float((latency_ms <= 30).mean()))
    assert found.p99_ms == pytest.approx(float(np.percentile(latency_ms, 99)))
    assert (found.accuracy, found.switches, found.energy) == (pytest.approx(0.9), 0, 10.0)
    assert found.delivered == pytest.approx(0.9 * found.in_time)


def test_an_overload_takes_no_longer_to_compute_than_its_answers() -> None:
    arrivals = arrivals_of(np.full(200, 400.0))
    found = Simulation(OPTIONS, EXACT, target_ms=30.0).run(Fixed("large"), arrivals)
    assert found.in_time < 0.02
    assert found.p50_ms > 100_000


def test_a_policy_delivers_more_than_any_single_variant_and_no_more_than_the_oracle() -> None:
    """Quiet and busy minutes take turns: the large variant is late in these, the small one wastes the others."""
    rates = np.tile(np.repeat([20.0, 300.0], 30), 10)
    arrivals, simulation = arrivals_of(rates), Simulation(OPTIONS, EXACT, target_ms=50.0)
    queue, large, small = (simulation.run(p, arrivals) for p in (Queue(), Fixed("large"), Fixed("small")))
    best = simulation.oracle(arrivals)
    assert max(large.delivered, small.delivered) < queue.delivered < best.delivered
    assert queue.in_time > 0.97
    assert queue.by_variant["large"] > 0.04
    assert queue.switches < 60


def test_what_is_learned_of_slower_answers_keeps_them_in_time() -> None:
    rates = np.full(120, 50.0)
    arrivals = arrivals_of(rates)

    def slowdown(now_s: float) -> float:
        return 3.0 if now_s > 30 else 1.0

    found = [
        Simulation(OPTIONS, EXACT, target_ms=50.0, slowdown=slowdown, learn=learn).run(Queue(dwell_s=0), arrivals)
        for learn in (True, False)
    ]
    assert found[0].in_time > 0.97 > found[1].in_time


def test_opening_a_variant_takes_its_time() -> None:
    def up(conditions: Conditions, options: object) -> str:
        return "small" if conditions.now_s >= 1 else "large"

    arrivals = np.arange(0, 4, 0.1) + 0.01
    for open_ms, share in ((0.0, 10 / 40), (1000.0, 20 / 40)):
        found = Simulation(OPTIONS, EXACT, target_ms=50.0, open_ms=open_ms).run(up, arrivals)
        assert found.by_variant["large"] == pytest.approx(share, abs=0.03)
        assert found.switches == 1


def test_a_link_carries_one_request_after_the_other() -> None:
    link = Link([80.0, 8.0, 0.0], 1000)  # 8 kbit each: 0.1 s in the first second, 1 s in the second, never in the third
    found = link.arrivals(np.array([0.0, 0.0, 0.5, 0.95, 2.5]))
    # The fourth has 4 kbit carried until second 1, the rest takes 0.5 s; the fifth waits until the link is back.
    np.testing.assert_allclose(found, [0.1, 0.2, 0.6, 1.5, 3.1], atol=1e-4)
    assert len(link.arrivals(np.empty(0))) == 0
    assert [link.kbps_at(s) for s in (0.5, 1.5, 4.2)] == [80.0, 8.0, 8.0]
    for kbps, size in (([], 10), ([0.0], 10), ([5.0], 0)):
        with pytest.raises(ConfigError):
            Link(kbps, size)


def test_a_slow_link_leaves_less_of_the_target() -> None:
    """The link takes 20 of 35 ms, later hardly any: only then is there time for the large variant and its queue."""
    rates = np.full(60, 20.0)
    link = Link([*[400.0] * 30, *[40_000.0] * 30], 1000)
    simulation = Simulation(OPTIONS, EXACT, target_ms=35.0, link=link)
    sent = arrivals_of(rates)
    queue, large = simulation.run(Queue(), sent), simulation.run(Fixed("large"), sent)
    assert queue.p50_ms < large.p50_ms
    assert large.in_time < queue.in_time
    assert 0.2 < queue.by_variant["large"] < 0.6
    latency_ms = 1000 * (link.arrivals(sent) - sent)
    assert large.p50_ms >= float(np.percentile(latency_ms, 50)) + 10
    assert simulation.oracle(sent).delivered >= queue.delivered


def test_a_replay_over_a_link_counts_from_the_sending(tmp_path: Path) -> None:
    portfolio_in(tmp_path)
    sent = np.arange(0, 0.5, 0.1)
    with Switcher(tmp_path) as switcher:
        options = [Option(v.name, v.metrics.accuracy or 0, 1.0) for v in switcher.portfolio.variants]
        found = replay(switcher, Fixed("small"), sent, options, target_ms=60_000.0, link=Link([160.0], 1000))
    assert found.lost == 0
    assert found.outcome.p50_ms >= 50  # 8 kbit at 160 kbit/s


def test_a_replay_is_what_the_simulation_says(tmp_path: Path) -> None:
    portfolio_in(tmp_path)
    arrivals = arrivals_of(np.full(2, 60.0))
    with Switcher(tmp_path) as switcher:
        switcher.preload()
        options = [
            Option(v.name, v.metrics.accuracy or 0, 0.05, energy=v.metrics.macs) for v in switcher.portfolio.variants
        ]

        def turns(conditions: Conditions, options: object) -> str:
            return ("large", "small")[int(conditions.now_s / 0.5) % 2]

        found = replay(switcher, turns, arrivals, options, target_ms=60_000.0, step_s=0.1)
    assert found.lost == 0
    assert found.switch_errors == ()
    assert found.outcome.requests == len(arrivals)
    assert found.outcome.in_time == 1.0
    assert found.outcome.switches >= 2
    services = {o.name: Service(0.05, 0.05, 0.05) for o in options}
    simulated = Simulation(options, services, target_ms=1000.0, step_s=0.1).run(turns, arrivals)
    assert found.outcome.by_variant["large"] == pytest.approx(simulated.by_variant["large"], abs=0.25)


def test_bandwidths_are_read_from_what_people_have(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("100\n200\n")
    (tmp_path / "seconds.csv").write_text("trace,second,kbps\na,0,5\na,1,7\n")
    (tmp_path / "pieces.csv").write_text("duration_ms,bandwidth_kbps\n500,100\n1000,300\n700,50\n")
    assert bandwidth_of(tmp_path / "plain.txt").tolist() == [100, 200]
    assert bandwidth_of(tmp_path / "seconds.csv").tolist() == [5, 7]
    np.testing.assert_allclose(bandwidth_of(tmp_path / "pieces.csv"), [200, 175])
    (tmp_path / "no.csv").write_text("a,b\n1,2\n")
    (tmp_path / "minus.txt").write_text("-1\n")
    for name, complaint in (("no.csv", "is no trace of a bandwidth"), ("minus.txt", "negative"), ("x", "there is no")):
        with pytest.raises(FileError, match=complaint):
            bandwidth_of(tmp_path / name)


def test_rates_are_read_from_what_people_have(tmp_path: Path) -> None:
    plain = "3\n0\n5\n"
    stamps = "app,end_timestamp,duration\na,100.5,1\nb,100.9,1\nc,103.0,1\n"
    dates = "TIMESTAMP,Tokens\n2023-11-16 18:17:03.9799600,1\n2023-11-16 18:17:04.0319600,1\n2023-11-16 18:17:05.5,1\n"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:bz2") as tar:
        info = tarfile.TarInfo("workload.txt")
        info.size = len(plain)
        tar.addfile(info, io.BytesIO(plain.encode()))
    files: dict[str, tuple[bytes, list[float]]] = {
        "plain.txt": (plain.encode(), [3, 0, 5]),
        "one-line.txt": (b"3 0 5", [3, 0, 5]),
        "rates.csv": (b"second,rps\n0,3\n1,0\n2,5\n", [3, 0, 5]),
        "stamps.csv": (stamps.encode(), [2, 0, 1]),
        "dates.csv": (dates.encode(), [2, 1]),
        "packed.gz": (gzip.compress(plain.encode()), [3, 0, 5]),
        "packed.bz2": (bz2.compress(plain.encode()), [3, 0, 5]),
        "packed.tbz2": (archive.getvalue(), [3, 0, 5]),
    }
    for name, (content, expected) in files.items():
        (tmp_path / name).write_bytes(content)
        assert rates_of(tmp_path / name).tolist() == expected, name
    for content, message in (
        (b"", "is empty"),
        (b"three\n", "is no trace"),
        (b"a,b\n1,2\n", "its columns are a, b"),
        (b"3\n-1\n", "negative or not finite"),
        (b"\x1f\x8bno", "cannot read the trace"),
    ):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(FileError, match=message):
            rates_of(tmp_path / "bad")
    with pytest.raises(FileError, match="there is no trace"):
        rates_of(tmp_path / "none")


def test_arrivals_keep_the_rate() -> None:
    arrivals = arrivals_of(np.array([10.0, 0.0, 0.5] * 1000), seed=1)
    assert len(arrivals) == pytest.approx(10_500, rel=0.02)
    assert (np.diff(arrivals) >= 0).all()
    counts = np.bincount(arrivals.astype(int), minlength=3000)
    assert (counts[::3] == 10).all()
    assert not counts[1::3].any()


def test_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no request"):
        Simulation(OPTIONS, EXACT, target_ms=50.0).run(Fixed(), np.empty(0))
    with pytest.raises(ConfigError, match="must be more than 0"):
        Simulation(OPTIONS, EXACT, target_ms=0.0)
    portfolio = portfolio_in(tmp_path)
    assert services_of(portfolio)["large"].p50_ms == 8.0
