"""Activation: mean absolute value of a channel on the images (the mean activation of Molchanov et al. 2017, 'Pruning
convolutional neural networks for resource efficient inference'; behind a ReLU also near Hu et al. 2016, 'Network
trimming', who count the zeros there).

It is taken of what a layer makes once batch norm and nonlinearity have followed, where they do: the output of the last
of them before anything else uses it.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from prunit.batches import Batch, task_of
from prunit.errors import ScoreError
from prunit.graph.running import tensors_in
from prunit.scores.network import Network
from prunit.scores.spread import Vectors, averaged, of_channels, spread

_LAYERS: Final = frozenset(f"conv{way}{d}d" for way in ("", "_transpose") for d in (1, 2, 3)) | {"linear"}
_FOLLOW: Final = frozenset(
    "batch_norm relu relu6 leaky_relu prelu rrelu threshold hardtanh clamp clip clamp_min clamp_max hardswish"
    " hardsigmoid sigmoid tanh softsign softplus silu gelu mish elu celu selu dropout feature_dropout".split()
)
"""Names, in torch, its functional module and its tensors, of what follows a layer without mixing its channels."""


def activation(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """Mean |activation| over images and positions, then over the layers that make the channel; for all their weights.

    Classes only tell which weights the loss depends on: layers that it does not depend on get 0. Raises `ScoreError`
    for a weight that another function uses than a convolution or linear map, whose outputs are not seen.
    """
    seen = _Seen(weights)
    used: set[str] = set()
    for i, batch in enumerate(batches):
        live = {n: w.detach().requires_grad_(i == 0) for n, w in weights.items()}
        seen.names = {id(w): n for n, w in live.items()}
        with torch.set_grad_enabled(i == 0):
            with seen:
                loss = net.loss(live, batch, task_of(batches))
        if i == 0:
            gradients = torch.autograd.grad(loss, list(live.values()), allow_unused=True)
            used = {name for name, g in zip(live, gradients, strict=True) if g is not None}
    means = seen.means()
    unseen = next((name for name in weights if name in used - {n for n, _ in means}), None)
    if unseen is not None:
        raise ScoreError(
            f"score 'activation' sees outputs of convolutions and linear layers; '{unseen}' of shape"
            f" {tuple(weights[unseen].shape)} is used by another function: take score 'taylor'"
        )
    made = {key: values for key, values in means.items() if key[0] in used and key in net.makers}
    own = {key: made.get(key, np.zeros(len(where))) for key, where in net.makers.items()}
    return spread(net, weights, of_channels(averaged(net, made)[0], own))


class _Seen(TorchFunctionMode):
    """Notes the mean absolute value of what each layer makes, again as long as batch norm and nonlinearity follow."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names: dict[int, str] = {}
        """Of the weights that stand in the model now, by their id."""
        self._shapes = {n: w.shape for n, w in weights.items()}
        self._found: list[tuple[str, int, Tensor]] = []
        """Weight, its dimension that makes channels, mean of each: one for each call of a layer."""
        self._last: MutableMapping[Tensor, int] = WeakTensorKeyDictionary()
        """Of what layers have made and nothing else has used, the place in `_found`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", "").rstrip("_")
        if name in _LAYERS:
            weight = self.names.get(id(args[1] if len(args) > 1 else kwargs.get("weight")))
            if weight is not None:
                self._found.append((weight, int("transpose" in name), self._mean(out, weight)))
                self._last[out] = len(self._found) - 1
        elif isinstance(out, Tensor):
            # An operation in place, or a sum that shares the tensor, would change what was seen.
            places = [self._last.pop(x) for x in tensors_in((args, kwargs)) if x in self._last]
            if name in _FOLLOW and len(places) == 1:
                weight, dim, _ = self._found[places[0]]
                if out.shape == args[0].shape:
                    self._found[places[0]] = weight, dim, self._mean(out, weight)
                    self._last[out] = places[0]
        return out

    def means(self) -> Vectors:
        """The mean over all calls of each layer, for each position along the dimension that makes its channels."""
        found: dict[tuple[str, int], list[np.ndarray]] = {}
        for weight, dim, mean in self._found:
            # A transposed convolution has its groups side by side in the output, not in the weight.
            values = mean.double().cpu().numpy().reshape(-1, self._shapes[weight][dim]).mean(0)
            found.setdefault((weight, dim), []).append(values)
        return {key: np.mean(values, 0) for key, values in found.items()}

    def _mean(self, out: Tensor, weight: str) -> Tensor:
        """Over all dimensions but that of the channels; before it stand the images, behind it the positions."""
        channels = out.ndim - len(self._shapes[weight]) + 1
        others = [d for d in range(out.ndim) if d != channels]
        return out.detach().abs().mean(others) if others else out.detach().abs()
