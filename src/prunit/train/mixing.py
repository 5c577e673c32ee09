"""Mixup and CutMix: pairs of a batch's images in one, and a loss that is shared between their classes.

A batch is mixed with itself, moved on by one place: its order is random, so partners are. The share is drawn once for a
batch, as in the authors' code, from (seed, epoch) alone. Cross-entropy is linear in its targets, so the loss of mixed
targets is the mixed loss of two classes, and no other loss is needed.

Not torchvision's v2.MixUp and v2.CutMix, which draw from torch's global random state: a training that is resumed would
mix otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from prunit.train.augment import seed_of
from prunit.train.config import TrainConfig


@dataclass(frozen=True)
class Mix:
    """How one batch is mixed."""

    share: float
    """Of the image itself, 0 to 1: the rest is its partner's."""
    centre: tuple[float, float] | None = None
    """Where the partner's box is, as shares of height and width; None: the images are blended."""


def mixes(config: TrainConfig, steps: int, *, epoch: int) -> list[Mix | None]:
    """How each batch of an epoch is mixed; None for a batch that is not."""
    if not (config.mixup or config.cutmix):
        return [None] * steps
    generator = np.random.default_rng(seed_of("mixes", config.seed, epoch))
    cut_S = generator.random(steps) < (0.5 if config.mixup and config.cutmix else float(config.cutmix > 0))
    centre_S2 = generator.random((steps, 2)).tolist()
    alpha_S = np.where(cut_S, config.cutmix, config.mixup)
    share_S = generator.beta(alpha_S, alpha_S).tolist()
    found = zip(share_S, cut_S.tolist(), centre_S2, strict=True)
    return [Mix(share, (row, column) if cut else None) for share, cut, (row, column) in found]


def mixed(x_BCHW: Tensor, mix: Mix) -> tuple[Tensor, Mix]:
    """The images, each with its partner in it, and the same mix with the share that it came to.

    A box that reaches over the edge is cut off there, as in the CutMix paper, so that more stays of the image itself.
    """
    partner_BCHW = x_BCHW.roll(1, 0)
    if mix.centre is None:
        return partner_BCHW.lerp_(x_BCHW, mix.share), mix
    height, width = x_BCHW.shape[2:]
    rows, columns = (
        _span(centre, size, (1 - mix.share) ** 0.5) for centre, size in zip(mix.centre, (height, width), strict=True)
    )
    x_BCHW[:, :, rows, columns] = partner_BCHW[:, :, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return x_BCHW, Mix(1 - area / (height * width), mix.centre)


def _span(centre: float, size: int, share: float) -> slice:
    middle, half = int(centre * size), int(size * share) // 2
    return slice(max(middle - half, 0), min(middle + half, size))


def mixed_loss(loss: Callable[[Tensor], Tensor], y_B: Tensor, mix: Mix | None) -> Tensor:
    """The loss of targets, that of the partners' with its share."""
    if mix is None:
        return loss(y_B)
    return mix.share * loss(y_B) + (1 - mix.share) * loss(partners(y_B))


def dominant(y_B: Tensor, mix: Mix | None) -> Tensor:
    """The target of the image that has the larger share."""
    return y_B if mix is None or mix.share >= 0.5 else partners(y_B)


def partners(y_B: Tensor) -> Tensor:
    """The targets of the images that each is mixed with."""
    return y_B.roll(1, 0)
