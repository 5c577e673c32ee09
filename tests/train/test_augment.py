"""Draws depend on (seed, epoch) alone; crops are shifted copies, flips mirrored ones where they are allowed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.nn.functional import pad

from prunit.train.augment import Draws, Feed, coloured, crop, draw, feed, mirror, seed_of
from tests.train.toys import stripes

CPU = torch.device("cpu")


def pixels(n: int, channels: int = 3, size: int = 8) -> Tensor:
    """Images whose pixels differ from one another and from black (as far as a byte goes)."""
    return (torch.arange(n * channels * size * size) % 251 + 1).to(torch.uint8).view(n, channels, size, size)


@pytest.mark.parametrize("padding", [1, 4])
def test_each_image_is_cut_at_its_own_corner(padding: int) -> None:
    x_BCHW = pixels(40)
    shift_B2 = torch.randint(0, 2 * padding + 1, (40, 2), generator=torch.Generator().manual_seed(0))
    cut_BCHW = crop(x_BCHW, shift_B2, padding)
    for image, whole, (row, column) in zip(cut_BCHW, x_BCHW, shift_B2.tolist(), strict=True):
        assert torch.equal(image, pad(whole, (padding,) * 4)[:, row : row + 8, column : column + 8])


def test_the_middle_corner_is_the_image_itself() -> None:
    assert torch.equal(crop(pixels(3), torch.full((3, 2), 4), 4), pixels(3))


def test_only_the_named_images_are_mirrored() -> None:
    out_BCHW = mirror(pixels(3), torch.tensor([True, False, True]))
    assert torch.equal(out_BCHW[1], pixels(3)[1])
    assert torch.equal(out_BCHW[[0, 2]], pixels(3)[[0, 2]].flip(3))


def test_an_epoch_draws_every_image_once_and_every_shift() -> None:
    draws = draw(1000, padding=4, flip=True, seed=0, epoch=0)
    assert torch.equal(draws.order_N.sort().values, torch.arange(1000))
    assert set(draws.shift_N2.flatten().tolist()) == set(range(9))
    assert 400 < int(draws.flip_N.sum()) < 600


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    def drawn(seed: int, epoch: int) -> list[int]:
        torch.rand(3)  # the global random state has no part in it
        draws = draw(30, padding=4, flip=True, seed=seed, epoch=epoch)
        return [*draws.order_N.tolist(), *draws.shift_N2.flatten().tolist(), *draws.flip_N.tolist()]

    assert drawn(0, 1) == drawn(0, 1)
    assert len({tuple(drawn(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_seeds_of_close_numbers_are_unrelated() -> None:
    assert seed_of("images", 1, 2) != seed_of("images", 2, 1)
    assert 0 <= seed_of("images", 1, 2) < 2**63


def made(feeding: Feed) -> tuple[Tensor, Draws]:
    draws = feeding.draws(seed=0, epoch=0)
    return feeding.batch(draws)[0], draws


def test_a_batch_without_augmentation_is_the_normalised_images() -> None:
    dataset = stripes()
    feeding = feed(dataset, CPU, augment=False, channels_last=False)
    x_BCHW, draws = made(feeding)
    torch.testing.assert_close(x_BCHW, dataset.normalise(dataset.train.x_BCHW[draws.order_N]))
    assert torch.equal(feeding.batch(draws)[1], dataset.train.y_B[draws.order_N])


@pytest.mark.parametrize("flip", [False, True])
def test_images_are_mirrored_only_where_the_data_set_allows_it(flip: bool) -> None:
    dataset = replace(stripes(flip=flip), mean_C=(0.0,), std_C=(1.0,))
    x_BCHW, draws = made(feed(dataset, CPU, augment=True, channels_last=True))
    plain_BCHW = crop(dataset.train.x_BCHW[draws.order_N], draws.shift_N2, 1) / 255
    same = [bool(torch.allclose(one, other)) for one, other in zip(x_BCHW, plain_BCHW, strict=True)]
    turned = [bool(torch.allclose(one.flip(2), other)) for one, other in zip(x_BCHW, plain_BCHW, strict=True)]
    assert all(one or other for one, other in zip(same, turned, strict=True))
    assert any(turned) == flip


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_memory_format_is_the_one_asked_for(channels_last: bool) -> None:
    dataset = stripes()
    wide = replace(
        dataset,
        train=replace(dataset.train, x_BCHW=dataset.train.x_BCHW.repeat(1, 3, 1, 1)),
        mean_C=(0.3,) * 3,
        std_C=(0.2,) * 3,
    )
    x_BCHW, _ = made(feed(wide, CPU, augment=True, channels_last=channels_last))
    assert x_BCHW.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert x_BCHW.is_contiguous() != channels_last


@pytest.mark.parametrize(("size", "padding"), [(7, 0), (8, 1), (28, 3), (32, 4), (64, 8)])
def test_padding_is_an_eighth_of_the_size(size: int, padding: int) -> None:
    assert feed(stripes(4, size=size), CPU, augment=True, channels_last=True).padding == padding


@pytest.mark.parametrize(
    ("allowed", "augment", "flip", "mirrored"),
    [
        (True, True, False, False),
        (False, True, True, True),
        (True, False, "auto", False),
        (False, False, True, True),
    ],
)
def test_mirroring_can_be_asked_for_and_refused(
    allowed: bool, augment: bool, flip: bool | Literal["auto"], mirrored: bool
) -> None:
    dataset = stripes(flip=allowed)
    source = feed(dataset, CPU, augment=augment, channels_last=False, flip=flip)
    assert bool(source.draws(seed=0, epoch=0).flip_N.any()) == mirrored
    assert (source.padding > 0) == augment


def noise() -> Tensor:
    """Six colour images of random bytes."""
    return torch.randint(0, 256, (6, 3, 9, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("which", "enhance"), [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)]
)
def test_colours_change_as_pillow_changes_them(
    which: int, enhance: Callable[[Image.Image], ImageEnhance._Enhance]
) -> None:
    colour_B3 = torch.ones(6, 3)
    colour_B3[:, which] = torch.tensor([0.2, 0.6, 0.9, 1.0, 1.3, 1.8])
    found = coloured(noise().float(), colour_B3)
    for image, plain, factor in zip(found, noise(), colour_B3[:, which].tolist(), strict=True):
        picture = Image.fromarray(plain.permute(1, 2, 0).numpy())
        expected = torch.from_numpy(np.array(enhance(picture).enhance(factor))).permute(2, 0, 1)
        assert float((image - expected).abs().max()) < 2  # Pillow rounds, and the mean as well


def test_all_three_work_one_after_the_other() -> None:
    colour_B3 = torch.tensor([[0.5, 1.4, 0.3]]).repeat(6, 1)
    one = torch.ones(6, 3)
    expected = noise().float()
    for which in range(3):
        factors = one.clone()
        factors[:, which] = colour_B3[:, which]
        expected = coloured(expected, factors)
    torch.testing.assert_close(coloured(noise().float(), colour_B3), expected)


def test_grey_images_have_no_saturation() -> None:
    grey = noise()[:, :1].float()
    assert torch.equal(coloured(grey.clone(), torch.tensor([[1.0, 1.0, 0.1]]).repeat(6, 1)), grey)
    changed = coloured(grey.clone(), torch.tensor([[1.0, 0.5, 1.0]]).repeat(6, 1))
    mean = grey.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(changed, mean + (grey - mean) / 2)


def test_factors_are_drawn_for_each_image_and_leave_other_draws_alone() -> None:
    plain = draw(500, padding=1, flip=True, seed=0, epoch=0)
    draws = draw(500, padding=1, flip=True, seed=0, epoch=0, jitter=0.4)
    assert torch.equal(draws.order_N, plain.order_N)
    assert torch.equal(draws.shift_N2, plain.shift_N2)
    assert torch.equal(draws.flip_N, plain.flip_N)
    assert draws.colour_N3 is not None
    assert 0.6 <= float(draws.colour_N3.min()) < 0.62
    assert 1.38 < float(draws.colour_N3.max()) <= 1.4
    assert len(draws.colour_N3.unique()) > 1400
    other = draw(500, padding=1, flip=True, seed=0, epoch=1, jitter=0.4)
    assert other.colour_N3 is not None
    assert not torch.equal(other.colour_N3, draws.colour_N3)


def test_a_jittered_batch_is_the_images_in_other_colours() -> None:
    dataset = replace(stripes(), mean_C=(0.0,), std_C=(1 / 255,))
    source = feed(dataset, CPU, augment=False, channels_last=False, jitter=0.5)
    draws = source.draws(seed=0, epoch=0).part(slice(3, 9))
    assert draws.colour_N3 is not None
    assert len(draws.colour_N3) == 6
    expected = coloured(dataset.train.x_BCHW[draws.order_N].float(), draws.colour_N3)
    torch.testing.assert_close(source.batch(draws)[0], expected)
