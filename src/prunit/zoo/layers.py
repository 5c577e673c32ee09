"""What all reference networks share: convolution with batch norm, global pooling, and how weights start."""

from torch import Tensor, nn


class GlobalAverage(nn.Module):
    """The mean over height and width, (B, C): one ReduceMean in ONNX, where AdaptiveAvgPool2d needs a Reshape too."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW.mean((2, 3))


def conv_bn(in_channels: int, out_channels: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A `size` x `size` convolution without bias and its batch norm; at stride 1 the image keeps its size."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def he_normal_(model: nn.Module) -> None:
    """Start every convolution and linear layer from N(0, 2 / fan-in), biases from 0, batch norms from 1 and 0.

    He et al., 2015. Fan-in rather than fan-out, because torch's fan-out takes a depthwise convolution for a dense one.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
