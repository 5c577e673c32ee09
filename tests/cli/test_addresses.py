"""The command line on addresses: build to one, install from one, shrink to one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from prunit import zoo
from prunit.edge.portfolio import Portfolio
from tests.cli.running import prunit
from tests.edge.folders import portfolio_in
from tests.edge.stores import Objects


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    Objects.forget()


def test_a_build_is_sent_and_installed(net: Path, tmp_path: Path) -> None:
    options = ["--subset", "100", "--epochs", "1", "--device", "cpu", "--budget", "params=1/2", "--data", "digits"]
    options += ["--set", "probe.seconds=0.01", "--set", "prune.rounds=4", "--set", "prune.measure=false"]
    options += ["--train", "equal-epochs", "--out", "objects://bucket/portfolio"]
    result = prunit("build", f"{net}:network", *options)
    assert result.code == 0, result.err
    assert "sent to   objects://bucket/portfolio; prunit install objects://bucket/portfolio DIR" in result.out
    assert "sending" in result.err
    found = json.loads(prunit("build", f"{net}:network", *options, "--resume", "--json").out)
    assert found["address"] == "objects://bucket/portfolio"
    assert found["folder"] == str(Path("prunit-builds/objects_bucket_portfolio"))
    result = prunit("install", "objects://bucket/portfolio", "here")
    assert result.code == 0, result.err
    assert "2 of 2 variants installed for onnxruntime" in result.out
    assert {v.name for v in Portfolio.read(tmp_path / "here").variants} == {"dense", "params-1-2"}
    assert prunit("inspect", "here").code == 0
    assert "2 of 2 variants" in prunit("install", "objects://bucket/portfolio", "here").out


def test_a_folder_of_somebody_elses_is_not_installed_to(tmp_path: Path) -> None:
    portfolio_in(tmp_path / "mine")
    result = prunit("install", "objects://bucket/portfolio", "mine")
    assert result.code == 2
    assert "holds a portfolio that came by other means" in result.complaint


def test_a_shrunk_model_is_sent(tmp_path: Path) -> None:
    torch.save(zoo.load("resnet20", seed=0).state_dict(), tmp_path / "sparse.pt")
    where = "objects://bucket/models/small.safetensors"
    result = prunit("shrink", "resnet20", "sparse.pt", "--out", where, "--export", "--pad", "off")
    assert result.code == 0, result.err
    assert f"written to {where}" in result.out
    assert {path.rpartition("/")[2] for path in Objects.store} == {
        "small.onnx",
        "small.selftest.npz",
        "small.safetensors",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["sparse.pt"]


def test_a_shrunk_model_is_not_left_in_memory(tmp_path: Path) -> None:
    torch.save(zoo.load("resnet20", seed=0).state_dict(), tmp_path / "sparse.pt")
    result = prunit("shrink", "resnet20", "sparse.pt", "--out", "memory://bucket/small.safetensors")
    assert result.code == 2
    assert "--out memory://bucket: what lies in memory is gone when this command ends" in result.complaint
