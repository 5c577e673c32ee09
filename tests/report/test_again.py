"""A report after other figures were measured: rewritten whole, or left as it was with the reason told."""

import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from prunit.edge.portfolio import Portfolio
from prunit.report import rewrite_report, write_report
from tests.report.portfolios import HISTORY, dense, latency, portfolio, variant

COST = {"params": 9, "macs": 99}
TRIALS = [
    {"variant": "a", "budget": "params=1/4", "recipe": "uniform", "cost": COST, "accuracies": [(1, 0.5)], "out": ""},
    {"variant": "a", "budget": "params=1/4", "recipe": "global", "cost": {}, "accuracies": [], "out": "out of reach"},
]
EPOCHS = [HISTORY[0], replace(HISTORY[1], test_accuracy=None), replace(HISTORY[1], index=3)]


def measured(ms: float) -> Portfolio:
    return portfolio(dense(latencies=(latency(4 * ms),)), variant("a", cost=10, latencies=(latency(ms),)))


def folder_of(parent: Path, *, trials: bool = False) -> Path:
    """The folder of a build with its report, its trainings, and, after a sweep, its trials beside it."""
    folder = parent / "portfolio"
    for name in ("dense", "a"):
        state = folder / ".build" / name
        state.mkdir(parents=True)
        (state / "history.json").write_text(json.dumps([{**asdict(epoch), "epochs": 2} for epoch in EPOCHS]))
    if trials:
        (parent / "trials.json").write_text(json.dumps({"asked": {}, "trials": TRIALS}))
    write_report(measured(1), folder, histories={"dense": EPOCHS, "a": EPOCHS}, trials=TRIALS if trials else ())
    return folder


@pytest.mark.parametrize("trials", [False, True])
def test_a_rewritten_report_is_the_one_that_a_build_would_write(tmp_path: Path, trials: bool) -> None:
    folder, other = folder_of(tmp_path / "one", trials=trials), tmp_path / "other"
    assert rewrite_report(measured(3), folder) == ""
    other.mkdir()
    whole = {"histories": {"dense": EPOCHS, "a": EPOCHS}, "trials": TRIALS if trials else ()}
    write_report(measured(3), other, **whole)  # pyright: ignore[reportArgumentType]
    assert (folder / "report.html").read_bytes() == (other / "report.html").read_bytes()
    assert ("What was tried" in re.sub("<script.*", "", (folder / "report.html").read_text("utf-8"))) is trials


def test_trials_that_lie_beside_a_build_are_not_its_own(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (tmp_path / "trials.json").write_text(json.dumps({"asked": {}, "trials": TRIALS}))
    assert rewrite_report(measured(3), folder) == ""
    assert "<h2>What was tried</h2>" not in (folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("lost", "content", "reason"),
    [
        (".build/a/history.json", None, "does not hold how 'a' was trained (.build/a/history.json)"),
        (".build/a/history.json", "[{}]", "does not hold how 'a' was trained"),
        (".build/dense/history.json", "no json", "does not hold how 'dense' was trained"),
        ("../trials.json", None, "what the sweep tried (trials.json) does not lie beside the folder"),
        ("../trials.json", '{"trials": [{"cost": {"params": 9}}]}', "what the sweep tried"),
        ("../trials.json", "[]", "what the sweep tried (trials.json) does not lie beside the folder"),
    ],
)
def test_what_would_be_lost_keeps_the_report_as_it_is(
    tmp_path: Path, lost: str, content: str | None, reason: str
) -> None:
    folder = folder_of(tmp_path, trials=True)
    before = (folder / "report.html").read_bytes()
    if content is None:
        (folder / lost).unlink()
    else:
        (folder / lost).write_text(content)
    said = rewrite_report(measured(3), folder)
    assert said is not None
    assert reason in said
    assert (folder / "report.html").read_bytes() == before


def test_without_plotly_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path)
    before = (folder / "report.html").read_bytes()
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    said = rewrite_report(measured(3), folder)
    assert said is not None
    assert "plotly" in said
    assert "pip install 'prunit[train]'" in said
    assert (folder / "report.html").read_bytes() == before


def test_where_there_is_no_report_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert rewrite_report(measured(1), tmp_path) is None
    assert list(tmp_path.iterdir()) == []
