"""Devices that are not there, and settings that do not go with a device."""

import pytest
import torch

from prunit.errors import ConfigError, DeviceError
from prunit.train import TrainConfig, device_named, train
from prunit.train.place import fabric_for, seeded
from tests.train.toys import small, stripes

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with two CUDA devices, as far as asking for them goes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return monkeypatch


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.usefixtures("no_gpu")
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    assert device_named("auto") == CPU
    assert device_named("cpu") == CPU


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["cuda", "cuda:3"])
def test_cuda_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{name}' was asked for, but .*torch.*; use device 'cpu'"):
        train(small(), stripes(), TrainConfig(device=name))


@pytest.mark.usefixtures("gpus")
def test_names_of_gpus() -> None:
    assert device_named("auto") == device_named("cuda") == torch.device("cuda", 0)
    assert device_named("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(DeviceError, match="device 'cuda:2' was asked for, but there are 2: cuda:0 to cuda:1"):
        device_named("cuda:2")


@pytest.mark.usefixtures("gpus")
def test_too_many_gpus() -> None:
    with pytest.raises(DeviceError, match="device '3 x cuda' was asked for, but there are 2"):
        train(small(), stripes(), TrainConfig(devices=3))


def test_an_unknown_device() -> None:
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        device_named("tpu")


def test_float16_needs_cuda() -> None:
    with pytest.raises(ConfigError, match="'precision' = '16-mixed' needs a CUDA device"):
        train(small(), stripes(), TrainConfig(device="cpu", precision="16-mixed"))


def test_a_scheduler_around_us_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "x", "WORLD_SIZE": "4", "RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    assert fabric_for(TrainConfig(device="cpu"), "32-true").world_size == 1


def test_the_model_s_randomness_follows_from_seed_and_epoch() -> None:
    def drawn(seed: int, epoch: int) -> float:
        with seeded(seed, epoch, 0, CPU):
            return float(torch.rand(()))

    before = torch.get_rng_state()
    assert drawn(0, 1) == drawn(0, 1)
    assert len({drawn(0, 0), drawn(0, 1), drawn(1, 0)}) == 3
    assert torch.equal(before, torch.get_rng_state())
