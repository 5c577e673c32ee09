"""A small network around one expression with an epsilon, spelled in all the ways that people write them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Inner = Callable[[Tensor], Tensor]


class Around(nn.Module):
    """Convolutions without a bias, so that nothing comes in where the image is black; then `inner`, then a head."""

    def __init__(self, inner: Inner) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.second = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)
        self.inner = inner

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.inner(self.first(x_BCHW).relu())
        return self.head(self.second(y_BCHW).relu().mean((2, 3)))


class Held(nn.Module):
    """An epsilon that the model holds as a tensor."""

    def __init__(self, epsilon: float, shape: tuple[int, ...] = (), *, learnt: bool = False) -> None:
        super().__init__()
        tensor = torch.full(shape, epsilon)
        if learnt:
            self.epsilon = nn.Parameter(tensor)
        else:
            self.register_buffer("epsilon", tensor)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW / (length(x_BCHW) + self.epsilon)


class Frozen(nn.Module):
    """A convolution and its batch norm with statistics of a channel that was never on."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1, bias=False)
        self.norm = nn.BatchNorm2d(16, eps=epsilon)
        nn.init.zeros_(self.conv.weight[3])
        self.norm.running_var[3] = 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.norm(self.conv(x_BCHW))


def length(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.pow(2).sum(1, keepdim=True).sqrt()


def spellings(epsilon: float) -> dict[str, Inner]:
    """What people write to keep a division, a root or a logarithm from zero, by name."""
    e, pixels = epsilon, (2, 3)
    return {
        "length + e": lambda x: x / (length(x) + e),
        "e + length": lambda x: x / (e + length(x)),
        "norm() + e": lambda x: x / (x.norm(dim=1, keepdim=True) + e),
        "length - -e": lambda x: x / (length(x) - -e),
        "length + tensor": lambda x: x / (length(x) + torch.tensor(e)),
        "length clamped": lambda x: x / length(x).clamp(min=e),
        "length clamp_min": lambda x: x / length(x).clamp_min(e),
        "larger of both": lambda x: x / torch.maximum(length(x), torch.tensor(e)),
        "where": lambda x: x / torch.where(length(x) > e, length(x), e),
        "normalize": lambda x: F.normalize(x, dim=1, eps=e),
        "cosine": lambda x: x * F.cosine_similarity(x, x.flip(1), dim=1, eps=e).unsqueeze(1),
        "buffer": Held(e),
        "buffer of a channel": Held(e, (1, 16, 1, 1)),
        "parameter": Held(e, learnt=True),
        "pixel norm": lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + e),
        "power": lambda x: x * (x.pow(2).mean(1, keepdim=True) + e) ** -0.5,
        "deviation + e": lambda x: (x - x.mean(pixels, keepdim=True)) / (x.std(pixels, keepdim=True) + e),
        "instance norm by hand": lambda x: (
            (x - x.mean(pixels, keepdim=True)) / torch.sqrt(x.var(pixels, unbiased=False, keepdim=True) + e)
        ),
        "layer norm": lambda x: F.layer_norm(x, x.shape[1:], eps=e),
        "rms norm": lambda x: F.rms_norm(x, x.shape[1:], eps=e),
        "group norm": lambda x: F.group_norm(x, 4, eps=e),
        "instance norm": lambda x: F.instance_norm(x, eps=e),
        "batch norm": Frozen(e),
        "share": lambda x: x / (x.abs().sum(1, keepdim=True) + e),
        "addcdiv": lambda x: torch.addcdiv(x, x, x.abs().sum(1, keepdim=True) + e),
        "logarithm": lambda x: torch.log(x + e),
        "root": lambda x: torch.sqrt(x + e),
        "generalised mean": lambda x: x * x.clamp(min=e).pow(3).mean(pixels, keepdim=True).pow(1 / 3),
        "nearly one": lambda x: x * (1 - e) / (1 + e),
        "log of nearly one": lambda x: torch.log(1 - e - x.sigmoid()),
    }
