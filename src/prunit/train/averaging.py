"""A moving average of the weights of a training (EMA; Polyak & Juditsky 1992): what is evaluated and delivered.

After each step average += (1 - decay) x (weights - average). The decay begins lower: it is at most (1 + n) / (10 + n)
after n steps, as in TensorFlow's ExponentialMovingAverage, since trainings here may have a few hundred steps, and the
warm-ups of timm and Ultralytics take thousands. Buffers of floats, the statistics of batch norms first of all, are
averaged as the weights are (so do timm and Ultralytics); others are those of the last step. What is zero in each step
stays zero.

Not torch's AveragedModel: that is a second module, and here the model itself is to hold the average between epochs.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from prunit.train.checkpoint import model_tensors

LIVE: Final = "live."
"""Before the name of a tensor as the optimiser left it, in a checkpoint; the model's own are the averages."""


@dataclass(frozen=True, eq=False)
class Average:
    """The other copy of a model's tensors: the averages while it trains, its live weights between epochs."""

    decay: float
    model: nn.Module
    other: dict[str, Tensor]

    @staticmethod
    def of(model: nn.Module, decay: float) -> "Average":
        """One that begins with the weights as they are."""
        return Average(decay, model, {name: t.detach().clone() for name, t in model_tensors(model).items()})

    def update(self, steps: int) -> None:
        """Take in the weights after so many steps (1 after the first)."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        own = model_tensors(self.model)
        averaged = [name for name, tensor in own.items() if tensor.is_floating_point()]
        averages, weights = [self.other[name] for name in averaged], [own[name] for name in averaged]
        get_ema_multi_avg_fn(decay)(averages, weights, steps)
        with torch.no_grad():
            for name in own.keys() - set(averaged):
                self.other[name].copy_(own[name])

    def swap(self) -> None:
        """Exchange the two copies, in place."""
        with torch.no_grad():
            for name, tensor in model_tensors(self.model).items():
                held = tensor.clone()
                tensor.copy_(self.other[name])
                self.other[name].copy_(held)
