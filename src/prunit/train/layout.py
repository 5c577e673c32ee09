"""How feature maps and kernels lie in memory during training."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

_VECTOR: Final = 16
"""Floats in the widest vector register of a CPU."""


def layout_for(model: nn.Module, device: torch.device, *, channels_last: bool) -> torch.memory_format:
    """The memory format in which `model` is trained on `device`: channels last where it is asked for and safe.

    oneDNN 3.12 (in torch 2.13) writes past a buffer of its own in the backward pass of strided 1x1 convolutions
    that are narrower than a vector and laid out channels last: processes abort, or go on with wrong gradients.
    Seen on a CPU with AVX2; its tracker has it as issue 6035. Pruned projection shortcuts are such layers. In
    PyTorch's own order of dimensions the same layers are right.
    """
    unsafe = device.type == "cpu" and any(map(_narrow_and_strided, model.modules()))
    return torch.channels_last if channels_last and not unsafe else torch.contiguous_format


def _narrow_and_strided(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return False
    # Backwards a transposed convolution is an ordinary one of its output.
    channels = module.in_channels if isinstance(module, nn.Conv2d) else module.out_channels
    narrow = channels // module.groups < _VECTOR
    return narrow and _all(module.kernel_size, 1) and not _all(module.stride, 1)


def _all(sizes: Sequence[int], value: int) -> bool:
    return all(size == value for size in sizes)
