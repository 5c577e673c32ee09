"""Reference networks and data sets by name.

zoo.load("resnet20", num_classes=10)      a network: the zoo's, "timm:NAME", "torchvision:NAME",
                                          "path/to/file.py:factory" or "package.module:factory"
zoo.data.load("cifar10")                  a data set held in memory
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from prunit import user
from prunit.errors import ModelError
from prunit.known import NETWORKS, check_built_for, check_model
from prunit.zoo import fcos, mobilenetv2, resnet, unet, vgg

if TYPE_CHECKING:
    from prunit.zoo import data

__all__ = ["data", "factory", "load", "models"]


@dataclass(frozen=True)
class _Build:
    make: Callable[..., nn.Module]
    takes_image_size: bool = False


_BUILDS: Final[Mapping[str, _Build]] = {
    "vgg11": _Build(vgg.vgg11, takes_image_size=True),
    "vgg16": _Build(vgg.vgg16, takes_image_size=True),
    "resnet20": _Build(resnet.resnet20),
    "resnet56": _Build(resnet.resnet56),
    "resnet18": _Build(resnet.resnet18, takes_image_size=True),
    "resnet50": _Build(resnet.resnet50, takes_image_size=True),
    "mobilenetv2": _Build(mobilenetv2.mobilenetv2, takes_image_size=True),
    "unet": _Build(unet.unet),
    "unet-tiny": _Build(unet.unet_tiny),
    "fcos-tiny": _Build(fcos.fcos_tiny),
    "fcos-resnet18": _Build(fcos.fcos_resnet18),
    "fcos-mobilenetv2": _Build(fcos.fcos_mobilenetv2),
}
"""How each of `known.NETWORKS` is made."""


def models(task: str | None = None) -> dict[str, str]:
    """One line about each network of the zoo, by name, or of those for one task; the most are classifiers.

    The parameters are those at 10 classes and 32 pixels.
    """
    return {name: network.about for name, network in NETWORKS.items() if task in (None, network.task)}


def load(name: str, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32, seed: int = 0) -> nn.Module:
    """The network `name` with untrained weights: the same for the same `seed`; the caller's random state stays.

    Images of up to 64 pixels get the CIFAR form of a zoo network, larger ones the ImageNet form. A user's factory is
    called with those of num_classes, in_channels and image_size that its signature names.
    """
    check_built_for(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    with seeded(seed):
        return _build(name, num_classes, in_channels, image_size)


def factory(
    name: str, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32, seed: int = 0
) -> Callable[[], nn.Module]:
    """A callable without arguments that loads the network anew, as rebuilding one from code, plan and weights needs."""
    return partial(load, name, num_classes=num_classes, in_channels=in_channels, image_size=image_size, seed=seed)


def _build(name: str, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    check_model(name)
    if name in _BUILDS:
        known = _BUILDS[name]
        build = partial(known.make, num_classes=num_classes, in_channels=in_channels)
        return build(image_size=image_size) if known.takes_image_size else build()
    package, _, rest = name.partition(":")
    from prunit.zoo import external

    if package == "timm":
        return external.from_timm(rest, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    if package == "torchvision":
        return external.from_torchvision(rest, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    offered = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    made = user.call(name, offered, error=ModelError)
    if not isinstance(made, nn.Module):
        what = f"the class {made.__name__}" if isinstance(made, type) else f"an object of type {type(made).__name__}"
        raise ModelError(f"'{name}' returned {what}, not an nn.Module")
    return made


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The random state that starts from `seed`, and afterwards the caller's again."""
    # torch.manual_seed would also queue a seed for a CUDA that is yet to start, which nothing takes back.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield


if not TYPE_CHECKING:  # to a type checker there is the name above, and no other

    def __getattr__(name: str) -> object:
        if name != "data":
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        return import_module(f"{__name__}.data")  # a model is made without
