"""An epoch's order, crops and flips, drawn from (seed, epoch) alone, and the batches made from them.

All draws of an epoch are made at once, on the CPU (the same on every device), and used as tensors: a batch is one
gather of uint8 images, one of crops, one choice of mirrored ones and one conversion, with no loop over images.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from prunit.batches import Batch, Dataset, Split
from prunit.tasks import Task


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

    def part(self, positions: slice) -> "Draws":
        """The draws of some positions."""
        return Draws(self.order_N[positions], self.shift_N2[positions], self.flip_N[positions])


def draw(n: int, *, padding: int, flip: bool, seed: int, epoch: int) -> Draws:
    """The draws for the `n` images of an epoch, on the CPU."""
    generator = torch.Generator().manual_seed(seed_of("images", seed, epoch))
    order_N = torch.randperm(n, generator=generator)
    shift_N2 = torch.randint(0, 2 * padding + 1, (n, 2), generator=generator)
    flip_N = torch.randint(0, 2, (n,), generator=generator).bool() & flip
    return Draws(order_N, shift_N2, flip_N)


def crop(x_BCHW: Tensor, shift_B2: Tensor, padding: int) -> Tensor:
    """Each image, surrounded by `padding` black pixels, cut to its old size at its own corner."""
    height, width = x_BCHW.shape[2:]
    # unfold makes a view of all corners, so choosing one of them per image is a single copy.
    corners = pad(x_BCHW, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return corners[torch.arange(len(x_BCHW), device=x_BCHW.device), :, shift_B2[:, 0], shift_B2[:, 1]]


def mirror(x_BCHW: Tensor, flip_B: Tensor) -> Tensor:
    """The images, those that `flip_B` names mirrored left to right."""
    return torch.where(flip_B.view(-1, 1, 1, 1), x_BCHW.flip(3), x_BCHW)


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

    def draws(self, *, seed: int, epoch: int) -> Draws:
        """The draws of an epoch, on the device."""
        draws = draw(len(self.split), padding=self.padding, flip=self.flip, seed=seed, epoch=epoch)
        order_N = draws.order_N.to(self.split.y_B.device)
        return Draws(order_N, draws.shift_N2.to(self.device), draws.flip_N.to(self.device))

    def batch(self, draws: Draws) -> Batch:
        """Normalised, augmented images and their targets, on the device."""
        x_BCHW = self.split.x_BCHW[draws.order_N].to(self.device)
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
        return x_BCHW.sub_(self.mean_C11).div_(self.std_C11), y_B


def feed(dataset: Dataset, device: torch.device, *, augment: bool, channels_last: bool) -> Feed:
    """The training images of `dataset` ready for `device`: moved there if they take under half of what is free."""
    split = dataset.train
    if device.type != "cuda" or split.x_BCHW.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        split = split.to(device)
    return Feed(
        split,
        device,
        mean_C11=255 * torch.tensor(dataset.mean_C, device=device).view(-1, 1, 1),
        std_C11=255 * torch.tensor(dataset.std_C, device=device).view(-1, 1, 1),
        padding=dataset.image_size // 8 if augment else 0,
        flip=dataset.flip and augment,
        channels_last=channels_last,
        task=dataset.task,
    )
