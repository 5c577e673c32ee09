"""examples/yolo.py: labels as Ultralytics reads them, photos as a device reads them, and widths that are proved."""

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunit
from prunit.edge.portfolio import Portfolio
from prunit.edge.reading import read
from tests.edge.reading.labelled import save_photo, voc_xml, write
from tests.nets import random_plan

EXAMPLE = Path(__file__).parents[1] / "examples" / "yolo.py"
PHOTO = (40, 20)
"""Width and height."""
BOXES = [("cat", (10.0, 5.0, 30.0, 15.0)), ("dog", (0.0, 0.0, 8.0, 20.0))]


@pytest.fixture(scope="module")
def yolo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("yolo_example", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photos with two boxes each, in VOC's layout: three to train on, one to judge by."""
    folder = tmp_path / "photos"
    for i in range(4):
        save_photo(folder / "JPEGImages" / f"{i}.jpg", PHOTO)
        write(folder / "Annotations" / f"{i}.xml", voc_xml(BOXES, PHOTO))
    write(folder / "ImageSets" / "Main" / "train.txt", "0\n1\n2\n")
    write(folder / "ImageSets" / "Main" / "val.txt", "3\n")
    return folder


def test_importing_it_needs_no_ultralytics(yolo: ModuleType) -> None:
    assert yolo.__doc__
    assert "AGPL-3.0" in yolo.__doc__


def test_labels_are_centres_and_sizes_as_shares_of_the_photo(yolo: ModuleType, photos: Path, tmp_path: Path) -> None:
    listing = read(photos, "detection")
    data = yolo.yolo_labels(listing, tmp_path / "yolo")
    rows = np.loadtxt(tmp_path / "yolo" / "labels" / "val" / "3.txt")
    np.testing.assert_allclose(rows, [[0, 0.5, 0.5, 0.5, 0.5], [1, 0.1, 0.5, 0.2, 1.0]], atol=1e-6)
    assert sorted(path.name for path in (tmp_path / "yolo" / "images" / "train").iterdir()) == [
        "0.jpg",
        "1.jpg",
        "2.jpg",
    ]
    # prunit's own reader of that layout finds the same boxes.
    again = read(data, "detection")
    assert again.classes == listing.classes == ("cat", "dog")
    assert len(again.train) == 3


def test_photos_go_the_device_s_way_and_what_is_right_counts(yolo: ModuleType, photos: Path) -> None:
    files = read(photos, "detection").judged
    # 40x20 in 64x64: 1.6 times as large, 16 rows of grey above.
    truth = np.array([[32, 32, 32, 16, 0.9, 0.1], [6.4, 32, 12.8, 32, 0.1, 0.9]], np.float32)
    seen: list[Any] = []

    def right(x_BCHW: Any) -> Any:
        seen.append(x_BCHW)
        return truth.T[None]

    assert yolo.TASK.metrics(yolo.judged(right, files, 64))["mAP"] == pytest.approx(1, abs=1e-6)
    assert seen[0].shape == (1, 3, 64, 64)
    assert seen[0][0, :, 0, 0] == pytest.approx([114 / 255] * 3)  # the bars
    shifted = truth + np.array([12, 0, 0, 0, 0, 0], np.float32)
    assert yolo.TASK.metrics(yolo.judged(lambda x: shifted.T[None], files, 64))["mAP"] < 0.3


class Net(nn.Module):
    """Two layers, and what may not stay as a plan left it."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, width, 3), nn.Conv2d(width, 4, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.two(self.one(x_BCHW).relu())


def test_a_network_at_full_width_is_found_out(yolo: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    x, dense = torch.zeros(1, 3, 8, 8), Net()
    graph = prunit.trace(dense, x)
    plan = random_plan(graph)
    yolo.check_widths(prunit.compact(dense, graph, plan), plan, x)
    assert "each as the plan says" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="the training has changed the network"):
        yolo.check_widths(dense, plan, x)


@pytest.mark.filterwarnings("ignore")  # its own, and torch's of what its head does
def test_the_cut_network_trains_with_its_own_trainer_and_stays_cut(
    yolo: ModuleType, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ultralytics", reason="Ultralytics is the user's to install: pip install ultralytics")
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    listing, x = read(photos, "detection"), torch.zeros(1, 3, 64, 64)
    dense = yolo.network(2)
    graph = prunit.trace(dense, x)
    plan = prunit.plan(dense, x, budget="macs=1/2", score="magnitude")
    off, cut_away = yolo.inexactness(dense, x, plan)
    assert off < 1e-9 < cut_away
    small = prunit.compact(dense, graph, plan)
    asked = argparse.Namespace(size=64, epochs=1, batch=2, lr=0.001, device="cpu")
    trained = yolo.trained(small, yolo.yolo_labels(listing, tmp_path / "yolo"), asked)
    yolo.check_widths(trained, plan, x)
    prunit.portfolio.add(
        tmp_path / "out", yolo.for_export(trained), plan, example=x, task=yolo.TASK, classes=listing.classes,
        measure=False,
    )  # fmt: skip
    assert Portfolio.read(tmp_path / "out").verify(tmp_path / "out") == []
