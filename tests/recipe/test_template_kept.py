"""A build translates its dense model twice, whatever the number of variants, and once it is resumed not at all."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import prunit
from prunit.cut.plans import Plan
from prunit.export import export_onnx, onnx, template
from prunit.graph import trace
from prunit.recipe.folder import STATE
from tests.recipe.building import CONFIG, data, model
from tests.train.toys import small

BUDGETS = ["params=1/2", "params=1/3", "params=1/4"]


@pytest.fixture
def translations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The class of each model that torch translates from now on."""
    found: list[str] = []

    def counting(translated: Callable[..., Any]) -> Callable[..., Any]:
        return lambda model, *more, **named: (found.append(type(model).__name__), translated(model, *more, **named))[1]

    for module in (onnx, template):
        monkeypatch.setattr(module, "translated", counting(module.translated))
    return found


def test_of_a_build_and_of_one_that_goes_on(tmp_path: Path, translations: list[str]) -> None:
    config = {**CONFIG, "budgets": BUDGETS}
    portfolio = prunit.build(model, data(), tmp_path, config=config)
    assert len(portfolio.variants) == 4
    assert len(translations) == 2  # the dense model, and one at other widths
    assert (tmp_path / STATE / "template.onnx").exists()

    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.onnx")}
    translations.clear()
    for file in before:
        (tmp_path / file).unlink()
    prunit.build(model, data(), tmp_path, config=config, resume=True)
    assert translations == []
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.onnx")} == before

    # One of an older prunit has no template: each variant is translated, into the same file.
    (tmp_path / STATE / "template.onnx").unlink()
    (tmp_path / "params-1-3.onnx").unlink()
    prunit.build(model, data(), tmp_path, config=config, resume=True)
    assert len(translations) == 1
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.onnx")} == before


def test_of_a_model_that_is_added_to_a_build(tmp_path: Path, translations: list[str]) -> None:
    prunit.build(model, data(), tmp_path, config={**CONFIG, "budgets": BUDGETS[:1]})
    translations.clear()
    dense, x_BCHW = small(12, seed=5), torch.zeros(1, 1, 8, 8)
    graph = trace(dense, x_BCHW)
    plan = Plan({g.name: tuple(range(5)) for g in graph.groups if not g.pinned}, {g.name: g.size for g in graph.groups})
    mine = prunit.compact(dense, graph, plan)
    portfolio = prunit.portfolio.add(tmp_path, mine, plan, example=x_BCHW, accuracy=0.5, name="mine", measure=False)
    assert translations == []
    assert portfolio.variant("mine").artifact.bytes == (tmp_path / "mine.onnx").stat().st_size
    export_onnx(mine, x_BCHW, tmp_path / "own", name="mine")
    assert len(translations) == 1
    assert (tmp_path / "own" / "mine.onnx").read_bytes() == (tmp_path / "mine.onnx").read_bytes()


def test_without_a_template_each_variant_is_translated_and_the_log_says_why(
    tmp_path: Path, translations: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(template, "counts", lambda *_: None)
    caplog.set_level(logging.INFO, "prunit.recipe.work")
    prunit.build(model, data(), tmp_path, config={**CONFIG, "budgets": BUDGETS[:1]})
    assert len(translations) == 4
    assert "each variant is translated for itself: what its code does depends on numbers of channels" in caplog.text
