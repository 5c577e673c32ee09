"""Models that look at values: given up is what cannot be checked, or what a decision hangs on, and nothing else."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.reading import free, read
from tests.nets import conv_bn

Code = Callable[[Any, Tensor], Tensor]


class Frozen(nn.Module):
    """A batch norm of buffers, as detectors have it."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(c))
        self.register_buffer("shift", torch.zeros(c))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.reshape(1, -1, 1, 1) + self.shift.reshape(1, -1, 1, 1)


class Looking(nn.Module):
    """`before` looks at the images, `norm` and `code` stand between convolutions, `after` looks at what is found."""

    def __init__(
        self, norm: nn.Module, *, before: Code | None = None, code: Code | None = None, after: Any = None
    ) -> None:
        super().__init__()
        self.stem, self.norm, self.inner = conv_bn(3, 12), norm, Inner(code)
        self.out = nn.Conv2d(12, 4, 1)
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(self, x) if self.before else x
        y = self.out(self.inner(self.norm(self.stem(x))))
        return self.after(y) if self.after else y


class Inner(nn.Module):
    def __init__(self, code: Code | None) -> None:
        super().__init__()
        self.code, self.conv, self.groups = code, nn.Conv2d(12, 12, 1), 3

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, self.conv(x)) if self.code else self.conv(x)


def valid(m: Any, x: Tensor) -> Tensor:
    if not torch.isfinite(x).all():
        raise ValueError("no image")
    return x


def scaled(m: Any, x: Tensor) -> Tensor:
    return x / x.abs().max().item()


def best(y: Tensor) -> Tensor:
    """The pixels whose first score is positive, as a detector finds them."""
    return torch.cat([one[:, one[0] > 0].sum(1) for one in y])


def places(y: Tensor) -> Tensor:
    return torch.stack([y[:, 0].nonzero().double().mean(0).sum(), y.sum()])


def shuffled(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


NORMS = {
    "frozen": lambda: Frozen(12),
    "group norm": lambda: nn.GroupNorm(3, 12),
    "instance norm": lambda: nn.InstanceNorm2d(12, affine=True),
    "prelu": lambda: nn.PReLU(12),
    "layer norm": lambda: nn.Sequential(Channels(), nn.LayerNorm(12), Channels(back=True)),
}


class Channels(nn.Module):
    def __init__(self, *, back: bool = False) -> None:
        super().__init__()
        self.order = (0, 3, 1, 2) if back else (0, 2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


@pytest.mark.parametrize("where", [{"before": valid}, {"before": scaled}, {"after": best}, {"after": places}])
@pytest.mark.parametrize("norm", NORMS)
def test_what_stands_apart_from_the_look_may_be_cut(norm: str, where: Any) -> None:
    graph = read(Looking(NORMS[norm](), **where))
    mixes = norm in ("group norm", "layer norm")
    if mixes and "before" in where:  # a masked model may go another way then
        assert free(graph) == {"inner.conv": 12}
        assert re.search("statistics over channels", graph.group("stem.0").pinned)
    else:
        assert free(graph) == {"stem.0": 4 if norm == "group norm" else 12, "inner.conv": 12}
    assert "looks at values" in graph.notes[-1]


@pytest.mark.parametrize("where", [{"before": valid}, {"after": best}])
def test_code_before_and_after_a_look_is_checked(where: Any) -> None:
    follows = Looking(nn.Identity(), code=lambda m, x: shuffled(x, m.groups), **where)
    assert free(read(follows)) == {"stem.0": 12, "inner.conv": 4}
    fixed = Looking(nn.Identity(), code=lambda m, x: x.view(2, 12, 64).softmax(2).view(2, 12, 8, 8), **where)
    assert read(fixed).group("inner.conv").pinned
    scale = Looking(nn.Identity(), code=lambda m, x: x * x.shape[1] ** -0.5, **where)
    assert read(scale).group("inner.conv").pinned


def test_what_a_decision_hangs_on_stays() -> None:
    graph = read(Looking(nn.Identity(), code=lambda m, x: -x if x.mean().item() > 0 else x))
    assert free(graph) == {"stem.0": 12}
    assert graph.group("inner.conv").pinned == "mean over channels in 'inner'"


def test_after_what_cannot_be_told_again_nothing_is_assumed() -> None:
    """Values that leave torch are not seen: from there on the last reading, 'pinned', is taken."""

    def listed(m: Any, x: Tensor) -> Tensor:
        return shuffled(x, 2 if sum(x.detach().flatten().tolist()) > 1e9 else m.groups)

    graph = read(Looking(nn.PReLU(12), code=listed))
    assert free(graph) == {"stem.0": 12}
    assert graph.group("inner.conv").pinned


def test_a_look_in_training_mode_alone() -> None:
    def code(m: Any, x: Tensor) -> Tensor:
        if m.training and not torch.isfinite(x).all():
            raise ValueError("diverged")
        return F.relu(x)

    assert free(read(Looking(nn.GroupNorm(3, 12), code=code))).keys() >= {"stem.0"}


def averaged(x: Tensor) -> float:
    return float(np.asarray(x.detach()).mean())


LEAVING: dict[str, Code] = {
    "numpy": lambda m, x: x * float(x.detach().numpy().mean()),
    "asarray": lambda m, x: x * averaged(x),
    "tolist": lambda m, x: x * len(x.mean((2, 3)).tolist()[0]),
    "a mean of a list": lambda m, x: x * float(np.mean(x.amax((0, 2, 3)).tolist())),
    "a list as a tensor": lambda m, x: x * torch.tensor(x.mean((0, 2, 3)).tolist()).mean().to(x.dtype),
    "the weight": lambda m, x: x * float(np.abs(m.conv.weight.detach().numpy()).mean()),
}


@pytest.mark.parametrize("code", LEAVING.values(), ids=LEAVING)
def test_channels_whose_numbers_leave_torch_stay(code: Code) -> None:
    graph = read(Looking(nn.Identity(), code=code))
    assert graph.group("inner.conv").pinned.startswith("its numbers leave PyTorch (")
    assert free(graph).keys() <= {"stem.0"}
