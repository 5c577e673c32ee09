"""Taylor importance: what the loss changes by, to first order, when a channel goes (Molchanov et al. 2019, 'Importance
estimation for neural network pruning').

Of a set S of parameters it is (sum of w dL/dw over S)^2, here with all parameters that make a channel: filters, biases,
gains and shifts. On batch statistics the terms of a filter in front of a batch norm cancel, because that undoes its
scale, and those of gain and shift remain: the paper's gate behind the batch norm.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from prunit.batches import Batch, task_of
from prunit.scores.network import Network
from prunit.scores.spread import along, spread, summed_up


def taylor(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """(sum of w dL/dw)^2 of each channel, averaged over the batches, shared out to its weights by their mean |w dL/dw|.

    So the scores of the weights add up to the channel's, and none is negative.
    """
    rest = {n: p for n, p in net.other.items() if p.is_floating_point()}
    squares = np.zeros(net.channels)
    of_none: dict[tuple[str, int], np.ndarray] = {}  # the same for positions of no channel
    size = {n: torch.zeros_like(w) for n, w in weights.items()}
    for batch in batches:
        live = {n: p.detach().requires_grad_() for n, p in {**rest, **weights}.items()}
        other = {**net.other, **live, **{n: b.clone() for n, b in net.buffers.items()}}
        loss = net.loss({n: live[n] for n in weights}, batch, task_of(batches), other=other)
        gradients = torch.autograd.grad(loss, list(live.values()), materialize_grads=True)
        terms = {n: p.detach() * g for (n, p), g in zip(live.items(), gradients, strict=True)}
        sums = {key: along(terms[key[0]], key[1]) for key in net.makers if key[0] in terms}
        squares += summed_up(net, sums)[0] ** 2 / len(batches)
        for key, s in sums.items():
            of_none[key] = of_none.get(key, 0) + s**2 / len(batches)
        for n, s in size.items():
            s += terms[n].abs() / len(batches)
    return _shared_out(net, size, squares, of_none)


def _shared_out(
    net: Network, size: Mapping[str, Tensor], of: np.ndarray, of_none: Mapping[tuple[str, int], np.ndarray]
) -> dict[str, Tensor]:
    """The importance of channels, and of positions of none, as shares of their weights in proportion to `size`."""
    sizes = {key: along(size[key[0]], key[1]) for key in net.makers if key[0] in size}
    counts = {key: np.full(len(s), size[key[0]].numel() / max(len(s), 1)) for key, s in sizes.items()}
    total, count = summed_up(net, sizes)[0], summed_up(net, counts)[0]

    def ratio(key: tuple[str, int], where: np.ndarray) -> np.ndarray:
        whole = np.where(where >= 0, total[where], sizes[key])
        return np.where(where >= 0, of[where], of_none[key]) / np.where(whole > 0, whole, 1)

    def equal(key: tuple[str, int], where: np.ndarray) -> np.ndarray:
        """Where no weight has a gradient, as those in front of a gain of 0, all have the same share."""
        whole = np.where(where >= 0, total[where], sizes[key])
        part = np.where(where >= 0, of[where], of_none[key]) / np.where(where >= 0, count[where], counts[key])
        return np.where(whole > 0, 0, part)

    ratios, equals = spread(net, size, ratio), spread(net, size, equal)
    return {name: ratios[name] * s + equals[name] for name, s in size.items()}
