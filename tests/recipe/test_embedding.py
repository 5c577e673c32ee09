"""Variants for microcontrollers and NPUs in a build: made, judged, recorded, resumed; and what goes wrong."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import prunit
from prunit.edge.measuring import measure
from prunit.edge.portfolio import Portfolio
from prunit.errors import BudgetError, ConfigError, MissingExtraError, ModelError
from prunit.mcu import tools
from prunit.mcu.litert import answers
from prunit.mcu.tflm import arena
from prunit.recipe import embedding, twins
from prunit.recipe.config import validated
from prunit.train import Fitted
from tests.recipe.nets import Plain

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tflite_micro")
pytest.importorskip("ethosu.vela")
NPU = "ethos-u55-128"
CONFIG: dict[str, Any] = {
    "budgets": ["arena=6KB@tflm"],
    "subset": 300,
    "seed": 1,
    "train": {"epochs": 2, "batch_size": 50, "device": "cpu"},
    "prune": {"rounds": 6, "measure": False},
    "probe": {"seconds": 0.01, "batch": 4},
    "effort": {"rule": "equal-epochs"},
    "parts": {"targets": [NPU], "images": 60, "max_drop": 100},
}


def build(folder: Path, *, resume: bool = False, model: Any = Plain, **changed: Any) -> Portfolio:
    return prunit.build(model, "digits", folder, config={**CONFIG, **changed}, resume=resume)


@pytest.fixture(autouse=True, scope="module")
def _quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Peak memory is measured in a process for each variant, which is not what these tests are about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "peak_memory", lambda *_, **__: 1_000_000)
        patch.setenv("PRUNIT_CACHE", str(tmp_path_factory.mktemp("tables")))
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts") / "out"
    build(folder)
    return folder


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "out"))


def test_each_variant_has_its_files_and_figures(built: Path) -> None:
    portfolio = Portfolio.read(built)
    assert portfolio.version == 5
    assert [v.name for v in portfolio.variants] == ["dense", "arena-6kb"]
    for variant in portfolio.variants:
        each = variant.embedded
        assert each is not None
        assert [on.part for on in each.parts] == ["tflm", NPU]
        assert all((built / file.path).is_file() for file in each.files)
        data = (built / each.file.path).read_bytes()
        on = each.on("tflm")
        assert on is not None
        assert on.figures == {"arena_bytes": arena(data).total_bytes, "flash_bytes": len(data)}
        npu = each.on(NPU)
        assert npu is not None
        assert npu.compiled is not None
        assert npu.figures["flash_bytes"] == (built / npu.compiled.path).stat().st_size
        assert npu.settings == {"system_config": "Ethos_U55_High_End_Embedded", "memory_mode": "Shared_Sram"}
        assert each.images == 60
        assert not {"FULLY_CONNECTED", "TRANSPOSE", "SHAPE"} & set(each.operators)
    cut = portfolio.variants[1].embedded
    assert cut is not None
    on = cut.on("tflm")
    assert on is not None
    assert on.limits == {"arena_bytes": 6000}
    assert on.figures["arena_bytes"] <= 6000
    assert not on.over
    assert portfolio.verify(built) == []


def test_the_stored_test_is_exact(built: Path) -> None:
    for variant in Portfolio.read(built).variants:
        each = variant.embedded
        assert each is not None
        with np.load(built / each.self_test.path) as stored:
            found = answers((built / each.file.path).read_bytes(), stored["input"], kernels="reference")
            np.testing.assert_array_equal(found[0], stored["expected"])
            assert stored["input"].dtype == np.int8


def test_accuracy_is_that_of_the_integers_beside_the_float_file(built: Path) -> None:
    for variant in Portfolio.read(built).variants:
        each = variant.embedded
        assert each is not None
        assert each.accuracy is not None
        assert variant.metrics.accuracy is not None
        assert each.against is not None
        assert each.against.of == variant.name
        assert each.accuracy - variant.metrics.accuracy == pytest.approx(each.against.difference, abs=0.004)
        assert each.agreement is not None
        assert each.agreement > 0.9


def test_a_damaged_flatbuffer_is_told(copied: Path) -> None:
    (copied / "mcu" / "dense.tflite").write_bytes(b"no")
    assert "variant 'dense': 'mcu/dense.tflite' has 2 bytes" in Portfolio.read(copied).verify(copied)[0]


def test_a_resumed_build_makes_nothing_twice(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Portfolio.read(copied)
    monkeypatch.setattr(embedding, "integer_twin", lambda *_, **__: pytest.fail("made again"))
    assert [v.embedded for v in build(copied, resume=True).variants] == [v.embedded for v in before.variants]


def test_a_part_is_added_later_without_training(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prunit.recipe import work

    monkeypatch.setattr(work, "train", lambda *_, **__: pytest.fail("trained again"))
    found = build(copied, resume=True, parts={**CONFIG["parts"], "targets": [NPU, "ethos-u65-256"]})
    for variant in found.variants:
        assert variant.embedded is not None
        assert [on.part for on in variant.embedded.parts] == ["tflm", NPU, "ethos-u65-256"]


def test_weights_are_trained_for_integers_where_these_lose_too_much(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Fitted] = []

    def tuned(model: nn.Module, dataset: Any, settings: Fitted, **_: Any) -> nn.Module:
        asked.append(settings)
        return model

    monkeypatch.setattr(twins, "tuned_for_int8", tuned)
    monkeypatch.setattr(embedding._Made, "lost_points", property(lambda self: 3.0 - self.tuned))
    found = build(copied, resume=True, parts={**CONFIG["parts"], "max_drop": 2.5})
    assert [settings.epochs for settings in asked] == [1, 1]
    assert [v.embedded.tuned for v in found.variants if v.embedded] == [1, 1]
    monkeypatch.setattr(embedding._Made, "lost_points", property(lambda self: 3.0 + self.tuned))
    found = build(copied, resume=True, parts={**CONFIG["parts"], "max_drop": 2.4})
    assert [v.embedded.tuned for v in found.variants if v.embedded] == [0, 0]  # it lost more


class Soft(nn.Module):
    """With an operator that integers have not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 10)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.last(nn.functional.softplus(self.first(x_BCHW)).mean((2, 3)))


def test_what_cannot_be_made_is_told_and_the_build_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = build(tmp_path / "out", model=Soft, budgets=["params=1/2"])
    assert [v.embedded for v in found.variants] == [None, None]
    assert "dense is not made for ethos-u55-128: cannot lower Softplus" in caplog.text


def test_a_budget_that_needs_it_fails_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot lower Softplus"):
        build(tmp_path / "out", model=Soft)
    with pytest.raises(BudgetError, match=r"arena=2KB@tflm asks for at most 2 KB"):
        build(tmp_path / "out", budgets=["arena=2KB@tflm"])
    assert not (tmp_path / "out").exists()


def test_missing_tools_are_named_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tools.importlib.metadata.version

    def version(package: str) -> str:
        if package == "ethos-u-vela":
            raise tools.importlib.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(tools.importlib.metadata, "version", version)
    with pytest.raises(MissingExtraError, match=r"ethos-u-vela.*prunit\[mcu\]"):
        build(tmp_path / "out")


def test_an_unknown_target_is_told() -> None:
    with pytest.raises(ConfigError, match=r"parts.targets=.*unknown part 'ethos-u55'; did you mean"):
        validated({"parts": {"targets": "ethos-u55"}})
    assert validated({"parts": {"targets": "TFLM, ethos-u65-256,tflm"}}).parts.targets == ("tflm", "ethos-u65-256")


def test_an_older_manifest_is_read(copied: Path) -> None:
    data = json.loads((copied / "portfolio.json").read_text())
    data["version"] = 4
    for variant in data["variants"]:
        del variant["embedded"]
    (copied / "portfolio.json").write_text(json.dumps(data))
    assert [v.embedded for v in Portfolio.read(copied).variants] == [None, None]
