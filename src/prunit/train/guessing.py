"""Whether a training has learnt anything yet: its loss beside that of guessing. No torch."""

import math

from prunit.train.config import Epoch


def stuck(epoch: Epoch, guessing: float) -> str:
    """What to tell of a training whose epoch has a loss no lower than that of guessing; '' where it has learnt.

    Asked after a third of the epochs, two at the least, and after the last: before, the loss is that of the start.
    """
    if epoch.index not in (max(2, math.ceil(epoch.epochs / 3)), max(2, epoch.epochs)) or epoch.loss < guessing:
        return ""
    return (
        f"after epoch {epoch.index} of {epoch.epochs} the training loss of {epoch.loss:.3f} is no lower than that of "
        f"guessing, {guessing:.3f}: try a lower train.lr, a smaller train.batch_size or more train.epochs"
    )
