"""Between channels and their weights: values on the axes of tensors as values of channels, and back to the weights."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from prunit.scores.network import Network

Vectors = Mapping[tuple[str, int], np.ndarray]
"""A value for each position along a dimension of a tensor, by its name and that dimension."""


def along(tensor: Tensor, dim: int) -> np.ndarray:
    """The sums over all other dimensions, float64: shape (size of `dim`,)."""
    others = [d for d in range(tensor.ndim) if d != dim]
    return (tensor.sum(others, dtype=torch.float64) if others else tensor.double()).cpu().numpy()


def summed_up(net: Network, vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """Sums over all positions of each channel, and how many those are: shape (channels of the dense model,) each."""
    total, number = np.zeros(net.channels), np.zeros(net.channels, dtype=np.int64)
    for key, values in vectors.items():
        where = net.makers[key]
        np.add.at(total, where[where >= 0], values[where >= 0])
        np.add.at(number, where[where >= 0], 1)
    return total, number


def averaged(net: Network, vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """Means over all positions of each channel, and which channels have any."""
    total, number = summed_up(net, vectors)
    return total / np.maximum(number, 1), number > 0


def spread(
    net: Network,
    weights: Mapping[str, Tensor],
    value: Callable[[tuple[str, int], np.ndarray], np.ndarray],
) -> dict[str, Tensor]:
    """For all elements of a weight what `value` says of the channels that it makes, given the axis and its channels.

    A weight that makes channels along several dimensions (of tied layers) gets the mean of both values.
    """
    found = {name: torch.zeros_like(w) for name, w in weights.items()}
    dims: dict[str, list[int]] = {name: [] for name in weights}
    for name, dim in net.makers:
        if name in dims:
            dims[name].append(dim)
    for name, score in found.items():
        for dim in dims[name]:
            shape = [-1 if d == dim else 1 for d in range(score.ndim)]
            values = torch.from_numpy(value((name, dim), net.makers[name, dim]) / len(dims[name]))
            score += values.to(score).view(shape)
    return found


def of_channels(of: np.ndarray, own: Vectors) -> Callable[[tuple[str, int], np.ndarray], np.ndarray]:
    """For `spread`: the values of channels, and for positions of no channel those of their own."""
    return lambda key, where: np.where(where >= 0, of[where], own[key])
