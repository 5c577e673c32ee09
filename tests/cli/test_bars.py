"""What is shown while a build runs: bars on a terminal, a line now and then in a log."""

import contextlib
import io

import pytest

from prunit.cli import progress
from prunit.cli.progress import Bars
from prunit.recipe import Step


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error of a process without a terminal."""
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)
    return io.StringIO()


def test_log_has_a_line_per_stage(log: io.StringIO) -> None:
    with contextlib.redirect_stderr(log), Bars() as bars:
        bars.wait("loading PyTorch")
        bars.wait("loading PyTorch")
        bars(Step("dense", "check", 0, 0))
        for done in range(3):
            bars(Step("a[b]", "prune", done, 3))
        bars(Step("a[b]", "train", 1, 3, left_s=4.0))
        bars.tell("x", "memory", 0, 2)
        bars.tell("y", "memory", 1, 2)
        bars.tell("all", "report", 0, 0)
    assert log.getvalue().splitlines() == [
        "loading PyTorch",
        "checking model and data",
        "a[b]: scoring",
        "a[b]: training",
        "measuring memory",
        "writing the report",
    ]


def test_log_says_every_half_minute_how_far_a_training_is(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(progress, "monotonic", lambda: now_s)
    with contextlib.redirect_stderr(log), Bars() as bars:
        for done in range(1, 6):
            bars(Step("dense", "train", done, 10, "61.0% at epoch 2/5", 0.1, 3700.0 - done))
            now_s += 20.0
    assert log.getvalue().splitlines() == [
        "dense: training",
        "dense: training 30%, 61.0% at epoch 2/5; about 1:01:37 left in all",
        "dense: training 50%, 61.0% at epoch 2/5; about 1:01:35 left in all",
    ]


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_shows_the_whole_build_above_the_stage(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    terminal = io.StringIO()
    with contextlib.redirect_stderr(terminal), Bars() as bars:
        bars.wait("reading [bold]photos")
        bars(Step("params-1-16[x]", "train", 30, 100, "61.0% at epoch 2/5 [y]", 0.25, 75.0))
        bars._progress.refresh()
    text = terminal.getvalue()
    frame = text[text.rindex("whole build") :]
    assert "reading [bold]photos" in text
    assert "params-1-16[x]: training" in frame
    assert "25%" in frame
    assert "30%" in frame
    assert "0:01:15 left" in frame
    assert ("61.0% at epoch 2/5 [y]" in frame) == (width >= 100)


def test_terminal_shows_no_share_and_no_time_where_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    terminal = io.StringIO()
    with contextlib.redirect_stderr(terminal), Bars() as bars:
        bars.tell("dense", "export", 0, 0)
        bars._progress.refresh()
    assert "dense: exporting" in terminal.getvalue()
    assert "%" not in terminal.getvalue()
    assert "left" not in terminal.getvalue()


def test_several_trainings_have_a_bar_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    terminal = io.StringIO()

    def shown() -> str:
        bars._progress.refresh()
        text = terminal.getvalue()
        return text[text.rindex("whole build") :]

    with contextlib.redirect_stderr(terminal), Bars() as bars:
        bars(Step("dense", "train", 30, 100, "", 0.25, 75.0, place=1))
        bars(Step("params-1-4", "train", 60, 100, "", 0.3, 70.0, place=2))
        both = shown()
        bars(Step("params-1-4", "export", 0, 0, "", 0.4, 60.0, place=2))
        exporting = shown()
        bars(Step("", "wait", 0, 0, place=2))
        waiting = shown()
        bars(Step("all", "probe", 1, 10, "", 0.9, 5.0))
        alone = shown()
    assert "dense: training" in both
    assert "params-1-4: training" in both
    assert "dense: training" in exporting
    assert "params-1-4: exporting" in exporting
    assert "params-1-4: training" not in exporting
    assert "dense: training" in waiting
    assert "params-1-4" not in waiting
    assert "measuring latency" in alone
    assert "dense" not in alone


def test_log_tells_of_each_training_in_a_line_of_its_own(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(progress, "monotonic", lambda: now_s)
    with contextlib.redirect_stderr(log), Bars() as bars:
        for done in range(1, 4):
            bars(Step("dense", "train", done, 10, "", 0.1, 90.0, place=1))
            bars(Step("params-1-4", "train", 2 * done, 10, "", 0.1, 90.0, place=2))
            now_s += 20.0
    assert log.getvalue().splitlines() == [
        "dense: training",
        "params-1-4: training",
        "dense: training 30%; about 0:01:30 left in all",
        "params-1-4: training 60%; about 0:01:30 left in all",
    ]
