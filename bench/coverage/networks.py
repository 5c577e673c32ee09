"""Networks as after some training, and how far two of them differ: what both tools' checks need.

At its start a network hides errors: gains that are zero, statistics that are all alike. So every parameter gets normal
noise, scaled by the inputs that it sums over; batch norms then take their statistics from a few images, which are
disturbed after that. Without the images a deep network in float64 ends in numbers that no comparison survives.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunit.graph.running import tensors_in

IMAGES = 4
"""Images of each comparison: of two, a batch norm over single pixels would leave the signs only."""


def without_chance(model: nn.Module) -> None:
    """Switch off, in place, what draws at random while training: drop-out, as a layer or a call; stochastic depth."""
    for module in model.modules():
        names = ("p", "drop_prob", "drop_rate") if "drop" in type(module).__name__.lower() else ("drop_rate",)
        for name in names:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def images(size: int, *, seed: int = 0, batch: int = IMAGES) -> Tensor:
    """Normal noise x_BCHW in float64, always the same."""
    return torch.randn(batch, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def lived_in(model: nn.Module, image_size: int, *, seed: int = 0) -> nn.Module:
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
    settle(model, images(image_size, seed=seed + 1), seed=seed)
    return model.eval()


def settle(model: nn.Module, x_BCHW: Tensor, *, seed: int = 0) -> None:
    """Give batch norms, in place, the statistics that these images leave, disturbed a little."""
    generator = torch.Generator().manual_seed(seed)
    take_statistics(model, x_BCHW)
    for norm in _batch_norms(model):
        mean, var = norm.running_mean, norm.running_var
        if mean is not None and var is not None:
            noise = torch.empty_like(mean).normal_(0, 0.3, generator=generator)
            mean.add_(noise * var.sqrt())
            var.mul_(torch.empty_like(var).uniform_(0.5, 1.5, generator=generator))


def hand_on_statistics(source: nn.Module, target: nn.Module) -> None:
    """The target's batch norms take over, in place, the statistics of those of the same name."""
    there = dict(source.named_buffers())
    for name, buffer in target.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(there[name])


def take_statistics(model: nn.Module, x_BCHW: Tensor) -> None:
    """Batch norms take their running statistics from these images alone."""
    norms = list(_batch_norms(model))
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    try:
        with torch.no_grad():
            model.train()(x_BCHW)
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
        model.eval()
    for norm in norms:  # a channel that is constant over the images would be divided by next to nothing
        if norm.running_var is not None:
            norm.running_var.clamp_(min=1e-3)


def _batch_norms(model: nn.Module) -> Iterable[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm)]


def outputs(model: nn.Module, x_BCHW: Tensor, *, training: bool = False) -> list[Tensor]:
    """What the model returns, without gradients."""
    model.train(training)
    with torch.no_grad():
        found = tensors_in(model(x_BCHW))
    model.eval()
    return found


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference between outputs relative to the largest output; infinite if shapes differ or on NaN."""
    if [x.shape for x in a] != [y.shape for y in b]:
        return float("inf")
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if not (x.isfinite().all() and y.isfinite().all()):
            return float("inf")
        worst = max(worst, float((x - y).abs().max() / x.abs().max().clamp(min=1e-30)))
    return worst


def variation(found: list[Tensor]) -> float:
    """How much the outputs differ from image to image, relative to the largest: near 0 a comparison says nothing."""
    return max(float((x - x.mean(0)).abs().max() / x.abs().max().clamp(min=1e-30)) for x in found)


def step_backward(model: nn.Module, x_BCHW: Tensor) -> str:
    """'' if a training step runs and gives finite gradients, else what went wrong."""
    model.train()
    model.zero_grad(set_to_none=True)
    loss: Any = sum(out.square().mean() for out in tensors_in(model(x_BCHW)))
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    model.eval()
    if not grads:
        return "no gradient reaches a parameter"
    return "" if all(g.isfinite().all() for g in grads) else "a gradient is not finite"


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
                tensor.mul_(stays.view(tensor.shape))
    return twin
