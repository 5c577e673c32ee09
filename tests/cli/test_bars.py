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
