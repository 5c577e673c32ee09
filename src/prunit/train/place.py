"""Where a training runs: the device, and the Fabric that holds it and the precision."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from prunit.errors import ConfigError, DeviceError
from prunit.train.augment import seed_of
from prunit.train.config import Chosen, TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def device_named(name: str) -> torch.device:
    """The device that `name` (auto, cpu, cuda or cuda:N) means here; DeviceError if it is not there."""
    match = re.fullmatch(r"(auto|cpu|cuda)(?::(\d+))?", name)
    if not match or (match[2] and match[1] != "cuda"):
        raise DeviceError(f"unknown device '{name}': use auto, cpu, cuda or cuda:N")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if match[1] == "cpu" or (match[1] == "auto" and not there):
        return torch.device("cpu")
    _need_cuda(name, int(match[2] or 0) + 1, there)
    return torch.device("cuda", int(match[2] or 0))


def _need_cuda(asked: str, need: int, there: int) -> None:
    if there >= need:
        return
    if there:
        found = f"there {'is' if there == 1 else 'are'} {there}: cuda:0" + (
            f" to cuda:{there - 1}" if there > 1 else ""
        )
    elif torch.version.cuda is None and torch.version.hip is None:
        found = f"this torch ({torch.__version__}) is built without CUDA"
    else:
        found = f"torch {torch.__version__} finds no CUDA device"
    raise DeviceError(f"device '{asked}' was asked for, but {found}; use device 'cpu' or 'auto'")


def check_place(config: TrainConfig) -> torch.device:
    """The first device of a training; an error if a device or the precision is not to be had."""
    device = device_named(config.device)
    if device.type == "cuda" and config.devices > 1:
        _need_cuda(f"{config.devices} x cuda", config.devices, torch.cuda.device_count())
    if device.type == "cpu" and config.precision == "16-mixed":
        raise ConfigError("training setting 'precision' = '16-mixed' needs a CUDA device: use 'bf16-mixed' or 'auto'")
    return device


def fabric_for(config: TrainConfig, precision: Chosen) -> "Fabric":
    """The launched Fabric of this process: its device, its precision and its place among `config.devices` processes."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    device = check_place(config)
    several = config.devices > 1
    with _quiet():
        fabric = Fabric(
            accelerator=device.type,
            devices=config.devices if several or device.type == "cpu" else [device.index],
            strategy="ddp" if several else "auto",
            precision=precision,
            # Without this a scheduler's variables (SLURM, torchrun) would decide how many processes there are.
            plugins=[LightningEnvironment()],
        )
        fabric.launch()
    return fabric


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, Fabric keeps to itself what it announces and recommends: our settings are meant."""
    log = logging.getLogger("lightning_fabric")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning_fabric")
            yield
    finally:
        log.setLevel(level)


def moved(model: nn.Module, device: torch.device, layout: torch.memory_format = torch.contiguous_format) -> nn.Module:
    """The same module, its tensors now on `device`, images' feature maps laid out as `layout`."""
    return model.to(device=device, memory_format=layout)  # pyright: ignore[reportCallIssue]  # missing in torch's types


@contextmanager
def seeded(seed: int, epoch: int, rank: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's own randomness (dropout, drop path) follows from the arguments; outside it is left as it was."""
    number = seed_of("model", seed, epoch, rank)
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device.index] if on_cuda else []):
        torch.default_generator.manual_seed(number)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield
