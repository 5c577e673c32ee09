"""Make a layer compute a given weight: through the inverse of its parametrization, or by its originals."""

import torch
from torch import Tensor
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from prunit.errors import SurgeryError
from prunit.graph.computed import Computed

_POWER_ITERATIONS = 15
"""How often torch's spectral norm looks for the largest singular value when it is put on a layer."""


def set_value(item: Computed, weight: Tensor) -> bool:
    """Make it compute `weight`, or what the inverse of its parametrization says comes nearest (spectral norm: a scale).

    A parametrization of one original without an inverse gets `weight` as its original, as when it was put on the layer.
    False, with all as it was, where that fails or what it computes would not be finite.
    """
    before = [(place, place.tensor, place.tensor.detach().clone()) for place in item.places.values()]
    try:
        with torch.no_grad():
            _invert(item, weight.detach().clone())
            iterate_power(item)
            fine = all(place.tensor.shape == old.shape for place, _, old in before) and _is_finite(item)
    except Exception:  # an inverse that is not defined there, of whatever code
        fine = False
    with torch.no_grad():
        for place, tensor, old in before:
            new = place.tensor.detach().clone() if fine else old
            place.store[place.key] = tensor
            tensor.set_(new)  # type: ignore[call-overload]  # memory of its own, whatever the inverse gave
    item.refresh()
    return fine


def set_exactly(item: Computed, weight: Tensor) -> None:
    """Make a layer compute just this weight, in which zeros are missing; `SurgeryError` if it computes another one."""
    if not (set_value(item, weight) and is_close(item.value(), weight)):
        raise SurgeryError(
            f"'{item.path}' cannot keep its {item.name} without the zeros: {item.by} computes another one from what is"
            " left. Make it a plain weight first (torch.nn.utils.parametrize.remove_parametrizations)",
            item.path,
        )


def is_close(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding, beside the largest element of `b`."""
    reach = 16 * torch.finfo(b.dtype).eps
    return bool(torch.allclose(a, b, rtol=reach, atol=reach * float(b.abs().max() if b.numel() else 0)))


def _is_finite(item: Computed) -> bool:
    return bool(item.value().isfinite().all())


def gain_of(item: Computed) -> Tensor | None:
    """The gains of a weight norm, None for anything else."""
    norm = _norm_of(item)
    return None if norm is None else norm[0]


def _norm_of(item: Computed) -> tuple[Tensor, Tensor, int] | None:
    """Gains, directions and the dimension of a weight norm; None for anything else."""
    places = item.places
    if item.parts is None:
        norm, names = item.hook, (f"{item.name}_g", f"{item.name}_v")
    else:
        norm, names = item.parts[0] if len(item.parts) == 1 else None, ("original0", "original1")
    if not isinstance(norm, _WeightNorm | WeightNorm):
        return None
    gain, direction = (places[name].tensor for name in names)
    return gain, direction, getattr(norm, "dim")  # noqa: B009 (checkers take WeightNorm's module for its function)


def _invert(item: Computed, weight: Tensor) -> None:
    norm, main = _norm_of(item), item.main.removeprefix(item.prefix)
    if norm is not None:
        # Where the weight is zero its direction stays: zero has none, and the norm of nothing would divide by zero.
        gain, direction, dim = norm
        size = torch.norm_except_dim(weight, 2, dim)
        direction.copy_(torch.where(size > 0, weight, direction))
        gain.copy_(size.view_as(gain))
        return
    if item.parts is not None:
        if not main or all(hasattr(part, "right_inverse") for part in item.parts):
            item.parts.right_inverse(weight)
        else:
            item.places[main].tensor.copy_(weight)
        return
    if not main:
        raise ValueError(f"no tensor has the shape of '{item.name}'")
    original = item.places[main].tensor
    original.copy_(weight)
    if not isinstance(item.hook, SpectralNorm | BasePruningMethod):  # a scale, as an equalised learning rate has
        found = item.value()
        scale = found.norm() / weight.norm()
        if scale.isfinite() and scale > 0 and torch.allclose(found, scale * weight, rtol=1e-4, atol=1e-7):
            original.copy_(weight / scale)


def iterate_power(item: Computed) -> None:
    """Let a spectral norm find the singular vectors of its new weight; nothing for what is none."""
    modules = [(m, m.training) for m in item.modules]
    if not isinstance(item.hook, SpectralNorm) and not any(hasattr(m, "_power_method") for m, _ in modules):
        return
    try:
        for module, _ in modules:
            module.training = True
        for _ in range(_POWER_ITERATIONS):
            item.run()
    finally:
        for module, training in modules:
            module.training = training
