"""Layers on one image in float32, computed in the quickest of several ways that give the same.

PyTorch gives matrices to a library that leaves half of an AMD processor's width unused: through oneDNN the same product
takes half the time there, and as long elsewhere. And the gradient of a wide depthwise kernel takes oneDNN fifteen times
as long as the layer itself, though it is such a layer: what came in, with the gradient as its kernel. Where oneDNN is
not at hand, all is as PyTorch does it.
"""

import math
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Convolution(NamedTuple):
    """How a kernel goes over an image."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def is_pointwise(self, w: Tensor) -> bool:
        """A kernel of one place, without padding."""
        return tuple(w.shape[2:]) == (1, 1) and self.padding == (0, 0)

    def size_out(self, x: Tensor, w: Tensor) -> list[int]:
        """Height and width of what comes out."""
        along = zip(x.shape[2:], w.shape[2:], self.stride, self.padding, self.dilation, strict=True)
        return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in along]


_SMALL: Final = 20480
"""Numbers in an image up to which PyTorch takes another way than oneDNN."""
_WIDE: Final = 5
"""Side of a depthwise kernel from which its gradient is slow."""
_LEAST: Final = 8
"""Rows below which a product is bound by memory, whoever computes it."""
_FEW: Final = 64
"""Columns below which a product is faster the other way round."""


def linear(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`; x of shape (..., in), w of (out, in)."""
    rows = x.numel() // max(x.shape[-1], 1)
    if not _takes(x, w) or rows < _LEAST:
        return F.linear(x, w, bias)
    out = _Product.apply(x.reshape(rows, -1), w).view(*x.shape[:-1], len(w))  # pyright: ignore[reportAttributeAccessIssue]
    return out if bias is None else out + bias


def convolution(x: Tensor, w: Tensor, bias: Tensor | None, how: Convolution) -> Tensor | None:
    """`F.conv2d` of one image; None: there is no quicker way."""
    if x.ndim != 4 or len(x) != 1 or not _takes(x, w):
        return None
    if how.groups == x.shape[1] == len(w) > 1:
        out = _depthwise(x, w, how)
    elif how.groups == 1 and (how.is_pointwise(w) or x.numel() <= _SMALL):
        out = _as_product(x, w, how)
    else:
        return None
    return out if out is None or bias is None else out + bias.view(-1, 1, 1)


def _as_product(x: Tensor, w: Tensor, how: Convolution) -> Tensor | None:
    """Places that a kernel sees one behind the other, times the kernels."""
    size = how.size_out(x, w)
    if math.prod(size) < _LEAST:
        return None
    if how.is_pointwise(w):
        seen = x if how.stride == (1, 1) else x[:, :, :: how.stride[0], :: how.stride[1]]
        seen = seen.reshape(x.shape[1], -1)
    else:
        seen = F.unfold(x, tuple(w.shape[2:]), how.dilation, how.padding, how.stride)[0]
    out = _Product.apply(w.flatten(1), seen.t())  # pyright: ignore[reportAttributeAccessIssue]
    return out.view(1, len(w), *size)


def _depthwise(x: Tensor, w: Tensor, how: Convolution) -> Tensor | None:
    """A wide kernel for each channel, step by step."""
    sides = w.shape[2:]
    if max(sides) < _WIDE or how.stride != (1, 1) or how.dilation != (1, 1):
        return None
    if any(p >= k for p, k in zip(how.padding, sides, strict=True)):
        return None
    return _Depthwise.apply(x, w, how.padding)  # pyright: ignore[reportReturnType]


def _takes(*tensors: Tensor) -> bool:
    return _ONEDNN is not None and all([t.is_cpu and t.dtype == torch.float32 for t in tensors])


def _onednn() -> Any:
    available = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None) if available else None


_ONEDNN: Final = _onednn()


def _times(a: Tensor, b: Tensor) -> Tensor:
    """a (m, k) times the transpose of b (n, k)."""
    return _ONEDNN(a, b, None, "none", [], "")


class _Product(torch.autograd.Function):
    """a (m, k) times the transpose of b (n, k)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(a, b)
        return _times(a, b)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        a, b = ctx.saved_tensors
        by_a = _times(g, b.t()) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return by_a, None
        if b.is_contiguous():
            return by_a, _times(g.t(), a.t())
        # The places of an image, which lie behind one another in memory.
        if len(b) < _FEW:
            return by_a, _times(g.t(), a.t()).t().contiguous().t()
        return by_a, _times(a.t(), g.t()).t()


class _Depthwise(torch.autograd.Function):
    """A convolution of one image, each channel with a kernel of its own, one place after the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, padding: tuple[int, int]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, w)
        ctx.padding = padding
        return F.conv2d(x, w, padding=padding, groups=len(w))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, w = ctx.saved_tensors
        by_x = by_w = None
        if ctx.needs_input_grad[0]:
            (height, width), (above, left) = w.shape[2:], ctx.padding
            by_x = F.conv2d(g, w.flip(2, 3), padding=(height - 1 - above, width - 1 - left), groups=len(w))
        if ctx.needs_input_grad[1]:
            kernel = g.view(len(w), 1, *g.shape[2:])
            by_w = F.conv2d(x, kernel, padding=ctx.padding, groups=len(w)).view(w.shape)
        return by_x, by_w, None
