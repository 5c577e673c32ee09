"""Batch-norm scale: |gain| of the batch norm behind the channel (Liu et al. 2017, 'Learning efficient convolutional
networks through network slimming').

The gain is the deviation that a batch norm gives to its channel. Channels without a batch norm get what stands for it:
the L2 norm of the filter, which is the deviation of its output for independent inputs of deviation 1.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from prunit.batches import Batch
from prunit.graph.running import named_modules
from prunit.scores.network import Network
from prunit.scores.spread import along, averaged, of_channels, spread


def bn_scale(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """Mean |gain| over the batch norms of the channel, the same for all weights that make it.

    The mean, not the sum, so that a residual stream that many layers add to compares with the channels of one layer.
    """
    names = {
        f"{path}.weight" if path else "weight" for path, m in named_modules(net.model) if isinstance(m, _BatchNorm)
    }
    gains = {key: along(net.other[key[0]].abs(), key[1]) for key in net.makers if key[0] in names & net.other.keys()}
    norms = {key: along(weights[key[0]].square(), key[1]) ** 0.5 for key in net.makers if key[0] in weights}
    gain, known = averaged(net, gains)
    norm, _ = averaged(net, norms)
    gain[~known] = norm[~known]
    return spread(net, weights, of_channels(gain, norms))
