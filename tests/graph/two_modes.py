"""Networks that do something else in training mode, and what must be equal in both."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunit.cut.plans import Plan
from prunit.cut.surgery import compact, mask
from prunit.graph import ChannelGraph
from tests.nets import furthest, images, without

X = images(batch=4)


class Net(nn.Module):
    """Two convolutions and a classifier; `aux` reads the first one. A channel of zero weights stays zero throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.fc, self.aux = nn.Linear(12, 5), nn.Linear(8, 5)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.a(x).relu()
        return self.fc(self.b(h).relu().mean((2, 3))), self.aux(h.mean((2, 3)))

    def forward(self, x: Tensor) -> Any:
        y, z = self.both(x)
        return y + z if self.training else y


class Returned(Net):
    def forward(self, x: Tensor) -> Any:
        y, z = self.both(x)
        return {"out": y, "aux": z} if self.training else y


class Parts(Net):
    """Heads for parts of the image, a list in training; features in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(12, 7) for _ in range(3))

    def forward(self, x: Tensor) -> Any:
        stripes = self.b(self.a(x).relu()).relu().chunk(3, 2)
        local = [stripe.mean((2, 3)) for stripe in stripes]
        logits = [head(part) for head, part in zip(self.heads, local, strict=True)]
        return logits if self.training else torch.cat(local, 1)


class Deep(nn.Module):
    """Segmentation with outputs at two depths in training, stacked as some libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.up, self.out = nn.ConvTranspose2d(12, 8, 2, 2), nn.Conv2d(8, 2, 1)
        self.super1, self.super2 = nn.Conv2d(12, 2, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Any:
        first = self.a(x).relu()
        second = self.b(first).relu()
        out = self.out(self.up(second).relu())
        deep = [F.interpolate(self.super1(second), scale_factor=2.0), self.super2(first)]
        return torch.stack([out, *deep], 1) if self.training else out


class Branch(Net):
    """A branch of two layers that evaluation does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.norm = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
        self.aux = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Any:
        h = self.a(x).relu()
        y = self.fc(self.b(h).relu().mean((2, 3)))
        return [y, self.aux(self.norm(self.branch(h)).relu().mean((2, 3)))] if self.training else y


def in_training(module: nn.Module) -> bool:
    return module.training


class Helper(Net):
    def forward(self, x: Tensor) -> Any:
        y, z = self.both(x)
        return y + z if in_training(self) else y


class ByName(Net):
    def forward(self, x: Tensor) -> Any:
        y, z = self.both(x)
        return y + z if getattr(self, "training") else y  # noqa: B009 - as some code has it


class Property(Net):
    @property
    def deep(self) -> bool:
        return self.training

    def forward(self, x: Tensor) -> Any:
        y, z = self.both(x)
        return (y, z) if self.deep else y


class Gradients(Net):
    def forward(self, x: Tensor) -> Any:
        y, z = self.both(x)
        return y + z if torch.is_grad_enabled() else y


class OwnTrain(Net):
    """`train` notes elsewhere what is to be returned."""

    def __init__(self) -> None:
        super().__init__()
        self.wants_aux = True

    def train(self, mode: bool = True) -> "OwnTrain":
        super().train(mode)
        self.wants_aux = mode
        return self

    def forward(self, x: Tensor) -> Any:
        y, z = self.both(x)
        return y + z if self.wants_aux else y


class Hooked(Net):
    """A hook adds what another layer makes of the features, in training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_forward_hook(_add_aux)

    def forward(self, x: Tensor) -> Any:
        self.a(x)
        return super().both(x)[0]


def _add_aux(module: Any, given: tuple[Tensor], out: Tensor) -> Tensor:
    return out + module.aux(module.a(given[0]).relu().mean((2, 3))) if module.training else out


class Nested(nn.Module):
    """The mode of an inner module decides."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU()), Net2(6))

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


class Net2(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b, self.aux = nn.Conv2d(c, 7, 3), nn.Linear(7, 5), nn.Conv2d(c, 5, 1)

    def forward(self, x: Tensor) -> Any:
        y = self.b(self.a(x).relu().mean((2, 3)))
        if self.training:
            return y, self.aux(x).mean((2, 3))
        return y


class Single(Net):
    """Only in training are features normalised over the batch, which needs two images."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(12)

    def forward(self, x: Tensor) -> Any:
        h = self.a(x).relu()
        f = self.b(h).relu().mean((2, 3))
        return (self.fc(self.norm(f)), self.aux(h.mean((2, 3)))) if self.training else self.fc(f)


class Looking(Net):
    """Training looks at values; evaluation does not."""

    def forward(self, x: Tensor) -> Any:
        h = self.a(x).relu()
        y = self.fc(self.b(h).relu().mean((2, 3)))
        if self.training and bool(x.abs().sum() > 0):
            return y + self.aux(h.mean((2, 3)))
        return y


EVERY = [
    Net, Returned, Parts, Deep, Branch, Helper, ByName, Property, Gradients, OwnTrain, Hooked, Nested, Single, Looking,
]  # fmt: skip


def equal_in_both_modes(model: nn.Module, graph: ChannelGraph, plan: Plan, *examples: Any) -> None:
    """`compact`, `mask` and the uncut network with zeros agree; `examples` are for evaluation and for training."""
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    zeroed = without(model, graph, plan)
    for training, example in zip((False, True, False), (*examples, examples[0]), strict=True):
        for other in (twin, zeroed):
            assert furthest(other.train(training), small.train(training), example) < 1e-12
