"""Tensors that hold values which are no numbers: named as what they are, before anything is blamed on the model."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from prunit.errors import ModelError
from prunit.graph.running import parameters_and_buffers

_STATISTICS: Final = ("running_mean", "running_var")


def check_finite(model: nn.Module) -> None:
    """`ModelError` for a model with parameters, or statistics of a batch norm, that are no finite numbers.

    Other buffers may hold what they like: a mask of attention is infinite where nothing is to be seen.
    """
    parameters, buffers = parameters_and_buffers(model)
    statistics = {name: held for name, held in buffers.items() if name.rpartition(".")[2] in _STATISTICS}
    bad = not_finite(parameters | statistics)
    if bad:
        raise ModelError(
            f"the weights of {type(model).__name__} are not finite: {bad}; a training that diverged leaves such, or"
            " memory that was never set: load earlier weights, or initialise the model anew"
        )


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Which tensor holds NaN or infinite values, and how many: the first one, and how many more; '' where none does."""
    bad = [(name, tensor) for name, tensor in tensors.items() if not _finite(tensor)]
    if not bad:
        return ""
    name, tensor = bad[0]
    nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    kinds = [f"{n:,} {kind}" for n, kind in ((nan, "NaN"), (infinite, "infinite")) if n]
    more = f"; so do {len(bad) - 1} more tensors" if len(bad) > 2 else "; so does one more tensor" if bad[1:] else ""
    return f"'{name}' of shape {tuple(tensor.shape)} holds {' and '.join(kinds)} of {tensor.numel():,} values{more}"


def _finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta or tensor.is_quantized:
        return True
    # A sum is made without a copy of the tensor; where it is finite, so is all of it.
    total = tensor.detach().sum(dtype=torch.float64 if tensor.is_floating_point() else None)
    return bool(total.isfinite()) or bool(tensor.isfinite().all())
