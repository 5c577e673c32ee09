"""Weights that are zero and stay zero in training: an unstructured mask, the tensors keep their shapes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunit.errors import ModelError, unknown
from prunit.graph.computed import Computed, computed_weights
from prunit.graph.inverse import gain_of, set_value

Masks = Mapping[str, Tensor]
"""By name of a parameter where its weights stay: booleans of its shape. A parameter that is not named stays whole."""


def zeroed(model: nn.Module, masks: Masks) -> None:
    """Zero the masked weights, in place; `ModelError` for a mask that does not fit.

    Of a weight that a layer computes, what comes out is zeroed. A filter of a weight norm that is empty then keeps its
    direction, as the norm of nothing is 0/0, and gets a gain of zero.
    """
    named = dict(model.named_parameters())
    computed = _computed(model)
    with torch.no_grad():
        for name, mask in masks.items():
            if name not in named:
                raise unknown("parameter", name, named)
            if mask.shape != named[name].shape:
                shape = tuple(named[name].shape)
                raise ModelError(f"the mask of '{name}' has shape {tuple(mask.shape)}, the parameter {shape}")
            mask = mask.to(named[name].device)
            if name not in computed:
                named[name].mul_(mask)
                continue
            item = computed[name]
            gone = ~mask.bool()
            if not set_value(item, item.value().masked_fill(gone, 0)) or item.value()[gone].any():
                raise ModelError(
                    f"cannot keep single weights of '{item.path}' at zero: {item.by} computes its {item.name} from"
                    " others; make it a plain weight first (torch.nn.utils.parametrize.remove_parametrizations)"
                )


class KeptZero:
    """While it is in force the masked weights of a model get no gradient: decay and momentum of zero are zero too."""

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        named = dict(model.named_parameters())
        self._hooks = [named[name].register_hook(_Masking(mask)) for name, mask in masks.items()]
        for name, item in _computed(model).items():
            gain = gain_of(item)
            if name in masks and gain is not None:  # an empty filter's: its direction is not zero
                dims = [d for d, n in enumerate(gain.shape) if n == 1]
                some = masks[name].bool().movedim(dims, tuple(range(len(dims)))).flatten(0, len(dims) - 1).any(0)
                self._hooks.append(gain.register_hook(_Masking(some.view(gain.shape))))

    def end(self) -> None:
        """From now on gradients are whole again."""
        for hook in self._hooks:
            hook.remove()


def _computed(model: nn.Module) -> dict[str, Computed]:
    return {item.main: item for item in computed_weights(model) if item.main}


class _Masking:
    """Multiplies a gradient by a mask, which follows it once to its device, type and layout in memory."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def __call__(self, gradient: Tensor) -> Tensor:
        mask = self.mask
        if (mask.device, mask.dtype, mask.stride()) != (gradient.device, gradient.dtype, gradient.stride()):
            self.mask = torch.empty_like(gradient).copy_(mask)
        return gradient * self.mask
