"""Removal of zeros: the outputs stay, whatever the network; and what it takes for that."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import prunit
from prunit import zoo
from prunit.cut.constants import uses_of
from prunit.cut.plans import Plan, from_zeros
from prunit.cut.zeros import difference, remove_zeros
from prunit.errors import PlanError, SurgeryError, UnknownNameError
from prunit.graph import trace
from tests.architectures import CONVOLUTIONAL, Family
from tests.hybrids import HYBRID
from tests.nets import NETS, images, lived_in
from tests.properties.networks import Network, networks

FAMILIES: dict[str, Family] = {**CONVOLUTIONAL, **HYBRID}
EXACT = 1e-10


def sparse(model: nn.Module, share: float, seed: int = 0) -> nn.Module:
    """In place: this share of the filters of every layer without a weight, and half of all other weights zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
                weight = module.weight
                weight *= torch.rand(weight.shape, generator=generator).to(weight) > 0.5
                gone = torch.rand(len(weight), generator=generator) < share
                weight[gone] = 0
    return model


def filters(*weights: float) -> nn.Conv2d:
    """A 1×1 convolution of one input channel whose weights are these."""
    conv = nn.Conv2d(1, len(weights), 1, bias=False).double()
    conv.weight.data.copy_(torch.tensor(weights).view(-1, 1, 1, 1))
    return conv


def normed(shifts: list[float]) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(len(shifts)).double()
    norm.bias.data.copy_(torch.tensor(shifts))
    return norm


def reader(channels: int, kernel: int, *, padding: int = 0, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, 2, kernel, padding=padding, bias=bias).double()


IMAGE = torch.randn(1, 1, 6, 6, dtype=torch.float64)


def test_a_constant_goes_into_the_bias_by_hand() -> None:
    model = nn.Sequential(filters(1.0, 0.0, 0.0), normed([0.5, 0.25, -1.0]), nn.ReLU(), reader(3, 3))
    removed = remove_zeros(model, IMAGE)
    assert removed.plan.keep["0"] == (0,)
    assert (removed.unread, removed.constants, removed.merged) == (0, 2, 0)
    last = model[3]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    # Channel 1 is ReLU(0.25) everywhere, channel 2 is ReLU(-1) = 0.
    expected = last.bias + 0.25 * last.weight[:, 1].sum((1, 2))
    torch.testing.assert_close(removed.model[3].bias, expected)  # type: ignore[index]
    assert difference(model, removed.model, IMAGE) < EXACT


def test_at_a_padded_border_one_constant_stands_for_the_others() -> None:
    shifts = [0.5, 0.25, 0.5, -1.0, 2.0]
    model = nn.Sequential(filters(1.0, 0.0, 0.0, 0.0, 0.0), normed(shifts), nn.ReLU(), reader(5, 3, padding=1))
    removed = remove_zeros(model, IMAGE)
    assert removed.plan.keep["0"] == (0, 4)  # the largest constant stays
    assert (removed.constants, removed.merged) == (1, 2)
    last = model[3]
    assert isinstance(last, nn.Conv2d)
    expected = last.weight[:, 4] + last.weight[:, 1] * 0.125 + last.weight[:, 2] * 0.25
    torch.testing.assert_close(removed.model[3].weight[:, 1], expected)  # type: ignore[index]
    assert difference(model, removed.model, IMAGE) < EXACT
    kept = remove_zeros(model, IMAGE, padded="keep")
    assert kept.plan.keep["0"] == (0, 1, 2, 4)
    assert difference(model, kept.model, IMAGE) < EXACT
    folded = remove_zeros(model, IMAGE, padded="fold")
    assert folded.plan.keep["0"] == (0,)
    assert folded.error > 0.01  # right inside, wrong at the border: this is why


def test_without_a_bias_the_batch_norm_takes_the_constant() -> None:
    model = nn.Sequential(
        *(filters(1.0, 0.0), normed([0.5, 0.25]), nn.ReLU(), reader(2, 1, bias=False), normed([0.1, 0.2]), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(72, 3).double()),
    )
    removed = remove_zeros(model, IMAGE)
    assert removed.plan.biases == ()
    norm, conv = model[4], model[3]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert isinstance(conv, nn.Conv2d)
    expected = norm.running_mean - 0.25 * conv.weight[:, 1].flatten()
    torch.testing.assert_close(removed.model[4].running_mean, expected.detach())  # type: ignore[index]
    assert removed.error < EXACT


def test_without_either_the_layer_gets_a_bias_that_files_know_of(tmp_path: Path) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(filters(1.0, 0.0), normed([0.5, 0.25]), nn.ReLU(), reader(2, 1, bias=False))

    model = make()
    removed = remove_zeros(model, IMAGE)
    assert removed.plan.biases == ("3",)
    assert model[3].bias is None  # type: ignore[index]
    prunit.save(removed.model, removed.plan, tmp_path / "small.safetensors")
    loaded = prunit.load(tmp_path / "small.safetensors", make)
    assert difference(removed.model, loaded, IMAGE) == 0
    plan = Plan.from_json(removed.plan.to_json())
    assert plan.biases == ("3",)
    again = prunit.apply_plan(make(), plan)
    again.load_state_dict(removed.model.state_dict())
    assert difference(removed.model, again, IMAGE) == 0
    wrong = Plan(plan.keep, plan.dense, biases=("2",))
    with pytest.raises(PlanError, match="gives '2' a bias, which is a ReLU, no layer"):
        prunit.apply_plan(make(), wrong, IMAGE)
    wrong = Plan(plan.keep, plan.dense, biases=("7",))
    with pytest.raises(PlanError, match="gives '7' a bias, a layer that the model lacks"):
        prunit.apply_plan(make(), wrong, IMAGE)
    with pytest.raises(PlanError, match='"biases" must be a list of layers'):
        Plan.from_json(plan.to_json().replace('["3"]', '"3"'))


def test_a_channel_that_is_zero_for_some_images_stays() -> None:
    """ReLU lets nothing of channel 1 through for this image; for a brighter one it does."""
    model = nn.Sequential(filters(1.0, 1.0), normed([0.0, -50.0]), nn.ReLU(), reader(2, 3))
    assert remove_zeros(model, IMAGE).plan.keep["0"] == (0, 1)


def test_what_nobody_reads_goes_to_a_fixed_point() -> None:
    """Two filters of the third layer are read by none; so are those of the second that only these read, and so on."""
    layers = [nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)]
    model = nn.Sequential(*layers).double()
    for i, layer in enumerate(layers[1:3]):
        layer.weight.data[1:, 1:].zero_()
        layer.weight.data.copy_(torch.eye(3)[..., None, None] * (i + 2))
    layers[3].weight.data[:, 1:] = 0
    removed = remove_zeros(model, IMAGE)
    assert [removed.plan.keep[name] for name in ("0", "1", "2")] == [(0,)] * 3
    assert removed.unread == 6
    assert removed.error < EXACT
    # Only the last of the three is unread at once.
    assert [len(from_zeros(model, trace(model, IMAGE)).keep[name]) for name in ("0", "1", "2")] == [3, 3, 1]


def test_a_layer_that_is_called_twice_reads_one_constant_or_none() -> None:
    class Twice(nn.Module):
        def __init__(self, shift: float) -> None:
            super().__init__()
            self.one, self.two = filters(1.0, 0.0), filters(1.0, 0.0)
            self.first, self.second = normed([0.5, 0.25]), normed([0.5, shift])
            self.head = reader(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.first(self.one(x)))) + self.head(F.relu(self.second(self.two(x))))

    same, other = Twice(0.25).double(), Twice(0.75).double()
    for model, left in ((same, 1), (other, 2)):
        removed = remove_zeros(model, IMAGE)
        assert removed.model.head.in_channels == left  # type: ignore[union-attr]
        assert difference(model, removed.model, IMAGE) < EXACT


@pytest.mark.parametrize("name", zoo.models())
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_every_network_of_the_zoo(name: str, share: float) -> None:
    model = sparse(lived_in(zoo.load(name), seed=1), share)
    example = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    before = copy.deepcopy(model.state_dict())
    removed = remove_zeros(model, example)
    assert removed.error < EXACT
    assert difference(model, removed.model, torch.zeros(2, 3, 32, 32, dtype=torch.float64)) < EXACT
    less = sum(p.numel() for p in removed.model.parameters()) / sum(p.numel() for p in model.parameters())
    assert less < 1 - share / 2
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


@pytest.mark.parametrize("name", [*FAMILIES, *NETS])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_every_family(name: str, share: float) -> None:
    make, example = (FAMILIES[name], images(size=16)) if name in FAMILIES else NETS[name]
    model = sparse(lived_in(make(), seed=2), share).eval()
    removed = remove_zeros(model, example)
    assert removed.error < EXACT
    assert sum(removed.plan.widths.values()) <= sum(from_zeros(model, trace(model, example)).widths.values())


@settings(max_examples=25, deadline=None)
@given(networks(), st.integers(0, 2**16), st.floats(0.1, 0.9))
def test_every_network_that_can_be_made_up(network: Network, seed: int, share: float) -> None:
    model = sparse(lived_in(network, seed=seed), share, seed)
    example = images(batch=1, size=4)
    for padded in ("merge", "keep"):
        removed = remove_zeros(model, example, padded=padded)
        assert removed.error < EXACT
        assert difference(model, removed.model, images(batch=3, size=4)) < EXACT


def test_the_one_channel_that_a_group_of_constants_keeps_still_reads_what_it_read() -> None:
    """All is constant, and differs from place to place until it is pooled: what stays must emit what it did."""

    class Constants(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.up = nn.Conv2d(3, 4, 3, padding=1), nn.ConvTranspose2d(4, 5, 2, stride=2)
            self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(5, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.pool(self.up(self.one(x).relu())))

    model = lived_in(Constants()).eval()
    with torch.no_grad():
        model.one.weight.zero_()
        model.one.bias.copy_(torch.tensor([0.0, 0.5, 1.0, 0.25]))
    removed = remove_zeros(model, images(batch=1))
    assert removed.plan.widths["up"] == 1
    assert difference(model, removed.model, images(batch=3)) < EXACT


def test_single_precision_and_the_mode_of_training() -> None:
    model = sparse(zoo.load("resnet20"), 0.5).train()
    removed = remove_zeros(model, torch.zeros(1, 3, 32, 32))
    assert model.training
    assert 0 < removed.error < 1e-4


def test_what_is_written_into_a_constant_through_a_view_is_not_constant() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.head = filters(1.0, 2.0), reader(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            wide = torch.zeros(len(x), 3, 6, 6, dtype=x.dtype)
            wide[:, :2] = self.one(x)
            return self.head(wide)

    removed = remove_zeros(Padded(), IMAGE)
    assert removed.error < EXACT
    assert removed.plan.keep["one"] == (0, 1)
    uses, _ = uses_of(Padded(), (IMAGE,), {})
    assert uses[1].constants.isnan().all()


def test_channels_that_a_layer_norm_looks_at_stay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.GroupNorm(1, 4), nn.ReLU(), nn.Conv2d(4, 2, 1)).double()
    model[0].weight.data[1:] = 0  # type: ignore[union-attr]
    assert remove_zeros(model, IMAGE).plan.keep["0"] == (0, 1, 2, 3)


def test_a_weight_that_is_used_in_another_way_is_noticed() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.norm, self.two = filters(1.0, 0.0), normed([0.5, 0.25]), reader(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(F.relu(self.norm(self.one(x))), self.two.weight)  # without its bias

    with pytest.raises(SurgeryError, match="outputs differ by"):
        remove_zeros(Odd(), IMAGE)


def test_uses_tell_what_was_read() -> None:
    model = nn.Sequential(filters(1.0, 0.0), normed([0.5, 0.25]), nn.ReLU(), reader(2, 3, padding=1)).eval()
    uses, outputs = uses_of(model, (IMAGE,), {})
    assert [use.weight for use in uses] == ["0.weight", "3.weight"]
    assert [use.padded for use in uses] == [False, True]
    assert uses[0].norm == "1.running_mean"
    assert uses[1].norm == ""
    assert uses[0].constants.isnan().tolist() == [True]
    assert uses[1].constants.isnan().tolist() == [True, False]
    torch.testing.assert_close(outputs[0], model(IMAGE))
    with pytest.raises(UnknownNameError, match="did you mean 'merge'"):
        remove_zeros(model, IMAGE, padded="merged")  # type: ignore[arg-type]
