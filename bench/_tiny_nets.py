"""Networks as microcontrollers run them, in plain torch, and the images that each is trained on here.

The shapes are those of MLPerf Tiny (Banbury et al. 2021) and ResNet-20. Images are square in prunit, so keywords stand
for themselves with clothes: DS-CNN reads Fashion-MNIST in the place of 49 x 10 coefficients of sound.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

import prunit
from prunit.batches import Dataset
from prunit.zoo.resnet import Basic, ResNet


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A depthwise convolution of 3x3 and one of 1x1, each with batch norm and ReLU."""
    return nn.Sequential(
        *(nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU()),
        *(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
    )


def head(channels: int, classes: int) -> tuple[nn.Module, ...]:
    """The mean over all positions and a linear layer."""
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(channels, classes)


def resnet8() -> nn.Module:
    """For CIFAR-10, as in MLPerf Tiny's image classification."""
    return ResNet(Basic, ((16, 1), (32, 1), (64, 1)), stem="small", num_classes=10, in_channels=3)


def resnet20() -> nn.Module:
    """The zoo's."""
    return prunit.zoo.load("resnet20", seed=0)


def mobilenetv1() -> nn.Module:
    """MobileNetV1 0.25 as in MLPerf Tiny's visual wake words, with 20 classes in the place of 2."""
    strided = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *((128, 1),) * 5, (256, 2), (256, 1))
    stem = (nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    inputs = (8, *(outputs for outputs, _ in strided))
    blocks = [separable(reads, *made) for reads, made in zip(inputs, strided, strict=False)]
    return nn.Sequential(*stem, *blocks, *head(256, 20))


def ds_cnn() -> nn.Module:
    """As in MLPerf Tiny's keyword spotting: 64 channels everywhere."""
    stem = (nn.Conv2d(1, 64, (10, 4), 2, (4, 1), bias=False), nn.BatchNorm2d(64), nn.ReLU())
    return nn.Sequential(*stem, *(separable(64, 64) for _ in range(4)), *head(64, 10))


@dataclass(frozen=True)
class TinyNet:
    """A network, its images, and how long it is trained here: dense, and after it was cut."""

    title: str
    build: Callable[[], nn.Module]
    channels: int
    side: int
    data: str
    subset: int
    judged: int
    """Test images, the first of the set."""
    epochs: int
    tuned: int

    def made(self, seed: int) -> nn.Module:
        """The network with weights drawn by the seed."""
        torch.manual_seed(seed)
        model = self.build() if self.build is not resnet20 else prunit.zoo.load("resnet20", seed=seed)
        return model.eval()

    @property
    def example(self) -> Tensor:
        """An image."""
        return torch.zeros(1, self.channels, self.side, self.side)

    def images(self, folder: Path) -> Dataset:
        """What it is trained on, the same subset for all seeds and ways."""
        size = None if self.data != "tiny-imagenet-20" else self.side
        found = prunit.zoo.data.load(self.data, data_dir=folder, subset=self.subset, image_size=size)
        order = torch.randperm(len(found.test), generator=torch.Generator().manual_seed(0))[: self.judged]
        return replace(found, test=found.test.taken(order))


NETS: Final[Mapping[str, TinyNet]] = {
    "resnet8": TinyNet("ResNet-8, 32×32", resnet8, 3, 32, "cifar10", 16000, 4000, 3, 1),
    "ds_cnn": TinyNet("DS-CNN, 28×28", ds_cnn, 1, 28, "fashion-mnist", 9000, 4000, 2, 1),
    "resnet20": TinyNet("ResNet-20, 32×32", resnet20, 3, 32, "cifar10", 16000, 4000, 3, 1),
    "mobilenetv1": TinyNet("MobileNetV1 0.25, 96×96", mobilenetv1, 3, 96, "tiny-imagenet-20", 8000, 1000, 3, 1),
}
