"""Rows and columns of a feature map that are all alike, held once.

An image that is the same everywhere makes feature maps that are the same everywhere but near their edges, where zeros
pad it. Along each dimension of space the places between the edges are alike, so that one of them stands for all: 9 of
56 rows and 9 of 56 columns are a 39th of the places. A window that slides over the map gives what it gives on the whole
map, and so do gradients: nothing is left out, equal things are computed once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Fold(NamedTuple):
    """Places along a dimension: so many before, so many that are alike and held once, so many after."""

    before: int
    alike: int
    after: int

    @property
    def size(self) -> int:
        """Places in all."""
        return self.before + self.alike + self.after

    def wider(self, other: "Fold") -> "Fold":
        """With the edges that either has."""
        before, after = max(self.before, other.before), max(self.after, other.after)
        return Fold(before, self.size - before - after, after)


Folds = Mapping[int, Fold]
"""By dimension of a tensor; one that is not there is held as it is."""


def size_of(x: Tensor, folds: Folds) -> torch.Size:
    """The shape of the tensor when nothing is folded."""
    return torch.Size([folds[d].size if d in folds else n for d, n in enumerate(x.shape)])


def stretched(x: Tensor, folds: Folds, wanted: Mapping[int, Fold]) -> Tensor:
    """The tensor with its edges as wide as in `wanted`, and its middle held `wanted[d].alike` times, by dimension.

    So the whole dimension is held where `wanted` is `folds` itself.
    """
    places: dict[int, tuple[Fold, int]] = {}
    for dim, new in wanted.items():
        old = folds[dim]
        copies = new.before - old.before + new.alike + new.after - old.after
        if copies != 1:
            places[dim] = (old, copies)
    return _Stretch.apply(x, places) if places else x  # pyright: ignore[reportReturnType]


class _Stretch(torch.autograd.Function):
    """The middle place of some dimensions so many times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Mapping[int, tuple[Fold, int]]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.places = places
        for dim, (fold, copies) in places.items():
            before, middle, after = x.split([fold.before, 1, fold.after], dim)
            x = torch.cat([before, middle.expand(*(copies if d == dim else -1 for d in range(x.ndim))), after], dim)
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for dim, (fold, copies) in ctx.places.items():
            parts = g.split([fold.before, copies, g.shape[dim] - fold.before - copies], dim)
            g = torch.cat([parts[0], parts[1].sum(dim, keepdim=True), parts[2]], dim)
        return g, None


def unfolded(x: Tensor, folds: Folds) -> Tensor:
    """All places."""
    return stretched(x, folds, folds)


def windowed(
    x: Tensor, folds: Folds, windows: Mapping[int, tuple[int, int, int, int]]
) -> tuple[Tensor, dict[int, Fold]]:
    """The tensor with no more of its middle than a window needs, and how what the window gives is folded.

    `windows` are kernel, stride, padding on each side and dilation by dimension. Dimensions without are left.
    """
    wanted: dict[int, Fold] = {}
    left: dict[int, Fold] = {d: fold for d, fold in folds.items() if d not in windows}
    for dim, (kernel, stride, padding, dilation) in windows.items():
        if dim not in folds:
            continue
        fold, reach = folds[dim], (kernel - 1) * dilation
        first = -(-(fold.before + padding) // stride)
        last = (fold.before + fold.alike - 1 - reach + padding) // stride
        out = (fold.size + 2 * padding - reach - 1) // stride + 1
        if last > first:
            wanted[dim] = fold._replace(alike=fold.alike - stride * (last - first))
            left[dim] = Fold(first, last - first + 1, out - 1 - last)
        else:
            wanted[dim] = fold
    return stretched(x, folds, wanted), left


def alike(tensors: Sequence[tuple[Tensor, Folds]]) -> tuple[list[Tensor], dict[int, Fold]]:
    """Tensors that are to be combined place by place, as many dimensions each, folded alike; and how.

    A dimension of size 1 that is not folded fits any. One that a tensor holds whole is held whole by all.
    """
    common: dict[int, Fold] = {}
    whole: set[int] = set()
    for x, folds in tensors:
        for dim, n in enumerate(x.shape):
            if dim in folds:
                common[dim] = common[dim].wider(folds[dim]) if dim in common else folds[dim]
            elif n != 1:
                whole.add(dim)
    together = {d: fold for d, fold in common.items() if d not in whole and fold.alike > 1}
    found = []
    for x, folds in tensors:
        wanted = {d: together.get(d, fold)._replace(alike=1) if d in together else fold for d, fold in folds.items()}
        found.append(stretched(x, folds, wanted))
    return found, together


def total(x: Tensor, folds: Folds, dims: Sequence[int], *, keepdim: bool) -> Tensor:
    """The sum over some dimensions, every place counted."""
    for dim in dims:
        if dim in folds:
            fold, shape = folds[dim], [1] * x.ndim
            shape[dim] = x.shape[dim]
            times = torch.ones(x.shape[dim], dtype=x.dtype, device=x.device)
            times[fold.before] = fold.alike
            x = x * times.view(shape)
    return x.sum(list(dims), keepdim=keepdim)
