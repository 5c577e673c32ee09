"""What the report says of variants of fewer bits, and of those that were left out."""

import re

import pytest

from prunit.edge.comparing.verdicts import verdicts
from prunit.edge.portfolio import Portfolio, TaskRecord, Variant
from prunit.edge.precision import Comparison, LeftOut, Lowered
from prunit.report.page import html_page
from prunit.report.precisions import precisions_section
from prunit.report.summary import summary_rows
from tests.report.portfolios import dense, latency, portfolio, usual, variant


def lower(twin: str, ms: float = 1.0, *, name: str | None = None) -> Variant:
    """In int8, with a quarter of its twin's bytes."""
    found = variant(name or f"{twin}-int8", cost=1000, accuracy=0.87, latencies=(latency(ms),))
    facts = Lowered(
        twin=twin,
        method="mse",
        images=512,
        seed=3,
        library="onnxruntime 1.31.1",
        float_layers=("stem.conv", "head"),
        agreement=0.991,
        against=Comparison(of=twin, difference=-0.0031, low=-0.0062, high=0.0001),
    )
    return found.model_copy(update={"precision": "int8", "lowered": facts})


def both(ms: float = 1.0) -> Portfolio:
    return portfolio(
        dense(latencies=(latency(4),)), variant("half", cost=4000, latencies=(latency(2),)), lower("half", ms)
    )


def cells(section: str) -> list[str]:
    """The first row of the table, as text."""
    row = section.split("<tbody>")[1].split("</tr>")[0]
    return [re.sub("<[^>]+>", " ", cell).strip() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]


def test_each_precision_stands_beside_its_twin() -> None:
    name, twin, lost, interval, same, file, time, how = cells(precisions_section(both()))
    assert (name, twin) == ("half-int8", "half")
    assert (lost.replace("\u00a0", " "), interval) == ("−0.3 points", "−0.6 to 0.0")
    assert same.startswith("99.1")
    assert (file, time) == ("0.25", "0.50")
    for part in (
        "onnxruntime 1.31.1",
        "ranges by least squared error of 512 training images, seed 3",
        "in float: stem.conv, head",
    ):
        assert part in how


def test_a_metric_that_is_no_share_is_shown_as_a_number() -> None:
    task = TaskRecord(name="regression", metric="r2")
    section = precisions_section(both().model_copy(update={"task": task}))
    _, _, lost, interval, *_ = cells(section)
    assert (lost, interval) == ("−0.00310", "−0.00620 to +0.000100")
    assert "points" not in section


def test_a_twin_that_is_gone_leaves_no_shares() -> None:
    found = portfolio(dense(latencies=(latency(4),)), lower("half"))
    assert cells(precisions_section(found))[5:7] == ["–", "–"]


def test_what_was_left_out_is_told_with_its_reason() -> None:
    why = "it loses 2.00 points of <accuracy> to 'half', more than 0.5 (--max-drop)"
    found = usual().model_copy(update={"left_out": (LeftOut(name="half-int8", precision="int8", why=why),)})
    section = precisions_section(found)
    assert "left out" in section
    assert "2.00 points of &lt;accuracy&gt;" in section
    assert "<table" not in section
    assert section in html_page(found, summary_rows(found), {})


def test_without_any_there_is_no_section() -> None:
    assert precisions_section(usual()) == ""
    assert "Precisions" not in html_page(usual(), summary_rows(usual()), {})


@pytest.mark.parametrize(("ms", "slower"), [(1.0, False), (3.0, True)])
def test_integers_are_compared_with_their_twin(ms: float, slower: bool) -> None:
    """Which has the same widths: that int8 is slower than it says nothing of these."""
    found = [v for v in verdicts(both(ms)) if v.variant == "half-int8" and v.kind == "slower"]
    assert bool(found) == slower
    if slower:
        assert found[0].than == "half"
        assert found[0].sentence == (
            "“half-int8” is 1.50× slower than “half” at batch 1: layers as narrow as these gain nothing from int8 here;"
            " use “half” where time counts."
        )


def test_what_is_faster_at_another_batch_gains_something() -> None:
    slow = (latency(3.0), latency(10.0, batch=32))
    half = variant("half", cost=4000, latencies=(latency(2.0), latency(40.0, batch=32)))
    found = portfolio(dense(latencies=(latency(4),)), half, lower("half").model_copy())
    few = found.variant("half-int8")
    few = few.model_copy(update={"metrics": few.metrics.model_copy(update={"latencies": slow})})
    found = portfolio(*(few if v.name == few.name else v for v in found.variants))
    (said,) = (v.sentence for v in verdicts(found) if v.variant == few.name and v.kind == "slower")
    assert said.endswith("at batch 1 (though 4.0× faster at batch 32): use “half” at batch 1.")


def test_its_settings_are_those_of_its_twin() -> None:
    """Which stand in the row above: said twice they only look like another training."""
    found = both()
    page = html_page(found, summary_rows(found), {})
    assert "<td>“half” in int8</td>" in page
    alone = portfolio(dense(latencies=(latency(4),)), lower("half"))
    assert "“half” in int8" not in html_page(alone, summary_rows(alone), {})


def test_the_engine_of_figures_is_named_where_it_is_another_one() -> None:
    found = both()
    bound = found.variant("half-int8").model_copy(update={"engine": "openvino-bf16", "precision": "bf16"})
    found = portfolio(*(bound if v.name == bound.name else v for v in found.variants))
    assert "; bf16 in openvino-bf16" in html_page(found, summary_rows(found), {})
    assert "; bf16 in openvino-bf16" not in html_page(both(), summary_rows(both()), {})
