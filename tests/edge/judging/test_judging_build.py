"""On the images that a build was judged by, a device finds what the build found: torch there, the engine here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunit import zoo
from prunit.batches import Dataset, Split
from prunit.edge.judging.evaluation import evaluate
from prunit.edge.judging.judge import judge as judge_on_device
from prunit.edge.portfolio import Metrics, Portfolio, Preprocessing, TaskRecord, Variant
from prunit.edge.reading import Files, Values, read
from prunit.export import EXPORTERS
from prunit.recipe import build
from prunit.recipe.quality import Quality
from prunit.tasks import Detection, Multilabel, Regression, Task
from prunit.train.accuracy import judge
from tests.edge.colours import NAMES, SIZE, boxes, halves, picture, save


class Net(nn.Module):
    """Outputs of a task from a few channels, untrained."""

    def __init__(self, task: str, outputs: int) -> None:
        super().__init__()
        self.task, self.body = task, nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(8, outputs + 4 * (task == "detection"), 1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y_BCHW = self.head(self.body(x_BCHW))
        if self.task == "segmentation":
            return y_BCHW
        if self.task != "detection":
            return y_BCHW.mean((2, 3))
        rows_BNC = y_BCHW.flatten(2).transpose(1, 2)
        middle_BN4 = torch.tensor([0.3, 0.3, 0.7, 0.7]) + 0.2 * rows_BNC[..., :4].tanh()
        return torch.cat([middle_BN4, rows_BNC[..., 4:].sigmoid()], 2)


def network() -> nn.Module:
    """A classifier that can be cut."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, len(NAMES))
    )


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small are slower with more
    yield
    torch.set_num_threads(threads)


def exported(folder: Path, dataset: Dataset, model: nn.Module) -> tuple[Portfolio, float]:
    """A portfolio of the model in a folder, and its main metric as a build has it."""
    task, size = dataset.task, dataset.image_size
    folder.mkdir()
    found = Quality.of(judge(model, dataset, device="cpu"))
    assert found.main is not None
    example = torch.zeros(1, 3, size, size)
    artifact = EXPORTERS["onnx"](model, example, folder, name="dense", output=task.output)
    variant = Variant(
        name="dense",
        recipe="dense",
        keep=1.0,
        artifact=artifact,
        metrics=Metrics(params=1, macs=1, weight_bytes=4, activation_bytes=4, file_bytes=artifact.bytes),
    )
    portfolio = Portfolio(
        name="own",
        model="net",
        data=dataset.name,
        task=TaskRecord(name=task.name, metric=task.metric, settings=dict(task.settings())),
        classes=dataset.classes,
        preprocessing=Preprocessing(mean=dataset.mean_C, std=dataset.std_C, size=(size, size), fit=task.fit),
        variants=(variant,),
        prunit_version="0.1.0",
        created="2026-07-04T12:31:44+00:00",
    )
    portfolio.write(folder)
    return Portfolio.read(folder), found.main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of two colours each, so that nothing is certain, larger than the model's input and not square."""
    random = np.random.default_rng(3)
    for part, number in (("train", 20), ("val", 15)):
        for i in range(number):
            for colour, name in enumerate(NAMES):
                pixels = picture(colour, size=(30, 40), seed=100 * i + colour)
                pixels[:, : int(random.integers(5, 30))] = picture(int(random.integers(3)), size=(30, 1), seed=i)
                save(tmp_path / "photos" / part / name / f"{i}.jpg", pixels)
    return tmp_path / "photos"


def test_a_build_and_a_device_rank_the_same_images_right(photos: Path, tmp_path: Path) -> None:
    data = zoo.data.load(str(photos), image_size=16)
    config: dict[str, Any] = {
        "budgets": ["params=1/2"],
        "train": {"epochs": 2, "batch_size": 20, "device": "cpu"},
        "prune": {"rounds": 4, "measure": False},
        "probe": {"seconds": 0.01, "batch": 2},
        "effort": {"rule": "equal-epochs"},
    }
    built = build(network, data, tmp_path / "portfolio", config=config)
    found = evaluate(built, tmp_path / "portfolio", photos)
    assert (found.split, found.images) == ("val", 45)
    for variant, one in zip(built.variants, found.variants, strict=True):
        answers = variant.metrics.answers
        assert answers is not None
        assert one.value == one.recorded == answers.accuracy
        assert one.scores == pytest.approx(variant.metrics.scores)
    run = judge_on_device(built, tmp_path / "portfolio", _judged(photos))
    for variant in built.variants:
        answers = variant.metrics.answers
        assert answers is not None
        evidence = run.evidence[variant.name]
        assert (evidence[:, 0] == evidence[:, 1]).tolist() == answers.right_N.tolist()


def _judged(photos: Path) -> Files:
    return read(photos, "classification").judged


def test_masks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    place = halves(tmp_path / "cells", 20)
    data = zoo.data.load(str(place), task="segmentation", image_size=24)
    portfolio, value = exported(tmp_path / "portfolio", data, Net("segmentation", len(data.classes)))
    found = evaluate(portfolio, tmp_path / "portfolio", place)
    assert 0 < value < 1
    assert found.variants[0].value == pytest.approx(value, abs=1e-3)


def test_boxes(tmp_path: Path) -> None:
    pytest.importorskip("hotcoco")
    torch.manual_seed(0)
    place = boxes(tmp_path / "cells", 12)
    (place / "ImageSets" / "Main" / "train.txt").write_text("0\n1\n2\n")
    data = zoo.data.load(str(place), task=Detection(size=SIZE), image_size=SIZE)
    portfolio, value = exported(tmp_path / "portfolio", data, Net("detection", 3))
    found = evaluate(portfolio, tmp_path / "portfolio", place, split="val")
    assert found.images == len(data.test)
    assert found.variants[0].value == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        (Regression(mean=(0.4, 0.5), std=(0.1, 0.2)), np.random.default_rng(0).random((12, 2), np.float32)),
        (Multilabel(), np.random.default_rng(0).integers(0, 2, (12, 2)).astype(np.float32)),
    ],
    ids=["values", "labels"],
)
def test_values_and_labels(tmp_path: Path, task: Task, targets: np.ndarray) -> None:
    torch.manual_seed(0)
    paths = [save(tmp_path / f"{i}.png", picture(i % 3, seed=i)) for i in range(12)]
    x_BCHW = torch.from_numpy(np.stack([picture(i % 3, seed=i).transpose(2, 0, 1) for i in range(12)]))
    split = Split(x_BCHW, torch.from_numpy(targets))
    data = Dataset("own", split, split, ("one", "two"), (0.5,) * 3, (0.2,) * 3, task=task)
    portfolio, value = exported(tmp_path / "portfolio", data, Net(task.name, 2))
    files = Files(tuple(paths), Values(targets, several=task.name == "multilabel"))
    run = judge_on_device(portfolio, tmp_path / "portfolio", files)
    assert run.task.metrics(run.evidence["dense"])[task.metric] == pytest.approx(value, abs=1e-4)
