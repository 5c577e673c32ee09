"""What has a name on the command line, a line each: networks of the zoo, scores, tasks. Loads no torch.

A name that is none of these is refused by the tables here, before anybody waits for what stands behind them. What does
the work has the same names, as a test checks: `_BUILDS` in `zoo`, `SCORES` in `scores`, `TASKS` in `tasks`. Data sets
are in `edge.data_sets`, recipes in `recipe.offered`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from prunit import user
from prunit.errors import ConfigError, MissingExtraError, ModelError, unknown


@dataclass(frozen=True)
class Network:
    """A network of the zoo. The parameters are those at 10 classes and 32 pixels."""

    about: str
    task: str = "classification"


_DETECTOR: Final = "detection: boxes without anchors on {} M parameters"
NETWORKS: Final[Mapping[str, Network]] = {
    "vgg11": Network("8 convolutions in a row, 9.2 M parameters (132.9 M above 64 pixels)"),
    "vgg16": Network("13 convolutions in a row, 14.7 M parameters (138.4 M above 64 pixels)"),
    "resnet20": Network("small residual network for CIFAR, 0.27 M parameters"),
    "resnet56": Network("deep small residual network for CIFAR, 0.86 M parameters"),
    "resnet18": Network("residual network of pairs of 3x3 convolutions, 11.2 M parameters"),
    "resnet50": Network("residual network of bottlenecks, 23.5 M parameters"),
    "mobilenetv2": Network("inverted residuals, depthwise, 2.2 M parameters"),
    "unet": Network("a class for each pixel, four resolutions, 1.8 M parameters", "segmentation"),
    "unet-tiny": Network("the same at a quarter of the widths, 0.11 M parameters", "segmentation"),
    "fcos-tiny": Network(_DETECTOR.format("a narrow ResNet, trains on a CPU, 0.43"), "detection"),
    "fcos-resnet18": Network(_DETECTOR.format("resnet18, 11.5"), "detection"),
    "fcos-mobilenetv2": Network(_DETECTOR.format("mobilenetv2, 2.1"), "detection"),
}
_FORMS: Final = "Or timm:NAME, torchvision:NAME, path/to/file.py:FACTORY, package.module:FACTORY."
OTHERS: Final = ("timm", "torchvision")
"""Packages whose models go by PACKAGE:NAME."""


@dataclass(frozen=True)
class Ranking:
    """A score: what it is, and whether it looks at images and their classes."""

    line: str
    needs_data: bool = False


SCORES: Final[Mapping[str, Ranking]] = {
    "magnitude": Ranking("|weight|, of channels the L1 norm (Li et al. 2017); no data, no forward pass"),
    "random": Ranking("uniform draws: the same expected density in every layer"),
    "random-erk": Ranking("random within a layer, Erdős-Rényi-kernel density between layers (Evci et al. 2020)"),
    "snip": Ranking("|weight × gradient| of the loss, one shot (Lee et al. 2019)", needs_data=True),
    "grasp": Ranking("preserves the gradient flow, one shot (Wang et al. 2020)", needs_data=True),
    "synflow": Ranking("flow through the absolute-valued network, 100 rounds, no data (Tanaka et al. 2020)"),
    "iterative-snip": Ranking("SNIP, rescored 60 times as weights go (de Jorge et al. 2021)", needs_data=True),
    "force": Ranking("as iterative SNIP, but a pruned weight may return (de Jorge et al. 2021)", needs_data=True),
    "taylor": Ranking(
        "trained: change of the loss without the channel, squared (Molchanov et al. 2019)", needs_data=True
    ),
    "bn-scale": Ranking("trained: |gain| of the channel's batch norm; no data (Liu et al. 2017)"),
    "activation": Ranking("trained: mean |activation| of the channel (Molchanov et al. 2017)", needs_data=True),
}

TASKS: Final = ("classification", "multilabel", "regression", "segmentation", "detection")
"""What models are for; each has a class in `tasks` and one in `edge.tasks`."""


def check_model(name: str) -> None:
    """Raise for a model's name that can stand for none: nothing is built, and nothing of the user's is run.

    `UnknownNameError` for one that the zoo does not have, `ModelError` for a factory whose file or module is not there,
    `MissingExtraError` where the package of its models is not installed. Whether that package has such a model, and
    whether the factory is in its file, comes out when the model is made.
    """
    if name in NETWORKS:
        return
    package, _, _ = name.partition(":")
    if package in OTHERS and ":" in name:
        for needed in dict.fromkeys(("torchvision", package)):  # timm imports torchvision
            if not _installed(needed):
                raise MissingExtraError(name, needed, "zoo")
        return
    if name.endswith(".py"):
        raise ModelError(f"'{name}' names a file but no factory in it: write {name}:FACTORY")
    if ":" not in name:
        raise unknown("model", name, NETWORKS, _FORMS)
    user.check(name, error=ModelError)


def check_built_for(name: str, *, num_classes: int = 1, in_channels: int = 1, image_size: int = 1) -> None:
    """Raise `ConfigError` for numbers that no model can be built for."""
    asked = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    for setting, value in asked.items():
        if value < 1:
            raise ConfigError(f"{setting}={value} for model '{name}': it must be at least 1")


def check_score(name: str) -> None:
    """Raise `UnknownNameError` for a score that does not exist."""
    if name not in SCORES:
        raise unknown("score", name, SCORES)


def check_task(name: str) -> None:
    """Raise `UnknownNameError` for a task that does not exist."""
    if name not in TASKS:
        raise unknown("task", name, TASKS, "Or path/to/file.py:FACTORY for one of your own.")


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # it is imported, by hand
        return True
