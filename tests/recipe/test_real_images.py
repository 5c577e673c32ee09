"""The main job on real images: a small share of real data sets, zoo networks as users name them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import prunit
from prunit.batches import Split
from prunit.zoo import data

CONFIG = {
    "budgets": ["params=1/4", "macs=1/2"],
    "train": {"epochs": 1, "batch_size": 20, "device": "cpu"},
    # Candidates and steps are timed in tests of their own; here that is most of the time.
    "prune": {"rounds": 5, "measure": False},
    "effort": {"rule": "equal-epochs"},
    "probe": {"seconds": 0.05, "batch": 2},
}


@pytest.mark.data
@pytest.mark.parametrize(
    ("network", "name", "folder"),
    [
        ("resnet20", "cifar10", "cifar-10-batches-py"),
        ("vgg11", "fashion-mnist", "FashionMNIST/raw"),
        ("mobilenetv2", "tiny-imagenet", "tiny-imagenet*"),
    ],
)
def test_a_portfolio_from_real_images(
    network: str, name: str, folder: str, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    loaded = data.load(name, data_dir=real_data(folder), subset=100, image_size=32)
    few = Split(loaded.test.x_BCHW[:200], loaded.test.y_B[:200])
    portfolio = prunit.build(network, replace(loaded, test=few), tmp_path / "out", config=CONFIG)
    assert portfolio.verify(tmp_path / "out") == []
    assert portfolio.classes == loaded.classes
    dense, quarter, half = portfolio.variants
    assert [v.name for v in portfolio.variants] == ["dense", "params-1-4", "macs-1-2"]
    assert 0.15 < quarter.metrics.params / dense.metrics.params <= 1 / 4
    assert 0.3 < half.metrics.macs / dense.metrics.macs <= 1 / 2
    assert quarter.artifact.bytes < 0.5 * dense.artifact.bytes
    assert (tmp_path / "out" / "report.html").stat().st_size > 100_000
