"""Variants of fewer bits in a build: made, judged beside their float twins, kept or left out, resumed."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import prunit
from prunit.batches import Dataset
from prunit.edge import runtimes
from prunit.edge.answers import pairs
from prunit.edge.comparing.paired import difference
from prunit.edge.measuring import measure
from prunit.edge.portfolio import Portfolio
from prunit.edge.precision import name_in
from prunit.edge.session import self_test
from prunit.errors import ConfigError, DeviceError, ModelError, UnknownNameError
from prunit.recipe import lowering, twins
from prunit.recipe.config import PrecisionConfig, validated
from prunit.recipe.ladders import rungs_of
from prunit.train import Fitted
from tests.recipe.nets import Plain

CONFIG: dict[str, Any] = {
    "budgets": ["params=1/4"],
    "subset": 300,
    "seed": 1,
    "train": {"epochs": 2, "batch_size": 50, "device": "cpu"},
    "prune": {"rounds": 6, "measure": False},
    "probe": {"seconds": 0.01, "batch": 4},
    "effort": {"rule": "equal-epochs"},
}
PRECISION = {"wanted": "int8,fp32", "images": 60, "max_drop": 100, "timed": False, "tune": 0}


def build(folder: Path, *, resume: bool = False, **precision: Any) -> Portfolio:
    return prunit.build(Plain, "digits", folder, config={**CONFIG, "precision": PRECISION | precision}, resume=resume)


@pytest.fixture(autouse=True, scope="module")
def _no_processes() -> Iterator[None]:
    """Peak memory is measured in a process for each variant, which is not what these tests are about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "peak_memory", lambda *_, **__: 1_000_000)
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of float variants."""
    folder = tmp_path_factory.mktemp("plain") / "out"
    assert [v.name for v in build(folder, wanted="fp32").variants] == ["dense", "params-1-4"]
    return folder


@pytest.fixture(scope="module")
def built(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Portfolio]:
    """The same with int8."""
    folder = tmp_path_factory.mktemp("lowered") / "out"
    shutil.copytree(plain, folder)
    return folder, build(folder, resume=True)


def test_each_variant_has_a_twin_of_integers(built: tuple[Path, Portfolio]) -> None:
    folder, portfolio = built
    assert [v.name for v in portfolio.variants] == ["dense", "dense-int8", "params-1-4", "params-1-4-int8"]
    assert [v.precision for v in portfolio.variants] == ["fp32", "int8"] * 2
    assert portfolio.left_out == ()
    assert portfolio.verify(folder) == []
    assert Portfolio.read(folder) == portfolio
    for twin, lower in (portfolio.variants[:2], portfolio.variants[2:]):
        assert lower.lowered is not None
        assert (lower.lowered.twin, lower.lowered.images, lower.lowered.seed) == (twin.name, 60, 1)
        assert lower.lowered.library.startswith("onnxruntime ")
        assert (lower.plan, lower.weights, lower.widths) == (twin.plan, twin.weights, twin.widths)
        assert lower.metrics.file_bytes == (folder / lower.artifact.path).stat().st_size < twin.metrics.file_bytes
        assert lower.metrics.weight_bytes < twin.metrics.weight_bytes
        assert lower.metrics.latency_ms() is not None
        assert "quantise" in lower.seconds


def test_what_a_precision_costs_is_counted_on_the_same_images(built: tuple[Path, Portfolio]) -> None:
    """By the outputs that the engine gives for both files, computed here once more by hand."""
    folder, portfolio = built
    dataset = prunit.zoo.data.load("digits")
    x_BCHW = portfolio.preprocessing.normalise(dataset.test.x_BCHW.numpy())
    labels = dataset.test.y_B.numpy()
    said = {}
    for variant in portfolio.variants:
        session = runtimes.runtime().open(folder / variant.artifact.path)
        said[variant.name] = session.run(x_BCHW).argmax(1)
        assert self_test(session, variant.artifact, folder) < 1e-4
        assert variant.metrics.accuracy == pytest.approx(float(np.mean(said[variant.name] == labels)))
    for twin, lower in (portfolio.variants[:2], portfolio.variants[2:]):
        assert lower.lowered is not None
        assert lower.lowered.against is not None
        gap = float(np.mean(said[lower.name] == labels)) - float(np.mean(said[twin.name] == labels))
        assert lower.lowered.against.difference == pytest.approx(gap)
        found = pairs(lower.metrics.answers, twin.metrics.answers)
        assert found is not None
        assert (lower.lowered.against.low, lower.lowered.against.high) == pytest.approx(
            (difference(found).low, difference(found).high)
        )
        assert lower.lowered.agreement == pytest.approx(float(np.mean(said[lower.name] == said[twin.name])))


def test_a_finished_build_gets_another_precision_without_training(built: tuple[Path, Portfolio], plain: Path) -> None:
    """And what was made for the same settings is not made again."""
    folder, _ = built
    for name in ("dense.safetensors", "params-1-4.safetensors"):
        assert (folder / name).read_bytes() == (plain / name).read_bytes()
    made = (folder / "dense-int8.onnx").stat().st_mtime_ns
    build(folder, resume=True)
    assert (folder / "dense-int8.onnx").stat().st_mtime_ns == made
    build(folder, resume=True, images=50)
    assert (folder / "dense-int8.onnx").stat().st_mtime_ns > made
    build(folder, resume=True)


def test_the_same_build_makes_the_same_files(built: tuple[Path, Portfolio], tmp_path: Path) -> None:
    build(tmp_path / "out")
    for name in ("dense-int8.onnx", "dense-int8.selftest.npz", "params-1-4-int8.onnx"):
        assert (tmp_path / "out" / name).read_bytes() == (built[0] / name).read_bytes(), name


def test_float_goes_where_only_integers_are_wanted(built: tuple[Path, Portfolio]) -> None:
    """But for the dense model, which all are compared with, and single variants can have their own."""
    folder, before = built
    found = build(folder, resume=True, wanted="int8")
    assert [v.name for v in found.variants] == ["dense", "dense-int8", "params-1-4-int8"]
    found = build(folder, resume=True, wanted="fp32", by_variant={"params-1-4": "int8"})
    assert [v.name for v in found.variants] == ["dense", "params-1-4-int8"]
    assert [v.name for v in build(folder, resume=True).variants] == [v.name for v in before.variants]


def worse(variant: str) -> Any:
    """`quantised` that spoils the head of a variant: all classes but the first lose."""
    real = lowering.quantised

    def spoiled(artifact: Any, folder: Path, calibration: Any, **options: Any) -> Any:
        made, facts = real(artifact, folder, calibration, **options)
        if made.path == f"{variant}.onnx":
            (folder / made.path).write_bytes((folder / "spoiled.onnx").read_bytes())
        return made, facts

    return spoiled


def fixed() -> nn.Module:
    """Says the first class of everything."""
    head = nn.Linear(64, 10)
    nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias.copy_(torch.eye(10)[0])
    return nn.Sequential(nn.Flatten(), head)


@pytest.fixture
def spoiling(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a build in which the int8 form of the pruned variant always says the first class."""
    folder = tmp_path / "out"
    shutil.copytree(plain, folder)
    prunit.export.EXPORTERS["onnx"](fixed(), torch.zeros(1, 1, 8, 8), folder, name="spoiled")
    monkeypatch.setattr(lowering, "quantised", worse("params-1-4-int8"))
    return folder


def test_what_loses_too_much_is_left_out_and_float_goes_on(
    spoiling: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = build(spoiling, resume=True, wanted="int8", max_drop=5)
    assert [v.name for v in found.variants] == ["dense", "dense-int8", "params-1-4"]
    (left,) = found.left_out
    assert (left.name, left.precision) == ("params-1-4-int8", "int8")
    assert "points of accuracy to 'params-1-4', more than 5 (--max-drop)" in left.why
    assert left.why in caplog.text
    assert not (spoiling / "params-1-4-int8.onnx").exists()
    assert "params-1-4-int8" in (spoiling / "report.html").read_text()
    monkeypatch.setattr(lowering, "quantised", lambda *_, **__: pytest.fail("it was made again"))
    assert build(spoiling, resume=True, wanted="int8", max_drop=5).left_out == found.left_out


def test_weights_trained_for_it_are_taken_where_they_lose_less(spoiling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def tuned(model: nn.Module, dataset: Dataset, settings: Fitted, *, on_step: Any) -> nn.Module:
        asked.append(settings.epochs)
        monkeypatch.setattr(lowering, "quantised", undo)  # what is made of these weights is good again
        return model

    undo = lowering.quantised.__closure__[0].cell_contents  # type: ignore[attr-defined]
    monkeypatch.setattr(twins, "tuned_for_int8", tuned)
    found = build(spoiling, resume=True, max_drop=5, tune=2)
    variant = found.variant("params-1-4-int8")
    assert asked == [2]
    assert variant.lowered is not None
    assert (variant.lowered.tuned, variant.epochs) == (2, 4)
    assert variant.weights is not None
    assert variant.weights.path == "params-1-4-int8.safetensors"
    assert found.verify(spoiling) == []
    assert "train" in variant.seconds


def test_a_training_that_cannot_be_is_told(spoiling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> Any:
        raise ModelError("cannot copy the model: it holds a lock")

    monkeypatch.setattr(twins, "tuned_for_int8", absent)
    (left,) = build(spoiling, resume=True, max_drop=5, tune=1).left_out
    assert "quantisation-aware training: " in left.why
    assert "it holds a lock" in left.why


def test_without_an_engine_for_bf16_the_build_goes_on(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Absent:
        name, precisions = lowering.BF16, ("bf16",)

        def open(self, path: Path, *, threads: int = 1) -> Any:
            raise DeviceError("this processor does not compute in bf16")

    monkeypatch.setattr(runtimes, "RUNTIMES", {**runtimes.RUNTIMES, lowering.BF16: Absent()})
    shutil.copytree(plain, tmp_path / "out")
    found = build(tmp_path / "out", resume=True, wanted="bf16,fp32")
    assert [v.name for v in found.variants] == ["dense", "params-1-4"]
    assert {each.why for each in found.left_out} == {"this processor does not compute in bf16"}
    assert [each.name for each in found.left_out] == ["dense-bf16", "params-1-4-bf16"]


def test_names() -> None:
    assert [name_in("macs-1-4", p) for p in ("fp32", "bf16", "int8")] == ["macs-1-4", "macs-1-4-bf16", "macs-1-4-int8"]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"wanted": "int4"}, "precision.wanted.0='int4': input should be 'fp32', 'bf16' or 'int8'"),
        ({"wanted": ""}, "precision.wanted.0=''"),
        ({"wanted": []}, "precision.wanted"),
        ({"max_drop": -1}, "precision.max_drop=-1"),
        ({"images": 0}, "precision.images=0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validated({"precision": settings})
    assert complaint in str(raised.value)


def test_precisions_of_a_variant_that_is_not_built_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"params-1-5.*params-1-4"):
        build(tmp_path / "out", by_variant={"params-1-5": "int8"})
    assert not (tmp_path / "out").exists()


def test_nor_of_a_density_that_is_not_trained() -> None:
    config = validated({"sparse": {"densities": ["1/4"]}, "precision": {"by_variant": {"density-1-5": "int8"}}})
    with pytest.raises(UnknownNameError, match=r"density-1-5.*density-1-4"):
        rungs_of(config)
    rungs_of(config.model_copy(update={"precision": PrecisionConfig(by_variant={"density-1-4": ("int8",)})}))
