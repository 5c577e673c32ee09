"""`prunit bench` without `--engines`: each variant in the engine that it is made for, as far as that is here."""

import logging
from pathlib import Path

import pytest

from prunit.edge.measuring import measure as measuring
from prunit.edge.measuring.measure import measure
from prunit.edge.measuring.probe import ProbeSettings
from prunit.edge.portfolio import Portfolio
from prunit.errors import MissingExtraError
from tests.edge.engines import Other, add, latency
from tests.edge.folders import portfolio_in

SETTINGS = ProbeSettings(batches=(1,), seconds=0, min_runs=1, max_runs=1)


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Other:
    found = Other(precisions=("bf16",))
    add(monkeypatch, found)
    monkeypatch.setattr(measuring, "peak_memory", lambda *_, **__: 1_000_000)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a variant that any engine runs, and one that the other engine alone does, with figures of another device."""
    found = portfolio_in(tmp_path, {"free": 1.0, "bound": 2.0})
    first, bound = found.variants
    metrics = bound.metrics.model_copy(update={"latencies": (latency(7.0),), "peak_memory_bytes": 77})
    bound = bound.model_copy(update={"engine": "other", "precision": "bf16", "metrics": metrics})
    found.model_copy(update={"variants": (first, bound)}).write(tmp_path)
    return tmp_path


def test_each_in_its_engine(folder: Path, other: Other) -> None:
    found = measure(Portfolio.read(folder), folder, SETTINGS)
    assert other.opened == ["bound"]
    assert all(v.metrics.latencies for v in found.variants)


def test_without_its_engine_a_variant_has_no_figures_and_the_others_have(
    folder: Path, other: Other, caplog: pytest.LogCaptureFixture
) -> None:
    other.gone = True
    with caplog.at_level(logging.WARNING):
        found = measure(Portfolio.read(folder), folder, SETTINGS)
    free, bound = found.variants
    assert free.metrics.latencies
    assert free.metrics.peak_memory_bytes == 1_000_000
    assert bound.metrics.latencies == ()  # what it took elsewhere is not what it takes here
    assert bound.metrics.peak_memory_bytes is None
    assert [r.getMessage() for r in caplog.records] == [
        "not measured: bound: the runtime 'other' needs the package 'other': pip install 'prunit[other]'"
    ]


def test_where_no_engine_is_here_it_is_said_what_is_missing(folder: Path, other: Other) -> None:
    other.gone = True
    found = Portfolio.read(folder)
    alone = found.model_copy(update={"variants": (found.variant("bound"),)})
    with pytest.raises(MissingExtraError, match=r"pip install 'prunit\[other\]'"):
        measure(alone, folder, SETTINGS)
