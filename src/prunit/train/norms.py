"""Batch norms whose statistics are estimated anew, with the weights as they are."""

from contextlib import closing

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunit.batches import Dataset
from prunit.errors import ConfigError
from prunit.train.accuracy import check_model, check_split, evaluating
from prunit.train.augment import feed
from prunit.train.place import device_named, moved


def recalibrate(
    model: nn.Module,
    dataset: Dataset,
    *,
    images: int = 4096,
    batch_size: int = 128,
    device: str = "auto",
    seed: int = 0,
) -> None:
    """Set the running mean and variance of each batch norm to their means over batches of training images, in place.

    For weights that were cut or averaged, whose statistics are still those of other weights (Izmailov et al. 2018, Yu
    and Huang 2019). The images are augmented as in training, `images` of them or all there are, drawn from `seed`, in
    whole batches. Everything else stays: weights, modes, device. A model without such norms stays as it is. Raises
    `ConfigError` for numbers of images too small, and what `train` raises where model, data and device do not fit.
    """
    number = min(images, len(dataset.train))
    batch_size = min(batch_size, number)
    if batch_size < 2:
        raise ConfigError(
            f"recalibrate() with {number} images in batches of {batch_size}: a variance needs 2 or more in each"
        )
    check_split(dataset, "train")
    check_model(model, dataset)
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    if not norms:
        return
    place, home = device_named(device), next(model.parameters()).device
    images_of = feed(dataset, place, augment=True, channels_last=False)
    draws = images_of.draws(seed=seed, epoch=0)
    try:
        moved(model, place)
        with evaluating(model):  # all but the norms: nothing is dropped out
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all batches, not over the last few
                norm.train()
            firsts = range(0, number - batch_size + 1, batch_size)
            with closing(images_of.batches([draws.part(slice(i, i + batch_size)) for i in firsts])) as batches:
                for x_BCHW, _ in batches:
                    model(x_BCHW)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        moved(model, home)
