"""What the report and the terminal say of variants on microcontrollers and NPUs."""

from typing import Any

import pytest
from rich.console import Console

from prunit.cli.parts import embedded as printed
from prunit.edge.embedded import Embedded, Numbers, OnPart
from prunit.edge.portfolio import Portfolio
from prunit.edge.precision import Comparison
from prunit.edge.records import StoredFile
from prunit.report.page import html_page
from prunit.report.parts import amount, notes_of, parts_section, rows_of
from prunit.report.summary import summary_rows
from tests.report.portfolios import dense, portfolio, variant

FILE = StoredFile(path="mcu/a.tflite", sha256="0" * 64, bytes=10)
NUMBERS = Numbers(name="x", shape=(1, 8, 8, 1), scale=0.1, zero_point=-3)


def on_npu(cycles: float, **changed: Any) -> OnPart:
    figures = {"cycles": cycles, "latency_ms": cycles / 5e5, "sram_bytes": 3072.0, "flash_bytes": 20_000.0}
    settings = {"system_config": "Ethos_U55_High_End_Embedded", "memory_mode": "Shared_Sram"}
    return OnPart(part="ethos-u55-128", figures=figures, tool="vela 5.2.0", settings=settings, **changed)


def made(*parts: OnPart, **changed: Any) -> Embedded:
    facts: dict[str, Any] = {
        "file": FILE,
        "self_test": FILE,
        "input": NUMBERS,
        "outputs": (NUMBERS,),
        "operators": ("CONV_2D",),
        "method": "mse",
        "images": 64,
        "seed": 0,
        "library": "ai-edge-litert 2.3.0",
        "accuracy": 0.874,
        "against": Comparison(of="half", difference=-0.0026, low=-0.005, high=0.0),
        "parts": parts,
    }
    return Embedded(**facts | changed)


def both(**changed: Any) -> Portfolio:
    tflm = OnPart(part="tflm", figures={"arena_bytes": 6500.0, "flash_bytes": 30_000.0}, tool="tflite-micro 0.1")
    half = variant("half", cost=4000).model_copy(update={"embedded": made(tflm, on_npu(96_300, **changed))})
    return portfolio(dense().model_copy(update={"embedded": made(tflm, on_npu(276_000))}), half, variant("third"))


def test_a_row_has_the_integers_accuracy_and_every_figure() -> None:
    rows = [[cell.replace("\u00a0", " ") for cell in row] for row in rows_of(both())]
    assert [row[0] for row in rows] == ["dense", "", "half", ""]
    assert rows[2] == ["half", "87.4 %", "−0.3 points", "tflm", "–", "–", "6.50 KB", "30.0 KB"]
    assert rows[3] == ["", "", "", "ethos-u55-128", "96.3 k", "0.193 ms", "3.07 KB", "20.0 KB"]


def test_notes_tell_configurations_and_what_is_missing() -> None:
    notes = notes_of(both())
    assert "ethos-u55-128: vela 5.2.0, Ethos_U55_High_End_Embedded, Shared_Sram" in notes
    assert "not made for these parts: “third”" in notes
    assert not any("budget" in note for note in notes)


def test_a_budget_that_trained_weights_exceed_is_told() -> None:
    found = both(limits={"cycles": 96_000.0, "sram_bytes": 4000.0})
    assert "“half” takes 1.003 times the cycles that its budget allows on ethos-u55-128" in notes_of(found)
    assert sum("budget" in note for note in notes_of(found)) == 1


def test_the_page_has_a_section_and_the_terminal_a_table() -> None:
    found = both()
    assert "Microcontrollers and NPUs" in html_page(found, summary_rows(found), {})
    assert "96.3" in parts_section(found)
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as shown:
        printed(found, console)
    assert "96.3" in shown.get()
    assert "vela 5.2.0" in shown.get()


def test_without_parts_nothing_is_said() -> None:
    found = portfolio(dense(), variant("half", cost=4000))
    assert parts_section(found) == ""
    assert notes_of(found) == []
    assert "Microcontrollers" not in html_page(found, summary_rows(found), {})


def test_names_are_escaped() -> None:
    odd = variant("half", cost=4000).model_copy(update={"name": "<b>", "embedded": made(on_npu(10))})
    assert "<b>" not in parts_section(portfolio(dense(), odd))


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [("cycles", 276_012, "276 k"), ("latency_ms", 0.5520, "0.552 ms"), ("arena_bytes", 18_992, "19.0 KB")],
)
def test_amounts(name: str, value: float, shown: str) -> None:
    assert amount(name, value).replace("\u00a0", " ") == shown
