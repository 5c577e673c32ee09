"""Every variant in every engine: what is measured, what cannot run, and what comes of it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from prunit.edge.measuring import engines as measuring
from prunit.edge.measuring.engines import measure_engines
from prunit.edge.measuring.probe import OnRun, ProbeSettings
from prunit.edge.portfolio import Portfolio
from prunit.edge.precision import Lowered
from prunit.edge.session import Array, Session
from tests.edge.engines import Other, add
from tests.edge.folders import portfolio_in, variant_in

SETTINGS = ProbeSettings(batches=(1, 4), min_runs=30, max_runs=30, seconds=0.01, warm_up=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = portfolio_in(tmp_path, {"large": 4.0, "small": 1.0})
    few = variant_in(tmp_path, "small-int8", 1.0)
    few = few.model_copy(update={"precision": "int8", "lowered": Lowered(twin="small")})
    own = variant_in(tmp_path, "own", 2.0).model_copy(update={"precision": "bf16", "engine": "halves"})
    found.adding(few, own).write(tmp_path)
    return tmp_path


def timed(monkeypatch: pytest.MonkeyPatch, other: int) -> None:
    """Rounds take what is said here, in ns, in the other engine; 1000 in the default one."""

    def turns(
        sessions: Mapping[str, Session], shapes: object, settings: ProbeSettings, *, on_run: OnRun
    ) -> dict[int, dict[str, list[int]]]:
        on_run(len(sessions), len(sessions))
        took = {key: other if key.startswith("other") else 1000 for key in sessions}
        return {batch: {key: [took[key] * batch] * settings.min_runs for key in sessions} for batch in settings.batches}

    monkeypatch.setattr(measuring, "turns", turns)


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Other:
    found = Other()
    timed(monkeypatch, other=2000)
    # A process for each pair takes long, and knows none of these engines.
    monkeypatch.setattr(measuring, "peak_memory", lambda *_, **__: 1234)
    add(monkeypatch, found)
    return found


def test_each_variant_is_measured_in_each_engine_that_may_run_it(
    folder: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = Other("halves", ("bf16",))
    absent = Other("absent")
    absent.gone = True
    add(monkeypatch, halves, absent)
    other.refuses = {"large"}
    portfolio = Portfolio.read(folder)
    told: list[tuple[str, str, int, int]] = []
    found, routes = measure_engines(
        *(portfolio, folder, SETTINGS, ("onnxruntime", "other", "halves", "absent")),
        tell=lambda *each: told.append(each),
    )
    by_name = {route.variant: route for route in routes.variants}
    assert set(routes.engines) == {"onnxruntime", "other", "halves"}
    assert {name: [m.engine for m in route.measured] for name, route in by_name.items()} == {
        "large": ["onnxruntime", "other", "absent"],
        "small": ["onnxruntime", "other", "absent"],
        "small-int8": ["onnxruntime", "other", "absent"],
        "own": ["halves"],
    }
    default, slow, gone = by_name["small"].measured
    assert [latency.batch for latency in default.latencies] == [1, 4]
    assert default.times_faster is None
    assert default.self_test is not None
    assert slow.times_faster == 0.5
    assert slow.peak_memory_bytes == 1234
    assert "pip install 'prunit[absent]'" in gone.why_not
    assert "no operator 'Conv'" in by_name["large"].measured[1].why_not
    assert {name: route.engine for name, route in by_name.items()} == {
        "large": "onnxruntime",
        "small": "onnxruntime",
        "small-int8": "onnxruntime",
        "own": "halves",
    }
    # The manifest has the default engine's figures, of a variant of one engine alone that one's.
    assert found.variant("small").metrics.latencies == default.latencies
    assert found.variant("own").metrics.latencies == by_name["own"].measured[0].latencies
    assert found.device is not None
    assert found.device.engine == "onnxruntime"
    assert told[-1][:2] == ("all", "probe")
    assert all(done <= total for *_, done, total in told)


def test_the_faster_engine_is_chosen(folder: Path, other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, other=500)
    _, routes = measure_engines(Portfolio.read(folder), folder, SETTINGS, ("onnxruntime", "other"))
    assert [route.engine for route in routes.variants] == ["other", "other", "other", ""]
    (why,) = routes.variants[3].measured
    assert why.why_not.startswith("unknown runtime 'halves'")


def test_what_gives_another_output_is_no_route(folder: Path, other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Other("onnxruntime")
    slow.wait_s, other.wait_s = 0.002, 0.0
    other.act = lambda session, x_BCHW: session.run(x_BCHW) + 1
    add(monkeypatch, slow)
    _, routes = measure_engines(Portfolio.read(folder), folder, SETTINGS, ("onnxruntime", "other"))
    assert [route.engine for route in routes.variants][:3] == ["onnxruntime"] * 3
    assert all("failed its self-test" in route.measured[1].why_not for route in routes.variants[:3])


def test_an_engine_that_breaks_while_it_is_asked_for_its_version(
    folder: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other, "version", lambda: 1 / 0)
    _, routes = measure_engines(Portfolio.read(folder), folder, SETTINGS, ("onnxruntime", "other"))
    assert "ZeroDivisionError" in routes.variants[0].measured[1].why_not


def test_where_memory_is_short_those_of_the_same_widths_are_open_together(folder: Path, other: Other) -> None:
    open_now, most = set[str](), 0
    closed = Other.open

    def counting(path: Path, *, threads: int = 1) -> Session:
        nonlocal most
        session = closed(other, path, threads=threads)
        open_now.add(path.stem)
        most = max(most, len(open_now))

        class Counted:
            def run(self, x_BCHW: Array, /) -> Array:
                return session.run(x_BCHW)

            def close(self) -> None:
                open_now.discard(path.stem)
                session.close()

        return Counted()

    other.open = counting  # type: ignore[method-assign]
    portfolio = Portfolio.read(folder).without("own")
    _, routes = measure_engines(portfolio, folder, SETTINGS, ("onnxruntime", "other"), memory_bytes=0)
    assert most == 2  # small and its twin of fewer bits
    for route in routes.variants:
        first, second = route.measured
        assert first.latencies[0].n == second.latencies[0].n == 30
        assert second.times_faster is not None
