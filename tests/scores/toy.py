"""Networks and batches for scoring, and what the tests need to look at scores."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunit.batches import Batch
from prunit.graph import Axis, ChannelGraph, trace
from tests.nets import NETS, Head, conv_bn, images, lived_in

CLASSES = 5


def batches(n: int = 2, *, dtype: torch.dtype = torch.float64, size: int = 8) -> list[Batch]:
    """`n` batches of 6 noise images with classes."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(6, 3, size, size, generator=generator).to(dtype),
            torch.randint(CLASSES, (6,), generator=generator),
        )
        for _ in range(n)
    ]


class Dropped(nn.Module):
    """Dropout, and a batch norm: what a score sees must not hang on the mode that the model is in."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop, self.head = conv_bn(3, 6), nn.Dropout(0.5), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.body(x)))


class Noisy(nn.Module):
    """Draws random numbers in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = conv_bn(3, 6), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.body(x), 0.5, training=True))


class TwoHeads(nn.Module):
    """An auxiliary head, on which the first output does not depend."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.aux = conv_bn(3, 6), Head(6), Head(6)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.body(x)
        return {"logits": self.head(x), "aux": self.aux(x)}


class Caching(nn.Module):
    """Keeps its features on itself, as models for visualisation do."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(conv_bn(3, 24), conv_bn(24, 24)), Head(24)
        self.features: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.body(x)
        return self.head(self.features)


CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {
    **{
        name: NETS[name][0]
        for name in ("plain", "residual", "concatenated", "inverted", "multiplier", "grouped", "flattened", "gated")
    },
    **{name: NETS[name][0] for name in ("recurrent", "parameters", "padded shortcut", "concatenated sum")},
    "dropped": Dropped,
    "noisy": Noisy,
    "two heads": TwoHeads,
    "caching": Caching,
}


def built(name: str, *, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A classifier with parameters and statistics as after some training."""
    return lived_in(CLASSIFIERS[name]()).to(dtype)


@cache
def graph_of(kind: Callable[[], nn.Module]) -> ChannelGraph:
    """The graph of a network class, read once."""
    return trace(kind(), images(dtype=torch.float32))


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """Assert that parameters, buffers, gradients, modes, attributes and random states come out as they went in."""
    before = _everything(model)
    yield
    after = _everything(model)
    assert before.keys() == after.keys()
    for key, value in before.items():
        same = torch.equal(value, after[key]) if isinstance(value, Tensor) else value == after[key]
        assert same, f"{key} changed"


def _everything(model: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {"torch": torch.get_rng_state(), "grad mode": torch.is_grad_enabled()}
    found["numpy"] = np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002 - the global state is what is watched
    for name, p in model.named_parameters():
        found |= {f"{name} id": id(p), name: p.detach().clone(), f"{name} requires_grad": p.requires_grad}
        found[f"{name} grad"] = None if p.grad is None else p.grad.clone()
        found[f"{name} grad id"] = id(p.grad)
    for name, b in model.named_buffers():
        found |= {f"{name} id": id(b), name: b.clone()}
    for name, m in model.named_modules():
        found[f"{name}.training"] = m.training
        found[f"{name} attributes"] = {k: id(v) for k, v in m.__dict__.items() if k != "training"}
    return found


def permuted(model: nn.Module, graph: ChannelGraph, order: np.ndarray) -> None:
    """Give the model, in place, the channels of its free groups in another order: channel c becomes `order[c]`'s."""
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for axis in graph.axes:
            index = torch.from_numpy(_moved(axis, order))
            named[axis.tensor].copy_(named[axis.tensor].index_select(axis.dim, index))


def _moved(axis: Axis, order: np.ndarray) -> np.ndarray:
    """The position whose value each position of the axis gets: of a channel's n-th position the other's n-th."""
    positions: dict[int, list[int]] = {}
    for i, channel in enumerate(axis.where.tolist()):
        positions.setdefault(channel, []).append(i)
    moved, seen = np.arange(len(axis.where)), dict.fromkeys(positions, 0)
    for i, channel in enumerate(axis.where.tolist()):
        if channel >= 0:
            moved[i] = positions[int(order[channel])][seen[channel]]
            seen[channel] += 1
    return moved


def random_order(graph: ChannelGraph, *, seed: int = 0) -> np.ndarray:
    """A permutation of all channels that leaves each group's among themselves and pinned groups alone."""
    rng = np.random.default_rng(seed)
    order = np.arange(int(graph.offsets[-1]))
    for group, start in zip(graph.groups, graph.offsets, strict=False):
        if not group.pinned:
            order[start : start + group.size] = start + rng.permutation(group.size)
    return order


__all__ = ["CLASSES", "CLASSIFIERS", "batches", "built", "graph_of", "images", "left_alone", "permuted", "random_order"]
