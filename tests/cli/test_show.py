"""Tables on terminals of several widths: nothing is cut off, nothing from outside is taken for markup."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from prunit.allocate import Budget
from prunit.cli import show
from prunit.edge.comparing.verdicts import KINDS, told, verdicts
from prunit.edge.portfolio import Portfolio, Variant
from prunit.graph import trace
from prunit.recipe import decide
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import example_batch
from tests.cli.running import Result
from tests.report.portfolios import mixed


@pytest.fixture
def found(built: tuple[Path, Result]) -> Portfolio:
    return Portfolio.read(built[0])


def renamed(variant: Variant, name: str) -> Variant:
    return variant.model_copy(update={"name": name})


def on_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> contextlib.redirect_stdout[io.StringIO]:
    """Standard output as a terminal of that width that keeps what it was given."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    return contextlib.redirect_stdout(io.StringIO())


def plain(text: str) -> str:
    """Without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("name", ["params-1-16", "params-1-16-macs-20m-weights-500kb"])
def test_summary_fits_the_terminal_whole(
    found: Portfolio, monkeypatch: pytest.MonkeyPatch, width: int, name: str
) -> None:
    dense, small = found.variants
    portfolio = found.model_copy(update={"model": "resnet20", "variants": (dense, renamed(small, name))})
    with on_terminal(monkeypatch, width) as out:
        show.portfolio(portfolio, Path("short"))
    lines = plain(out.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    table = "\n".join(lines[1 : next(i for i, line in enumerate(lines) if "measured on" in line)])
    assert "…" not in table
    for figure in ("accuracy", "params", "macs", "peak", f"{100 * (small.metrics.accuracy or 0):.1f} %", " pts"):
        assert figure in table
    # A name that is too long goes on below itself; at 100 columns and more it need not.
    first_cells = "".join(line.split()[0] for line in lines if line.strip() and not line.strip().startswith("–"))
    assert name in first_cells
    if width >= 120 or len(name) < 20:
        assert name in table


def test_factors_say_how_many_times_less(found: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    dense, small = found.variants
    ratio = dense.metrics.params / small.metrics.params
    for width, text in ((120, f"{ratio:.1f}× less"), (60, f"÷{ratio:.1f}")):
        with on_terminal(monkeypatch, width) as out:
            show.portfolio(found, Path("x"))
        assert text in plain(out.getvalue())


@pytest.mark.parametrize("width", [80, 120])
def test_verdicts_stand_below_the_headline(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    with on_terminal(monkeypatch, width) as out:
        show.portfolio(mixed(), Path("x"), built=False)
    lines = plain(out.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    headline = text.index("no measurable difference (95 % interval −1.7 to +0.7 points")
    for kind, sentence in told(verdicts(mixed())):
        assert headline < text.index(f"{KINDS[kind]}: {sentence[:20]}") < text.index("measured on Test CPU")


def test_json_says_what_the_terminal_says() -> None:
    found = show.portfolio_json(mixed(), Path("x"))
    assert [v["kind"] for v in found["verdicts"]] == ["slower", "chance", "beaten", "noisy"]
    assert "no measurable difference (95 % interval" in found["headline"]
    assert set(found["differences"]) == {"good", "slow", "lost", "beaten", "busy"}
    assert found["differences"]["good"]["measurable"] is False
    assert json.loads(json.dumps(found, allow_nan=False))["differences"]["lost"]["measurable"] is True


def test_names_are_shown_as_they_are(found: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    dense, small = found.variants
    odd = found.model_copy(
        update={
            "model": "my[red]nets/net.py:build[0]",
            "data": "[/]photos:smile:",
            "variants": (dense, renamed(small, "[bold]w[/bold]")),
        }
    )
    with on_terminal(monkeypatch, 200) as out:
        show.portfolio(odd, Path("a[b]c"))
    text = plain(out.getvalue())
    for name in ("my[red]nets/net.py:build[0] on [/]photos:smile:", "[bold]w[/bold]", "a[b]c/report.html"):
        assert name in text


def test_paths_are_not_broken_over_lines(found: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("/long") / ("x" * 90)
    with on_terminal(monkeypatch, 80) as out:
        show.portfolio(found, folder)
    assert f"portfolio {folder / 'portfolio.json'}\n" in plain(out.getvalue())


def test_portfolio_without_variants_or_measurements(found: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    _, small = found.variants
    bare = small.model_copy(
        update={
            "metrics": small.metrics.model_copy(update={"latencies": (), "accuracy": None, "peak_memory_bytes": None})
        }
    )
    for variants in ((), (bare,)):
        with on_terminal(monkeypatch, 80) as out:
            show.portfolio(
                found.model_copy(update={"model": "m", "variants": variants, "device": None}), Path("x"), built=False
            )
        text = plain(out.getvalue())
        assert f"{len(variants)} variant" in text
        assert "batch" not in text
    assert "–" in text


@pytest.mark.parametrize("width", [80, 100])
def test_plan_table_fits_and_shows_names_and_notes_as_they_are(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    body = nn.ModuleDict({"a[0]": nn.Conv2d(1, 8, 3), "b[red]": nn.Conv2d(8, 8, 3)})
    model = nn.Sequential()
    for name, module in (*body.items(), ("flat", nn.Flatten()), ("[/]head", nn.Linear(8 * 16, 3))):
        model.add_module(name, module)
    x_BCHW = torch.zeros(1, 1, 8, 8)
    graph = trace(model, x_BCHW)
    decided = decide(model, graph, [example_batch(x_BCHW)], Budget.parse("params=1/2"), PruneConfig(rounds=2))
    with on_terminal(monkeypatch, width) as out:
        show.decision(graph, decided, 0.5, Path("p[l]an.json"))
    text = plain(out.getvalue())
    for name in ("a[0]", "b[red]", "[/]head", "p[l]an.json", "whole: the model's output", "planned in 0.50 s"):
        assert name in text
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_output_that_is_no_terminal_is_wide_and_without_colour(
    found: Portfolio, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        show.portfolio(found, Path("x"))
    assert "\x1b" not in out.getvalue()
    assert "p50 / p99 ms" in out.getvalue()
