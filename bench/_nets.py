"""The networks that are measured, and the plan that halves them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import torch
from torch import Tensor, nn

from prunit import zoo
from prunit.cut.plans import Plan, choose
from prunit.graph import ChannelGraph
from prunit.scores import score_channels


@dataclass(frozen=True)
class Net:
    """A network of the zoo at one image size; ImageNet's 1,000 classes above 64 pixels, else 10."""

    title: str
    name: str
    image_size: int

    @property
    def classes(self) -> int:
        return 1000 if self.image_size > 64 else 10

    def make(self) -> tuple[nn.Module, Tensor]:
        """The untrained network in evaluation mode, and one image."""
        model = zoo.load(self.name, num_classes=self.classes, image_size=self.image_size)
        return model.eval(), torch.zeros(1, 3, self.image_size, self.image_size)


Make = Callable[[], tuple[nn.Module, Tensor]]
"""What makes a network and an example; `Net.make`, or anything like it."""

HALVED: Final[Mapping[str, Net]] = {
    "vgg16-32": Net("VGG-16, 32×32", "vgg16", 32),
    "resnet18-224": Net("ResNet-18, 224×224", "resnet18", 224),
    "resnet50-224": Net("ResNet-50, 224×224", "resnet50", 224),
    "mobilenetv2-224": Net("MobileNetV2, 224×224", "mobilenetv2", 224),
}
MORE: Final[Mapping[str, Net]] = {
    "densenet121-224": Net("DenseNet-121, 224×224", "torchvision:densenet121", 224),
    "efficientnetb0-224": Net("EfficientNet-B0, 224×224", "torchvision:efficientnet_b0", 224),
    "convnextt-224": Net("ConvNeXt-T, 224×224", "torchvision:convnext_tiny", 224),
    "regnety-224": Net("RegNetY-400MF, 224×224", "torchvision:regnet_y_400mf", 224),
}
LARGE: Final[Mapping[str, Net]] = {"vgg16-224": Net("VGG-16-BN, 224×224", "vgg16", 224)}
SMALL: Final[Mapping[str, Net]] = {
    "vgg16-32": HALVED["vgg16-32"],
    "resnet20-32": Net("ResNet-20, 32×32", "resnet20", 32),
    "mobilenetv2-32": Net("MobileNetV2, 32×32", "mobilenetv2", 32),
}


def plan_at(model: nn.Module, graph: ChannelGraph, example: Tensor, share: Fraction = Fraction(1, 2)) -> Plan:
    """The plan that keeps `share` of every group that may shrink, residual streams too, its channels by magnitude."""
    scores = score_channels(model, graph, "magnitude", [(example, torch.empty(0, dtype=torch.int64))])
    widths = {g.name: g.size if g.pinned else max(1, int(g.size * share)) for g in graph.groups}
    return choose(graph, scores, widths)


def count(model: nn.Module) -> int:
    """Parameters of a model."""
    return sum(p.numel() for p in model.parameters())
