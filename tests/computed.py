"""Networks whose layers compute their weight (weight norm, spectral norm, prune masks, a user's own)."""

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

import prunit
from prunit.cut.plans import Plan, keep_all
from prunit.graph import trace
from prunit.graph.computed import computed_weights

Put = Callable[[nn.Module], nn.Module]
"""Puts something on a layer's weight."""

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


class Softplus(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return F.softplus(w)


class Centred(nn.Module):
    """Statistics over inputs, as in weight standardisation."""

    def forward(self, w: Tensor) -> Tensor:
        return (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)


class Scaled(nn.Module):
    """Two originals: a scale for each filter, and the filters at a size of one."""

    def forward(self, scale: Tensor, w: Tensor) -> Tensor:
        return scale.view(-1, *(1,) * (w.ndim - 1)) * w

    def right_inverse(self, w: Tensor) -> tuple[Tensor, Tensor]:
        scale = w.flatten(1).abs().amax(1).clamp_min(1e-9)
        return scale, w / scale.view(-1, *(1,) * (w.ndim - 1))


class Symmetric(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w.triu() + w.triu(1).mT


class LowRank(nn.Module):
    """Two originals, neither of the weight's shape."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a @ b)[:, :, None, None]

    def right_inverse(self, w: Tensor) -> tuple[Tensor, Tensor]:
        return w[:, :2, 0, 0], w[:2, :, 0, 0]


class Equalised:
    """The hook of an equalised learning rate: not torch's, of the same making."""

    name = "weight"

    def __call__(self, module: nn.Module, inputs: object) -> None:
        module.weight = getattr(module, "weight_orig") * 0.25  # noqa: B009 (on meta it is no parameter)


def equalised(layer: nn.Module) -> nn.Module:
    weight = layer.get_parameter("weight")
    del layer._parameters["weight"]
    layer.register_parameter("weight_orig", nn.Parameter(weight.detach() / 0.25))
    layer.register_forward_pre_hook(Equalised())
    return layer


def own(part: nn.Module) -> Put:
    return lambda layer: parametrize.register_parametrization(layer, "weight", copy.deepcopy(part))


def old_weight_norm(dim: int | None) -> Put:
    def put(layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # deprecated, and everywhere
            return nn.utils.weight_norm(layer, dim=dim)  # pyright: ignore[reportArgumentType, reportDeprecated]

    return put


def new_weight_norm(dim: int | None) -> Put:
    return lambda layer: parametrizations.weight_norm(layer, dim=dim)  # pyright: ignore[reportArgumentType]


PUT: dict[str, Put] = {
    "weight norm": new_weight_norm(0),
    "weight norm over outputs": new_weight_norm(1),
    "weight norm of all": new_weight_norm(None),
    "weight norm, last dimension": new_weight_norm(-1),
    "old weight norm": old_weight_norm(0),
    "old weight norm over outputs": old_weight_norm(1),
    "old weight norm of all": old_weight_norm(None),
    "spectral norm": parametrizations.spectral_norm,
    "old spectral norm": nn.utils.spectral_norm,
    "weight norm and spectral norm": lambda m: parametrizations.spectral_norm(parametrizations.weight_norm(m)),
    "prune mask": lambda m: prune.l1_unstructured(m, "weight", amount=0.3),
    "two prune masks": lambda m: prune.random_unstructured(prune.l1_unstructured(m, "weight", 0.3), "weight", 0.2),
    "softplus": own(Softplus()),
    "standardised": own(Centred()),
    "scale and direction": own(Scaled()),
    "equalised learning rate": equalised,
}


def plain(put: Put = lambda layer: layer) -> nn.Module:
    """Convolutions with batch norm, grouped and depthwise ones, and a linear layer; `put` is on all but that."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(put(nn.Conv2d(3, 8, 3, padding=1)), nn.BatchNorm2d(8), nn.ReLU()),
        *(put(nn.Conv2d(8, 12, 3, groups=2, padding=1)), nn.ReLU()),
        *(put(nn.Conv2d(12, 12, 3, groups=12, padding=1)), nn.ReLU()),
        *(put(nn.Conv2d(12, 8, 1)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    ).double()


def up(put: Put = lambda layer: layer) -> nn.Module:
    """Transposed convolutions and a sequence of linear layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(put(nn.ConvTranspose2d(3, 8, 3)), nn.ReLU(), put(nn.ConvTranspose2d(8, 6, 2, stride=2)), nn.ReLU()),
        nn.Conv2d(6, 4, 3),
    ).double()


def halved(model: nn.Module, example: Tensor = IMAGES) -> tuple[prunit.ChannelGraph, Plan]:
    """Of every free group every second channel."""
    graph = trace(model, example)
    keep = {g.name: tuple(range(0, g.size, 1 if g.pinned else 2)) for g in graph.groups}
    return graph, Plan(keep, keep_all(graph).dense, inputs=graph.inputs)


def furthest(a: nn.Module, b: nn.Module, example: Tensor = IMAGES) -> float:
    found = a(example).detach(), b(example).detach()
    assert found[0].abs().max() > 0
    return float((found[0] - found[1]).abs().max() / found[0].abs().max())


def without(model: nn.Module, twin: nn.Module) -> nn.Module:
    """The same network with plain weights: `twin`, which gets them."""
    mine = {name: tensor for name, tensor in model.state_dict().items() if name in twin.state_dict()}
    twin.load_state_dict(mine | {f"{i.path}.weight": i.value() for i in computed_weights(model)})
    return twin
