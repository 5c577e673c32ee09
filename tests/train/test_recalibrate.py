"""Statistics of batch norms, estimated anew: right, and nothing else is touched."""

import pytest
import torch
from torch import nn

from prunit.errors import ConfigError
from prunit.train import recalibrate
from prunit.train.augment import feed
from tests.train.toys import small, stripes, tensors

STATISTICS = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}


@pytest.mark.parametrize(("images", "batches"), [(32, 2), (40, 2), (1000, 3)])
def test_statistics_are_means_over_batches_and_the_rest_stays(images: int, batches: int) -> None:
    model, before, dataset = small(), tensors(small()), stripes()
    model.norm.running_mean.fill_(7)  # pyright: ignore[reportOptionalMemberAccess]
    model.conv2.eval()
    random = torch.get_rng_state()
    recalibrate(model, dataset, images=images, batch_size=16, device="cpu", seed=3)
    draws = (source := feed(dataset, torch.device("cpu"), augment=True, channels_last=False)).draws(seed=3, epoch=0)
    with torch.no_grad():
        maps = [model.conv1(source.batch(draws.part(slice(16 * i, 16 * i + 16)))[0]) for i in range(batches)]
    found = tensors(model)
    assert torch.allclose(found["norm.running_mean"], torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0), atol=1e-6)
    assert torch.allclose(found["norm.running_var"], torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0), atol=1e-6)
    assert [name for name in before if not torch.equal(found[name], before[name])] == [
        name for name in before if name in STATISTICS
    ]
    assert model.norm.momentum == 0.1
    assert (model.training, model.norm.training, model.conv2.training) == (True, True, False)
    assert torch.equal(random, torch.get_rng_state())


def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    def statistics(seed: int) -> torch.Tensor:
        model = small()
        recalibrate(model, stripes(), images=16, batch_size=16, device="cpu", seed=seed)
        return tensors(model)["norm.running_var"]

    assert torch.equal(statistics(0), statistics(0))
    assert not torch.equal(statistics(0), statistics(1))


def test_a_model_without_norms_stays() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    weight = model[1].weight.clone()
    recalibrate(model, stripes(), device="cpu")
    assert torch.equal(weight, model[1].weight)


@pytest.mark.parametrize(("images", "batch_size"), [(1, 16), (16, 1), (0, 16)])
def test_too_few_images_are_an_error(images: int, batch_size: int) -> None:
    with pytest.raises(ConfigError, match="a variance needs 2 or more"):
        recalibrate(small(), stripes(), images=images, batch_size=batch_size, device="cpu")
