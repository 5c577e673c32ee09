"""One plain training loop for small-image CNNs, and the accuracy of a model.

`train` yields an `Epoch` per epoch; `TrainConfig` holds its settings; `evaluate` is the top-1 accuracy. Everything
random comes from (seed, epoch), so a training that was killed at any moment continues from its checkpoint to the same
weights.

    config.py      TrainConfig and Epoch: what goes in and what comes out (no torch)
    defaults.py    settings with every number in them, by the data set (no torch)
    guessing.py    is a training's loss below that of guessing? (no torch)
    schedule.py    the learning rate of a step (no torch)
    choices.py     which choices go with which task
    augment.py     an epoch's order, crops, flips and colours, and the batches made from them
    balancing.py   classes that come unequally often: weights, or draws that make up for it
    mixing.py      mixup and CutMix
    optimizers.py  SGD or AdamW, and its state
    averaging.py   a moving average of the weights
    place.py       where it runs: device, Fabric
    precision.py   what precision=auto comes to
    turns.py       steps of several trainings in turns, timed
    checkpoint.py  a training between two epochs as one file
    accuracy.py    evaluate(): top-1 accuracy, and whether model and data fit each other
    norms.py       batch norms with statistics estimated anew
    rounded.py     training under the rounding of int8
    sparse.py      weights that stay zero
    loop.py        train(): the loop
    run.py         what is live in a training: a step, an epoch, the state between two
    steps.py       how long a step takes, of several models in turns
    processes.py   the same loop in one process per device
"""

from typing import TYPE_CHECKING, Final

from prunit.later import resolver

if TYPE_CHECKING:
    from prunit.train.accuracy import evaluate
    from prunit.train.config import Epoch, TrainConfig
    from prunit.train.defaults import Fitted, fitted, fitted_to
    from prunit.train.loop import train
    from prunit.train.norms import recalibrate
    from prunit.train.place import device_named
    from prunit.train.precision import resolved_precision
    from prunit.train.rounded import int8_settings, tuned_for_int8
    from prunit.train.steps import evaluation_seconds, step_seconds

__all__ = [
    "Epoch",
    "Fitted",
    "TrainConfig",
    "device_named",
    "evaluate",
    "evaluation_seconds",
    "fitted",
    "fitted_to",
    "int8_settings",
    "recalibrate",
    "resolved_precision",
    "step_seconds",
    "train",
    "tuned_for_int8",
]

_HOMES: Final = {
    "Epoch": "config",
    "Fitted": "defaults",
    "TrainConfig": "config",
    "device_named": "place",
    "evaluate": "accuracy",
    "fitted": "defaults",
    "fitted_to": "defaults",
    "int8_settings": "rounded",
    "recalibrate": "norms",
    "resolved_precision": "precision",
    "step_seconds": "steps",
    "evaluation_seconds": "steps",
    "train": "loop",
    "tuned_for_int8": "rounded",
}


if not TYPE_CHECKING:  # to a type checker there are the names above, and no others
    # Resolved on first use: the command line reads TrainConfig's defaults without waiting for torch.
    __getattr__ = resolver(__name__, _HOMES)
