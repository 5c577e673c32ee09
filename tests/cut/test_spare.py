"""Channels that do nothing and stay for an engine's sake: which ones, how many, and that the outputs are the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunit.cut.zeros import difference, remove_zeros
from prunit.errors import UnknownNameError
from prunit.graph import trace
from tests.architectures import CONVOLUTIONAL
from tests.cut.test_zeros import EXACT, IMAGE, filters, normed, reader, sparse
from tests.nets import images, lived_in
from tests.properties.networks import Network, networks


def constants() -> nn.Sequential:
    """One channel that depends on the image, of three constant ones the last is the largest; one is read by nobody."""
    last = reader(5, 3, padding=1)
    last.weight.data[:, 1] = 0
    shifts = [0.5, 0.75, 0.25, 0.5, 2.0]
    return nn.Sequential(filters(1.0, 1.0, 0.0, 0.0, 0.0), normed(shifts), nn.ReLU(), last)


def test_unread_channels_stay_first_and_then_constants_which_are_not_merged_any_more() -> None:
    model, kept = constants(), {}
    for least in range(1, 7):
        removed = remove_zeros(model, IMAGE, at_least={"0": least})
        kept[least] = removed.plan.keep["0"]
        assert removed.error < EXACT
        assert removed.spare == max(0, min(least, 5) - 2)
        assert (removed.unread, removed.merged) == (int(least < 3), max(0, min(2, 5 - least)))
    assert kept == {
        **dict.fromkeys((1, 2), (0, 4)),
        3: (0, 1, 4),
        4: (0, 1, 2, 4),
        **dict.fromkeys((5, 6), (0, 1, 2, 3, 4)),
    }
    removed, last = remove_zeros(model, IMAGE, at_least={"0": 4}), model[3]
    assert isinstance(last, nn.Conv2d)
    weight = removed.model[3].weight  # type: ignore[index]
    # Channel 2 reads as before, channel 3 is merged into channel 4: 0.5 of 2.
    torch.testing.assert_close(weight[:, 2], last.weight[:, 2])  # type: ignore[index]
    torch.testing.assert_close(weight[:, 3], last.weight[:, 4] + 0.25 * last.weight[:, 3])  # type: ignore[index]


def test_a_constant_that_stays_is_not_folded_into_the_bias() -> None:
    model = nn.Sequential(filters(1.0, 0.0, 0.0), normed([0.5, 0.25, 1.0]), nn.ReLU(), reader(3, 3))
    removed, last = remove_zeros(model, IMAGE, at_least={"0": 2}), model[3]
    assert removed.plan.keep["0"] == (0, 1)
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    torch.testing.assert_close(removed.model[3].bias, last.bias + last.weight[:, 2].sum((1, 2)))  # type: ignore[index]
    assert removed.error < EXACT


def test_a_constant_made_of_what_goes_goes_too() -> None:
    """Channel 1 of the second layer is zero since its input is large: of what is left of that input it would not be."""
    first, second, third = filters(1.0, 0.0, 0.0), nn.Conv2d(3, 3, 3, padding=1).double(), reader(3, 1)
    second.weight.data[1:] = 0
    second.weight.data[0, 1:] = 0
    second.weight.data[1, 1] = -1
    second.bias.data.copy_(torch.tensor([0.0, 0.5, 0.25]))  # type: ignore[union-attr]
    model = nn.Sequential(first, normed([0.5, 9.0, 0.0]), nn.ReLU(), second, nn.ReLU(), third)
    assert remove_zeros(model, IMAGE).plan.keep == {"0": (0,), "3": (0,), "5": (0, 1)}
    removed = remove_zeros(model, IMAGE, at_least={"3": 2})
    assert removed.plan.keep["3"] == (0, 2)
    assert removed.error < EXACT
    # With all of its input there it stays; where that cannot be, the group keeps what it must.
    assert remove_zeros(model, IMAGE, at_least={"3": 3}).plan.keep["3"] == (0,)
    whole = remove_zeros(model, IMAGE, at_least={"0": 3, "3": 3})
    assert whole.plan.keep["0"] == (0, 1, 2)
    assert whole.error < EXACT


def test_an_unread_channel_gives_no_layer_a_bias() -> None:
    """Only the row of the channel that nobody reads would miss the constant that goes."""
    last = reader(2, 1, bias=False)
    last.weight.data[:, 1] = 0
    middle = nn.Conv2d(2, 2, 1, bias=False).double()
    middle.weight.data[0, 1] = 0
    model = nn.Sequential(filters(1.0, 0.0), normed([0.5, 0.25]), nn.ReLU(), middle, last)
    removed = remove_zeros(model, IMAGE, at_least={"3": 2})
    assert removed.plan.keep == {"0": (0,), "3": (0, 1), "4": (0, 1)}
    assert removed.plan.biases == ()
    assert removed.error < EXACT


def test_a_group_that_the_model_lacks_is_named() -> None:
    with pytest.raises(UnknownNameError, match="unknown group '9'"):
        remove_zeros(constants(), IMAGE, at_least={"9": 4})


def in_fours(model: nn.Module, example: Tensor) -> tuple[dict[str, int], dict[str, int]]:
    """Widths without zeros, and the multiples of four above them."""
    least = remove_zeros(model, example).plan.widths
    return least, {name: -(-width // 4) * 4 for name, width in least.items()}


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_every_family_keeps_its_outputs(name: str) -> None:
    """Residual streams, concatenation, grouped and depthwise convolutions, gates."""
    example = images(size=16)
    model = sparse(lived_in(CONVOLUTIONAL[name](), seed=2), 0.4).eval()
    least, wanted = in_fours(model, example)
    removed = remove_zeros(model, example, at_least=wanted)
    assert removed.error < EXACT
    assert difference(model, removed.model, images(batch=3, size=16)) < EXACT
    sizes = {group.name: group.size for group in trace(model, example).groups}
    for group, width in removed.plan.widths.items():
        assert width in (least[group], min(wanted[group], sizes[group]))
    assert removed.spare == sum(removed.plan.widths.values()) - sum(least.values())


@settings(max_examples=25, deadline=None)
@given(networks(), st.integers(0, 2**16), st.floats(0.1, 0.9), st.integers(2, 9))
def test_every_network_that_can_be_made_up_keeps_its_outputs(
    network: Network, seed: int, share: float, step: int
) -> None:
    model = sparse(lived_in(network, seed=seed), share, seed)
    example = images(batch=1, size=4)
    least = remove_zeros(model, example).plan.widths
    removed = remove_zeros(model, example, at_least={name: width + step for name, width in least.items()})
    assert removed.error < EXACT
    assert difference(model, removed.model, images(batch=3, size=4)) < EXACT
