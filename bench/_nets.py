"""The networks that are measured, and the plan that halves them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from prunit import zoo
from prunit.cut.plans import Plan, choose
from prunit.cut.surgery import compact
from prunit.edge.portfolio import Metrics, Portfolio, Preprocessing, Variant
from prunit.export import EXPORTERS
from prunit.graph import ChannelGraph, trace
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


def portfolio_at(net: Net, shares: Mapping[str, Fraction], folder: Path) -> Portfolio:
    """A network at these shares of its channels, exported to the folder: variants that differ in speed alone.

    As accurate as they are wide by the manifest, so that the widest is the one to begin with.
    """
    model, example = net.make()
    graph = trace(model, example)
    variants = []
    for name, share in shares.items():
        small = compact(model, graph, plan_at(model, graph, example, share)).eval()
        artifact = EXPORTERS["onnx"](small, example, folder, name=name)
        params = sum(p.numel() for p in small.parameters())
        metrics = Metrics(
            accuracy=float(share),
            params=params,
            macs=0,
            weight_bytes=4 * params,
            activation_bytes=0,
            file_bytes=artifact.bytes,
        )
        variants.append(Variant(name=name, recipe="width", keep=float(share), artifact=artifact, metrics=metrics))
    found = Portfolio(
        name=net.name,
        model=net.name,
        data="noise",
        classes=tuple(map(str, range(net.classes))),
        preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.2,) * 3, size=(net.image_size, net.image_size)),
        variants=tuple(variants),
        prunit_version="0",
        created="2026-01-01T00:00:00+00:00",
    )
    found.write(folder)
    return found
