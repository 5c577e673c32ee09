"""`prunit evaluate`: what it prints, writes and refuses, without torch."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prunit.edge.portfolio import Portfolio
from prunit.report import write_report
from tests.cli.running import prunit
from tests.edge.colours import EXACT, NAMES, boxes, class_folders, halves, portfolio_of, save
from tests.report.portfolios import HISTORY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    portfolio_of(tmp_path / "portfolio")
    return tmp_path / "portfolio"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos", {"val": 4, "test": 8})


def reported(folder: Path) -> Path:
    """The report of a build in the folder, with what it takes to write it anew."""
    portfolio = Portfolio.read(folder)
    epochs = [{"index": e.index, "loss": e.loss, "train_accuracy": 0.5, "test_accuracy": 0.5} for e in HISTORY]
    for variant in portfolio.variants:
        state = folder / ".build" / variant.name
        state.mkdir(parents=True)
        (state / "history.json").write_text(json.dumps(epochs))
    return write_report(portfolio, folder)


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_every_variant_is_shown(folder: Path, photos: Path) -> None:
    result = prunit("evaluate", folder, "--data", photos)
    assert result.code == 0, result.err
    shown = lines(result.out)
    dense, small = (next(line for line in shown if line.startswith(name)) for name in ("dense", "small"))
    assert dense.startswith("dense 100.0 % 86.2 to 100.0 % – – 100.0 % 100.0 % –")
    assert small.startswith("small 66.7 % 46.7 to 82.0 % −33.3")
    assert "blue 8 100.0 % 0.0 %" in shown
    assert "dense: true (row), said (column)" in shown
    # The last row of the matrix of `small`: all blue ones are called green.
    assert "blue · 8 0" in shown
    assert f"24 images of '{photos}' (class folders), part test" in result.out.replace("\n", "")
    assert not (folder / "evaluation.json").exists()


def test_one_variant_is_shown_with_all_figures_of_its_classes(folder: Path, photos: Path) -> None:
    result = prunit("evaluate", folder, "--data", photos, "--variant", "small", "--split", "val", "--batch", 5)
    assert result.code == 0, result.err
    shown = lines(result.out)
    assert "class recall precision f1 images" in shown
    assert "green 100.0 % 50.0 % 66.7 % 4" in shown
    assert "to dense" not in result.out


def test_programs_get_everything(folder: Path, photos: Path) -> None:
    result = prunit("evaluate", folder, "--data", photos, "--json", "--threads", 2)
    found = json.loads(result.out)
    assert (found["images"], found["threads"], found["metric"]) == (24, 2, "accuracy")
    assert found["variants"][1]["confusion"] == [[8, 0, 0], [0, 8, 0], [0, 8, 0]]
    assert found["variants"][1]["against"]["only_theirs"] == 8
    assert found["resident_bytes"][1] >= found["resident_bytes"][0] > 0


def test_many_classes_are_shown_by_what_is_confused(tmp_path: Path, photos: Path) -> None:
    rest = tuple(f"other-{i}" for i in range(20))
    for name in rest:
        save(photos / "test" / name / "0.png", EXACT[:, :, None].repeat(3, 2).astype("uint8") * 40 + 40)
        save(photos / "val" / name / "0.png", EXACT[:, :, None].repeat(3, 2).astype("uint8") * 40 + 40)
    matrix = [*EXACT.tolist(), *[[0.0] * 3] * 20]

    portfolio_of(tmp_path / "many", matrices={"dense": np.array(matrix)}, classes=(*NAMES, *rest))
    result = prunit("evaluate", tmp_path / "many", "--data", photos)
    assert result.code == 0, result.err
    assert "dense: confused most" in result.out
    assert re.search(r"other-\d+ +red +1", result.out)


def test_boxes_and_masks_are_shown(tmp_path: Path) -> None:
    portfolio_of(tmp_path / "masked", "segmentation")
    result = prunit("evaluate", tmp_path / "masked", "--data", halves(tmp_path / "cells", 6), "--split", "all")
    assert result.code == 0, result.err
    for text in ("mIoU", "dice", "accuracy", "manifest", "drawn anew", "iou"):
        assert text in result.out
    pytest.importorskip("hotcoco")
    portfolio_of(tmp_path / "marking", "detection")
    result = prunit("evaluate", tmp_path / "marking", "--data", boxes(tmp_path / "marked", 6))
    assert result.code == 0, result.err
    for text in ("mAP", "AP50", "AP75", "objects", "6 images", "(VOC), part val"):
        assert text in result.out


def test_it_is_saved_and_reported(folder: Path, photos: Path) -> None:
    page = reported(folder)
    before = page.read_text("utf-8")
    result = prunit("evaluate", folder, "--data", photos, "--save")
    assert result.code == 0, result.err
    assert "evaluation.json and report.html" in result.out.replace("\n", "")
    found = json.loads((folder / "evaluation.json").read_text())
    assert {one["truth"] for one in found["variants"][1]["worst"]} == {"blue"}
    written = page.read_text("utf-8")
    assert "<h2>On labelled images</h2>" not in before
    assert "<h2>On labelled images</h2>" in written
    assert written.count('src="data:image/jpeg;base64,') == sum(len(one["worst"]) for one in found["variants"]) == 18
    assert "Worst images of “small”" in written
    # What else is measured later leaves it there; a variant that has changed is not in it any more.
    assert prunit("bench", folder, "--seconds", 0.1, "--batch", 2, "--save").code == 0
    assert "<h2>On labelled images</h2>" in page.read_text("utf-8")
    portfolio = Portfolio.read(folder)
    artifact = portfolio.variants[1].artifact.model_copy(update={"sha256": "0" * 64})
    changed = portfolio.variants[1].model_copy(update={"artifact": artifact})
    write_report(portfolio.model_copy(update={"variants": (portfolio.variants[0], changed)}), folder)
    assert "Worst images of “small”" not in page.read_text("utf-8")
    assert "Worst images of “dense”" in page.read_text("utf-8")
    (folder / "evaluation.json").write_text("{}")
    write_report(portfolio, folder)
    assert "<h2>On labelled images</h2>" not in page.read_text("utf-8")


def test_a_device_without_the_build_keeps_its_report(folder: Path, photos: Path) -> None:
    page = folder / "report.html"
    page.write_text("a report")
    result = prunit("evaluate", folder, "--data", photos, "--save")
    assert result.code == 0, result.err
    assert "report.html stays without it: the folder does not hold how 'dense' was trained" in result.err
    assert page.read_text() == "a report"
    assert (folder / "evaluation.json").is_file()


def test_broken_images(folder: Path, photos: Path) -> None:
    (photos / "test" / "red" / "3.png").write_bytes(b"no image")
    result = prunit("evaluate", folder, "--data", photos)
    assert result.code == 2
    assert "3.png' (not an image of a known format, 8 bytes); --skip-broken leaves" in result.complaint
    result = prunit("evaluate", folder, "--data", photos, "--skip-broken")
    assert result.code == 0, result.err
    assert "part test, 1 left out" in result.out.replace("\n", "")


def test_mistakes_are_one_line(folder: Path, photos: Path, tmp_path: Path) -> None:
    lonely = class_folders(tmp_path / "lonely", {"val": 1})
    more = class_folders(tmp_path / "more", {"val": 1})
    save(more / "val" / "violet" / "0.png", EXACT[:, :, None].repeat(3, 2).astype("uint8"))
    (tmp_path / "empty" / "val" / "red").mkdir(parents=True)
    (tmp_path / "empty" / "val" / "blue").mkdir(parents=True)
    for arguments, complaint in (
        ((folder, "--data", "cifar10"), "name a folder of labelled images"),
        ((folder, "--data", photos, "--variant", "smal"), "did you mean 'small'"),
        ((folder, "--data", photos, "--split", "train"), "has no labelled part train; it has val and test"),
        ((folder, "--data", photos, "--split", "tests"), "unknown split 'tests'; did you mean 'test'"),
        ((folder, "--data", lonely, "--split", "test"), "has no labelled part test"),
        ((folder, "--data", more), "violet' is no class"),
        ((folder, "--data", tmp_path / "empty"), "holds no images"),
        ((folder, "--data", halves(tmp_path / "cells", 2)), "holds data for segmentation, not for classification"),
        ((folder, "--data", photos, "--batch", 0), "--batch"),
        ((folder,), "Missing option '--data'"),
        ((tmp_path, "--data", photos), "is no portfolio"),
    ):
        result = prunit("evaluate", *arguments)
        assert result.code == 2, result.out
        assert complaint in result.complaint


def test_it_runs_where_there_is_no_torch(folder: Path, photos: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from prunit.cli import main; main()"
    arguments = ("evaluate", str(folder), "--data", str(photos), "--save")
    child = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert "24 images of" in child.stdout
