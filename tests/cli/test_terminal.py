"""What a terminal would obey (escape sequences in names, keys, errors) is shown instead; brackets stay as they are."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prunit import zoo
from prunit.cli import show
from prunit.cli.progress import Bars
from prunit.cli.safe import safe
from prunit.cli.watching import screen
from prunit.errors import harmless
from tests.cli.running import prunit

ESCAPE = "\x1b[31mred\x1b[0m\x1b]0;title\x07"
SHOWN = r"\x1b[31mred\x1b[0m\x1b]0;title\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ÷3.6 × ‖ µ 日本", "plain – ÷3.6 × ‖ µ 日本"),
        (ESCAPE, SHOWN),
        ("a\rb\x08c\x7f", r"a\rb\x08c\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        ("\udc80", r"\udc80"),
        ("3.6\N{NO-BREAK SPACE}KB", "3.6\N{NO-BREAK SPACE}KB"),
    ],
)
def test_what_a_terminal_obeys_is_written_out(text: str, shown: str) -> None:
    assert harmless(text) == shown
    assert harmless(shown) == shown


MISTAKES = [
    ("build", ESCAPE),
    ("build", "resnet20", "--budget", f"{ESCAPE}=1/2"),
    ("build", "resnet20", "--budget", f"params={ESCAPE}"),
    ("build", "resnet20", "--set", f"{ESCAPE}=1"),
    ("build", "resnet20", "--set", f"train.{ESCAPE}=1"),
    ("build", "resnet20", "--data", ESCAPE),
    ("inspect", f"no{ESCAPE}such"),
    ("shrink", "resnet20", f"{ESCAPE}.pt"),
    ("plan", "resnet20", "--recipe", ESCAPE),
    ("bench", ESCAPE),
    (f"--{ESCAPE}",),
]


@pytest.mark.parametrize("arguments", MISTAKES, ids=range(len(MISTAKES)))
def test_an_error_holds_no_control_characters(arguments: tuple[str, ...]) -> None:
    result = prunit(*arguments)
    assert result.code == 2
    assert "red" in result.complaint
    assert all(c.isprintable() or c == "\n" for c in result.err), result.err


def test_keys_of_a_checkpoint_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    state, other = (zoo.load("resnet20", seed=seed).state_dict() for seed in (0, 1))
    file = tmp_path / "c.pt"
    for held, code in (
        ({f"a{ESCAPE}": state, "[red]b[/]": other}, 2),
        ({f"stem{ESCAPE}.weight": torch.ones(3)}, 2),
        ({f"[bold]a{ESCAPE}": state}, 0),
    ):
        torch.save(held, file)
        result = prunit("shrink", "resnet20", file, "--out", tmp_path / "small.safetensors")
        assert result.code == code, result.err
        said = result.out + result.err
        assert SHOWN in said.replace("\n", "")
        assert "\x1b" not in said
        assert ("'[red]b[/]'" in said) == ("[red]b[/]" in held)
        assert ("[bold]a" in said) == (code == 0)


@pytest.mark.parametrize("text", ["[red]x[/]", "a[b]c", "[/]", "x [link=y]z", ESCAPE, "\\", "a[1]\\"])
def test_brackets_are_neither_lost_nor_obeyed_in_a_table(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    show.listing("name", {text: f"about {text}"})
    out = capsys.readouterr().out
    assert out.count(harmless(text)) >= 2, out
    assert "\x1b" not in out
    assert safe(text) == safe(harmless(text))


def test_bars_show_names_as_they_are() -> None:
    err = io.StringIO()
    with contextlib.redirect_stderr(err), Bars() as bars:
        bars.wait(f"reading [red]{ESCAPE}[/]")
        bars.tell(f"[b]{ESCAPE}", "train", 1, 2, ESCAPE)
    assert err.getvalue() == f"reading [red]{SHOWN}[/]\n[b]{SHOWN}: training\n"


def test_bars_in_a_terminal_obey_nothing_either() -> None:
    code = (
        "import sys; from prunit.cli.progress import Bars\n"
        "with Bars() as bars:\n"
        "    bars.wait(sys.argv[1]); bars.tell('[red]n[/]', 'train', 1, 2, sys.argv[1]); bars._progress.refresh()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, ESCAPE],
        capture_output=True,
        text=True,
        env={"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "160", "PYTHONPATH": ":".join(sys.path)},
        check=True,
    )
    assert "title\x07" not in run.stderr
    assert r"\x1b[31mred" in run.stderr
    assert "[red]n[/]: training" in run.stderr


def test_a_status_from_a_server_is_shown_and_not_obeyed() -> None:
    said = f"[red]{ESCAPE}[/]"
    status = {
        "model": said,
        "state": "ready",
        "workers": [1],
        "active": said,
        "pinned": None,
        "policy": said,
        "rate": 1.0,
        "p50_ms": None,
        "p99_ms": None,
        "in_time": None,
        "target_ms": 20,
        "waiting": 0,
        "queue": 9,
        "memory_bytes": 1,
        "celsius": None,
        "battery": None,
        "throttled": False,
        "slowdown": 1.0,
        "totals": dict.fromkeys(("answered", "late", "refused", "expired", "failed"), 0),
        "variants": [{"name": said, "accuracy": None, "latency_ms": None, "file_bytes": 1, "state": said}],
        "events": [{"at": 0, "kind": said, "variant": said, "why": said}],
    }
    console = show.console()
    with console.capture() as captured:
        console.print(screen(status))
    assert "\x1b" not in captured.get()
    assert captured.get().count("[red]") >= 6
