"""A tensor that a run may write to, noted before it and put back after it."""

from typing import Any, Final

import torch
from torch import Tensor, nn

LARGE: Final = 1 << 28
"""The content of a tensor outside of parameters and buffers of more bytes (a data set, say) is not noted."""


class KeptTensor:
    """A tensor with its content, its memory, its gradient, and how often it was written to."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.version = None if tensor.is_inference() else tensor._version
        self.leaf = tensor.is_leaf
        self.requires_grad, self.grad = tensor.requires_grad, tensor.grad if tensor.is_leaf else None
        self.same: Tensor | None = None
        self.content: Tensor | None = None
        with torch.no_grad():
            if tensor.layout is torch.strided and type(tensor) in (Tensor, nn.Parameter):
                same = self.same = tensor.detach()
                if not tensor.is_meta and tensor.nbytes <= LARGE:
                    self.content = same.clone()

    def put_back(self) -> None:
        """Write only where something has changed: whoever needs it for a backward pass counts the writes."""
        tensor, same, content = self.tensor, self.same, self.content
        if self.leaf and tensor.is_leaf:
            if tensor.requires_grad != self.requires_grad:
                tensor.requires_grad_(self.requires_grad)
            if tensor.grad is not self.grad:
                tensor.grad = self.grad
        if same is None:
            return
        with torch.inference_mode(tensor.is_inference()), torch.no_grad():
            if _memory(tensor) != _memory(same):
                tensor.data = same
            if content is not None and not torch.equal(same, content) and not _overlaps(same):
                same.copy_(content)
        if self.version is not None and tensor._version != self.version:
            autograd: Any = getattr(torch._C, "_autograd")  # noqa: B009 - stubs do not know it
            autograd._unsafe_set_version_counter((tensor,), (self.version,))


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.device, tensor.stride(), tensor.data_ptr()


def _overlaps(tensor: Tensor) -> bool:
    """Several elements lie in one place: nobody can write to it."""
    return any(step == 0 and n > 1 for step, n in zip(tensor.stride(), tensor.shape, strict=True))
