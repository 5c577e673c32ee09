"""VGG with batch norm (Simonyan & Zisserman, 2015), in the CIFAR form for small images and the ImageNet form."""

from torch import Tensor, nn

from prunit.zoo.layers import GlobalAverage, he_normal_

STAGES_VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
STAGES_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """3x3 convolutions with bias and batch norm in five stages; a max-pool halves the image after each.

    Images of up to 64 pixels end in global average pooling and one linear layer (14,728,266 parameters for VGG-16
    and 10 classes), larger ones in 7x7 averages and the three linear layers of the paper.
    """

    def __init__(
        self, stages: tuple[tuple[int, ...], ...], *, num_classes: int, in_channels: int, image_size: int
    ) -> None:
        super().__init__()
        self.features = _features(stages, in_channels, image_size)
        width = stages[-1][-1]
        if image_size <= 64:
            self.pool = GlobalAverage()
            self.classifier = nn.Sequential(nn.Linear(width, num_classes))
        else:
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten(1))
            self.classifier = nn.Sequential(
                *(nn.Linear(width * 7 * 7, 4096), nn.ReLU(), nn.Dropout(0.5)),
                *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)),
                nn.Linear(4096, num_classes),
            )
        he_normal_(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Class scores, (B, num_classes)."""
        return self.classifier(self.pool(self.features(x_BCHW)))


def _features(stages: tuple[tuple[int, ...], ...], in_channels: int, image_size: int) -> nn.Sequential:
    """The convolutions; a pool that would leave less than one pixel is left out (images under 32 pixels)."""
    layers: list[nn.Module] = []
    size = image_size
    for widths in stages:
        for width in widths:
            layers += [nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            in_channels = width
        if size >= 2:
            layers.append(nn.MaxPool2d(2))
            size //= 2
    return nn.Sequential(*layers)


def vgg11(*, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """VGG-11: eight convolutions."""
    return VGG(STAGES_VGG11, num_classes=num_classes, in_channels=in_channels, image_size=image_size)


def vgg16(*, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """VGG-16: thirteen convolutions."""
    return VGG(STAGES_VGG16, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
