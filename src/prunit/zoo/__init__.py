"""Reference networks and data sets by name.

zoo.load("resnet20", num_classes=10)      a network: the zoo's, "timm:NAME", "torchvision:NAME",
                                          "path/to/file.py:factory" or "package.module:factory"
zoo.data.load("cifar10")                  a data set held in memory
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import nn

from prunit.errors import ConfigError, ModelError, unknown
from prunit.zoo import data, external, fcos, mobilenetv2, resnet, unet, user, vgg

__all__ = ["data", "factory", "load", "models"]


@dataclass(frozen=True)
class _Model:
    build: Callable[..., nn.Module]
    takes_image_size: bool
    about: str
    task: str = "classification"


_DETECTOR: Final = "detection: boxes without anchors on {} M parameters"
_MODELS: Final[Mapping[str, _Model]] = {
    "vgg11": _Model(vgg.vgg11, True, "8 convolutions in a row, 9.2 M parameters (132.9 M above 64 pixels)"),
    "vgg16": _Model(vgg.vgg16, True, "13 convolutions in a row, 14.7 M parameters (138.4 M above 64 pixels)"),
    "resnet20": _Model(resnet.resnet20, False, "small residual network for CIFAR, 0.27 M parameters"),
    "resnet56": _Model(resnet.resnet56, False, "deep small residual network for CIFAR, 0.86 M parameters"),
    "resnet18": _Model(resnet.resnet18, True, "residual network of pairs of 3x3 convolutions, 11.2 M parameters"),
    "resnet50": _Model(resnet.resnet50, True, "residual network of bottlenecks, 23.5 M parameters"),
    "mobilenetv2": _Model(mobilenetv2.mobilenetv2, True, "inverted residuals, depthwise, 2.2 M parameters"),
    "unet": _Model(unet.unet, False, "a class for each pixel, four resolutions, 1.8 M parameters", "segmentation"),
    "unet-tiny": _Model(
        unet.unet_tiny, False, "the same at a quarter of the widths, 0.11 M parameters", "segmentation"
    ),
    "fcos-tiny": _Model(fcos.fcos_tiny, False, _DETECTOR.format("a narrow ResNet, trains on a CPU, 0.43"), "detection"),
    "fcos-resnet18": _Model(fcos.fcos_resnet18, False, _DETECTOR.format("resnet18, 11.5"), "detection"),
    "fcos-mobilenetv2": _Model(fcos.fcos_mobilenetv2, False, _DETECTOR.format("mobilenetv2, 2.1"), "detection"),
}
_FORMS = "Or timm:NAME, torchvision:NAME, path/to/file.py:FACTORY, package.module:FACTORY."


def models(task: str | None = None) -> dict[str, str]:
    """One line about each network of the zoo, by name, or of those for one task; the most are classifiers.

    The parameters are those at 10 classes and 32 pixels.
    """
    return {name: model.about for name, model in _MODELS.items() if task in (None, model.task)}


def load(name: str, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32, seed: int = 0) -> nn.Module:
    """The network `name` with untrained weights: the same for the same `seed`; the caller's random state stays.

    Images of up to 64 pixels get the CIFAR form of a zoo network, larger ones the ImageNet form. A user's factory is
    called with those of num_classes, in_channels and image_size that its signature names.
    """
    asked = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    for setting, value in asked.items():
        if value < 1:
            raise ConfigError(f"{setting}={value} for model '{name}': it must be at least 1")
    with seeded(seed):
        return _build(name, num_classes, in_channels, image_size)


def factory(
    name: str, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32, seed: int = 0
) -> Callable[[], nn.Module]:
    """A callable without arguments that loads the network anew, as rebuilding one from code, plan and weights needs."""
    return partial(load, name, num_classes=num_classes, in_channels=in_channels, image_size=image_size, seed=seed)


def _build(name: str, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    if name in _MODELS:
        model = _MODELS[name]
        build = partial(model.build, num_classes=num_classes, in_channels=in_channels)
        return build(image_size=image_size) if model.takes_image_size else build()
    package, _, rest = name.partition(":")
    if package == "timm":
        return external.from_timm(rest, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    if package == "torchvision":
        return external.from_torchvision(rest, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    if name.endswith(".py"):
        raise ModelError(f"'{name}' names a file but no factory in it: write {name}:FACTORY")
    if ":" not in name:
        raise unknown("model", name, _MODELS, _FORMS)
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
