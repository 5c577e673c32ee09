"""The zoo's detectors: shapes, what their boxes mean, cut exactly, exported."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from prunit import zoo
from prunit.cut.surgery import compact, mask
from prunit.export import export_onnx
from prunit.graph import trace
from prunit.tasks import Detection
from prunit.tasks.detection_loss import boxes_at
from prunit.zoo.fcos import PRIOR, REACH
from tests.nets import random_plan

NAMES = sorted(zoo.models("detection"))


def detector(name: str, *, size: int = 64, lived_in: bool = False) -> nn.Module:
    """A detector of two classes; with `lived_in` its batch norms are as after some training."""
    model = zoo.load(name, num_classes=2, image_size=size).eval()
    if lived_in:
        generator = torch.Generator().manual_seed(1)
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            nn.init.normal_(norm.bias, generator=generator)
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
    return model


def images(size: int, number: int = 2) -> Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_what_the_task_takes(name: str) -> None:
    task, classes = Detection(size=64), ("a", "b")
    model, x_BCHW = detector(name), images(64)
    with torch.no_grad():
        task.check_outputs(model(x_BCHW), 2, classes, 64, where="here")
    task.check_training_outputs(model.train()(x_BCHW), 2, classes, 64, where="here")


@pytest.mark.parametrize("size", [32, 64, 100, 160])
def test_points_lie_in_the_middle_of_their_places_at_any_size(size: int) -> None:
    model = detector("fcos-tiny").train()
    raw_BNC, points_N3 = model(images(size))
    assert raw_BNC.shape == (2, len(points_N3), 7)
    for stride in (8, 16, 32):
        x_N = points_N3[points_N3[:, 2] == stride, 0].unique()
        assert x_N.tolist() == [(i + 0.5) * stride for i in range(-(-size // stride))]


def test_both_modes_say_the_same() -> None:
    model, x_BCHW = detector("fcos-tiny", lived_in=True), images(64)
    with torch.no_grad():
        found_BNC = model(x_BCHW)
        model.training = True  # of the detector alone: its batch norms keep to their statistics
        raw_BNC, points_N3 = model(x_BCHW)
    scores_BNK = (raw_BNC[..., :2].sigmoid() * raw_BNC[..., 6:].sigmoid()).sqrt()
    assert torch.allclose(found_BNC[..., :4] * 64, boxes_at(points_N3, raw_BNC[..., 2:6]), atol=1e-3)
    assert torch.allclose(found_BNC[..., 4:], scores_BNK, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_class_starts_rare_and_every_box_in_reach(name: str) -> None:
    with torch.no_grad():
        raw_BNC, _ = detector(name).train()(images(64))
    assert float(raw_BNC[..., :2].sigmoid().mean()) == pytest.approx(PRIOR, rel=0.2)
    assert float(raw_BNC[..., 2:6].mean()) == pytest.approx(REACH, rel=0.1)
    assert float(raw_BNC[..., 2:6].min()) >= 0


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_detector_is_the_masked_one_and_all_inner_channels_can_be_cut(name: str) -> None:
    model, x_BCHW = detector(name, lived_in=True).double(), images(64).double()
    graph = trace(model, x_BCHW[:1])
    assert not graph.notes
    assert {group.name for group in graph.groups if group.pinned} == {"classes", "box"}
    plan = random_plan(graph, seed=3)
    with torch.no_grad():
        cut, masked = compact(model, graph, plan)(x_BCHW), mask(model, graph, plan)(x_BCHW)
        assert (cut - masked).abs().max() < 1e-12
        assert (cut - model(x_BCHW)).abs().max() > 1e-3


def test_a_cut_detector_trains_on() -> None:
    model, x_BCHW = detector("fcos-tiny", lived_in=True), images(64)
    graph = trace(model, x_BCHW[:1])
    cut = compact(model, graph, random_plan(graph, seed=3)).train()
    targets = torch.tensor([[[8.0, 8.0, 40.0, 30.0, 1.0, 0.0]], [[10.0, 20.0, 30.0, 60.0, 0.0, 0.0]]])
    Detection(size=64).loss(cut(x_BCHW), targets, smoothing=0.0).backward()
    assert [n for n, p in cut.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


@pytest.mark.parametrize("size", [64, 100])
def test_the_exported_file_takes_batches_and_says_the_same(size: int, tmp_path: Path) -> None:
    model, x_BCHW = detector("fcos-tiny", lived_in=True), images(size, number=3)
    export_onnx(model, x_BCHW[:1], tmp_path, name="tiny")
    session = onnxruntime.InferenceSession(tmp_path / "tiny.onnx")
    with torch.no_grad():
        expected = model(x_BCHW).numpy()
    found = session.run(None, {session.get_inputs()[0].name: x_BCHW.numpy()})[0]
    assert np.abs(np.asarray(found) - expected).max() < 1e-4


def test_the_small_one_is_small() -> None:
    assert sum(p.numel() for p in zoo.load("fcos-tiny", num_classes=3).parameters()) < 2e6
