"""Small networks, one for each thing an exporter can get wrong, with batch statistics that are not the identity."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

SHAPE_CHW = (3, 8, 8)


def unit(inputs: int, outputs: int, *, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def head(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 4))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = unit(3, 5), unit(5, 5), head(5)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.stem(x_BCHW)
        return self.head(y_BCHW + self.block(y_BCHW))


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = unit(3, 5), unit(3, 2), head(7)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(torch.cat([self.left(x_BCHW), self.right(x_BCHW)], dim=1))


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Sequential(unit(3, 37), nn.MaxPool2d(2), unit(37, 5), head(5)),
    "residual": Residual,
    "depthwise": lambda: nn.Sequential(unit(3, 5), unit(5, 5, groups=5), nn.ReLU6(), unit(5, 6), head(6)),
    "concat": Concat,
    "no_batch_norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), head(4)),
    "batch_norm_only": lambda: nn.Sequential(nn.BatchNorm2d(3), head(3)),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 9), nn.ReLU(), nn.Linear(9, 4)),
}


def build(name: str) -> nn.Module:
    """The net called `name` in training mode, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = NETS[name]()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean = torch.randn(module.num_features)
                module.running_var = torch.rand(module.num_features) + 0.5
                module.weight.data.uniform_(0.5, 2)
                module.bias.data.normal_()
    return net


def example(channels: int = 3) -> Tensor:
    return torch.zeros(1, channels, *SHAPE_CHW[1:])
