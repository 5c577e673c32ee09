"""`prunit bench --engines`: what it prints, what it stores, and what goes by it afterwards."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from prunit.edge.install import place_of
from prunit.edge.measuring import engines as measuring
from prunit.edge.measuring.probe import OnRun, ProbeSettings
from prunit.edge.portfolio import Portfolio
from prunit.edge.precision import Lowered
from prunit.edge.routing import ROUTES, read
from prunit.edge.session import Session
from tests.cli.running import prunit
from tests.edge.engines import Other, only, routes_in
from tests.edge.folders import portfolio_in, variant_in

TIMES = {
    ("onnxruntime", "large"): 4.0,
    ("other", "large"): 2.0,
    ("onnxruntime", "small"): 1.0,
    ("other", "small"): 1.0,
    ("onnxruntime", "large-int8"): 3.0,
    ("other", "large-int8"): 1.5,
    ("onnxruntime", "poor"): 3.0,
    ("other", "poor"): 2.5,
}
"""Milliseconds at batch 1."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "portfolio"
    found = portfolio_in(folder, {"large": 4.0, "small": 1.0})
    few = variant_in(folder, "large-int8", 4.0)
    metrics = few.metrics.model_copy(update={"accuracy": 0.89})
    few = few.model_copy(update={"precision": "int8", "lowered": Lowered(twin="large"), "metrics": metrics})
    found.adding(few, variant_in(folder, "poor", 2.0)).write(folder)
    absent = Other("absent")
    absent.gone = True
    only(monkeypatch, Other(), absent)

    def turns(
        sessions: Mapping[str, Session], shapes: object, settings: ProbeSettings, *, on_run: OnRun
    ) -> dict[int, dict[str, list[int]]]:
        on_run(1, 1)
        took = {key: int(1e6 * TIMES[(parts := key.split("\0"))[0], parts[1]]) for key in sessions}
        return {batch: {key: [took[key] * batch] * 50 for key in sessions} for batch in settings.batches}

    monkeypatch.setattr(measuring, "turns", turns)
    monkeypatch.setattr(measuring, "peak_memory", lambda *_, **__: 1_000_000)
    return folder


def test_a_table_of_engines_and_nothing_stored(folder: Path) -> None:
    before = (folder / "portfolio.json").read_bytes()
    result = prunit("bench", folder, "--engines", "all", "--batch", 8)
    assert result.code == 0, result.err
    lines = [line.split() for line in result.out.splitlines()]
    assert "large fp32 other 2.00 16.0 2.0× faster chosen".split() in lines
    assert "onnxruntime 4.00 32.0 1×".split() in lines
    # Two that take as long: the default one stays.
    small = next(line for line in lines if line[:1] == ["small"])
    assert "onnxruntime" in small
    (few,) = (line for line in lines if line[:1] == ["large-int8"])
    assert few[1:4] == ["int8", "other", "1.50"]
    assert "2.7×" in few  # than large in ONNX Runtime
    # What is not better than another one in anything is one line with a word.
    (poor,) = (line for line in lines if line[:1] == ["poor"])
    assert " ".join(poor).endswith("not better than large")
    assert "not in absent: the runtime 'absent' needs the package 'absent': pip install 'prunit[absent]'" in result.out
    assert f"nothing is stored; prunit bench {folder} --engines" in result.out
    assert (folder / "portfolio.json").read_bytes() == before
    assert not (place_of(folder) / ROUTES).exists()


def test_what_is_saved_is_what_this_device_goes_by(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "trace.txt").write_text("20\n" * 2)
    result = prunit("bench", folder, "--engines", "onnxruntime,other", "--save")
    assert result.code == 0, result.err
    assert f"go by it: {place_of(folder) / ROUTES}" in result.out
    routes, problem = read(place_of(folder))
    assert problem == ""
    assert routes is not None
    chosen = {route.variant: route.engine for route in routes.variants}
    assert chosen == {"large": "other", "small": "onnxruntime", "large-int8": "other", "poor": "other"}
    # The manifest keeps the default engine's.
    assert [v.metrics.latency_ms() for v in Portfolio.read(folder).variants] == [4.0, 1.0, 3.0, 3.0]
    result = prunit("install", folder)
    assert "1 of 1 variants installed for onnxruntime\n3 of 3 variants installed for other" in result.out
    found = json.loads(prunit("install", folder, "--json").out)
    assert set(found["variants"]) == {"small"}
    assert [set(each["variants"]) for each in found["others"]] == [{"large", "large-int8", "poor"}]
    # A policy counts with 2 ms instead of 4.
    arguments = ("simulate", folder, "--trace", tmp_path / "trace.txt", "--policy", "fixed:large", "--json")
    assert json.loads(prunit(*arguments).out)["fixed:large"]["p50_ms"] == pytest.approx(2, rel=0.2)
    forced = json.loads(prunit(*arguments, "--engine", "onnxruntime").out)
    assert forced["fixed:large"]["p50_ms"] == pytest.approx(4, rel=0.2)
    # Measured in one engine later, it says what is gone by.
    result = prunit("bench", folder, "--seconds", "0.1", "--save")
    assert result.code == 0
    assert "this device goes on by what was measured in several engines" in result.err


def test_it_may_lie_elsewhere_and_be_read_by_programs(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    result = prunit("bench", folder, "--engines", "other", "--save", "--cache", cache, "--json")
    found = json.loads(result.out)
    assert found["saved"] == str(cache / ROUTES)
    assert found["dominated"] == {"poor": "large"}
    assert [route["engine"] for route in found["variants"]] == ["other", "onnxruntime", "other", "other"]
    assert not place_of(folder).exists()
    assert "installed for other" in prunit("install", folder, "--cache", cache).out
    assert "4 of 4 variants installed for onnxruntime" in prunit("install", folder).out


def test_install_says_what_does_not_fit(folder: Path) -> None:
    routes_in(folder, {"large": "other", "small": "onnxruntime"})
    result = prunit("install", folder)
    assert "note: not measured in the engines of this device, or of another file: large-int8, poor" in result.out
    portfolio = Portfolio.read(folder)
    portfolio.adding(portfolio.variant("poor").model_copy(update={"engine": "absent"})).write(folder)
    result = prunit("install", folder)
    assert result.code == 0
    assert "0 of 1 variants installed for absent" in result.out
    assert "poor stays as it is: the runtime 'absent' needs the package" in result.out


def test_a_simulation_says_which_routes_it_does_not_go_by(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "trace.txt").write_text("20\n" * 2)
    routes_in(folder, {"large": "other"})
    result = prunit("simulate", folder, "--trace", tmp_path / "trace.txt", "--json")
    assert "note: not measured in the engines of this device, or of another file: small, large-int8, poor" in result.err
    assert json.loads(result.out)  # which a note does not spoil
    (place_of(folder) / ROUTES).write_text("{")
    assert "holds no routes" in prunit("simulate", folder, "--trace", tmp_path / "trace.txt").err


def test_what_is_bound_to_an_engine_that_is_not_here_does_not_stop_a_bench(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    portfolio = Portfolio.read(folder)
    portfolio.adding(portfolio.variant("poor").model_copy(update={"engine": "absent"})).write(folder)
    result = prunit("bench", folder, "--seconds", "0.1")
    assert result.code == 0, result.err
    assert "not measured: poor: the runtime 'absent' needs the package 'absent'" in caplog.text
    assert "large-int8" in result.out


def test_inspect_says_what_a_variant_of_fewer_bits_was_made_of(folder: Path) -> None:
    out = " ".join(prunit("inspect", folder).out.split())
    assert "large-int8 “large” in int8: " in out
    assert "“poor” in" not in out


def test_wrong_engines(folder: Path) -> None:
    for arguments, message in (
        (("bench", folder, "--engines", "othr"), "unknown engine 'othr'; did you mean 'other'"),
        (("bench", folder, "--cache", folder), "--cache is where the choices of --engines are kept"),
        (("install", folder, "--engine", "othr"), "unknown runtime 'othr'; did you mean 'other'"),
        (("install", folder, "--engine", "absent"), "pip install 'prunit[absent]'"),
        (("serve", folder, "--engine", "othr"), "unknown runtime 'othr'; did you mean 'other'"),
    ):
        result = prunit(*arguments)
        assert result.code == 2
        assert message in result.complaint
