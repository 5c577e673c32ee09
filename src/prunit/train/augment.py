"""An epoch's order, crops, flips and colours, drawn from (seed, epoch) alone, and the batches made from them.

All draws of an epoch are made at once, on the CPU (the same on every device), and used as tensors: a batch is one
gather of uint8 images, one of crops, one choice of mirrored ones and one conversion, with no loop over images.

Colour jitter is written out here: torchvision's v2.ColorJitter draws once for a batch, from torch's global random
state, so that a resumed training would see other images, and kornia would be one more dependency for three lines.
"""

import hashlib
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from prunit.batches import Batch, Dataset, Split
from prunit.tasks import Task
from prunit.train.balancing import balanced_order
from prunit.train.config import Flip

_GREY: Final = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in brightness (ITU-R BT.601), as Pillow and torchvision have them."""


def seed_of(*parts: int | str) -> int:
    """A seed that differs for different `parts`, and does so unrelatedly (0 to 2^63 - 1)."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True, eq=False)
class Draws:
    """What is random about the images of one epoch; position i is the i-th image to be used."""

    order_N: Tensor
    """Index of the image (int64)."""
    shift_N2: Tensor
    """Rows and columns by which the crop's corner lies inside the padded image, 0 to 2 x padding (int64)."""
    flip_N: Tensor
    """Whether the image is mirrored (bool)."""
    colour_N3: Tensor | None = None
    """By what brightness, contrast and saturation are multiplied (float32); None: they stay."""

    def part(self, positions: slice) -> "Draws":
        """The draws of some positions."""
        colour_N3 = None if self.colour_N3 is None else self.colour_N3[positions]
        return Draws(self.order_N[positions], self.shift_N2[positions], self.flip_N[positions], colour_N3)


def draw(n: int, *, padding: int, flip: bool, seed: int, epoch: int, jitter: float = 0.0) -> Draws:
    """The draws for the `n` images of an epoch, on the CPU."""
    generator = torch.Generator().manual_seed(seed_of("images", seed, epoch))
    order_N = torch.randperm(n, generator=generator)
    shift_N2 = torch.randint(0, 2 * padding + 1, (n, 2), generator=generator)
    flip_N = torch.randint(0, 2, (n,), generator=generator).bool() & flip
    if not jitter:
        return Draws(order_N, shift_N2, flip_N)
    # From a seed of their own, so that order, crops and flips are the same with and without.
    generator = torch.Generator().manual_seed(seed_of("colours", seed, epoch))
    return Draws(order_N, shift_N2, flip_N, 1 + jitter * (2 * torch.rand(n, 3, generator=generator) - 1))


def crop(x_BCHW: Tensor, shift_B2: Tensor, padding: int) -> Tensor:
    """Each image, surrounded by `padding` black pixels, cut to its old size at its own corner."""
    height, width = x_BCHW.shape[2:]
    # unfold makes a view of all corners, so choosing one of them per image is a single copy.
    corners = pad(x_BCHW, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return corners[torch.arange(len(x_BCHW), device=x_BCHW.device), :, shift_B2[:, 0], shift_B2[:, 1]]


def mirror(x_BCHW: Tensor, flip_B: Tensor) -> Tensor:
    """The images, those that `flip_B` names mirrored left to right."""
    return torch.where(flip_B.view(-1, 1, 1, 1), x_BCHW.flip(3), x_BCHW)


def coloured(x_BCHW: Tensor, colour_B3: Tensor) -> Tensor:
    """Images (float, 0 to 255) with brightness, contrast and saturation multiplied, in this order, in place.

    Contrast is about the mean brightness of the image, saturation about the brightness of the pixel, as in Pillow's
    ImageEnhance; grey images have none.
    """
    brightness_B111, contrast_B111, saturation_B111 = colour_B3.view(-1, 3, 1, 1, 1).unbind(1)
    x_BCHW.mul_(brightness_B111).clamp_(0, 255)
    mean_B111 = _grey(x_BCHW).mean((2, 3), keepdim=True)
    x_BCHW.sub_(mean_B111).mul_(contrast_B111).add_(mean_B111).clamp_(0, 255)
    if x_BCHW.shape[1] == len(_GREY):
        grey_B1HW = _grey(x_BCHW)
        x_BCHW.sub_(grey_B1HW).mul_(saturation_B111).add_(grey_B1HW).clamp_(0, 255)
    return x_BCHW


def _grey(x_BCHW: Tensor) -> Tensor:
    """The brightness of each pixel (B, 1, H, W); of other channels than three their mean."""
    if x_BCHW.shape[1] != len(_GREY):
        return x_BCHW.mean(1, keepdim=True)
    return (x_BCHW * x_BCHW.new_tensor(_GREY).view(-1, 1, 1)).sum(1, keepdim=True)


@dataclass(frozen=True, eq=False)
class Feed:
    """Training images, on the device where there is room, with what turns them into batches there."""

    split: Split
    device: torch.device
    mean_C11: Tensor
    """In units of a pixel, 0 to 255."""
    std_C11: Tensor
    padding: int
    flip: bool
    channels_last: bool
    task: Task
    jitter: float = 0.0
    stratum_N: Tensor | None = None
    """Of which images are drawn equally often; None: each image comes once in an epoch."""

    def draws(self, *, seed: int, epoch: int) -> Draws:
        """The draws of an epoch, on the device."""
        draws = draw(
            *(len(self.split),), padding=self.padding, flip=self.flip, seed=seed, epoch=epoch, jitter=self.jitter
        )
        order_N, colour_N3 = draws.order_N, draws.colour_N3
        if self.stratum_N is not None:
            order_N = balanced_order(self.stratum_N, seed=seed_of("balance", seed, epoch))
        return Draws(
            order_N.to(self.split.y_B.device),
            draws.shift_N2.to(self.device),
            draws.flip_N.to(self.device),
            None if colour_N3 is None else colour_N3.to(self.device),
        )

    def batches(self, parts: Sequence[Draws]) -> Generator[Batch]:
        """The batch of each of the parts; of images that are read from disk the next ones while one is used.

        One thread reads ahead, by one batch, until this iterator is exhausted or closed; what goes wrong in it is
        raised here.
        """
        if isinstance(self.split.x_BCHW, Tensor):
            yield from map(self.batch, parts)
            return
        with ThreadPoolExecutor(1, "prunit-images") as reader:
            ahead = [reader.submit(self._images, part) for part in parts[:1]]
            for part, following in zip_longest(parts, parts[1:]):
                x_BCHW = ahead.pop().result()
                if following is not None:
                    ahead.append(reader.submit(self._images, following))
                yield self._made(x_BCHW, part)

    def batch(self, draws: Draws) -> Batch:
        """Normalised, augmented images and their targets, on the device."""
        return self._made(self._images(draws), draws)

    def _images(self, draws: Draws) -> Tensor:
        return self.split.x_BCHW[draws.order_N]

    def _made(self, x_BCHW: Tensor, draws: Draws) -> Batch:
        x_BCHW = x_BCHW.to(self.device)
        y_B = self.split.y_B[draws.order_N].to(self.device)
        if self.padding or self.flip:
            size = x_BCHW.shape[2]
            y_B = self.task.moved(y_B, draws.shift_N2, draws.flip_N, padding=self.padding, size=size)
        if self.padding:
            x_BCHW = crop(x_BCHW, draws.shift_N2, self.padding)
        if self.flip:
            x_BCHW = mirror(x_BCHW, draws.flip_N)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        x_BCHW = x_BCHW.to(torch.float32, memory_format=layout)
        if draws.colour_N3 is not None:
            x_BCHW = coloured(x_BCHW, draws.colour_N3)
        return x_BCHW.sub_(self.mean_C11).div_(self.std_C11), y_B


def feed(
    dataset: Dataset,
    device: torch.device,
    *,
    augment: bool,
    channels_last: bool,
    flip: Flip = "auto",
    jitter: float = 0.0,
    balanced: bool = False,
) -> Feed:
    """The training images of `dataset` ready for `device`: moved there if they take under half of what is free.

    The choices are those of `TrainConfig`.
    """
    split = dataset.train
    # Files stay where they are, and so do the draws: an index on the device would make who reads wait for it.
    if isinstance(split.x_BCHW, Tensor) and (
        device.type != "cuda" or split.x_BCHW.nbytes < torch.cuda.mem_get_info(device)[0] / 2
    ):
        split = split.to(device)
    return Feed(
        split,
        device,
        mean_C11=255 * torch.tensor(dataset.mean_C, device=device).view(-1, 1, 1),
        std_C11=255 * torch.tensor(dataset.std_C, device=device).view(-1, 1, 1),
        padding=dataset.image_size // 8 if augment else 0,
        flip=dataset.flip and augment if flip == "auto" else flip,
        channels_last=channels_last,
        task=dataset.task,
        jitter=jitter,
        stratum_N=dataset.task.strata(dataset.train.y_B).cpu() if balanced else None,
    )
