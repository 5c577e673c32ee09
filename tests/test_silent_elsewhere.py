"""Cuts at which other tools silently change the function. Each is held against the *uncut* network with zero weights.

The zeros are put in by hand, without the graph: a network whose trace went wrong cannot agree with itself here.
"""

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunit import plan
from prunit.allocate import KEYS
from prunit.cut.plans import Plan
from prunit.cut.surgery import compact
from prunit.cut.zeros import remove_zeros
from prunit.errors import BudgetError
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_of
from tests.nets import Head, PaddedShortcut, conv_bn, furthest, images, lived_in

EXACT = 1e-12
Gone = Mapping[str, Sequence[int]]
"""Channels without weights, by the convolution that makes them; its batch norm is the next of its Sequential."""


def zeroed(model: nn.Module, gone: Gone) -> nn.Module:
    """The model in evaluation mode and float64, where these channels are zero for every image."""
    model = lived_in(model).eval()
    modules = dict(model.named_modules())
    with torch.no_grad():
        for path, channels in gone.items():
            parent, _, last = path.rpartition(".")
            norm = modules.get(f"{parent}.{int(last) + 1}") if last.isdigit() else None
            for module in (modules[path], norm):
                if isinstance(module, nn.ConvTranspose2d):
                    module.weight[:, list(channels)] = 0
                elif isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                    module.weight[list(channels)] = 0
                else:
                    continue
                if module.bias is not None:
                    module.bias[list(channels)] = 0
    return model


def without(graph: ChannelGraph, gone: Gone) -> Plan:
    """The plan that drops these channels; a channel that stands for several outputs only if all of them are named."""
    keep = {g.name: set(range(g.size)) for g in graph.groups}
    for path, channels in gone.items():
        (axis,) = (a for a in graph.axes if a.tensor == f"{path}.weight" and a.makes)
        staying = set(axis.where.tolist()) - {-1}
        staying &= {int(flat) for i, flat in enumerate(axis.where) if i not in channels}
        for flat in set(axis.where[list(channels)].tolist()) - staying:
            group = max(i for i, start in enumerate(graph.offsets[:-1]) if start <= flat)
            if not graph.groups[group].pinned:
                keep[graph.groups[group].name].discard(flat - int(graph.offsets[group]))
    return Plan({name: tuple(sorted(k)) for name, k in keep.items()}, {g.name: g.size for g in graph.groups})


def check(model: nn.Module, gone: Gone, *, fewer: int | None = None) -> tuple[nn.Module, nn.Module]:
    """Both ways to the small model give the uncut one's outputs, and drop as many channels as are said."""
    model, x_BCHW = zeroed(model, gone), images()
    graph = trace(model, x_BCHW)
    asked = without(graph, gone)
    dropped = sum(asked.dense.values()) - sum(asked.widths.values())
    assert dropped == (fewer if fewer is not None else max(map(len, gone.values())))
    small = compact(model, graph, asked)
    assert furthest(small, model, x_BCHW) < EXACT
    removed = remove_zeros(model, x_BCHW)
    assert sum(removed.plan.widths.values()) <= sum(asked.widths.values())
    assert furthest(removed.model, model, x_BCHW) < EXACT
    return model, small


class Between(nn.Module):
    """A layer of 8 channels, some way of moving them about, and a layer that reads them."""

    def __init__(self, move: Callable[[Tensor], Tensor], channels: int = 8) -> None:
        super().__init__()
        self.stem, self.move = conv_bn(3, 8), move
        self.body, self.head = conv_bn(channels, 6), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.move(self.stem(x))))


def shuffled(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, -1, h, w)


SHUFFLES: dict[str, Callable[[Tensor], Tensor]] = {
    "by view and transpose": shuffled,
    "the layer": nn.ChannelShuffle(2),
    "the function": lambda x: F.channel_shuffle(x, 2),
    "twice": lambda x: shuffled(shuffled(x)),
    "of halves": lambda x: torch.stack(x.chunk(2, 1), 2).flatten(1, 2),
}


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_channel_shuffle(shuffle: str) -> None:
    channels = (0, 2, 4, 6) if shuffle == "twice" else (1, 5)  # all that must go together
    check(Between(SHUFFLES[shuffle]), {"stem.0": channels}, fewer=1)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_channel_shuffle_of_zeros_in_one_half_is_exact_too(shuffle: str) -> None:
    model = zeroed(Between(SHUFFLES[shuffle]), {"stem.0": (0, 1, 6)})
    assert furthest(remove_zeros(model, images()).model, model, images()) < EXACT


def test_a_unit_of_shufflenet() -> None:
    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branch = conv_bn(3, 8), conv_bn(4, 4)
            self.last, self.head = conv_bn(8, 6), Head(6)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.stem(x).chunk(2, 1)
            return self.head(self.last(shuffled(torch.cat((a, self.branch(b)), 1))))

    model = zeroed(Unit(), {"stem.0": (2, 6), "branch.0": (2,)})
    removed = remove_zeros(model, images())
    assert furthest(removed.model, model, images()) < EXACT
    assert removed.plan.widths != dict(removed.plan.dense)


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "flipped": lambda x: x.flip(1),
    "flipped with the image": lambda x: x.flip(1, 3),
    "flipped twice": lambda x: x.flip(1).relu().flip(1, 2),
    "beside its mirror image": lambda x: torch.cat((x, x.flip(1)), 1)[:, :],
    "permuted there and back": lambda x: x.permute(0, 2, 3, 1).flip(3).permute(0, 3, 1, 2),
    "last": lambda x: x.to(memory_format=torch.channels_last).movedim(1, -1).contiguous().movedim(-1, 1),
}


@pytest.mark.parametrize("move", MOVES)
def test_channels_in_another_order(move: str) -> None:
    channels = 16 if move == "beside its mirror image" else 8
    _, small = check(Between(MOVES[move], channels), {"stem.0": (0, 3, 4)})
    assert small.get_submodule("body.0").in_channels == channels // 8 * 5  # pyright: ignore[reportAttributeAccessIssue]


BY_NUMBER: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "in another order": (lambda x: x[:, [7, 0, 6, 1, 5, 2, 4, 3]], "index takes channels by number"),
    "selected": (lambda x: x.index_select(1, torch.tensor([3, 2, 1, 0, 7, 6, 5, 4])), "index_select takes channels"),
    "rolled": (lambda x: x.roll(3, 1), "roll runs over channels"),
    "unequal parts": (lambda x: torch.cat(x.split((2, 5, 1), 1)[::-1], 1), "split_with_sizes takes channels by number"),
    "some of them": (lambda x: torch.cat((x[:, 5:], x[:, :5]), 1), "slice takes channels by number"),
}


@pytest.mark.parametrize("move", BY_NUMBER)
def test_numbers_of_channels_in_the_code_keep_them_whole(move: str) -> None:
    moved, reason = BY_NUMBER[move]
    model = zeroed(Between(moved), {"stem.0": (0, 3, 4)})
    assert reason in trace(model, images()).group("stem.0").pinned
    removed = remove_zeros(model, images())
    assert removed.plan.widths["stem.0"] == 8
    assert furthest(removed.model, model, images()) == 0


FLAT: dict[str, Callable[[Tensor], Tensor]] = {
    "NCHW": lambda x: x.flatten(1),
    "NHWC": lambda x: x.permute(0, 2, 3, 1).flatten(1),
    "NHWC reshaped": lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1),
    "NWHC": lambda x: x.permute(0, 3, 2, 1).flatten(1),
    "as tokens": lambda x: x.flatten(2).transpose(1, 2).flatten(1),
    "channels between": lambda x: x.permute(0, 2, 1, 3).flatten(1),
}


class Flat(nn.Module):
    def __init__(self, flatten: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.flatten = conv_bn(3, 6), flatten
        self.fc = nn.Linear(6 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.flatten(self.stem(x)))


@pytest.mark.parametrize("flatten", FLAT)
def test_flattened_in_any_order(flatten: str) -> None:
    _, small = check(Flat(FLAT[flatten]), {"stem.0": (1, 2, 4)})
    assert small.get_submodule("fc").in_features == 3 * 64  # pyright: ignore[reportAttributeAccessIssue]


def test_the_shortcut_that_is_padded_with_zero_channels() -> None:
    check(PaddedShortcut(), {"body.0": (0, 3, 7), "stem.0": (1,)}, fewer=1)  # 3 is the shortcut's 1; 0 and 7 stay
    check(PaddedShortcut(), {"body.0": (2, 3, 4), "stem.0": (0, 1, 2)})


PADS: dict[str, Callable[[Tensor], Tensor]] = {
    "behind": lambda x: F.pad(x, (0, 0, 0, 0, 0, 4)),
    "in front": lambda x: F.pad(x, (0, 0, 0, 0, 4, 0)),
    "with zeros put beside": lambda x: torch.cat((x, x.new_zeros(x.shape[0], 4, *x.shape[2:])), 1),
    "with zeros made of it": lambda x: torch.cat((x, torch.zeros_like(x[:, :4])), 1),
}


@pytest.mark.parametrize("pad", PADS)
def test_channels_padded_on_one_side(pad: str) -> None:
    model = zeroed(Between(PADS[pad], 12), {"stem.0": (0, 5)})
    removed = remove_zeros(model, images())
    assert furthest(removed.model, model, images()) < EXACT
    if pad != "with zeros made of it":
        check(Between(PADS[pad], 12), {"stem.0": (0, 5)})


SPACES: dict[str, tuple[Callable[[Tensor], Tensor], int, Gone, int]] = {
    "pixel shuffle": (nn.PixelShuffle(2), 2, {"stem.0": (4, 5, 6, 7)}, 1),
    "pixel unshuffle": (nn.PixelUnshuffle(2), 32, {"stem.0": (1, 6)}, 2),
    "space to depth by slices": (
        lambda x: torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1),
        32,
        {"stem.0": (1, 6)},
        2,
    ),
    "chunk and product": (lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1], 4, {"stem.0": (1, 5)}, 1),
    "chunk and sum": (lambda x: sum(x.chunk(4, 1), torch.zeros(())), 2, {"stem.0": (1, 3, 5, 7)}, 1),
    "one half": (lambda x: x.chunk(2, 1)[1], 4, {"stem.0": (2, 6)}, 1),
    "max of halves": (lambda x: torch.maximum(*x.chunk(2, 1)), 4, {"stem.0": (2, 6)}, 1),
}


@pytest.mark.parametrize("space", SPACES)
def test_channels_that_become_pixels_and_parts(space: str) -> None:
    move, channels, gone, fewer = SPACES[space]
    check(Between(move, channels), gone, fewer=fewer)


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (1, 2), (1, 3)])
def test_a_transposed_convolution_between(groups: int, stride: int) -> None:
    class Up(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = conv_bn(3, 6)
            self.up = nn.ConvTranspose2d(6, 4, 3, stride=stride, padding=1, groups=groups)
            self.head = Head(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.up(self.stem(x)).relu())

    check(Up(), {"stem.0": (1, 4), "up": (2,)}, fewer=3)


class Deep(nn.Module):
    """Wide and narrow layers, with a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv_bn(3, 32), conv_bn(32, 64), conv_bn(64, 32, act=nn.Identity())
        self.c, self.head = conv_bn(32, 48), Head(48)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.c((x + self.b(self.a(x))).relu()))


SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01)


@pytest.mark.parametrize("round_to", [1, 8, 16])
@pytest.mark.parametrize("recipe", ["uniform", "global", "complexity", "reconvene"])
@pytest.mark.parametrize("key", ["macs", "params", "weights", "ram"])
def test_a_tighter_budget_never_keeps_more_and_no_layer_is_emptied(recipe: str, round_to: int, key: str) -> None:
    model, x_BCHW = lived_in(Deep()).float(), images(batch=1, dtype=torch.float32)
    graph = trace(model, x_BCHW)
    dense = least = getattr(cost_of(graph), KEYS[key])
    reached = 0
    for share in SHARES:
        try:
            found = plan(
                model, x_BCHW, budget={key: share}, recipe=recipe, score="magnitude", config={"round_to": round_to}
            )
        except BudgetError:
            continue
        figure = getattr(cost_of(graph, found), KEYS[key])
        assert figure <= min(least, share * dense)
        assert min(found.widths.values()) >= 1
        least, reached = figure, reached + 1
    assert reached >= 4


@pytest.mark.parametrize("gone", [(1, 4), (0, 1, 2), (3,)])
@pytest.mark.parametrize(("groups", "inputs", "outputs"), [(2, 6, 4), (3, 6, 12), (4, 8, 4), (6, 6, 6)])
def test_zeros_before_a_transposed_convolution_in_groups(
    groups: int, inputs: int, outputs: int, gone: tuple[int, ...]
) -> None:
    up = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, groups=groups)
    model = zeroed(nn.Sequential(conv_bn(3, inputs), up, nn.ReLU(), Head(outputs)), {"0.0": gone})
    removed = remove_zeros(model, images())
    assert furthest(removed.model, model, images()) < EXACT
    together = {channel % (inputs // groups) for channel in range(inputs)} if groups < inputs else set(gone)
    # In a true grouping the channels at one place of every group go together.
    whole = [p for p in together if groups == inputs or all(p + i * (inputs // groups) in gone for i in range(groups))]
    assert removed.plan.dense["0.0"] - removed.plan.widths["0.0"] == len(whole)
