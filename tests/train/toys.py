"""A tiny network and tiny data sets that the training tests share; importable by the processes they start."""

import torch
from torch import Tensor, nn

from prunit.batches import Dataset, Split


class Small(nn.Module):
    """Two convolutions with batch norm and dropout, and a buffer that no state_dict holds; 4 classes, grey images."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.2)
        self.conv2 = nn.Conv2d(width, 8, 1)
        self.fc = nn.Linear(8, 4)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        x_BCHW = self.drop(self.norm(self.conv1(x_BCHW)).relu())
        return self.fc(self.conv2(x_BCHW).relu().mean((2, 3)))


def small(width: int = 6, *, seed: int = 0) -> Small:
    """A network with weights drawn from `seed`; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Small(width)


def stripes(n: int = 50, *, size: int = 8, tests: int = 12, flip: bool = True) -> Dataset:
    """Noisy images of 4 classes by where they are bright; the labels go 0, 1, 2, 3, 0, …"""
    generator = torch.Generator().manual_seed(1)

    def split(count: int) -> Split:
        y_B = torch.arange(count) % 4
        x_BCHW = torch.randint(0, 60, (count, 1, size, size), generator=generator, dtype=torch.uint8)
        half = size // 2
        for i, label in enumerate(y_B.tolist()):
            x_BCHW[i, 0, (label // 2) * half :, (label % 2) * half :] += 100
        return Split(x_BCHW, y_B)

    return Dataset("stripes", split(n), split(tests), tuple("abcd"), (0.3,), (0.2,), flip=flip)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def assert_same(first: nn.Module, second: nn.Module) -> None:
    """Every parameter and buffer is the same to the last bit."""
    ones, others = tensors(first), tensors(second)
    assert ones.keys() == others.keys()
    assert [name for name in ones if not torch.equal(ones[name], others[name])] == []
