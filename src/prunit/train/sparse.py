"""Weights that are zero and stay zero in training: an unstructured mask, the tensors keep their shapes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunit.errors import ModelError, unknown

Masks = Mapping[str, Tensor]
"""By name of a parameter where its weights stay: booleans of its shape. A parameter that is not named stays whole."""


def zeroed(model: nn.Module, masks: Masks) -> None:
    """Zero the masked weights, in place; `ModelError` for a mask that does not fit."""
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            if name not in named:
                raise unknown("parameter", name, named)
            if mask.shape != named[name].shape:
                shape = tuple(named[name].shape)
                raise ModelError(f"the mask of '{name}' has shape {tuple(mask.shape)}, the parameter {shape}")
            named[name].mul_(mask.to(named[name].device))


class KeptZero:
    """While it is in force the masked weights of a model get no gradient: decay and momentum of zero are zero too."""

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        named = dict(model.named_parameters())
        self._hooks = [named[name].register_hook(_Masking(mask)) for name, mask in masks.items()]

    def end(self) -> None:
        """From now on gradients are whole again."""
        for hook in self._hooks:
            hook.remove()


class _Masking:
    """Multiplies a gradient by a mask, which follows it once to its device, type and layout in memory."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def __call__(self, gradient: Tensor) -> Tensor:
        mask = self.mask
        if (mask.device, mask.dtype, mask.stride()) != (gradient.device, gradient.dtype, gradient.stride()):
            self.mask = torch.empty_like(gradient).copy_(mask)
        return gradient * self.mask
