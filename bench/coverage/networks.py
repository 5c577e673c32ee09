"""Networks as after some training, and how far two of them differ: what both tools' checks need.

At its start a network hides errors: gains that are zero, statistics that are all alike. So every parameter gets normal
noise, scaled by the inputs that it sums over; batch norms then take their statistics from a few images, which are
disturbed after that. Without the images a deep network in float64 ends in numbers that no comparison survives.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves, tree_map

from prunit.graph.running import as_inputs, copied, tensors_in

IMAGES = 4
"""Images of each comparison: of two, a batch norm over single pixels would leave the signs only."""

Draw = Callable[[int, torch.Generator], Any]
"""Inputs for so many images, drawn: an example as `trace` takes it, what is not whole numbers in float64."""


def noise(generator: torch.Generator, *shape: int) -> Tensor:
    """Normal noise of that shape in float64."""
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def pictures(size: int, channels: int = 3) -> Draw:
    """Square pictures x_BCHW of normal noise."""
    return lambda n, generator: noise(generator, n, channels, size, size)


def drawn(draw: Draw, *, seed: int = 0, batch: int = IMAGES) -> Any:
    """Inputs, always the same for a seed."""
    return draw(batch, torch.Generator().manual_seed(seed))


def in_type(tree: Any, dtype: torch.dtype) -> Any:
    """The same inputs or outputs, all that is not whole numbers in this type."""
    return tree_map(lambda v: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v, tree)


def single(draw: Draw, *, seed: int = 0, batch: int = 2) -> Any:
    """Inputs in float32."""
    return in_type(drawn(draw, seed=seed, batch=batch), torch.float32)


def without_chance(model: nn.Module) -> None:
    """Switch off, in place, what draws at random while training: drop-out and stochastic depth by their numbers."""
    for module in model.modules():
        is_drop = "drop" in type(module).__name__.lower()
        for name, value in vars(module).items():
            if isinstance(value, float) and ("drop" in name or (is_drop and name == "p")):
                setattr(module, name, 0.0)


def lived_in(model: nn.Module, draw: Draw, *, seed: int = 0) -> nn.Module:
    """The model itself, in float64 and evaluation mode, with parameters and statistics as after some training."""
    generator = torch.Generator().manual_seed(seed)
    model.double()
    with torch.no_grad():
        for tensor in model.parameters():
            deviation = 1.0
            if tensor.ndim > 1:
                # Of several kernels in one row (CondConv) each sums over less than the row holds: as it was, then.
                deviation = max(tensor[0].numel() ** -0.5, float(tensor.std()))
            tensor.normal_(0.1 * deviation, deviation, generator=generator)
    settle(model, drawn(draw, seed=seed + 1), seed=seed)
    return model.eval()


def settle(model: nn.Module, inputs: Any, *, seed: int = 0) -> None:
    """Give batch norms, in place, the statistics that these images leave, disturbed a little."""
    generator = torch.Generator().manual_seed(seed)
    take_statistics(model, inputs)
    for norm in _batch_norms(model):
        mean, var = norm.running_mean, norm.running_var
        if mean is not None and var is not None:
            mean.add_(torch.empty_like(mean).normal_(0, 0.3, generator=generator) * var.sqrt())
            var.mul_(torch.empty_like(var).uniform_(0.5, 1.5, generator=generator))


def hand_on_statistics(source: nn.Module, target: nn.Module) -> None:
    """The target's batch norms take over, in place, the statistics of those of the same name."""
    there = dict(source.named_buffers())
    for name, buffer in target.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(there[name])


def take_statistics(model: nn.Module, inputs: Any) -> None:
    """Batch norms take their running statistics from these images alone."""
    norms = list(_batch_norms(model))
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    try:
        outputs(model, inputs, training=True)
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
        model.eval()
    for norm in norms:  # a channel that is constant over the images would be divided by next to nothing
        if norm.running_var is not None:
            norm.running_var.clamp_(min=1e-3)


def _batch_norms(model: nn.Module) -> Iterable[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm)]


def run(model: nn.Module, inputs: Any) -> list[Tensor]:
    """All tensors that the model returns; what it draws at random meanwhile is always the same."""
    args, kwargs = as_inputs(copied(inputs))
    torch.manual_seed(0)
    with precision(next((p.dtype for p in model.parameters()), torch.float32)), _without_drop_out():
        return tensors_in(model(*args, **kwargs))


@contextmanager
def _without_drop_out() -> Iterator[None]:
    """Calls of drop-out give their input back: networks of other widths would draw other numbers."""
    names = [name for name in vars(functional) if name.endswith("dropout") or name.startswith("dropout")]
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(patch.object(functional, name, lambda x, *args, **kwargs: x))
        yield


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Tensors that a model makes as it runs are of this type meanwhile."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def outputs(model: nn.Module, inputs: Any, *, training: bool = False) -> list[Tensor]:
    """What the model returns in that mode, without gradients; whole numbers and truth values as floats."""
    model.train(training)
    with torch.no_grad():
        found = run(model, inputs)
    model.eval()
    return [x if x.is_floating_point() or x.is_complex() else x.double() for x in found]


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference between outputs relative to the largest output; infinite if shapes differ or on NaN."""
    if [x.shape for x in a] != [y.shape for y in b]:
        return float("inf")
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if not (x.isfinite().all() and y.isfinite().all()):
            return float("inf")
        if x.numel():
            worst = max(worst, float((x - y).abs().max() / x.abs().max().clamp(min=1e-30)))
    return worst


def disturbed(inputs: Any, *, seed: int) -> Any:
    """The inputs changed by a few units of the last place."""
    generator = torch.Generator().manual_seed(seed)

    def changed(value: Any) -> Any:
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            return value
        return value * (1 + 1e-15 * noise(generator, *value.shape))

    return tree_map(changed, inputs)


def step_backward(model: nn.Module, inputs: Any) -> str:
    """'' if a training step runs and gives finite gradients, else what went wrong."""
    model.train()
    model.zero_grad(set_to_none=True)
    found = [out for out in run(model, inputs) if out.requires_grad]
    if not found:
        return "no output has a gradient"
    loss: Any = sum(out.abs().square().mean() for out in found)
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    model.eval()
    if not grads:
        return "no gradient reaches a parameter"
    return "" if all(g.isfinite().all() for g in grads) else "a gradient is not finite"


def shapes(inputs: Any) -> str:
    """The shapes of the tensors among the inputs of one image, in short: 3×64×64."""
    found = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    return ", ".join("×".join(map(str, x.shape[1:] if x.ndim > 1 and x.shape[0] == 1 else x.shape)) for x in found)


def masked_like(dense: nn.Module, pruned: nn.Module) -> nn.Module | None:
    """The dense model, every weight that `pruned` no longer has set to zero; None if that cannot be told.

    All weights are different numbers, so each that is left tells where it stood.
    """
    twin = copy.deepcopy(dense)
    left = dict(pruned.named_parameters())
    with torch.no_grad():
        for name, tensor in twin.named_parameters():
            if name not in left:
                return None
            if left[name].shape != tensor.shape:
                values, order = tensor.flatten().sort()
                wanted = left[name].flatten()
                at = torch.searchsorted(values, wanted).clamp(max=len(values) - 1)
                if not torch.equal(values[at], wanted):
                    return None
                stays = torch.zeros(tensor.numel(), dtype=torch.bool)
                stays[order[at]] = True
                tensor.mul_(_with_direction(name, stays.view(tensor.shape), dict(dense.named_parameters())))
    return twin


def _with_direction(name: str, stays: Tensor, dense: Mapping[str, Tensor]) -> Tensor:
    """What stays of a tensor: of weight norm's directions also those whose length is gone, as zeros have none."""
    for direction, length in (("original1", "original0"), ("weight_v", "weight_g")):
        lengths = dense.get(name.removesuffix(direction) + length) if name.endswith(direction) else None
        if lengths is not None and lengths.ndim == stays.ndim:
            others = [d for d in range(stays.ndim) if lengths.shape[d] == 1]
            stays = stays | ~stays.any(dim=others, keepdim=True) if others else stays
    return stays
