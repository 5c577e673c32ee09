"""The learning rate of a step, as a pure function: a training resumed at any step needs no state for it. No torch."""

import math

from prunit.train.defaults import Fitted

ONECYCLE_START = 1 / 25  # of the highest rate


def lr_at(config: Fitted, step: int, steps_per_epoch: int) -> float:
    """Learning rate of `step`, counted from 0 over the whole training."""
    steps = config.epochs * steps_per_epoch
    ramp = config.ramp_epochs * steps_per_epoch
    if config.schedule == "onecycle":
        if step < ramp:
            return config.lr * (ONECYCLE_START + (1 - ONECYCLE_START) * step / ramp)
        return config.lr * (steps - step) / (steps - ramp)
    if config.schedule == "cosine":
        if step < ramp:
            return config.lr * min(1.0, (step + 1) / ramp)
        return config.lr * (1 + math.cos(math.pi * (step - ramp) / (steps - ramp))) / 2
    drops = (2 * step >= steps) + (4 * step >= 3 * steps)
    return config.lr * min(1.0, (step + 1) / ramp if ramp else 1.0) * 0.1**drops
